"""`modelyard render`: the manifests of a pipeline, for kubectl or to be looked at; and what an API server would say to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from modelyard.cli.output import complain
from modelyard.cli.run import JOBS, SMOKE
from modelyard.cli.session import Session, command
from modelyard.errors import Usage
from modelyard.kube.place import Access

if TYPE_CHECKING:
    from modelyard.config import Config
    from modelyard.kube.cluster import Cluster, Manifest

Where = Literal["there", "here"]


@command(
    "render",
    options=[JOBS, SMOKE],
    examples=[
        "modelyard render pipeline.yaml | kubectl apply -f -",
        "modelyard render pipeline.yaml --steps",
        "modelyard render step.yaml --driver here | kubectl apply -f -",
        "modelyard render pipeline.yaml --steps --dry-run=server -n mine",
    ],
)
@click.argument("file", type=click.Path())
@click.option("--steps", is_flag=True, help="The Jobs of all steps too, as far as they are known before the run: to look at, not to apply.")
@click.option(
    "--driver", type=click.Choice(["there", "here"]), default="there", show_default=True, help="here: of a lone step, without a driver's Job."
)
@click.option(
    "--access-mode",
    type=click.Choice(get_args(Access)),
    default="ReadWriteMany",
    show_default=True,
    help="How the claim may be mounted; a run on the cluster looks by itself.",
)
@click.option("--force", multiple=True, metavar="STEP", help="Do the step again although its result is known. May be given again.")
@click.option("--dry-run", type=click.Choice(["client", "server"]), default="client", show_default=True, help="server: ask the API server too.")
def render(
    session: Session,
    *,
    file: str,
    steps: bool,
    driver: Where,
    access_mode: Access,
    force: tuple[str, ...],
    dry_run: Literal["client", "server"],
    jobs: int,
    smoke: bool,
) -> int:
    """Print the manifests of a pipeline; no cluster is asked.

    What `modelyard run FILE --on kubernetes` would create, as YAML documents for kubectl: a ConfigMap with the pipeline and the Job of its driver.
    With --dry-run=server nothing is created either, but the API server of --context says whether it would take them.
    """
    from modelyard import config, spec
    from modelyard.kube import render as manifests
    from modelyard.run.settings import place_of

    given = click.get_current_context().params
    in_force = config.load({**{name: given[name] for name in ("yard", "namespace", "context")}, "on": "kubernetes"})
    pipeline = spec.load(file)
    pipeline = pipeline.smoke() if smoke else pipeline
    cluster = _connect(in_force) if dry_run == "server" else None
    place = place_of(in_force, cluster.namespace if cluster else "").model_copy(update={"access": access_mode})
    settings = {"hubs": in_force.hubs, "jobs": jobs, "force": list(force)}
    if driver == "here" and steps:
        raise Usage("--steps is for a run with a driver", remedy="leave out --driver here, or --steps")
    if driver == "here":
        made = [manifests.lone_step(pipeline, settings, place)]
    else:
        made = [*manifests.driver(pipeline, settings, place), *(manifests.preview(pipeline, settings, place) if steps else [])]
    if cluster:
        return _ask(session, cluster, made)
    if session.out.format == "name" or session.out.quiet:
        session.out.lines(f"{item['kind'].lower()}/{item['metadata']['name']}" for item in made)
    elif session.out.format == "json":
        session.out.lines([json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2, ensure_ascii=False)])
    else:
        session.out.lines([documents(made)])
    if steps:
        session.out.note("the steps' Jobs are a preview: the driver creates them, with what is not known yet")
    return 0


def documents(manifests: list[Manifest]) -> str:
    """The manifests as YAML documents; texts of several lines as blocks, to be read."""
    import yaml

    base: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's is ten times as fast, where PyYAML was built with it

    class Dumper(base):  # type: ignore[misc, valid-type]  # chosen at run time
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    whole: str = yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, explicit_start=True)
    return whole.rstrip("\n")


def _connect(in_force: Config) -> Cluster:
    from modelyard.cli.remote import PATIENCE
    from modelyard.kube.client import connect  # late: who only prints manifests needs no client

    return connect(in_force["context"], in_force["namespace"], patience=PATIENCE)


def _ask(session: Session, cluster: Cluster, manifests: list[Manifest]) -> int:
    """Tell what the API server says to each manifest; the exit code."""
    from modelyard.kube import fields

    rows: list[dict[str, Any]] = []
    for manifest in manifests:
        answer = cluster.dry_run(manifest)
        name = f"{manifest['kind'].lower()}/{manifest['metadata']['name']}"
        causes = [{"field": fields.ours(cause.field, manifest), "kubernetes": cause.field, "message": cause.message} for cause in answer.causes]
        for cause in causes:
            where = cause["field"] or name
            complain(Usage(cause["message"], where=where, why=f"the API server does not take {name}", remedy=f"see {cause['kubernetes']} in it"))
        for warning in answer.warnings:
            session.out.note(f"warning: {name}: {warning}")
        rows.append({"name": name, "answer": "refused" if causes else "accepted", "warnings": list(answer.warnings), "causes": causes})
    session.out.listing("DryRun", rows, {"OBJECT": "name", "ANSWER": "answer"}, name="name")
    return Usage.exit_code if any(row["causes"] for row in rows) else 0
