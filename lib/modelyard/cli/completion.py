"""`modelyard completion`."""

from __future__ import annotations

import click

from modelyard.cli.lazy import PROGRAM, Command, root


@click.command(
    "completion",
    cls=Command,
    examples=['eval "$(modelyard completion bash)"', "modelyard completion fish | source"],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    Completes commands, options, runs and steps.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"There is no completion for {shell!r}")
    click.echo(made(root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
