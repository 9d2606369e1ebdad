"""`modelyard schedule`: apply, ls, show, trigger, suspend, resume, rm; always of a cluster, whatever `on` says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from modelyard import config
from modelyard.cli import remote
from modelyard.cli.output import table
from modelyard.cli.run import DETACH, JOBS, settle, text
from modelyard.cli.session import Session, command
from modelyard.errors import Interrupted

if TYPE_CHECKING:
    from modelyard.kube.cluster import Cluster
    from modelyard.kube.ticks import Tick

_NAME = click.argument("name", help="The schedule's name, which is its pipeline's unless a chart made it.")


@command(
    "apply",
    options=[JOBS],
    examples=[
        "modelyard schedule apply retrain.yaml --cron '0 3 * * *'",
        "modelyard schedule apply retrain.yaml --cron '30 6 * * 1-5' --time-zone Europe/Berlin -n research",
    ],
)
@click.argument("file", type=click.Path())
@click.option("--cron", required=True, metavar="EXPRESSION", help="Minute, hour, day of the month, month, day of the week: '0 3 * * *'.")
@click.option("--time-zone", metavar="ZONE", help="An IANA name; default the zone that the schedule has, else this machine's.")
def apply(session: Session, *, file: str, cron: str, time_zone: str | None, jobs: int) -> None:
    """Put a pipeline on a schedule, or change the one that it has.

    Each tick is a run of its own, and never two of them at once. A run that is at work goes on with what it began with. A schedule that is suspended
    stays so.
    """
    from modelyard import spec
    from modelyard.run import schedule
    from modelyard.run.settings import Settings, place_of

    pipeline = spec.load(file)
    session, cluster = _there(session)
    settings = Settings(session.config.yard, session.config.hubs, jobs)
    with remote.named(cluster):
        place = place_of(session.config, cluster.namespace)
        change, seen = schedule.apply(pipeline, settings, place, cluster, cron=cron, time_zone=time_zone)
    value = {**seen.described(), "change": change}
    del value["ticks"]
    when = "suspended" if value["suspended"] else f"next {value['next']}"
    session.out.record("Schedule", value, [f"schedule {seen.name} {change}: {value['cron']}, {value['timeZone']}, {when}"], name=seen.name)
    session.hint(f"modelyard schedule resume {seen.name}" if value["suspended"] else f"modelyard schedule show {seen.name}")


@command("ls", examples=["modelyard schedule ls", "modelyard schedule ls -n research -o json"])
def ls(session: Session) -> None:
    """List the schedules: when they tick, and what has come of the last tick."""
    from modelyard.run import schedule

    session, cluster = _there(session)
    items = []
    for seen in schedule.every(cluster):
        last = seen.last[0] if seen.last else None
        shown = f"{last.state} {last.at}" if last else None
        items.append({**seen.described(), "_last": shown, "_suspended": "yes" if seen.found["spec"].get("suspend") else "no"})
    if not items:
        remote.check_namespace(cluster)
        session.out.note(f"there is no schedule in namespace {cluster.namespace}")
    columns = {"SCHEDULE": "schedule", "CRON": "cron", "ZONE": "timeZone", "NEXT": "next", "LAST": "_last", "SUSPENDED": "_suspended"}
    session.out.listing("Schedule", items, columns, name="schedule")


@command("show", examples=["modelyard schedule show retrain", "modelyard schedule show retrain --limit 100 -o json"])
@_NAME
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="How many ticks, the newest first.")
def show(session: Session, name: str, limit: int) -> None:
    """Show a schedule's ticks and what has come of each, those included that never got a run.

    skipped: an earlier one was still at work. missed: the controller was away for longer than a Job may come late. suspended: it was, then. due: its
    Job is still to come. no job: nothing that is kept tells why.
    """
    from modelyard.run import schedule

    session, cluster = _there(session)
    with remote.named(cluster):
        seen = schedule.look(cluster, name, limit=limit)
    value = seen.described()
    session.out.record("Schedule", value, _text(value, seen.last), name=[tick.run for tick in seen.last if tick.run])
    failed = next((tick for tick in seen.last if tick.run and tick.category), None)
    if failed:
        session.hint(f"modelyard show {failed.run}")


@command("trigger", options=[DETACH], examples=["modelyard schedule trigger retrain", "modelyard schedule trigger retrain -d"])
@_NAME
def trigger(session: Session, *, name: str, detach: bool) -> int:
    """Make a tick now, and follow it like `run`; also of a schedule that is suspended.

    Refused while a tick is at work. The exit code is the class of the failure, 0 without one. Ctrl-C ends the following only.
    """
    from modelyard.cli import follow
    from modelyard.kube import runs
    from modelyard.run import schedule

    session, cluster = _there(session)
    with remote.named(cluster):
        job = schedule.trigger(cluster, name)
    if detach:
        session.out.record("Tick", {"schedule": name, "job": job}, [job], name=job)
        session.hint(f"modelyard wait {job}")
        return 0
    with follow.view(session.out) as view:
        view.begun(job, "")
        try:
            status = runs.follow(cluster, job, view)
        except KeyboardInterrupt:
            remedy = f"{session.again(f'modelyard wait {job}')} follows it again"
            raise Interrupted("not followed any more; it goes on", where=job, remedy=remedy) from None
    described = runs.described(cluster, job)
    session.out.record("Run", described, text(described), name=status.run)
    return settle(session, status)


@command("suspend", examples=["modelyard schedule suspend retrain"])
@_NAME
def suspend(session: Session, name: str) -> None:
    """Let a schedule rest: it does not tick until it is resumed; a run that is at work goes on."""
    _switch(session, name, suspended=True)


@command("resume", examples=["modelyard schedule resume retrain"])
@_NAME
def resume(session: Session, name: str) -> None:
    """Let a suspended schedule go on; a tick of the last hour is made up for."""
    _switch(session, name, suspended=False)


@command("rm", examples=["modelyard schedule rm retrain"])
@_NAME
def rm(session: Session, name: str) -> None:
    """Remove a schedule; what its runs made, and how they ended, stays. Refused while a tick is at work."""
    from modelyard.run import schedule

    session, cluster = _there(session)
    with remote.named(cluster):
        schedule.remove(cluster, name)
    session.out.record("Schedule", {"schedule": name}, [f"schedule {name} removed"], name=name)


schedule = click.Group("schedule", (apply, ls, show, trigger, suspend, resume, rm), help="Run a pipeline again and again on a cluster, by the clock.")


def _there(session: Session) -> tuple[Session, Cluster]:
    """The session with a cluster as its place, and that cluster: schedules are nowhere else."""
    given = click.get_current_context().params
    in_force = config.load({**{name: given[name] for name in ("yard", "namespace", "context")}, "on": "kubernetes"})
    there = replace(session, config=in_force)
    return there, remote.cluster(there)


def _switch(session: Session, name: str, *, suspended: bool) -> None:
    from modelyard.run import schedule

    session, cluster = _there(session)
    with remote.named(cluster):
        changed, seen = schedule.suspend(cluster, name, suspended=suspended)
    value = seen.described()
    del value["ticks"]
    state = "suspended" if suspended else f"goes on, next {value['next']}"
    session.out.record("Schedule", value, [f"schedule {name} {state}"], name=name)
    if not changed:
        session.out.note("it was so already")
    if value["release"]:
        session.out.note(f"the next upgrade of the Helm release {value['release']} may undo it")


def _text(value: dict[str, Any], ticks: Sequence[Tick]) -> Iterator[str]:
    state = "suspended" if value["suspended"] else f"next {value['next'] or 'not known'}"
    by = f", of the Helm release {value['release']}" if value["release"] else ""
    yield f"schedule {value['schedule']}: {value['cron']}, {value['timeZone']}, {state}{by}"
    yield ""
    rows = [[f"{tick.at}, triggered" if tick.triggered else tick.at, tick.state, tick.run or tick.job, tick.category, tick.reason] for tick in ticks]
    yield from table(rows, ["TICK", "OUTCOME", "RUN", "CATEGORY", "REASON"])
    for remedy in dict.fromkeys(tick.remedy for tick in ticks if tick.remedy):
        yield f"  try: {remedy}"
