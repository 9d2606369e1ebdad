"""`modelyard schema`."""

from __future__ import annotations

import json

import click

from modelyard.cli.lazy import Command


@click.command(
    "schema",
    cls=Command,
    examples=["modelyard schema > pipeline.schema.json"],
)
def schema() -> None:
    """Print the JSON Schema of a pipeline file.

    Editors check and complete a pipeline file with it.
    """
    from modelyard import spec

    click.echo(json.dumps(spec.schema(), indent=2, ensure_ascii=False))
