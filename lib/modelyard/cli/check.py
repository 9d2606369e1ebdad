"""`modelyard check`, `schema`: what a pipeline file may say, and what one says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.output import table
from modelyard.cli.session import Session, command, epilog

if TYPE_CHECKING:
    from modelyard.spec import Pipeline


@command("check", examples=["modelyard check", "modelyard check pipeline.yaml", "modelyard check pipeline.yaml -o json"])
@click.argument("file", required=False, type=click.Path())
def check(session: Session, file: str | None) -> None:
    """Check a pipeline file, and show the settings in force.

    Looks at the file alone: names, settings, inputs, order. It asks no hub, opens no yard and looks for no device.
    """
    settings = [{"name": name, "value": value.text, "from": value.source} for name, value in session.config.values.items()]
    found: dict[str, Any] = {"settings": settings}
    pipeline = None
    if file:
        from modelyard import spec

        pipeline = spec.load(file)
        found = {"pipeline": pipeline.to_dict(), "order": pipeline.order(), "digest": pipeline.digest, **found}
    session.out.record("Check", found, _text(pipeline, settings), name=pipeline.name if pipeline else "")
    if pipeline:
        session.out.note("the file is valid; not checked: whether refs exist, the yard, devices")
        session.hint(f"modelyard run {file}")


@click.command("schema", epilog=epilog(["modelyard schema > pipeline.schema.json"]))
def schema() -> None:
    """Print the JSON Schema of a pipeline file.

    Editors check and complete a pipeline file with it.
    """
    from modelyard import spec

    click.echo(json.dumps(spec.schema(), indent=2, ensure_ascii=False))


def _text(pipeline: Pipeline | None, settings: list[dict[str, Any]]) -> Iterator[str]:
    if pipeline:
        yield f"pipeline {pipeline.name}"
        rows = []
        for name in pipeline.order():
            step, resources = pipeline.steps[name], pipeline.resources_of(name)
            inputs = ", ".join(f"{field}: {source}" for field, source in pipeline.inputs(name).items()) or getattr(step, "ref", "")
            device = f"{resources.gpus} {resources.accelerator}" if resources.gpus else "cpu"
            device += f", else {resources.fallback}" if resources.fallback and device != "cpu" else ""
            rows.append([name, step.verb, inputs, step.makes(), device])
        yield from table(rows, ["STEP", "VERB", "INPUTS", "MAKES", "DEVICE"])
        yield ""
    yield from table([[item["name"], item["value"], item["from"]] for item in settings], ["SETTING", "VALUE", "FROM"])
