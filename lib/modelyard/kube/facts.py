"""What can be known about a run, or one of its steps, right now: the objects that an answer needs, in at most ten calls of the API.

What may not be looked at, or what the cluster did not answer about, is not known, and the facts say so: only that there is no such run, or nothing
at all may be seen of it, is a failure. Nothing is judged here; `diagnose` does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, suggest
from modelyard.kube import ends, names, waits
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.render import QUEUE
from modelyard.kube.room import Space, spaces
from modelyard.yard.runs import Progress, RunState, RunStatus, StepState, StepStatus

LIMIT = 10
"""Calls of the API for one answer, at most."""
CLAIMS = 2
"""Claims of a pod that are looked at: the yard, and another one."""
DIAGNOSES = "diagnoses.json"
"""Key of a run's ConfigMap `<run>-status`: step -> Diagnosis, of steps that failed."""

_OURS = {"app.kubernetes.io/name": "modelyard"}
_EXACT = re.compile(r"[a-z0-9-]+-r\d+")

Found = TypeVar("Found")


@dataclass(frozen=True)
class Facts:
    """run: its id. step: empty where the facts are about the run's driver.

    status: as the run's driver last mirrored it, None where it never did. job: of the step or of the driver. pods: of that Job, the oldest first.
    made_by: the other run whose Job it is. events: warnings about the Job, its pods and their claims, the oldest first. claims: name -> claim, None
    where there is none. spaces: the nodes; None where they were not looked at or may not be. workload, queue: Kueue's. last_line: when a running
    container last wrote something. stored: what was found out when a step failed. unknown: what could not be looked at -> why.
    """

    namespace: str
    run: str
    step: str = ""
    status: RunStatus | None = None
    job: Manifest | None = None
    pods: Sequence[Manifest] = ()
    made_by: str = ""
    events: Sequence[Manifest] = ()
    claims: Mapping[str, Manifest | None] = field(default_factory=dict)
    storage_class: Manifest | None = None
    spaces: Sequence[Space] | None = None
    nodes: Sequence[Manifest] = ()
    workload: Manifest | None = None
    queue: Manifest | None = None
    progress: Progress | None = None
    last_line: datetime | None = None
    stored: Diagnosis | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def ending(self) -> StepStatus | None:
        """The step as the run's driver told of it."""
        return self.status.steps.get(self.step) if self.status else None

    @property
    def pod(self) -> Manifest | None:
        """The youngest one."""
        return self.pods[-1] if self.pods else None


def gather(cluster: Cluster, run: str | None = None, step: str | None = None) -> Facts:
    """The facts about a step, or about the one that says most of the run: which failed, else waits, else runs, else the driver.

    run: its id, or the beginning of one; without it the latest run. Raises NoInput: there is no such run or step; what the cluster refuses.
    """
    return _Gathering(cluster).gather(run, step)


@dataclass
class _Run:
    """Objects of one run. others: Jobs of other runs, where they were listed."""

    id: str
    jobs: Sequence[Manifest]
    data: Mapping[str, str]
    others: Sequence[Manifest] = ()

    @property
    def driver(self) -> Manifest | None:
        drivers = [job for job in self.jobs if _label(job, names.ROLE) == "driver"]
        return max(drivers, key=_made, default=None)

    def steps(self, step: str = "") -> list[Manifest]:
        found = [job for job in self.jobs if _label(job, names.ROLE) == "step" and step in ("", _label(job, names.STEP))]
        return sorted(found, key=_made)


class _Gathering:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._left = LIMIT
        self._unknown: dict[str, str] = {}

    def gather(self, asked: str | None, step: str | None) -> Facts:
        run = self._run(asked)
        status = self._read(run, "status.json", RunStatus.model_validate_json)
        if step and step not in {*(status.steps if status else ()), *(_label(job, names.STEP) for job in run.steps())}:
            known = status.steps if status else dict.fromkeys(_label(job, names.STEP) for job in run.steps())
            remedy = suggest(step, known) if known else "its driver has not begun: leave the step out"
            raise NoInput(f"{run.id} has no step {step!r}", where=f"namespace {self._cluster.namespace}", remedy=remedy)
        named = self._read(run, "jobs.json", lambda text: {str(name): str(job) for name, job in json.loads(text).items()}) or {}
        if ended := _ended(status, step):  # nothing more is looked at where it has been found out already
            told = self._read(run, DIAGNOSES, lambda text: {name: Diagnosis.model_validate(one) for name, one in json.loads(text).items()}) or {}
            if ended in told:
                return self._facts(run, status, ended, stored=told[ended])
        pods = self._list("Pod", {names.RUN: run.id}, "pods")
        if not step and run.driver and not any(_label(pod, names.ROLE) == "driver" for pod in pods):
            # A chart's or a schedule's: its pods were made before the run had a name.
            pods = [*pods, *self._list("Pod", {names.JOB: run.driver["metadata"]["name"]}, "pods")]
        chosen = step if step is not None else _focus(run, status, pods, named)
        job = _job_of(run, chosen, named, status)
        made_by = ""
        if chosen and job is None and named.get(chosen) and _runs(status, chosen):
            job = next((one for one in run.others if one["metadata"]["name"] == named[chosen]), None) or self._get("Job", named[chosen])
            made_by = _label(job, names.RUN) if job else ""
            pods = self._list("Pod", {names.JOB: named[chosen]}, "pods") if job else pods
        own = sorted((pod for pod in pods if job and _label(pod, names.JOB) == job["metadata"]["name"]), key=_made)
        progress = self._read(run, "progress.json", lambda text: {name: Progress.model_validate(one) for name, one in json.loads(text).items()}) or {}
        facts = self._facts(run, status, chosen, job=job, pods=own, made_by=made_by, progress=progress.get(chosen))
        return replace(self._around(facts), unknown=dict(self._unknown))

    def _facts(self, run: _Run, status: RunStatus | None, step: str, **found: object) -> Facts:
        return replace(Facts(self._cluster.namespace, run.id, step, status), unknown=dict(self._unknown), **found)  # type: ignore[arg-type]

    # --- which run

    def _run(self, asked: str | None) -> _Run:
        if asked and _EXACT.fullmatch(asked):
            jobs = self._jobs({names.RUN: asked})
            mirror = self._get("ConfigMap", names.status_name(asked))
            if jobs or mirror:
                return _Run(asked, jobs, (mirror or {}).get("data") or {})
        jobs = [job for job in self._jobs(_OURS) if _label(job, names.ROLE) in ("driver", "step")]
        mirrors = {one["metadata"]["name"]: one for one in self._list("ConfigMap", {names.ROLE: "status"}, "the status of runs")}
        made: dict[str, str] = {}
        for one in (*mirrors.values(), *jobs):
            run = _run_of(one)
            made[run] = max(made.get(run, ""), _made(one)[0]) if _label(one, names.ROLE) != "driver" else _made(one)[0]
        run = self._named(asked, sorted(made, key=lambda name: (made[name], name), reverse=True))
        own = [job for job in jobs if _run_of(job) == run]
        return _Run(run, own, (mirrors.get(names.status_name(run)) or {}).get("data") or {}, [job for job in jobs if _run_of(job) != run])

    def _named(self, asked: str | None, known: Sequence[str]) -> str:
        where = f"namespace {self._cluster.namespace}"
        if not known:
            remedy = "modelyard run FILE --on kubernetes"
            raise NoInput(f"there is no run {asked!r}" if asked else "there is no run yet", where=where, remedy=remedy)
        matching = [name for name in known if name == asked] or [name for name in known if name.startswith(asked or "")][: None if asked else 1]
        if len(matching) == 1:
            return matching[0]
        if matching:
            why, remedy = ", ".join(matching[:5]), "write more of the name"
            raise NoInput(f"{asked!r} begins the names of {len(matching)} runs", where=where, why=why, remedy=remedy)
        raise NoInput(f"there is no run {asked!r}", where=where, remedy=suggest(asked or "", known))

    # --- what is around the Job

    def _around(self, facts: Facts) -> Facts:
        """What the state of the Job makes worth looking at."""
        job, pod = facts.job, facts.pod
        if job is None or ends.finished(job):
            return facts
        if job["metadata"].get("deletionTimestamp"):
            return replace(facts, nodes=self._node(ends.node(pod))) if pod and ends.node(pod) and not ends.terminated(pod) else facts
        if job["spec"].get("suspend"):
            return self._queued(facts)
        placed = bool(pod and ends.node(pod))
        healthy = pod is not None and waits.working([pod]) and not absent(pod) and not pod["metadata"].get("deletionTimestamp")
        if healthy and pod is not None:
            return replace(facts, last_line=self._last_line(pod))
        if pod and ends.terminated(pod) and not pod["metadata"].get("deletionTimestamp"):
            return facts
        facts = replace(facts, events=self._events(facts))
        if pod is None:
            return facts
        if placed:
            waiting_for_volume = not waits.working([pod]) and not absent(pod)
            facts = self._claimed(facts) if waiting_for_volume and _mounting(facts.events) else facts
            return replace(facts, nodes=self._node(ends.node(pod))) if absent(pod) or pod["metadata"].get("deletionTimestamp") else facts
        if not unscheduled(pod):
            return facts
        facts = self._claimed(facts)
        if any(claim is None or claim["metadata"].get("deletionTimestamp") for claim in facts.claims.values()):
            return facts
        unbound = [claim for claim in facts.claims.values() if claim and claim.get("status", {}).get("phase") != "Bound"]
        if unbound and "PersistentVolume" in unscheduled(pod):
            name = unbound[0]["spec"].get("storageClassName")
            return replace(facts, storage_class=self._get("StorageClass", name) if name else None)
        return self._roomy(facts)

    def _queued(self, facts: Facts) -> Facts:
        job = facts.job or {}
        queue = _label(job, QUEUE)
        if not queue:
            return facts
        workloads = self._list("Workload", {"kueue.x-k8s.io/job-uid": job["metadata"].get("uid", "")}, "Workloads of Kueue")
        return replace(facts, workload=next(iter(workloads), None), queue=self._get("LocalQueue", queue))

    def _claimed(self, facts: Facts) -> Facts:
        pod = facts.pod or {}
        volumes = _claims_of(pod)
        said = unscheduled(pod)
        volumes.sort(key=lambda name: (f'"{name}"' not in said, name != _label(pod, names.YARD)))
        most = min(CLAIMS, self._left - 2)  # nodes, and what is in use there, come after
        found = {name: self._get("PersistentVolumeClaim", name) for name in list(dict.fromkeys(volumes))[:most]}
        return replace(facts, claims={name: claim for name, claim in found.items() if f"PersistentVolumeClaim {name}" not in self._unknown})

    def _roomy(self, facts: Facts) -> Facts:
        if (nodes := self._list("Node", None, "nodes")) or "nodes" not in self._unknown:
            pods = self._list("Pod", None, "what is in use on nodes", everywhere=True)
            try:
                return replace(facts, nodes=nodes, spaces=spaces(nodes, None if "what is in use on nodes" in self._unknown else pods))
            except ValueError as error:
                self._unknown["nodes"] = str(error)
        return facts

    def _node(self, name: str) -> Sequence[Manifest]:
        return [node] if (node := self._get("Node", name)) else []

    def _events(self, facts: Facts) -> Sequence[Manifest]:
        pods = [pod["metadata"]["name"] for pod in facts.pods]
        claims = [claim for pod in facts.pods for claim in _claims_of(pod)]
        about = {
            ("Job", (facts.job or {})["metadata"]["name"]),
            *(("Pod", name) for name in pods),
            *(("PersistentVolumeClaim", one) for one in claims),
        }
        found = self._list("Event", None, "events", fields={"type": "Warning"})
        found = [{**event, "involvedObject": event.get("involvedObject") or {}} for event in found]
        told = [event for event in found if (event["involvedObject"].get("kind"), event["involvedObject"].get("name")) in about]
        return sorted(told, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")))

    def _last_line(self, pod: Manifest) -> datetime | None:
        try:
            lines = list(self._cluster.logs(pod["metadata"]["name"], tail=1, container=_label(pod, names.ROLE)))
            return datetime.fromisoformat(lines[-1].partition(b" ")[0].decode()[:19] + "+00:00") if lines else None
        except (Failure, ValueError) as failure:
            self._unknown["the log"] = _why(failure)
            return None

    # --- tolerant calls

    def _jobs(self, labels: Mapping[str, str]) -> Sequence[Manifest]:
        """Without the right to look at them nothing can be said."""
        self._left -= 1
        return [_whole(one) for one in self._cluster.list("Job", labels)]

    def _list(
        self, kind: str, labels: Mapping[str, str] | None, what: str, *, fields: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> Sequence[Manifest]:
        self._left -= 1
        try:
            return [_whole(one) for one in self._cluster.list(kind, labels, fields=fields, everywhere=everywhere)]  # type: ignore[arg-type]
        except NoPermission as failure:
            self._unknown[what] = _why(failure)
            return []

    def _get(self, kind: str, name: str) -> Manifest | None:
        self._left -= 1
        try:
            return _whole(found) if (found := self._cluster.get(kind, name)) else None  # type: ignore[arg-type]
        except NoPermission as failure:
            self._unknown[f"{kind} {name}"] = _why(failure)
            return None

    def _read(self, run: _Run, key: str, read: Callable[[str], Found]) -> Found | None:
        """A key of the mirror; without what is torn an answer is still one, but for the status. Raises Corrupt."""
        if key not in run.data:
            return None
        try:
            return read(run.data[key])
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            if key != "status.json":
                self._unknown[f"{key} of the run's status"] = "it cannot be read"
                return None
            name, what = names.status_name(run.id), "what the cluster says of the run cannot be read"
            remedy = f"kubectl delete configmap {name} -n {self._cluster.namespace}"
            raise Corrupt(what, where=f"ConfigMap {name}", why=str(error)[:300], remedy=remedy) from error


def absent(pod: Manifest) -> bool:
    """Whether nothing is heard of the node of a pod whose container was last seen at work: our pods have no probe that could say it else."""
    conditions = pod.get("status", {}).get("conditions") or []
    gated = pod.get("spec", {}).get("readinessGates")  # whoever set one says when the pod is ready
    return waits.working([pod]) and not gated and any(one["type"] == "Ready" and one["status"] != "True" for one in conditions) and _begun(pod)


def unscheduled(pod: Manifest) -> str:
    """The scheduler's words for a pod that it finds no node for; empty where it said none."""
    for one in pod.get("status", {}).get("conditions") or []:
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return str(one.get("message") or one.get("reason") or "no node yet")
    return ""


def _begun(pod: Manifest) -> bool:
    """Whether the pod was ready once: one that has just begun is not ready either, for a moment."""
    return any(one["type"] == "ContainersReady" and one["status"] == "True" for one in pod["status"]["conditions"])


def _ended(status: RunStatus | None, step: str | None) -> str:
    """The step that failed: the one asked for, or the first."""
    failed = [name for name, found in (status.steps if status else {}).items() if found.state is StepState.FAILED]
    return next((name for name in failed if step in (None, name)), "")


def _focus(run: _Run, status: RunStatus | None, pods: Sequence[Manifest], named: Mapping[str, str]) -> str:
    """The step that says most of the run; empty for its driver."""
    if status is None:
        lone = run.steps()
        return _label(lone[-1], names.STEP) if lone and not run.driver else ""
    if failed := _ended(status, None):
        return failed
    driver = run.driver
    if status.state is not RunState.RUNNING or (driver and ends.finished(driver)):
        return ""

    def works(job: str) -> bool:
        return waits.working([pod for pod in pods if _label(pod, names.JOB) == job])

    running = [name for name, found in status.steps.items() if found.state is StepState.RUNNING]
    waiting = [name for name in running if not works(named.get(name, ""))]
    if waiting:
        return waiting[0]
    return "" if driver and not works(driver["metadata"]["name"]) else (running or [""])[0]


def _job_of(run: _Run, step: str, named: Mapping[str, str], status: RunStatus | None) -> Manifest | None:
    """The Job of a step: the one that the driver tells of, else the youngest of the run; of the driver where no step is named."""
    if not step:
        return run.driver
    of_step = run.steps(step)
    told = [job for job in of_step if job["metadata"]["name"] == named.get(step)]
    elsewhere = step in named and _runs(status, step)  # another run made it
    found = told or ([] if elsewhere else of_step)
    return found[-1] if found else None


def _runs(status: RunStatus | None, step: str) -> bool:
    """Whether the step runs, for the driver."""
    found = status.steps.get(step) if status else None
    return found is not None and found.state is StepState.RUNNING


def _claims_of(pod: Manifest) -> list[str]:
    found = [(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in pod["spec"].get("volumes") or []]
    return [name for name in found if name]


def _whole(one: Manifest) -> Manifest:
    """An object as who reads it may count on: without nulls, and with the parts that an API server leaves out where they are empty."""
    found = _without_nulls(one)
    status = found.get("status") or {}
    if "conditions" in status:
        status["conditions"] = [{"type": "", "status": "", **condition} for condition in status["conditions"]]
    return {**found, "spec": found.get("spec") or {}, "status": status}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value if one is not None] if isinstance(value, list) else value


def _mounting(events: Sequence[Manifest]) -> bool:
    return any(event.get("reason") in ("FailedMount", "FailedAttachVolume") for event in events)


def _run_of(one: Manifest) -> str:
    return names.run_of(one) if one.get("kind") == "Job" else str(one["metadata"]["name"]).removesuffix(names.status_name(""))


def _made(one: Manifest) -> tuple[str, str]:
    return str(one["metadata"].get("creationTimestamp") or ""), str(one["metadata"]["name"])


def _label(one: Manifest, name: str) -> str:
    return str((one["metadata"].get("labels") or {}).get(name) or "")


def _why(failure: Exception) -> str:
    return failure.what if isinstance(failure, Failure) else str(failure)
