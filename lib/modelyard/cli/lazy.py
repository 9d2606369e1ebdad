"""The commands there are, without importing them: the program's `--help` is made from this table alone.

A test compares the table with the commands themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import click

from modelyard import __version__

PROGRAM = "modelyard"
BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of our output went away."""


class Entry(NamedTuple):
    """Where a command stands in the help, which module of modelyard.cli has it under its own name, and its first line."""

    section: str
    module: str
    help: str


COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "run": Entry("Pipelines", "run", "Run a pipeline: finished steps are reused, interrupted ones resume."),
        "check": Entry("Pipelines", "check", "Check a pipeline file, and show the settings in force; for a cluster, whether it would run there."),
        "render": Entry("Pipelines", "render", "Print the manifests of a pipeline; no cluster is asked."),
        "schema": Entry("Pipelines", "check", "Print the JSON Schema of a pipeline file."),
        "search": Entry("Steps", "steps", "Look for models or data sets on hubs."),
        "fetch": Entry("Steps", "steps", "Bring a model or a data set into the yard."),
        "preflight": Entry("Steps", "steps", "Look whether a pipeline could run here; a verdict and a reason for each thing that it needs."),
        "finetune": Entry("Steps", "steps", "Train a model further on labelled rows; the best epoch by the validation split is kept."),
        "infer": Entry("Steps", "steps", "Run a model over rows; a data set of predictions in the order of the rows."),
        "evaluate": Entry("Steps", "steps", "Measure a model on labelled rows: metrics with their intervals, confusion matrix, worst errors."),
        "export": Entry("Steps", "steps", "Write a model as ONNX, and prove on real rows that it answers as before; fails where it does not."),
        "promote": Entry("Steps", "steps", "Move a name in the yard to a model, or back to what it was before."),
        "publish": Entry("Steps", "steps", "Put a model on a hub, with a card that says how it was made and measured."),
        "ls": Entry("Runs", "runs", "List runs, the newest first."),
        "show": Entry("Runs", "runs", "Show a run: its steps, what they made, why they failed."),
        "logs": Entry("Runs", "runs", "Print the logs of a run."),
        "wait": Entry("Runs", "runs", "Wait until runs have ended, and exit like the first that failed."),
        "cancel": Entry("Runs", "runs", "Stop a run; its steps keep what they have done."),
        "explain": Entry("Runs", "explain", "Say why a run waits or failed, and what to do."),
        "report": Entry("Runs", "report", "Write a run as one offline HTML page."),
        "schedule": Entry("Shared", "schedule", "Run a pipeline again and again on a cluster, by the clock."),
        "yard": Entry("Shared", "yard", "Look after the yard: artifacts, names, pins, space."),
        "gpus": Entry("Shared", "gpus", "List the accelerators of a cluster: how many, in use, free, and of no use now with the reason."),
        "hub": Entry("Shared", "hub", "Serve models and data sets to the hubs' own clients."),
    }
)


class Lazy(click.Group):
    """The program's own group: imports the one command that is called."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but for a pipe that broke, which click would end the process for with a code of its own."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return BROKEN_PIPE

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's
        """Commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        """The command, imported now."""
        entry = COMMANDS.get(cmd_name)
        command: click.Command | None = getattr(import_module(f"modelyard.cli.{entry.module}"), cmd_name) if entry else None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """One section of the help per section of the table."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name.ljust(10), entry.help) for name, entry in COMMANDS.items() if entry.section == section])


root = Lazy(
    PROGRAM,
    {name: click.Command(name, help=entry.help) for name, entry in COMMANDS.items()},  # for suggestions; the commands themselves are imported
    help="Run the life of an open model as one typed pipeline of batch steps.",
    epilog='Completion: eval "$(_MODELYARD_COMPLETE=bash_source modelyard)"; also zsh_source, fish_source.',
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    options_metavar="",
    subcommand_metavar="COMMAND [OPTIONS]",
)
click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(root)
