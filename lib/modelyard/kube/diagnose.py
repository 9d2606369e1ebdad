"""Why does it wait, why did it die: facts in, an answer out. Pure.

Looked at in order: what the run's driver says of the step, the Job, its queue, why it has no pod, why its pod has no node, what its volumes and
images lack, how its container ended, whether its node is lost, what ended it from outside, and at last how far it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from modelyard.errors import Crashed, Interrupted, Yielded
from modelyard.kube import admission, containers, endings, ends, scheduling, waits
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnosis import Diagnosis, Evidence
from modelyard.kube.facts import Facts, absent, unscheduled
from modelyard.quantities import format_seconds
from modelyard.yard.runs import FINISHED, Progress, RunState, RunStatus, StepState, StepStatus

SILENT = timedelta(minutes=15)
"""How long a running container may write nothing before that is the answer; a step that works writes far more often."""

_RECURRING = frozenset({"host-oom", "segfault", "killed", "evicted", "preempted", "drained", "node-lost", "device-refused", "node-full"})
"""How an earlier pod of a Job may have ended for that to be the answer although another one has taken its place."""
_WELL = frozenset({"running", "starting"})
_NOTHING = "nothing: another attempt goes on from what was kept"


def diagnose(facts: Facts) -> Diagnosis:
    """The answer about a step, or about a run's driver."""
    found = facts.stored or _told(facts) or _of_job(facts)
    unknown = tuple(f"{what}: {why}" for what, why in facts.unknown.items())
    return found.model_copy(update={"run": facts.run, "step": facts.step, "unknown": (*found.unknown, *unknown)})


# --- by what the driver says


def _told(facts: Facts) -> Diagnosis | None:
    """By the run's status alone, where that says enough."""
    status = facts.status
    if status is None:
        return None
    if not facts.step:
        return _of_run(facts, status)
    step = facts.ending
    found = of_status(status, facts.step) if step else None
    if step is None or found is None:
        return _without_job(facts, step) if step and facts.job is None else None
    if step.state is StepState.FAILED and facts.job is not None and ends.finished(facts.job) == "Failed":
        return None  # its Job says more
    return found


def of_status(status: RunStatus, name: str) -> Diagnosis | None:
    """The answer about a step that a run's status alone gives: it has ended, or waits for others. None for one that runs."""
    step = status.steps[name]

    def found(category: str, what: str, remedy: str = "", exit_code: int | None = None) -> Diagnosis:
        evidence = (Evidence(object=f"run {status.run}", field=f"steps.{name}.state", value=step.state.value),)
        return Diagnosis(category=category, what=what, evidence=evidence, remedy=remedy, exit_code=exit_code, run=status.run, step=name)

    if step.state in FINISHED:
        what = "its result was known and is used again" if step.state is StepState.REUSED else "it ended well"
        return found("done", ": ".join(filter(None, [what, step.note])), exit_code=0)
    if step.state is StepState.FAILED:
        return endings.of_ending(step, status.run, name)
    if step.state is StepState.STOPPED:
        category = Interrupted.category if status.state is RunState.CANCELLED else Yielded.category
        return found(
            category, f"it was stopped when the run was {status.state.value}", "modelyard run FILE (it goes on from what was kept)", step.exit_code
        )
    if step.state is StepState.SKIPPED:
        failed = next((other for other, one in status.steps.items() if one.state is StepState.FAILED), "")
        what = f"it never began: {failed} failed" if failed else f"it never began: the run was {status.state.value}"
        return found("skipped", what, f"modelyard explain {status.run}" if failed else "modelyard run FILE")
    if step.state is StepState.WAITING:
        before = [other for other, one in status.steps.items() if one.state in (StepState.RUNNING, StepState.FAILED)]
        what = f"it waits for {', '.join(before)}" if before else "its turn has not come yet"
        return found("waits-for-step", what, f"modelyard explain {status.run} {before[0]}" if before else f"modelyard wait {status.run}")
    return None


def _of_run(facts: Facts, status: RunStatus) -> Diagnosis | None:
    """The answer about a run that its status alone gives; None where the driver's Job says more."""
    evidence = (Evidence(object=f"run {facts.run}", field="state", value=status.state.value),)
    if status.state is RunState.DONE:
        return Diagnosis(category="done", what="all its steps ended well", evidence=evidence, exit_code=0)
    if status.state in (RunState.CANCELLED, RunState.STOPPED):
        category = Interrupted.category if status.state is RunState.CANCELLED else Yielded.category
        what = "; ".join(filter(None, [f"the run was {status.state.value}", *status.notes]))
        remedy = "modelyard run FILE (it goes on from what was kept)"
        return Diagnosis(category=category, what=what, evidence=evidence, remedy=remedy, exit_code=status.exit_code)
    if facts.job is None and status.state is RunState.RUNNING:
        what = "the run has not ended, and there is no Job that drives it"
        remedy = "modelyard run FILE (with --driver here where it was begun so; it goes on from what was kept)"
        return Diagnosis(category="driver-gone", what=what, evidence=evidence, remedy=remedy)
    if facts.job is None:
        what = "; ".join(status.notes) or "the run failed"
        return Diagnosis(category=Crashed.category, what=what, evidence=evidence, remedy=f"modelyard show {facts.run}", exit_code=status.exit_code)
    return None


def _without_job(facts: Facts, step: StepStatus) -> Diagnosis:
    """A step that runs, for the driver, and whose Job is not there."""
    evidence = (Evidence(object=f"run {facts.run}", field=f"steps.{facts.step}.note", value=step.note or "none"),)
    remedy = f"modelyard wait {facts.run}"
    if gone := re.search(r"until the Job (\S+) of before is gone", step.note):
        return Diagnosis(category="being-deleted", what=f"the Job {gone[1]} of before is still being deleted", evidence=evidence, remedy=remedy)
    return Diagnosis(category="starting", what="its Job is being made", evidence=evidence, remedy=remedy)


# --- by its Job


def _of_job(facts: Facts) -> Diagnosis:
    job = facts.job
    if job is None:
        what = "nothing of the run is on the cluster"
        return Diagnosis(category="driver-gone", what=what, remedy="modelyard run FILE")
    if deleted := job["metadata"].get("deletionTimestamp"):
        evidence = (Evidence.of(job, "metadata.deletionTimestamp", deleted),)
        what = "its Job is being deleted" + ("; it waits for its pods to end" if facts.pods else "")
        pod = facts.pod
        if pod and not ends.terminated(pod) and (lost := _lost(facts, pod)):
            return lost
        return Diagnosis(category="being-deleted", what=what, evidence=evidence, remedy=f"modelyard wait {facts.run}")
    kind = ends.finished(job)
    if kind == "Complete":
        return Diagnosis(
            category="done", what="it ended well", evidence=(Evidence.of(job, "status.conditions[Complete].status", "True"),), exit_code=0
        )
    if kind == "Failed":
        return endings.ended(facts, job, facts.pods)
    if target := _condition(job, "FailureTarget"):
        return _failing(facts, job, target)
    if job["spec"].get("suspend"):
        return admission.suspended(facts, job)
    found = _of_pods(facts, job)
    if facts.made_by:
        return _of_other(facts, job, found)
    return found


def _failing(facts: Facts, job: Manifest, target: Mapping[str, str]) -> Diagnosis:
    """The failure is decided: what it is, as far as a pod says so already."""
    ended = [pod for pod in facts.pods if ends.terminated(pod)]
    if ended:
        return endings.ended(facts, job, ended)
    evidence = (Evidence.of(job, "status.conditions[FailureTarget].reason", target.get("reason", "")),)
    what = f"its failure is decided, and its pods are still ending: {target.get('message', '')}"
    return Diagnosis(category="failing", what=what, evidence=evidence, remedy=f"modelyard wait {facts.run}")


def _of_pods(facts: Facts, job: Manifest) -> Diagnosis:
    pod = facts.pod
    if pod is None:
        return admission.uncreated(facts, job)
    before = [one for one in facts.pods if one is not pod]
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") or (ends.terminated(pod) and not pod["metadata"].get("deletionTimestamp")):
        return _between(facts, job, pod)
    found = _lost(facts, pod) or _going(facts, pod) or _unplaced(facts, pod)
    found = found or (None if waits.working([pod]) else containers.waiting(facts, pod)) or _well(facts, pod)
    earlier = ends.last([one for one in before if ends.terminated(one) or one.get("status", {}).get("phase") == "Failed"])
    if earlier is None:
        return found
    cause = endings.cause(facts, earlier)
    if found.category in _WELL and cause.category in _RECURRING:
        what = f"{cause.what}; since then {found.what}"
        remedy = cause.remedy if cause.category == "host-oom" else _NOTHING
        return cause.model_copy(update={"what": what, "evidence": (*cause.evidence, *found.evidence), "remedy": remedy})
    if found.category == "cordoned" and cause.category in ("evicted", "drained"):
        what = f"its node was drained, and nothing else may take it: {cause.what}"
        return found.model_copy(update={"category": "drained", "what": what, "evidence": (*cause.evidence, *found.evidence)})
    return found.model_copy(update={"evidence": (*found.evidence, *cause.evidence)})


# --- by its youngest pod


def _between(facts: Facts, job: Manifest, pod: Manifest) -> Diagnosis:
    """The youngest pod has ended, and the Job has not: another one comes."""
    if pod.get("status", {}).get("phase") == "Succeeded":
        return Diagnosis(
            category="starting", what="its pod ended well, and its Job is about to", evidence=(Evidence.of(pod, "status.phase", "Succeeded"),)
        )
    cause = endings.cause(facts, pod)
    retry = f"{cause.what}; another attempt begins after a pause"
    if cause.category in _RECURRING:
        return cause.model_copy(update={"what": retry, "remedy": cause.remedy if cause.category == "host-oom" else _NOTHING})
    failed = Evidence.of(job, "status.failed", job.get("status", {}).get("failed", 0))
    of = Evidence.of(job, "spec.backoffLimit", job["spec"].get("backoffLimit", ""))
    evidence = (*cause.evidence, failed, of, Evidence(object=f"Pod {pod['metadata']['name']}", field="category", value=cause.category))
    return cause.model_copy(update={"category": "backing-off", "what": retry, "evidence": evidence, "remedy": _NOTHING})


def _lost(facts: Facts, pod: Manifest) -> Diagnosis | None:
    """The pod's node went silent. A pod that is deleted there is never Failed, so that its Job makes no other."""
    name = ends.node(pod)
    node = next((one for one in facts.nodes if one["metadata"]["name"] == name), None)
    ready = next((one for one in (node or {}).get("status", {}).get("conditions") or [] if one.get("type") == "Ready"), None)
    told = [event for event in facts.events if event.get("reason") == "NodeNotReady"]
    silent = ready is not None and ready["status"] != "True"
    gone = bool(facts.job) and name and node is None and f"Node {name}" not in facts.unknown and _looked(facts, pod)
    if not (silent or gone or (node is None and absent(pod))):
        return None
    evidence = []
    if ready is not None and node is not None:
        words = ": ".join(filter(None, [ready["status"], ready.get("reason"), ready.get("message")]))
        evidence.append(Evidence.of({"kind": "Node", **node}, "status.conditions[Ready].status", words))
    evidence += [Evidence.of(pod, "status.conditions[Ready].status", "False")] if absent(pod) else []
    evidence += [Evidence.of_event(event) for event in told[-1:]]
    deleted = pod["metadata"].get("deletionTimestamp")
    evidence += [Evidence.of(pod, "metadata.deletionTimestamp", deleted)] if deleted else []
    what = f"nothing is heard of node {name!r}, and the pod there can neither go on nor be replaced"
    remedy = (
        f"kubectl taint node {name} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute (once it is off; for good: kubectl delete node {name})"
    )
    if gone:  # then Kubernetes removes its pods by itself
        what, remedy = f"its node {name!r} is gone, and the pod that was there is about to be removed", f"modelyard wait {facts.run}"
    return Diagnosis(category="node-lost", what=what, evidence=tuple(evidence), remedy=remedy)


def _looked(facts: Facts, pod: Manifest) -> bool:
    """Whether the pod's node was asked for."""
    return bool(ends.node(pod)) and not facts.nodes and facts.spaces is None and (absent(pod) or bool(pod["metadata"].get("deletionTimestamp")))


def _going(facts: Facts, pod: Manifest) -> Diagnosis | None:
    """The pod is being deleted: by whom, and what comes then."""
    deleted = pod["metadata"].get("deletionTimestamp")
    if not deleted:
        return None
    evidence = [Evidence.of(pod, "metadata.deletionTimestamp", deleted)]
    if category := endings.disrupted(pod):
        words = ends.disruption(pod)
        node = next((one for one in facts.nodes if one["metadata"]["name"] == ends.node(pod)), None)
        if node and node.get("spec", {}).get("unschedulable"):
            category = "drained"
            evidence.append(Evidence.of({"kind": "Node", **node}, "spec.unschedulable", "true"))
        evidence.append(Evidence.of(pod, "status.conditions[DisruptionTarget].reason", words))
        return Diagnosis(category=category, what=f"its pod is being ended from outside: {words}", evidence=tuple(evidence), remedy=_NOTHING)
    return Diagnosis(category="being-deleted", what="its pod is being deleted", evidence=tuple(evidence), remedy=f"modelyard wait {facts.run}")


def _unplaced(facts: Facts, pod: Manifest) -> Diagnosis | None:
    """The pod has no node."""
    if ends.node(pod):
        return None
    for one in pod.get("status", {}).get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("reason") == "SchedulingGated":
            gates = ", ".join(gate.get("name", "") for gate in pod["spec"].get("schedulingGates") or [])
            evidence = (Evidence.of(pod, "spec.schedulingGates", gates),)
            remedy = f"kubectl describe pod {pod['metadata']['name']} -n {facts.namespace}"
            return Diagnosis(category="scheduling-gated", what=f"a scheduling gate holds the pod back: {gates}", evidence=evidence, remedy=remedy)
    if unscheduled(pod):
        return scheduling.pending(facts, pod)
    evidence = (Evidence.of(pod, "spec.schedulerName", pod["spec"].get("schedulerName", "default-scheduler")),)
    return Diagnosis(category="unscheduled", what="no scheduler has looked at its pod yet", evidence=evidence, remedy=f"modelyard wait {facts.run}")


def _well(facts: Facts, pod: Manifest) -> Diagnosis:
    """Nothing is wrong with it: how far it is."""
    wait = f"modelyard wait {facts.run}"
    if not waits.working([pod]):
        phase = Evidence.of(pod, "status.phase", pod.get("status", {}).get("phase", ""))
        return Diagnosis(category="starting", what=f"its container is being made on node {ends.node(pod)}", evidence=(phase,), remedy=wait)
    evidence = (Evidence.of(pod, "spec.nodeName", ends.node(pod)),)
    if facts.step and facts.last_line and facts.now - facts.last_line > SILENT:  # a driver has nothing to say for as long as its steps go on
        quiet = format_seconds((facts.now - facts.last_line).total_seconds())
        evidence = (Evidence.of(pod, "log, its last line", f"{facts.last_line:%Y-%m-%dT%H:%M:%SZ}"),)
        remedy = f"modelyard cancel {facts.run} (and run it again: it goes on from what was kept)"
        return Diagnosis(category="silent", what=f"it runs, and has written nothing for {quiet}", evidence=evidence, remedy=remedy)
    far = pace(facts.progress) if facts.progress else "" if facts.step else "it drives the run"
    return Diagnosis(category="running", what=f"it runs on node {ends.node(pod)}" + (f": {far}" if far else ""), evidence=evidence, remedy=wait)


def _of_other(facts: Facts, job: Manifest, found: Diagnosis) -> Diagnosis:
    """The Job is another run's, which does the same work."""
    label = Evidence.of(job, "metadata.labels[modelyard.dev/run]", facts.made_by)
    if found.category not in _WELL:
        return found.model_copy(update={"what": f"{found.what} (the Job is that of {facts.made_by})", "evidence": (label, *found.evidence)})
    what = f"{facts.made_by} does the same work, and its result is waited for: {found.what}"
    return found.model_copy(update={"category": "waits-for-run", "what": what, "evidence": (label, *found.evidence)})


def pace(progress: Progress) -> str:
    """How far it is, for people."""
    of = f" of {progress.total}" if progress.total else ""
    left = f", {format_seconds(progress.left)} left" if progress.left is not None else ""
    return f"{progress.done}{of} {progress.unit}{left}"


def _condition(of: Manifest, kind: str) -> Mapping[str, str] | None:
    found = [one for one in of.get("status", {}).get("conditions") or [] if one.get("type") == kind and one.get("status") == "True"]
    return found[0] if found else None
