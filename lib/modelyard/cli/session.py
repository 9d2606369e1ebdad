"""What every command that touches runs or the yard begins with: the settings in force and the output object, from its common options."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from modelyard import config
from modelyard.cli.output import FORMATS, Format, Output
from modelyard.errors import Failure

if TYPE_CHECKING:
    from modelyard.yard import Yard


_SETTINGS = ("yard", "on", "namespace", "context")
"""Settings that every such command has an option for."""
_COMPLETION = 3.0
"""Seconds that a shell waits for names."""
WORDS = f"{__name__}.words"
"""Where a context keeps the words that a command was called with."""


@dataclass(frozen=True)
class Session:
    """One call of a command."""

    config: config.Config
    out: Output

    def yard(self, *, write: bool = False) -> Yard:
        """The yard in force. Raises NoInput when it is only to be read and is not there."""
        from modelyard.yard import Yard

        return Yard.open(self.config.yard, write=write)

    def hint(self, command: str) -> None:
        """Name the next command."""
        self.out.hint(self.again(command))

    def again(self, command: str) -> str:
        """The command with the options that said where this one looks."""
        values = {name: self.config.values[name] for name in _SETTINGS}
        given = [shlex.join([f"--{name}", str(value.text)]) for name, value in values.items() if value.source == f"--{name}"]
        return " ".join([command, *given])


def command(
    name: str,
    *,
    examples: Sequence[str],
    options: Sequence[click.Parameter] = (),
    cls: type[click.Command] = click.Command,
    help: str | None = None,  # noqa: A002  # click's
    inside: Literal["read", "write"] | None = None,
) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command whose function takes a Session first.

    options: further ones, made elsewhere. help: default the function's docstring. inside: where the yard is a claim, the whole command runs in a pod
    that mounts it so.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        def call(*, output: Format, quiet: bool, **arguments: Any) -> int | None:
            settings = {name: arguments.pop(name) for name in _SETTINGS}
            session = Session(config.load(settings), Output(output, quiet))
            if inside and session.config.remote:
                from modelyard.cli import remote

                remote.delegate(session, write=inside == "write")
                return 0
            return function(session, **arguments)

        made = click.command(name, cls=Remembering if inside else cls, epilog=epilog(examples), help=help or function.__doc__)(call)
        made.params += [*options, *_common()]
        return made

    return decorate


class Remembering(click.Command):
    """Keeps the words that it was called with, for a second call elsewhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)


def epilog(examples: Sequence[str]) -> str:
    """The end of a command's help."""
    return "\n  ".join(["\b\nExamples:", *examples])


def complete_runs(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of runs, for a shell."""
    found: list[str] = []

    def look() -> None:
        with suppress(Failure):  # a shell's completion has nowhere to say it
            session = Session(config.load({name: context.params.get(name) for name in _SETTINGS}), Output(quiet=True))
            found.extend(_runs(session))

    looking = threading.Thread(target=look, daemon=True)  # neither a cluster nor a plugin that gets its credentials may hold up a shell
    looking.start()
    looking.join(_COMPLETION)
    return [CompletionItem(run) for run in found if run.startswith(incomplete)]


def _runs(session: Session) -> list[str]:
    if not session.config.remote:
        return [run.id for run in session.yard().runs.list()]
    from modelyard.cli.places import place

    return [status.run for status in place(session).statuses()]


def _common() -> list[click.Parameter]:
    return [
        click.Option(["--yard"], metavar="DIR|CLAIM", help="The yard: a folder; on a cluster a claim."),
        click.Option(["--on"], metavar="PLACE", help="Where steps run: local or kubernetes."),
        click.Option(["-n", "--namespace"], metavar="NAME", help="The namespace on a cluster."),
        click.Option(["--context"], metavar="NAME", help="The context in the kubeconfig."),
        click.Option(["-o", "--output"], type=click.Choice(FORMATS), default="table", help="The form of the result on stdout."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Print names only, and no progress."),
    ]
