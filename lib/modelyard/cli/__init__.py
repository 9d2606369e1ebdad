"""The command line: one module per noun, no logic. `main` is the only door, and the only place that prints an error.

Every failure becomes one message on stderr and the exit code of its class; a usage error of the parser is a Usage like any other. Commands are
imported when they are called, so that `--help` and completion stay fast.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import click
from click.exceptions import NoArgsIsHelpError

from modelyard.cli.lazy import BROKEN_PIPE, PROGRAM, root
from modelyard.cli.output import complain
from modelyard.errors import Bug, Failure, Interrupted, Usage

# Pydantic would look for them in the metadata of every installed package: a tenth of what a short command takes.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. arguments: default those of the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the encoding lacks, half a surrogate too, is written as JSON would
    failure: Failure
    try:
        code = root.main(sys.argv[1:] if arguments is None else list(arguments), prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except NoArgsIsHelpError as help_:
        print(help_.message)
        return 0
    except BrokenPipeError:
        # Otherwise the interpreter's own flush at exit complains once more.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Failure as error:
        failure = error
    except click.ClickException as error:
        failure = _usage(error)
    except (click.Abort, KeyboardInterrupt):
        failure = Interrupted("interrupted")
    except Exception as error:  # noqa: BLE001  # the last resort: named, kept and reported, not hidden
        failure = _bug(error)
    complain(failure)
    return failure.exit_code


def _usage(error: click.ClickException) -> Usage:
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else PROGRAM
    close = getattr(error, "possibilities", None)
    message = (error.message if close else error.format_message()).rstrip(".")
    return Usage(message[:1].lower() + message[1:], where=where, remedy=f"did you mean {close[0]!r}?" if close else f"{where} --help")


def _bug(error: Exception) -> Bug:
    import tempfile  # late, both: only who has met an error pays for them
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="modelyard-", suffix=".traceback.txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return Bug(f"an error of modelyard: {type(error).__name__}: {error}", remedy=f"report it with the traceback in {file.name}")
