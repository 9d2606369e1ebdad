"""`modelyard check`, `schema`: what a pipeline file may say, what one says, and whether it would run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.output import complain, table
from modelyard.cli.session import Session, command, epilog

if TYPE_CHECKING:
    from modelyard.kube.cluster import Manifest
    from modelyard.spec import Pipeline


@command(
    "check",
    examples=[
        "modelyard check",
        "modelyard check pipeline.yaml",
        "modelyard check pipeline.yaml -o json",
        "modelyard check pipeline.yaml --on kubernetes -n mine",
    ],
)
@click.argument("file", required=False, type=click.Path())
def check(session: Session, file: str | None) -> int:
    """Check a pipeline file, and show the settings in force; for a cluster, whether it would run there.

    Here it looks at the file alone: names, settings, inputs, order. With --on kubernetes it also asks the cluster for a verdict on each thing that
    a run needs: access, rights, claim, quota, Pod Security, Secrets, images, hubs, and whether each step fits now, later or never. It creates
    nothing. The exit code is the class of the first `no` among what a run needs; what may not be looked at is `unknown`.
    """
    settings = [{"name": name, "value": value.text, "from": value.source} for name, value in session.config.values.items()]
    found: dict[str, Any] = {"settings": settings}
    pipeline = None
    if file:
        from modelyard import spec

        pipeline = spec.load(file)
        found = {"pipeline": pipeline.to_dict(), "order": pipeline.order(), "digest": pipeline.digest, **found}
    name = pipeline.name if pipeline else ""
    if session.config.remote:
        return _there(session, file, pipeline, found)
    session.out.record("Check", found, _text(pipeline, settings), name=name)
    if pipeline:
        session.out.note("the file is valid; not checked: whether refs exist, the yard, devices")
        session.hint(f"modelyard run {file}")
    return 0


@click.command("schema", epilog=epilog(["modelyard schema > pipeline.schema.json"]))
def schema() -> None:
    """Print the JSON Schema of a pipeline file.

    Editors check and complete a pipeline file with it.
    """
    from modelyard import spec

    click.echo(json.dumps(spec.schema(), indent=2, ensure_ascii=False))


def _there(session: Session, file: str | None, pipeline: Pipeline | None, found: dict[str, Any]) -> int:
    """Show the verdicts for a run on a cluster; the exit code."""
    from modelyard.cli import remote
    from modelyard.kube.check import failed
    from modelyard.run.check import look

    verdicts, missing = look(session.config, pipeline, lambda: remote.cluster(session))
    rows = [one.described() for one in verdicts]
    value = {**found, "verdicts": rows, "grants": missing}
    session.out.record("Check", value, _whole(pipeline, found["settings"], rows, missing), name=pipeline.name if pipeline else "")
    if failure := failed(verdicts):
        complain(failure)
        return failure.exit_code
    if file:
        session.hint(f"modelyard run {file}")
    return 0


def _whole(pipeline: Pipeline | None, settings: list[dict[str, Any]], rows: Sequence[Mapping[str, Any]], missing: list[Manifest]) -> Iterator[str]:
    yield from _text(pipeline, settings)
    yield ""
    heading, *lines = table([[row["check"], row["verdict"], row["why"]] for row in rows], ["CHECK", "VERDICT", "WHY"])
    yield heading
    for row, line in zip(rows, lines, strict=True):
        yield line
        if row["verdict"] != "ok":
            yield from (f"    {text}" for text in row["lines"] if text not in row["why"])
            if row["remedy"]:
                yield f"    try: {row['remedy']}"
            if not row["needed"]:
                yield "    a run does not need it"
    if missing:
        from modelyard.cli.render import documents

        yield ""
        yield from documents(missing).splitlines()


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
