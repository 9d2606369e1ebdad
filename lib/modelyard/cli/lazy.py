"""The commands there are, without importing them: the program's `--help` is made from this table alone.

A test compares the table with the commands themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from modelyard import __version__
from modelyard.errors import suggest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "modelyard"

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
"""click's, for every command."""


class Entry(NamedTuple):
    """Where a command stands in the help, which module of modelyard.cli has it under its own name, and its first line."""

    section: str
    module: str
    help: str


COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "run": Entry("Pipelines", "run", "Run a pipeline: finished steps are reused, interrupted ones resume."),
        "check": Entry("Pipelines", "check", "Check a pipeline file, and show the settings in force."),
        "schema": Entry("Pipelines", "schema", "Print the JSON Schema of a pipeline file."),
        "fetch": Entry("Steps", "steps", "Bring a model or a data set into the yard."),
        "finetune": Entry("Steps", "steps", "Train a model further on labelled rows; the best epoch by the validation split is kept."),
        "infer": Entry("Steps", "steps", "Run a model over rows; a data set of predictions in the order of the rows."),
        "evaluate": Entry("Steps", "steps", "Measure a model on labelled rows: metrics with their intervals, confusion matrix, worst errors."),
        "ls": Entry("Runs", "runs", "List runs, the newest first."),
        "show": Entry("Runs", "runs", "Show a run: its steps, what they made, why they failed."),
        "logs": Entry("Runs", "runs", "Print the logs of a run."),
        "wait": Entry("Runs", "runs", "Wait until runs have ended, and exit like the first that failed."),
        "cancel": Entry("Runs", "runs", "Stop a run; its steps keep what they have done."),
        "yard": Entry("Shared", "yard", "Look after the yard: artifacts, names, pins, space."),
        "completion": Entry("Shared", "completion", "Print the completion script of a shell."),
    }
)


class Group(click.Group):
    """A group that names the command that was probably meant, and prints its help when none is given."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, callback=_help, invoke_without_command=True, subcommand_metavar="COMMAND [OPTIONS]", options_metavar="", **kwargs)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names. Raises UsageError with the one that was probably meant."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            raise click.UsageError(f"No such command {name!r}; {suggest(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's
        """Commands in the order in which they were made."""
        return list(self.commands)


class Lazy(Group):
    """The program's own group: imports the one command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's
        """Commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        """The command, imported now."""
        entry = COMMANDS.get(cmd_name)
        command: click.Command | None = getattr(import_module(f"modelyard.cli.{entry.module}"), cmd_name) if entry else None
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands of the table, then the program's options; imports none of them."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """One section of the help per section of the table."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name.ljust(10), entry.help) for name, entry in COMMANDS.items() if entry.section == section])


class Command(click.Command):
    """A command with examples at the end of its help."""

    def __init__(self, name: str | None, *, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(name, **{**kwargs, "context_settings": SETTINGS})
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """The examples."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"  {example}\n")


@click.pass_context
def _help(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


root = Lazy(
    PROGRAM,
    help="Run the life of an open model as one typed pipeline of batch steps.",
    context_settings=SETTINGS,
    params=[click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, help="Print the version.", callback=_version)],
)
