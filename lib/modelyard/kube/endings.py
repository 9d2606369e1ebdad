"""How a step or a driver ended, in one answer: its class, what Kubernetes knows better, and what to do. Pure.

The step's own word comes first; a crash without one is looked at by the kubelet's refusals, by who ended the pod from outside, and by signals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelyard.errors import Crashed, Deadline, HostOom, Interrupted, NoAccelerator, NoPermission, NoSpace, Yielded
from modelyard.kube import ends, names
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnosis import CATEGORIES, Diagnosis, Evidence, by_words, setting
from modelyard.order import Ending
from modelyard.quantities import format_bytes

if TYPE_CHECKING:
    from modelyard.kube.facts import Facts

START_WORDS: Sequence[tuple[str, str]] = (
    (r"exec format error", "image-architecture"),
    (r"executable file not found|no such file or directory", "command-not-found"),
    (r"permission denied|is a directory", "command-not-executable"),
)
_KUBELET = MappingProxyType(
    {
        "UnexpectedAdmissionError": "device-refused",
        "NodeAffinity": "node-mismatch",
        "NodeSelectorMismatching": "node-mismatch",
        "NodePorts": "node-full",
    }
)
_DISRUPTIONS = MappingProxyType(
    {
        "PreemptionByScheduler": "preempted",
        "DeletionByTaintManager": "drained",
        "EvictionByEvictionAPI": "evicted",
        "TerminationByKubelet": "evicted",
        "DeletionByPodGC": "node-lost",
        "Evicted": "evicted",
        "Preempting": "preempted",
        "NodeShutdown": "drained",
        "Shutdown": "drained",
        "Terminated": "drained",
        "NodeLost": "node-lost",
    }
)
"""Reason of the condition DisruptionTarget, or of the pod's status -> category."""
_LOOK_AT_LOGS = frozenset({"segfault", "killed", "crashed", "bug", "retries-used"})
_AGAIN = "modelyard run FILE (it goes on from what was kept)"


def ended(facts: Facts, job: Manifest, pods: Sequence[Manifest], said: Ending | None = None) -> Diagnosis:
    """How a Job ended, or how its last pod did. said: by the step or its driver, where more is known than the Job tells."""
    outcome: Ending = ends.outcome(job, pods)
    said = said or (facts.ending if facts.ending and facts.ending.exit_code else None)
    pod = ends.last(pods)
    evidence = [*_conditions(job), *(_of_pod(pod) if pod else [])]
    outcome = said or outcome
    unnamed = outcome.category in (Crashed.category, Yielded.category)  # who was evicted in time says that it was asked to stop, not by whom
    category = _of_kubernetes(pod) if pod and unnamed else ""
    if pod is None and outcome.category == Crashed.category and facts.ending is None:
        category = "retries-used"
    if category == "init-failed" and pod and (before := init_failed(pod)):
        name = pod["metadata"]["name"]
        what, remedy = f"the container {before[0]!r}, which comes before the step, ended with {before[1]}", f"kubectl logs {name} -c {before[0]}"
        remedy = f"{remedy} -n {facts.namespace}"
        return Diagnosis(category=category, what=what, evidence=tuple(evidence), remedy=remedy, exit_code=outcome.exit_code)
    if category in ("command-not-found", "command-not-executable") and pod:
        return not_started(facts, pod, category, evidence).model_copy(update={"exit_code": outcome.exit_code})
    return of_ending(outcome, facts.run, facts.step, category=category, evidence=evidence, job=job, namespace=facts.namespace)


def cause(facts: Facts, pod: Manifest) -> Diagnosis:
    """How one pod of a Job that goes on has ended."""
    goes_on = {**(facts.job or {"metadata": {"name": ""}}), "status": {}}
    return ended(facts, goes_on, [pod]).model_copy(update={"exit_code": None})


def of_ending(
    ending: Ending,
    run: str,
    step: str,
    *,
    category: str = "",
    evidence: Sequence[Evidence] = (),
    job: Manifest | None = None,
    namespace: str = "",
) -> Diagnosis:
    """What an ending amounts to, wherever the step ran. category: what Kubernetes knows better, empty where it does not."""
    category = category or _crash(ending)
    category = category if category in CATEGORIES else Crashed.category  # a container may say anything
    told: list[Evidence] = []
    if not evidence:  # of a step whose Job is gone, or that ran elsewhere
        of = f"run {run}"
        said = [("category", ending.category), ("where", ending.where), ("why", ending.why)]
        told = [Evidence(object=of, field=f"steps.{step}.{name}" if step else name, value=value) for name, value in said if value]
    what = ": ".join(filter(None, [ending.what, ending.why if ending.why != "nothing said why" else ""])) or f"it ended with {ending.exit_code}"
    remedy = _remedy(category, ending, (run, step, namespace), job)
    return Diagnosis(category=category, what=what, evidence=(*evidence, *told), remedy=remedy, exit_code=ending.exit_code, run=run, step=step)


def _crash(ending: Ending) -> str:
    """The category of an ending: its class, or for a crash the signal, where one was named."""
    if ending.category != Crashed.category:
        return ending.category
    words = f"{ending.what} {ending.why}"
    return "segfault" if "SIGSEGV" in words else "killed" if "SIGKILL" in words else ending.category


def _of_kubernetes(pod: Manifest) -> str:
    """The category of a pod that ended without the step's own word; empty where its exit code says most."""
    status, container = pod.get("status", {}), ends.terminated(pod)
    if category := disrupted(pod):
        return category
    reason = status.get("reason") or ""
    if reason in _KUBELET:
        return _KUBELET[reason]
    if reason.startswith("OutOf"):
        return "node-full"
    if container is None:
        return "kubelet-refused" if reason else "init-failed" if init_failed(pod) else ""
    if container.get("reason") == "ContainerStatusUnknown":  # the node began anew, and knows nothing of it
        return "node-lost"
    if container.get("reason") in ("StartError", "ContainerCannotRun"):
        return by_words(START_WORDS, container.get("message") or "") or "container-refused"
    return ""


def disrupted(pod: Manifest) -> str:
    """The category of a pod that was ended from outside; empty where it was not."""
    if not ends.disruption(pod):
        return ""
    conditions = [one for one in pod["status"].get("conditions") or [] if one.get("type") == ends.DISRUPTED]
    # The kubelet's condition has one reason for all that it ends: the pod's own says which.
    reasons = [pod["status"].get("reason") or "", *(one.get("reason") or "" for one in conditions)]
    return next((_DISRUPTIONS[reason] for reason in reasons if reason in _DISRUPTIONS), "evicted")


def init_failed(pod: Manifest) -> tuple[str, int] | None:
    """Name and exit code of a container that comes before ours, and failed."""
    for container in pod.get("status", {}).get("initContainerStatuses") or []:
        if code := ((container.get("state") or {}).get("terminated") or {}).get("exitCode"):
            return str(container.get("name", "")), int(code)
    return None


def _conditions(job: Manifest) -> list[Evidence]:
    found = [one for one in job.get("status", {}).get("conditions") or [] if one.get("type") in ("Failed", "FailureTarget")]
    found = [one for one in found if one.get("status") == "True"]
    return [Evidence.of({"kind": "Job", **job}, f"status.conditions[{one['type']}].reason", one.get("reason", "")) for one in found[-1:]]


def _of_pod(pod: Manifest) -> list[Evidence]:
    """What the API server has about the end of a pod."""
    found: list[Evidence] = []
    for index, container in enumerate(pod.get("status", {}).get("initContainerStatuses") or []):
        if code := ((container.get("state") or {}).get("terminated") or {}).get("exitCode"):
            found.append(Evidence.of(pod, f"status.initContainerStatuses[{index}].state.terminated.exitCode", code))
    for index, container in enumerate(pod.get("status", {}).get("containerStatuses") or []):
        if container.get("name") == pod["metadata"].get("labels", {}).get(names.ROLE) and (state := container.get("state", {}).get("terminated")):
            at = f"status.containerStatuses[{index}].state.terminated"
            found += [Evidence.of(pod, f"{at}.exitCode", state.get("exitCode")), Evidence.of(pod, f"{at}.reason", state.get("reason") or "")]
            if message := (state.get("message") or "").strip():
                found.append(Evidence.of(pod, f"{at}.message", _short(message)))
    if reason := pod.get("status", {}).get("reason"):
        found.append(Evidence.of(pod, "status.reason", ": ".join(filter(None, [reason, pod["status"].get("message")]))))
    for one in pod.get("status", {}).get("conditions") or []:
        if one.get("type") == ends.DISRUPTED and one.get("status") == "True":
            words = ": ".join(filter(None, [one.get("reason"), one.get("message")]))
            found.append(Evidence.of(pod, f"status.conditions[{ends.DISRUPTED}].reason", words))
    return found


def _short(message: str) -> str:
    """A termination message without what the answer says anyway."""
    try:
        told: Any = json.loads(message)
    except (ValueError, RecursionError):
        return message.splitlines()[-1][:300]
    return str(told.get("category", ""))[:300] if isinstance(told, dict) else message[:300]


def _remedy(category: str, ending: Ending, of: tuple[str, str, str], job: Manifest | None) -> str:
    """One thing to do: a command, or a setting as it is written. of: run, step, namespace."""
    run, step, namespace = of
    if category in _LOOK_AT_LOGS:
        return f"modelyard logs {run} {step}".rstrip() if step else f"kubectl logs job/{job['metadata']['name'] if job else run} -n {namespace}"
    if category == HostOom.category:
        return _more_memory(ending, step, job)
    if category == Deadline.category and (limit := _time_limit(job)):
        return setting(step, f"time_limit: {2 * limit}s")
    if category == NoSpace.category:
        return "modelyard yard gc" + (f" --on kubernetes -n {namespace}" if namespace else "")
    if category == NoAccelerator.category and step:
        return setting(step, "fallback: cpu")
    if category == NoPermission.category and not step:
        return f"kubectl apply -n {namespace} -f examples/cluster/access.yaml"
    if category in (Interrupted.category, Yielded.category) or category in _DISRUPTIONS.values():
        return _AGAIN
    if category == "device-refused":
        return "modelyard gpus (a node whose device plugin is not well is not usable)"
    if category in ("node-full", "node-mismatch", "kubelet-refused"):
        return _AGAIN
    return ending.remedy or (f"modelyard logs {run} {step}" if step else f"modelyard show {run}")


def _more_memory(ending: Ending, step: str, job: Manifest | None) -> str:
    if step:
        asked = re.search(r"memory: ([\w.]+)", ending.remedy)
        return setting(step, f"memory: {asked[1]}") if asked else ending.remedy
    containers = (job or {}).get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    limit = ends.memory_limit(containers[0])
    double = f"{max(1, -(-2 * limit // (1 << 30)))}Gi" if limit else "1Gi"
    return f'driver_memory = "{double}" in modelyard.toml' + (f" (it was {format_bytes(limit)})" if limit else "")


def _time_limit(job: Manifest | None) -> int:
    """The limit of a step's running time, as its Job was told; 0 where it is not known."""
    annotations: Mapping[str, str] = (job or {}).get("spec", {}).get("template", {}).get("metadata", {}).get("annotations") or {}
    try:
        limit = json.loads(annotations.get(names.ORDER, "{}"))["resources"]["time_limit"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return limit if isinstance(limit, int) else 0


def not_started(facts: Facts, pod: Manifest, category: str, evidence: Sequence[Evidence]) -> Diagnosis:
    """Our container could not be started. evidence: the last of it is what the container runtime says."""
    container = ends.own(pod, pod["spec"].get("containers"))
    command = " ".join([*(container.get("command") or []), *(container.get("args") or [])][:1])
    what = {
        "image-architecture": "the image is for another kind of processor than the node's",
        "command-not-found": f"the image does not have the command {command!r}",
        "command-not-executable": f"the command {command!r} may not be executed",
    }.get(category, f"the container could not be started: {evidence[-1].value if evidence else ''}")
    remedy = f"kubectl describe pod {pod['metadata']['name']} -n {facts.namespace}"
    if category.startswith("command"):
        remedy = (
            f"take the command out of steps.{facts.step}.resources.overlay" if facts.step else 'image = "REGISTRY/NAME:VERSION" in modelyard.toml'
        )
    return Diagnosis(category=category, what=what, evidence=tuple(evidence), remedy=remedy)
