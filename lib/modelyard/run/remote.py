"""Starting a run on a cluster: as a driver Job there, or driven by this process (`--driver here`).

The same pipeline is one run at a time: its driver Job has its name, so that of many who submit it at once one creates it and all others find it.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelyard.errors import Interrupted, NoInput, NoPermission, Unavailable, Usage
from modelyard.kube import claims, ends, names, render
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.place import Place
from modelyard.run.driver import take
from modelyard.run.handlers import handling
from modelyard.run.kubernetes import Jobs
from modelyard.run.mirror import Mirror
from modelyard.run.pipeline import Driver, Signals
from modelyard.run.settings import Settings
from modelyard.run.start import attach
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, RunStatus

TRIES = 10
"""How often a name is looked for that nobody has taken meanwhile."""


def submit(pipeline: Pipeline, settings: Settings, place: Place, cluster: Cluster) -> tuple[str, bool]:
    """Have a driver Job run the pipeline, or find the one that does: (the run's id, whether it was there already).

    Raises what the cluster refuses; NoInput: the claim or the service account is missing; Usage: the claim cannot be a yard.
    """
    told = checked(pipeline, settings, place)
    ready: Place | None = None
    for _ in range(TRIES):
        taken = _taken(pipeline, place, cluster)
        if taken.live:
            return taken.live, True
        ready = ready or made_ready(place, cluster, names.DRIVER_ACCOUNT)
        made = _create(render.driver(pipeline, told, ready, number=taken.highest + 1), cluster)
        if made:
            return made, False
        # Somebody was faster: the next look finds who.
    remedy = "submit it again"
    raise Unavailable(f"a driver of {pipeline.name} is made and ends all the time", where=place.namespace, remedy=remedy)


def drive_here(pipeline: Pipeline, settings: Settings, place: Place, cluster: Cluster, view: View) -> RunStatus:
    """Drive the pipeline's Jobs from this process, whose own yard holds records alone; or watch the process here that does.

    Ctrl-C and SIGTERM end the driving and leave the Jobs: Interrupted or Yielded is raised, and the same command goes on. A run of the same pipeline
    whose driver here was killed is taken up again.
    """
    told = checked(pipeline, settings, place)
    place = made_ready(place, cluster)
    yard = Yard.open(state_folder(place.namespace))
    taken = _taken(pipeline, place, cluster)
    if taken.live:
        raise Usage(f"{taken.live} runs on the cluster already", remedy=f"modelyard wait {taken.live}, or leave out --driver here to follow it")
    prefix = names.run_name(pipeline, place.image, 1).removesuffix("-r1")
    last = next(reversed(yard.runs.named(prefix)), None)
    if last and last.status().state is RunState.RUNNING:
        view.note(f"{last.id} has not ended; looking whether its driver lives")
        if last.live():
            view.begun(last.id, "it is running already; watching it")
            return attach(last, view)
        run_id = last.id
    else:
        run_id = f"{prefix}-r{max(taken.highest, int(last.id.rpartition('-r')[2]) if last else 0) + 1}"
    run, ours = take(yard, run_id, pipeline, told)
    jobs = Jobs(cluster, place, yard, run, pipeline.name, shares_yard=False)
    mirror = Mirror(cluster, run, pipeline.name, view, yard=None, jobs=lambda: jobs.made)
    view.begun(run.id, "" if ours else "its driver was gone; going on with it")
    signals = Signals()
    with _listening(signals):
        mirror.start()
        try:
            status = Driver(run, pipeline, yard, jobs, settings, mirror, signals).drive()
        finally:
            mirror.close()
    if status.state is RunState.RUNNING:
        remedy = f"the same command follows them again, and `modelyard cancel {run.id}` ends them"
        raise signals.by("asked to stop driving; the Jobs go on", where=run.id, remedy=remedy)
    return status


def checked(pipeline: Pipeline, settings: Settings, place: Place) -> dict[str, Any]:
    """The settings as a run is told them. Raises Usage: what cannot work; an address with a secret first, before anything repeats it."""
    settings.check(pipeline)
    render.check(pipeline, settings.told(), place)
    return settings.told()


def made_ready(place: Place, cluster: Cluster, account: str | None = None) -> Place:
    """The place with the access that its claim allows. account: a service account that has to be there. Raises NoInput, Usage."""
    if account:
        try:
            found = cluster.get("ServiceAccount", account)
        except NoPermission:
            found = {}  # who may create Jobs need not be one who may look; the Job's events say it then
        if found is None:
            where, remedy = f"namespace {place.namespace}", f"kubectl apply -n {place.namespace} -f examples/cluster/access.yaml, or --driver here"
            raise NoInput(f"there is no service account {account!r}", where=where, why="the driver creates Jobs by its rights", remedy=remedy)
    return claims.placed(cluster, place)


def state_folder(namespace: str) -> Path:
    """Where runs that are driven from this machine are written down."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "modelyard" / namespace


@dataclass(frozen=True)
class _Taken:
    """Numbers of a pipeline's runs. live: the run whose driver Job is at work."""

    highest: int
    live: str


def _taken(pipeline: Pipeline, place: Place, cluster: Cluster) -> _Taken:
    """By driver Jobs, and by what outlives them: the statuses."""
    labels = {names.PIPELINE: pipeline.name}
    digest, first = names.pipeline_digest(pipeline, place.image), names.run_name(pipeline, place.image, 1)
    form = re.compile(re.escape(first.removesuffix("1")) + r"(\d+)")
    drivers = cluster.list("Job", {**labels, names.ROLE: "driver"})
    statuses = {found["metadata"]["name"].removesuffix("-status"): found for found in cluster.list("ConfigMap", {**labels, names.ROLE: "status"})}
    numbers = [int(match[1]) for name in [*map(names.run_of, drivers), *statuses] if (match := form.fullmatch(name))]
    over = {name for name, found in statuses.items() if _over(found)}  # its Job takes some seconds more to say so
    alive = [one for one in drivers if not ends.finished(one) and not one["metadata"].get("deletionTimestamp")]
    alive = [one for one in alive if names.run_of(one) not in over]
    live = [driver for driver in alive if (driver["metadata"].get("annotations") or {}).get(names.DIGEST) == digest]
    live += [driver for driver in alive if names.run_of(driver) != driver["metadata"]["name"] and form.fullmatch(names.run_of(driver))]  # a chart's
    return _Taken(max(numbers, default=0), next(map(names.run_of, live), ""))


def _over(status: Manifest) -> bool:
    """Whether a mirrored status says that its run has ended; of one that cannot be read the Job alone tells."""
    with suppress(ValidationError):
        return RunStatus.model_validate_json((status.get("data") or {}).get("status.json", "")).state is not RunState.RUNNING
    return False


def _create(manifests: Sequence[Manifest], cluster: Cluster) -> str | None:
    """Create the ConfigMap and the Job of a driver; its name, None where somebody else has made the Job."""
    config, job = manifests
    name = job["metadata"]["name"]
    if cluster.create(config) is None:
        _replace_left_over(config, name, cluster)
    made = cluster.create(job)
    if made is None:
        return None
    cluster.patch("ConfigMap", name, {"metadata": {"ownerReferences": [render.reference_to(made)]}})
    return str(name)


def _replace_left_over(config: Manifest, name: str, cluster: Cluster) -> None:
    """A ConfigMap of that name that says something else, and whose submitter never came to create the Job, gives way to ours."""
    found = cluster.get("ConfigMap", name)
    if found is None or found.get("data") == config["data"] or cluster.get("Job", name) is not None:
        return
    cluster.delete("ConfigMap", name, uid=found["metadata"]["uid"])
    cluster.create(config)


@contextmanager
def _listening(signals: Signals) -> Iterator[None]:
    """SIGINT and SIGTERM end the driving, not the Jobs; only the main thread may."""

    def on_signal(number: int, _: object) -> None:
        if not signals.stop:
            signals.stop = True
            if number == signal.SIGINT:
                signals.by = Interrupted

    with handling({signal.SIGTERM: on_signal, signal.SIGINT: on_signal}):
        yield
