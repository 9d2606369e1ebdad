"""Schedules of a namespace: apply, look at, trigger, suspend and remove them. What the cluster has is the only record.

A schedule is a CronJob with the label `modelyard.dev/schedule`. Applying it checks everything before it creates anything, and asks the API server the
same. ConfigMaps of former pipelines stay while a Job that has not ended needs them, and one apply longer: a controller may still know the old one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelyard import document
from modelyard.errors import Failure, NoInput, NoPermission, Unavailable, Usage, suggest
from modelyard.kube import cron as expressions
from modelyard.kube import ends, names, render, runs, schedule, ticks
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.place import Place
from modelyard.run.remote import checked, made_ready
from modelyard.run.settings import Settings
from modelyard.spec import Pipeline, from_document
from modelyard.yard.runs import RunState, RunStatus

TRIES = 5
"""How often an apply looks again where somebody else applies the same."""


@dataclass(frozen=True)
class Seen:
    """A schedule as it was seen. upcoming: its next tick; last: what has come of the ticks asked for, the newest first."""

    name: str
    found: Manifest
    upcoming: str
    last: Sequence[ticks.Tick]

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        spec, labels = self.found["spec"], self.found["metadata"].get("labels") or {}
        return {
            "schedule": self.name,
            "pipeline": labels.get(names.PIPELINE, ""),
            "cron": spec["schedule"],
            "timeZone": spec.get("timeZone") or "",
            "suspended": bool(spec.get("suspend")),
            "next": self.upcoming,
            "release": release(self.found),
            "ticks": [tick.described() for tick in self.last],
        }


def apply(
    pipeline: Pipeline, settings: Settings, place: Place, cluster: Cluster, *, cron: str, time_zone: str | None = None, now: datetime | None = None
) -> tuple[str, Seen]:
    """Put a pipeline on a schedule: (`created`, `updated` or `unchanged`, the schedule). It is suspended where it was before.

    time_zone: default the one that the schedule has, else this machine's. Raises what `submit` raises; Usage: no such expression or zone, a name that
    somebody else's CronJob has, what the API server would not take.
    """
    cron = expressions.check(cron)
    zone = expressions.check_zone(time_zone) if time_zone else ""
    told = checked(pipeline, settings, place)
    place = made_ready(place, cluster, names.DRIVER_ACCOUNT)
    now = now or datetime.now(UTC)
    for _ in range(TRIES):
        found = cluster.get("CronJob", pipeline.name)
        if found:
            _check_ours(found, pipeline.name, changing=True)
            _check_stays(found, pipeline.name)
        zone = zone or (found or {"spec": {}})["spec"].get("timeZone") or expressions.local_zone()
        since = _since(found, cron, zone, now)
        config, wanted = schedule.manifests(pipeline, told, place, cron=cron, time_zone=zone, since=since)
        for manifest in (config, wanted):
            _ask(cluster, manifest)
        made_config = _provide(cluster, config, found)
        made = _change(cluster, found, wanted) if found else _create(cluster, wanted, made_config)
        if made is None:
            continue  # somebody made it, or removed it, meanwhile
        if cluster.patch("ConfigMap", config["metadata"]["name"], {"metadata": {"ownerReferences": [_reference(made)]}}) is None:
            continue  # it went with a schedule of that name that was removed meanwhile
        _sweep(cluster, made, found)
        change = "created" if found is None else "unchanged" if _same(found, made) else "updated"
        return change, Seen(pipeline.name, made, ticks.upcoming(made, now), ())
    raise Unavailable(f"the schedule {pipeline.name!r} is made and removed all the time", where=place.namespace, remedy="apply it again")


def every(cluster: Cluster, now: datetime | None = None) -> list[Seen]:
    """All schedules of the namespace, by name, each with its last tick."""
    now = now or datetime.now(UTC)
    found = {one["metadata"]["name"]: one for one in cluster.list("CronJob") if _marked(one)}
    jobs = cluster.list("Job", {names.ROLE: "driver"}) if found else []
    statuses = _statuses(cluster) if found else {}
    seen = []
    for name, one in sorted(found.items()):
        own = [job for job in jobs if (job["metadata"].get("labels") or {}).get(names.SCHEDULE) == name]
        seen.append(Seen(name, one, ticks.upcoming(one, now), ticks.history(one, own, statuses, now=now, limit=1)))
    return seen


def look(cluster: Cluster, name: str, *, limit: int, now: datetime | None = None) -> Seen:
    """A schedule with its last ticks. Raises NoInput: there is none of that name."""
    found = get(cluster, name)
    jobs = cluster.list("Job", {names.ROLE: "driver", names.SCHEDULE: name})
    statuses = _statuses(cluster)
    config = cluster.get("ConfigMap", runs.config_of(found["spec"]["jobTemplate"]["spec"]))
    now = now or datetime.now(UTC)
    last = ticks.history(found, jobs, statuses, now=now, limit=limit, events=_events(cluster, name), prefix=_prefix(config))
    return Seen(name, found, ticks.upcoming(found, now), last)


def trigger(cluster: Cluster, name: str, now: datetime | None = None) -> str:
    """Make a tick now: the name of its driver's Job, by which its run is found. Raises NoInput; Usage: one is at work."""
    found = get(cluster, name)
    _check_stays(found, name)
    if live := _live(cluster, name):
        why, remedy = "a schedule runs one tick at a time", f"modelyard wait {live} --on kubernetes, or modelyard cancel {live} --on kubernetes"
        raise Usage(f"{live} of the schedule {name} is at work", why=why, remedy=remedy)
    job = schedule.triggered(found, now or datetime.now(UTC))
    if cluster.create(job) is None:
        raise Usage(f"the schedule {name} was triggered a moment ago", remedy=f"modelyard schedule show {name}")
    return str(job["metadata"]["name"])


def suspend(cluster: Cluster, name: str, now: datetime | None = None, *, suspended: bool) -> tuple[bool, Seen]:
    """Suspend a schedule or let it go on: (whether that changed anything, the schedule). A run that is at work goes on. Raises NoInput."""
    found = get(cluster, name)
    now = now or datetime.now(UTC)
    if bool(found["spec"].get("suspend")) is suspended:
        return False, Seen(name, found, ticks.upcoming(found, now), ())
    made = cluster.patch("CronJob", name, schedule.suspending(found, now, suspend=suspended))
    if made is None:
        raise _none(cluster, name)
    return True, Seen(name, made, ticks.upcoming(made, now), ())


def remove(cluster: Cluster, name: str) -> None:
    """Remove a schedule with its ConfigMaps and the Jobs of its ticks; runs stay in the yard, and how they ended too.

    Raises NoInput; Usage: a tick is at work, which would go with it, or Helm looks after the schedule.
    """
    found = get(cluster, name)
    _check_ours(found, name, changing=True)
    cluster.patch("CronJob", name, {"spec": {"suspend": True}})  # no tick begins between the look and the end
    try:
        if live := _live(cluster, name):
            remedy = f"modelyard wait {live} --on kubernetes, or modelyard cancel {live} --on kubernetes; then again"
            raise Usage(f"{live} of the schedule {name} is at work", why="it would end with the schedule", remedy=remedy)
        cluster.delete("CronJob", name, uid=found["metadata"]["uid"])
    except (Failure, KeyboardInterrupt):
        cluster.patch("CronJob", name, {"spec": {"suspend": bool(found["spec"].get("suspend"))}})
        raise
    for config in cluster.list("ConfigMap", {names.ROLE: "driver", names.SCHEDULE: name}):
        cluster.delete("ConfigMap", config["metadata"]["name"], uid=config["metadata"]["uid"])


def get(cluster: Cluster, name: str) -> Manifest:
    """The CronJob of a schedule. Raises NoInput: there is none; Usage: the CronJob of that name is somebody else's."""
    found = cluster.get("CronJob", name)
    if found is None:
        raise _none(cluster, name)
    _check_ours(found, name, changing=False)
    return found


def release(found: Manifest) -> str:
    """The Helm release that looks after a schedule; empty where none does."""
    return str((found["metadata"].get("annotations") or {}).get(schedule.RELEASE, ""))


def _none(cluster: Cluster, name: str) -> NoInput:
    known = [one["metadata"]["name"] for one in cluster.list("CronJob") if _marked(one)]
    remedy = suggest(name, known) if known else "modelyard schedule apply FILE --cron '0 3 * * *'"
    return NoInput(f"there is no schedule {name!r}", where=f"namespace {cluster.namespace}", remedy=remedy)


def _marked(found: Manifest) -> bool:
    return bool((found["metadata"].get("labels") or {}).get(names.SCHEDULE) == found["metadata"]["name"])


def _check_ours(found: Manifest, name: str, *, changing: bool) -> None:
    where = f"CronJob {name}"
    if not _marked(found):
        why, remedy = f"it has no label {names.SCHEDULE}={name}", "give the pipeline another name, or remove that CronJob"
        raise Usage(f"the CronJob {name!r} is no schedule of modelyard's", where=where, why=why, remedy=remedy)
    if changing and (owner := release(found)):
        remedy = f"change the values and: helm upgrade {owner} CHART"
        raise Usage(f"the schedule {name!r} belongs to the Helm release {owner!r}", where=where, why="its next upgrade would undo it", remedy=remedy)


def _check_stays(found: Manifest, name: str) -> None:
    if found["metadata"].get("deletionTimestamp"):
        where = f"CronJob {name}"
        raise Unavailable(f"the schedule {name!r} is being removed", where=where, remedy="when it is gone: modelyard schedule apply")


def _since(found: Manifest | None, cron: str, zone: str, now: datetime) -> str:
    """From when on ticks are counted by this expression; empty for from the beginning."""
    if found is None:
        return ""
    if (found["spec"]["schedule"], found["spec"].get("timeZone")) != (cron, zone):
        return ticks.written(now)
    return str((found["metadata"].get("annotations") or {}).get(schedule.SINCE, ""))


def _ask(cluster: Cluster, manifest: Manifest) -> None:
    """Raise Usage where the API server would not take an object."""
    causes = cluster.dry_run(manifest).causes
    if causes:
        why = "; ".join(filter(None, [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]))
        where = f"{manifest['kind']} {manifest['metadata']['name']}"
        raise Usage("the API server does not take the schedule", where=where, why=why, remedy="modelyard check FILE says what is in the way")


def _provide(cluster: Cluster, config: Manifest, of: Manifest | None) -> bool:
    """See that the ConfigMap is there; whether it is made now. of: the schedule as it is. Raises Usage: one of its name says something else."""
    if cluster.create(config) is not None:
        return True
    name = config["metadata"]["name"]
    found = cluster.get("ConfigMap", name)
    owners = {owner["uid"] for owner in (found or {"metadata": {}})["metadata"].get("ownerReferences") or []}
    if found is not None and owners and (of is None or of["metadata"]["uid"] not in owners):  # it is about to go with a schedule that was removed
        cluster.delete("ConfigMap", name, uid=found["metadata"]["uid"])
        return cluster.create(config) is not None
    if found is not None and found.get("data") != config["data"]:
        raise Usage(f"the ConfigMap {name!r} is not the schedule's", where=f"ConfigMap {name}", remedy=f"kubectl delete configmap {name}")
    return False


def _create(cluster: Cluster, wanted: Manifest, config_is_new: bool) -> Manifest | None:
    """Make the CronJob; None where there is one now. A ConfigMap that was made for it goes where it cannot be made."""
    try:
        return cluster.create(wanted)
    except Unavailable:
        raise  # it may have been made all the same, and its ticks need the ConfigMap
    except Failure:
        if config_is_new:
            cluster.delete("ConfigMap", runs.config_of(wanted["spec"]["jobTemplate"]["spec"]))
        raise


def _change(cluster: Cluster, found: Manifest, wanted: Manifest) -> Manifest | None:
    """Make a CronJob what it is wanted to be, but for whether it is suspended; None where it is gone."""
    has, spec = ({key: value for key, value in one["spec"].items() if key != "suspend"} for one in (found, wanted))
    metadata = {key: wanted["metadata"][key] for key in ("labels", "annotations")}
    return cluster.patch("CronJob", wanted["metadata"]["name"], {"metadata": metadata, "spec": _replacing(has, spec)})


def _replacing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that leaves of `found` nothing but what is wanted; the API server fills in its defaults again."""
    patch: dict[str, Any] = {key: None for key in found if key not in wanted}
    for key, value in wanted.items():
        before = found.get(key)
        patch[key] = _replacing(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return patch


def _same(found: Manifest, made: Manifest) -> bool:
    return found["spec"] == made["spec"] and all(found["metadata"].get(key) == made["metadata"].get(key) for key in ("labels", "annotations"))


def _sweep(cluster: Cluster, made: Manifest, before: Manifest | None) -> None:
    """Remove ConfigMaps older than the one that was in force until now, unless a Job that has not ended needs them."""
    configs = cluster.list("ConfigMap", {names.ROLE: "driver", names.SCHEDULE: made["metadata"]["name"]})
    needed = {runs.config_of(one["spec"]["jobTemplate"]["spec"]) for one in (made, before) if one}
    jobs = cluster.list("Job", {names.ROLE: "driver", names.SCHEDULE: made["metadata"]["name"]})
    needed |= {runs.config_of(job["spec"]) for job in jobs if not ends.finished(job)}
    since = min((one["metadata"]["creationTimestamp"] for one in configs if one["metadata"]["name"] in needed), default="")
    for config in configs:
        if config["metadata"]["name"] not in needed and config["metadata"]["creationTimestamp"] <= since:
            cluster.delete("ConfigMap", config["metadata"]["name"], uid=config["metadata"]["uid"])


def _reference(made: Manifest) -> Manifest:
    return {"apiVersion": "batch/v1", "kind": "CronJob", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}


def _live(cluster: Cluster, name: str) -> str:
    """The run of the schedule that is at work; empty where none is. A Job takes some seconds more than its run to have ended."""
    jobs = [job for job in cluster.list("Job", {names.ROLE: "driver", names.SCHEDULE: name}) if not ends.finished(job)]
    statuses = _statuses(cluster) if jobs else {}
    live = [names.run_of(job) for job in jobs]
    return next((run for run in live if run not in statuses or statuses[run].state is RunState.RUNNING), "")


def _statuses(cluster: Cluster) -> dict[str, RunStatus]:
    return {status.run: status for status in runs.runs(cluster)}


def _events(cluster: Cluster, name: str) -> Sequence[Manifest]:
    """What the controller said of the CronJob lately; nothing, where one may not look."""
    try:
        return cluster.list("Event", fields={"involvedObject.kind": "CronJob", "involvedObject.name": name})
    except NoPermission:
        return ()


def _prefix(config: Manifest | None) -> ticks.Prefix | None:
    """How runs of the schedule are named, by tick, for those whose Job is gone; None where its ConfigMap does not say."""
    try:
        data = (config or {"data": {}})["data"]
        pipeline = from_document(document.parse(data[render.PIPELINE_FILE], render.PIPELINE_FILE))
        image = str(json.loads(data[render.RUN_FILE])["place"]["image"])
    except (KeyError, TypeError, ValueError, Usage):
        return None  # another hand wrote it
    return lambda tick: names.run_name(pipeline, image, 1, tick).removesuffix("1")
