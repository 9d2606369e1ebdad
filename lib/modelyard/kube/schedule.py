"""A pipeline on a schedule: a CronJob whose Jobs are drivers, and the ConfigMap that tells them what to run. Pure: plain values in, dicts out.

The driver finds its run by itself: it is named by the pipeline, the image and the tick that its Job is for. So one ConfigMap serves all ticks; it is
immutable, and another pipeline is another ConfigMap. A chart writes the same two objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modelyard.errors import Usage
from modelyard.kube import names, pods, render
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.spec import Pipeline, digest

STARTING_DEADLINE = 3600
"""Seconds after a tick for which its Job is still made, where the controller was away or an earlier one was at work. The latest tick alone is."""
KEPT_JOBS = 20
"""How many Jobs that succeeded, and how many that failed, are kept; older ones go with their pods. Runs stay in the yard."""
LONGEST_NAME = 52
"""Letters of a CronJob's name, so that its Jobs' names fit a label."""
RELEASE = "meta.helm.sh/release-name"
"""The annotation of what Helm looks after."""
SUSPENDED = f"{names.DOMAIN}/suspended"
"""Annotation of the CronJob: spans `FROM/TO` in which it was suspended, the last without TO while it is."""
SINCE = f"{names.DOMAIN}/since"
"""Annotation of the CronJob: from when on its ticks are counted by this expression."""


def manifests(pipeline: Pipeline, settings: Mapping[str, Any], place: Place, *, cron: str, time_zone: str, since: str = "") -> list[Manifest]:
    """The ConfigMap and the CronJob of a schedule. cron: five fields, checked. time_zone: an IANA name. since: for the annotation.

    settings: as for `render.driver`. Raises Usage: what cannot work on a cluster.
    """
    render.check(pipeline, settings, place)
    name = pipeline.name
    if len(name) > LONGEST_NAME:
        why = f"it has {len(name)} letters, and {LONGEST_NAME} are allowed"
        raise Usage(f"{name!r} cannot be the name of a schedule", why=why, remedy="shorten the pipeline's name")
    labels = pods.labels("driver", place, pipeline=pipeline.name, schedule=name)
    data = render.run_data(pipeline, settings, place, "")
    config = f"{name}-{digest(data)[: names.SHOWN]}"
    annotations = {names.DIGEST: names.pipeline_digest(pipeline, place.image)}

    def metadata(called: str, **more: str) -> Manifest:
        return {"name": called, "namespace": place.namespace, "labels": dict(labels), "annotations": annotations | more}

    stamped = metadata(name, **({SINCE: since} if since else {}))
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(config), "immutable": True, "data": data},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": stamped, "spec": spec(place, config, labels, cron=cron, time_zone=time_zone)},
    ]


def spec(place: Place, config: str, labels: Mapping[str, str], *, cron: str, time_zone: str) -> Manifest:
    """The spec of a CronJob of drivers. config: the ConfigMap that tells them what to run. labels: of their Jobs and pods, without a run."""
    job = render.driver_spec(place, config, labels)
    del job["ttlSecondsAfterFinished"]  # the history limits say what is kept, so that the last ticks can be told
    return {
        "schedule": cron,
        "timeZone": time_zone,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": STARTING_DEADLINE,
        "successfulJobsHistoryLimit": KEPT_JOBS,
        "failedJobsHistoryLimit": KEPT_JOBS,
        "suspend": False,
        "jobTemplate": {"metadata": {"labels": dict(labels)}, "spec": job},
    }


def triggered(schedule: Manifest, now: datetime) -> Manifest:
    """The Job of a tick that a person asks for now, made from the CronJob's template as the API server has it, and gone with it."""
    metadata, template = schedule["metadata"], schedule["spec"]["jobTemplate"]
    marks = template.get("metadata") or {}
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{metadata['name']}-t{int(now.timestamp()):x}",
            "labels": dict(marks.get("labels") or {}),
            "annotations": {**(marks.get("annotations") or {}), names.TICK: f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def suspensions(schedule: Manifest) -> list[tuple[datetime, datetime | None]]:
    """Spans in which the schedule was suspended by us, the oldest first; one that goes on has no end. Raises Usage: another hand wrote them."""
    spans = [span.partition("/") for span in _annotation(schedule, SUSPENDED).split()]
    return [(_time(schedule, SUSPENDED, begin), _time(schedule, SUSPENDED, end) if end else None) for begin, _, end in spans]


def since(schedule: Manifest) -> datetime:
    """From when on its ticks are counted by its expression; long ago where nothing says so. Raises Usage: another hand wrote it."""
    text = _annotation(schedule, SINCE)
    return _time(schedule, SINCE, text) if text else datetime.min.replace(tzinfo=UTC)


def suspending(schedule: Manifest, now: datetime, *, suspend: bool) -> Manifest:
    """The patch that suspends or resumes, and keeps when that was, of the last spans alone."""
    spans = [[begin, end] for begin, end in suspensions(schedule)]
    at = now.astimezone(UTC).replace(microsecond=0)
    if suspend and not (spans and spans[-1][1] is None):
        spans.append([at, None])
    elif not suspend and spans and spans[-1][1] is None:
        spans[-1][1] = at
    text = " ".join("/".join(f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else "" for time in span) for span in spans[-KEPT_JOBS:])
    return {"metadata": {"annotations": {SUSPENDED: text or None}}, "spec": {"suspend": suspend}}


def _annotation(of: Manifest, name: str) -> str:
    return str((of["metadata"].get("annotations") or {}).get(name, ""))


def _time(of: Manifest, annotation: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        name = of["metadata"]["name"]
        where, remedy = f"CronJob {name}: annotation {annotation}", f"kubectl annotate cronjob {name} {annotation}-"
        raise Usage(f"{text[:100]!r} is no time", where=where, why=str(error), remedy=remedy) from error
