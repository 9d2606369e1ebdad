"""Runs on a cluster, as their driver Jobs and the ConfigMaps `<run>-status` tell them. No yard is looked at.

A driver mirrors its run into the ConfigMap while it works. Before it has, the run is pending, and its driver's pod says why; where a driver ended
without a last word, its Job says how the run ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import ValidationError

from modelyard import document
from modelyard.errors import Corrupt, Interrupted, NoInput, NoPermission, TimedOut, Unavailable, Usage, suggest
from modelyard.kube import ends, names, render
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.waits import waits_for
from modelyard.spec import from_document
from modelyard.yard.records import utc_now
from modelyard.yard.runs import Progress, RunState, RunStatus, StepState, StepStatus

LOOK = 0.7
"""Seconds between two looks at a run that is followed."""
AWAY = 600.0
"""Seconds for which an API server may be away before who follows a run gives up; one request's own patience is far shorter."""
OBEY = 60.0
"""Seconds for a driver to obey a cancel: its steps keep what they have done."""


class Watcher(Protocol):
    """Who is shown a run. The driver's views fit."""

    def changed(self, status: RunStatus) -> None:
        """A step, or the run, changed its state."""

    def progress(self, step: str, progress: Progress) -> None:
        """A running step came further."""

    def note(self, text: str) -> None:
        """Something that a person should know now."""


@dataclass(frozen=True)
class Seen:
    """A run as it was seen. live: its driver's Job has not ended. waits: for what, where its driver has not begun. jobs: step -> its Job's name."""

    status: RunStatus
    live: bool
    waits: str
    jobs: Mapping[str, str]
    progress: Mapping[str, Progress]
    told: Mapping[str, Any]

    def described(self) -> dict[str, Any]:
        """As JSON values: the status, how far running steps are, `metrics` and `results`."""
        value = {**self.status.model_dump(mode="json"), "metrics": self.told.get("metrics", {}), "results": self.told.get("results", {})}
        for name, progress in self.progress.items():
            if name in value["steps"]:
                value["steps"][name]["progress"] = progress.model_dump(mode="json")
        return value


def runs(cluster: Cluster) -> list[RunStatus]:
    """All runs of the namespace, the newest first."""
    drivers = {names.run_of(job): job for job in cluster.list("Job", {names.ROLE: "driver"})}
    mirrors = {_run_of(found): found for found in cluster.list("ConfigMap", {names.ROLE: "status"})}
    unsaid = [name for name in drivers if "status.json" not in (mirrors.get(name) or {}).get("data", {}) or ends.finished(drivers[name])]
    pods = cluster.list("Pod", {names.ROLE: "driver"}) if unsaid else []
    found = [_listed(name, drivers.get(name), mirrors.get(name), _of(pods, drivers.get(name))) for name in {**drivers, **mirrors}]
    return sorted(found, key=lambda status: (status.started, status.run), reverse=True)


def _listed(run: str, job: Manifest | None, mirror: Manifest | None, pods: Sequence[Manifest]) -> RunStatus:
    """A run among others: what one of them says that cannot be read does not hide the rest."""
    try:
        return _seen(run, job, mirror, pods).status
    except Corrupt as failure:
        return _pending(run, job, mirror, None).over(RunState.FAILED, Corrupt.exit_code, f"{failure}; {failure.remedy}")


def find(cluster: Cluster, run: str | None = None) -> str:
    """The run of that name, or the only one whose name starts so; without a name the latest. Raises NoInput."""
    where = f"namespace {cluster.namespace}"
    found = [status.run for status in runs(cluster)]
    if not found:
        raise NoInput(f"there is no run {run!r}" if run else "there is no run yet", where=where, remedy="modelyard run FILE --on kubernetes")
    matching = [name for name in found if name == run] or [name for name in found if name.startswith(run or "")][: None if run else 1]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise NoInput(f"{run!r} begins the names of {len(matching)} runs", where=where, why=", ".join(matching[:5]), remedy="write more of the name")
    if run and (job := cluster.get("Job", run)) and (job["metadata"].get("labels") or {}).get(names.ROLE) == "driver":
        return names.run_of(job)  # named by its driver's Job
    raise NoInput(f"there is no run {run!r}", where=where, remedy=suggest(run or "", found))


def look(cluster: Cluster, run: str) -> Seen:
    """One run. Raises NoInput."""
    job = driver_job(cluster, run)  # before the mirror: a driver that has ended has said its last word
    run = names.run_of(job) if job else run  # a Job that a chart or a schedule made was named before its run
    mirror = cluster.get("ConfigMap", names.status_name(run))
    if job is None and mirror is None:
        raise NoInput(f"there is no run {run!r}", where=f"namespace {cluster.namespace}", remedy="modelyard ls --on kubernetes")
    said = "status.json" in (mirror or {}).get("data", {})
    unclear = job is not None and (not said or ends.finished(job) is not None)
    pods = cluster.list("Pod", {names.JOB: job["metadata"]["name"]}) if unclear and job else []
    words = events(cluster, job["metadata"]["name"]) if unclear and not pods and job and not ends.finished(job) else []
    return _seen(run, job, mirror, pods, config=None if said or job is None else cluster.get("ConfigMap", config_of(job["spec"]) or run), words=words)


def driver_job(cluster: Cluster, run: str) -> Manifest | None:
    """The Job that drives a run: the one of its name, or the one that says so in its label, as those of charts and schedules do."""
    return cluster.get("Job", run) or next(iter(cluster.list("Job", {names.ROLE: "driver", names.RUN: run})), None)


def described(cluster: Cluster, run: str) -> dict[str, Any]:
    """One run as JSON values. Raises NoInput."""
    return look(cluster, run).described()


def follow(
    cluster: Cluster,
    run: str,
    view: Watcher,
    *,
    timeout: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Watch a run to its end, over whatever happens to the API server meanwhile. Raises NoInput; TimedOut after `timeout` seconds."""
    began = answered = clock()
    shown: RunStatus | None = None
    told: set[str] = set()

    def tell(text: str) -> None:
        if text and text not in told:
            told.add(text)
            view.note(text)

    while True:
        try:
            seen = look(cluster, run)
        except Unavailable as failure:
            if clock() - answered >= AWAY:
                raise
            tell(f"{failure.what}; waiting for it, the run goes on")
        else:
            answered = clock()
            run = seen.status.run  # its driver may have named it meanwhile
            told.difference_update([text for text in told if text.endswith("the run goes on")])
            if seen.status != shown:
                shown = seen.status
                view.changed(seen.status)
            if seen.status.state is not RunState.RUNNING:
                return seen.status
            for name, progress in seen.progress.items():
                view.progress(name, progress)
            if seen.waits:
                hint = f"; where that cannot come: modelyard cancel {run}" if "image" in seen.waits.lower() else ""
                tell(f"the driver waits: {seen.waits}{hint}")
            elif not seen.live:
                tell(f"{run} has no driver on the cluster; watching its status")
        if timeout is not None and clock() - began >= timeout:
            raise TimedOut(f"{run} is still running after {timeout:g} s", remedy=f"modelyard wait {run}")
        sleep(LOOK)


def cancel(cluster: Cluster, run: str, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> RunStatus:
    """End a run: its driver is asked; one that does not obey, or has not begun, is deleted, and its steps' Jobs with it. Raises NoInput.

    Of a run that has ended, as one whose driver crashed, the steps that go on all the same are ended.
    """
    seen = look(cluster, run)
    run = seen.status.run
    if seen.status.state is not RunState.RUNNING:
        _end_steps(cluster, run, driver_job(cluster, run), live=True)
        return seen.status
    asked = cluster.patch("ConfigMap", names.status_name(run), {"data": {"cancel": "1"}})
    until = clock() + OBEY
    while asked is not None and clock() < until:
        if (seen := look(cluster, run)).status.state is not RunState.RUNNING:
            return seen.status
        sleep(LOOK)
    run = _end(cluster, run, clock, sleep)
    if (seen := _again(cluster, run, seen)).status.state is not RunState.RUNNING:  # its last word came after all
        return seen.status
    status = seen.status.over(RunState.CANCELLED, Interrupted.exit_code, "cancelled from outside its driver").model_copy(update={"run": run})
    data = {"status.json": status.model_dump_json(), "progress.json": "{}"}
    name, labels = names.status_name(run), {names.RUN: run, names.PIPELINE: status.pipeline, names.ROLE: "status"}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data}
    if cluster.patch("ConfigMap", name, {"data": data}) is None:
        cluster.create(manifest)
    return status


def purge(cluster: Cluster, run: str) -> None:
    """Remove what the cluster keeps of a run that has ended: its driver's Job, those of its steps, and its ConfigMaps."""
    job = driver_job(cluster, run)
    if job:
        cluster.delete("Job", job["metadata"]["name"])
    _end_steps(cluster, run, job)
    for name in (run, names.status_name(run)):
        cluster.delete("ConfigMap", name)


def forget(cluster: Cluster, before: datetime, *, dry_run: bool = False) -> list[str]:
    """Remove the mirrored statuses of runs that had ended by then and whose drivers' Jobs are gone: nothing owns them. Which those are."""
    driven = {names.run_of(job) for job in cluster.list("Job", {names.ROLE: "driver"})}
    forgotten = []
    for mirror in cluster.list("ConfigMap", {names.ROLE: "status"}):
        run = _run_of(mirror)
        with suppress(ValidationError, ValueError):  # one that cannot be read is shown as such by `ls`, and is a person's to remove
            status = RunStatus.model_validate_json((mirror.get("data") or {}).get("status.json", ""))
            if run not in driven and status.ended and datetime.fromisoformat(status.ended) < before:
                forgotten.append(run)
    for run in forgotten if not dry_run else ():
        cluster.delete("ConfigMap", names.status_name(run))
    return sorted(forgotten)


def events(cluster: Cluster, job: str) -> Sequence[Manifest]:
    """What was said of a Job, such as why it has no pod; that one may not look, where one may not."""
    try:
        return cluster.list("Event", fields={"involvedObject.kind": "Job", "involvedObject.name": job})
    except NoPermission as failure:
        return [{"type": "Warning", "reason": "the Job has no pod yet, and events may not be read", "message": failure.what}]


def config_of(spec: Manifest) -> str:
    """The ConfigMap that tells the drivers of a Job's spec what to run; empty where it names none."""
    volumes = spec.get("template", {}).get("spec", {}).get("volumes") or []
    return next((str(volume["configMap"]["name"]) for volume in volumes if volume["name"] == "run" and "configMap" in volume), "")


def _end(cluster: Cluster, run: str, clock: Callable[[], float], sleep: Callable[[float], None]) -> str:
    """Delete the driver, and when its pods are gone, so that it makes no more of them, the Jobs of its steps. A silent node's pod never goes.

    The run's id: its driver may have named it while it was ended.
    """
    driver = driver_job(cluster, run)
    if driver:
        name = driver["metadata"]["name"]
        cluster.delete("Job", name, wait_for_pods=True)
        until = clock() + OBEY
        while (left := cluster.get("Job", name)) is not None:
            driver = left
            if clock() >= until:
                break
            sleep(LOOK)
        run = names.run_of(driver)
    _end_steps(cluster, run, driver)
    return run


def _end_steps(cluster: Cluster, run: str, driver: Manifest | None, *, live: bool = False) -> None:
    """Delete the Jobs of a run's steps, except those that another run has found and needs. live: those alone that have not ended."""
    own = {run, driver["metadata"]["name"]} if driver else {run}
    for job in cluster.list("Job", {names.RUN: run, names.ROLE: "step"}):
        owners = {owner["name"] for owner in job["metadata"].get("ownerReferences") or []}
        if owners <= own and not (live and ends.finished(job)):
            cluster.delete("Job", job["metadata"]["name"], uid=job["metadata"]["uid"])


def _again(cluster: Cluster, run: str, seen: Seen) -> Seen:
    """The run as it stands; as it was seen, where nothing of it is left."""
    with suppress(NoInput):
        return look(cluster, run)
    return seen


def _seen(
    run: str,
    job: Manifest | None,
    mirror: Manifest | None,
    pods: Sequence[Manifest],
    *,
    config: Manifest | None = None,
    words: Sequence[Manifest] = (),
) -> Seen:
    """config: the run's pipeline, for where the mirror tells no steps. words: events of the driver's Job."""
    data: Mapping[str, str] = (mirror or {}).get("data") or {}
    try:
        status = RunStatus.model_validate_json(data["status.json"]) if "status.json" in data else _pending(run, job, mirror, config)
        progress = {name: Progress.model_validate(found) for name, found in json.loads(data.get("progress.json", "{}")).items()}
        jobs, told = json.loads(data.get("jobs.json", "{}")), json.loads(data.get("results.json", "{}"))
    except (ValidationError, ValueError) as error:
        what, remedy = "what the cluster says of the run cannot be read", f"kubectl delete configmap {names.status_name(run)}"
        raise Corrupt(what, where=f"ConfigMap {names.status_name(run)}", why=str(error)[:300], remedy=remedy) from error
    ended = ends.finished(job) if job else None
    if ended and status.state is RunState.RUNNING and job:
        status = _settled(status, job, pods)
    waits = waits_for(job, pods, words) if job and not ended and "status.json" not in data else ""
    running = {name: found for name, found in progress.items() if name in status.steps and status.steps[name].state is StepState.RUNNING}
    return Seen(status, job is not None and not ended, waits, jobs, running, told)


def _pending(run: str, job: Manifest | None, mirror: Manifest | None, config: Manifest | None) -> RunStatus:
    """The status of a run whose driver has not said anything yet."""
    made = job or mirror or {"metadata": {}}
    labels, since = made["metadata"].get("labels", {}), made["metadata"].get("creationTimestamp", "")
    steps: dict[str, StepStatus] = {}
    if config:
        with suppress(Usage):  # a chart's values may hold anything: its driver says what is wrong with it
            pipeline = from_document(document.parse(config["data"][render.PIPELINE_FILE], render.PIPELINE_FILE))
            steps = {name: StepStatus(verb=pipeline.steps[name].verb) for name in pipeline.order()}
    return RunStatus(run=run, pipeline=labels.get(names.PIPELINE, ""), started=since.replace("Z", "+00:00"), steps=steps)


def _settled(status: RunStatus, job: Manifest, pods: Sequence[Manifest]) -> RunStatus:
    """The end of a run whose driver ended without a last word, from its Job."""
    outcome = ends.outcome(job, pods)
    if not outcome.exit_code:
        return status.over(RunState.DONE, 0)
    said = [f"the driver ended: {': '.join(filter(None, [outcome.where, outcome.what, outcome.why]))}", outcome.remedy]
    state = RunState.CANCELLED if outcome.exit_code == Interrupted.exit_code else RunState.FAILED
    return status.over(state, outcome.exit_code, *filter(None, said)).model_copy(update={"ended": _ended(job) or utc_now()})


def _ended(job: Manifest) -> str:
    times = [str(found.get("lastTransitionTime", "")) for found in job.get("status", {}).get("conditions") or []]
    return max(times, default="").replace("Z", "+00:00")


def _run_of(mirror: Manifest) -> str:
    return str(mirror["metadata"]["name"]).removesuffix(names.status_name(""))


def _of(pods: Sequence[Manifest], job: Manifest | None) -> list[Manifest]:
    name = job["metadata"]["name"] if job else ""
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(names.JOB) == name]
