"""The command line: one module per noun, no logic. `main` is the only door, and the only place that prints an error.

Every failure becomes one message on stderr and the exit code of its class; a usage error of the parser is a Usage like any other. Commands are
imported when they are called, so that `--help` and completion stay fast.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

import click

from modelyard.cli.lazy import PROGRAM, root
from modelyard.cli.output import report
from modelyard.errors import Bug, Failure, Interrupted, Usage

DEBUG = "MODELYARD_DEBUG"
"""Environment variable: 1 prints the traceback of an error of ours."""

BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of our output went away."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. arguments: default those of the process."""
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except BrokenPipeError:
        # Otherwise the interpreter's own flush at exit complains once more.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    try:
        code = root.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except Failure as failure:
        report(failure)
        return failure.exit_code
    except click.ClickException as error:
        report(_usage(error))
        return Usage.exit_code
    except (click.Abort, KeyboardInterrupt):
        report(Interrupted("interrupted"))
        return Interrupted.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # the last resort: named, kept and reported, not hidden
        report(_bug(error))
        return Bug.exit_code


def _usage(error: click.ClickException) -> Usage:
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context else PROGRAM
    remedy = f"{where} --help"
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        remedy = "did you mean " + " or ".join(sorted(error.possibilities)) + "?"
        return Usage(f"no such option {error.option_name!r}", where=where, remedy=remedy)
    message = error.format_message().rstrip(".")
    return Usage(message[:1].lower() + message[1:], where=where, remedy=remedy)


def _bug(error: Exception) -> Bug:
    text = "".join(traceback.format_exception(error))
    what = f"an error of modelyard: {type(error).__name__}: {error}"
    if os.environ.get(DEBUG) == "1":
        print(text, file=sys.stderr, end="")
        return Bug(what, remedy="report it with the traceback above")
    with tempfile.NamedTemporaryFile("w", prefix="modelyard-", suffix=".traceback.txt", delete=False, encoding="utf-8") as file:
        file.write(text)
    return Bug(what, remedy=f"report it with the traceback in {file.name}, or see it with {DEBUG}=1")
