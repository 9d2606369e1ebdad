"""Why a Job has no pod: it is suspended, its queue has not admitted it, or the API server refuses its pods. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnosis import Diagnosis, Evidence, by_words, resources_of, setting
from modelyard.kube.facts import Facts
from modelyard.kube.render import QUEUE

_CREATE_WORDS: Sequence[tuple[str, str]] = (
    (r"exceeded quota|failed quota", "quota"),
    (r"violates PodSecurity", "pod-security"),
    (r"(?:maximum|minimum) .* per (?:Container|Pod)|LimitRange|max limit to request ratio", "limit-range"),
    (r"serviceaccount \"?[^\"]*\"? not found|service account .* not found", "service-account-missing"),
    (r"PriorityClass", "priority-missing"),
)
"""Words of a FailedCreate event -> category."""
_QUOTA = ("requested", "used", "limited")
_QUEUE_WORDS: Sequence[tuple[str, str]] = (
    (r"LocalQueue .* (?:doesn't|does not) exist", "queue-missing"),
    (r"inactive|is stopped|StopPolicy|terminating", "queue-inactive"),
    (r"maximum capacity|ExceedsMaxQuota|NoMatchingFlavor|Misconfigured|flavor .* not found", "queue-never"),
)


def suspended(facts: Facts, job: Manifest) -> Diagnosis:
    """Why its pods are not made yet: somebody suspended it, or its queue has not admitted it."""
    name, queue = job["metadata"]["name"], (job["metadata"].get("labels") or {}).get(QUEUE)
    suspended = Evidence.of(job, "spec.suspend", "true")
    if not queue:
        remedy = f'kubectl patch job {name} -n {facts.namespace} --type=merge -p \'{{"spec":{{"suspend":false}}}}\''
        return Diagnosis(category="suspended", what="somebody suspended its Job", evidence=(suspended,), remedy=remedy)
    asked = Evidence.of(job, f"metadata.labels[{QUEUE}]", queue)
    if facts.queue is None and f"LocalQueue {queue}" not in facts.unknown:
        remedy = setting(facts.step, "queue: NAME") + f" (kubectl get localqueues -n {facts.namespace})"
        absent_queue = Evidence(object=f"LocalQueue {queue}", field="metadata.name", value="not found")
        return Diagnosis(category="queue-missing", what=f"there is no queue {queue!r}", evidence=(asked, absent_queue), remedy=remedy)
    if facts.workload is None:
        what = f"queue {queue!r} has not said anything about it"
        remedy = f"kubectl describe localqueue {queue} -n {facts.namespace}"
        return Diagnosis(category="queue-silent", what=what, evidence=(asked, suspended), remedy=remedy)
    conditions = facts.workload.get("status", {}).get("conditions") or []
    told = [one for one in conditions if one.get("type") in ("Evicted", "Preempted") and one.get("status") == "True"]
    told += [one for one in conditions if one.get("type") == "QuotaReserved" and one.get("status") != "True"]
    words = " ".join(f"{one.get('reason', '')}: {one.get('message', '')}" for one in told)
    evidence = (asked, *(Evidence.of(facts.workload, f"status.conditions[{one['type']}].message", one.get("message", "")) for one in told))
    category = by_words(_QUEUE_WORDS, words) or "queue-waits"
    remedy = {
        "queue-missing": setting(facts.step, "queue: NAME") + f" (kubectl get localqueues -n {facts.namespace})",
        "queue-inactive": f"kubectl describe localqueue {queue} -n {facts.namespace}",
        "queue-never": setting(facts.step, "gpus: FEWER") + " (its quota is in what it says)",
    }.get(category, f"modelyard wait {facts.run} (it begins by itself when others are done)")
    what = told[-1].get("message", "") if told else "it waits to be admitted"
    return Diagnosis(category=category, what=f"queue {queue!r}: {what}", evidence=evidence, arithmetic=_amounts(what), remedy=remedy)


def uncreated(facts: Facts, job: Manifest) -> Diagnosis:
    """Why there is no pod."""
    told = [event for event in facts.events if event.get("reason") == "FailedCreate" and event["involvedObject"].get("kind") == "Job"]
    if not told:
        evidence = (Evidence.of(job, "status.active", job.get("status", {}).get("active", 0)),)
        if not {"events", "pods"} & facts.unknown.keys():
            return Diagnosis(category="starting", what="its pod is being made", evidence=evidence, remedy=f"modelyard wait {facts.run}")
        remedy = f"kubectl describe job {job['metadata']['name']} -n {facts.namespace}"
        what = "its Job has no pod, and events may not be read" if "pods" not in facts.unknown else "its pods may not be looked at"
        return Diagnosis(category="no-pod", what=what, evidence=evidence, remedy=remedy)
    said = str(told[-1].get("message") or "")
    category = by_words(_CREATE_WORDS, said) or "admission"
    why = re.sub(r'^Error creating: (?:pods "[^"]+" is forbidden: )?', "", said)
    what = {
        "quota": "the namespace's quota leaves no room for the pod",
        "limit-range": "a limit of the namespace forbids what the pod asks for",
        "pod-security": "the namespace's Pod Security level refuses the pod",
        "service-account-missing": "the service account of the pod does not exist",
        "priority-missing": "the priority class that is asked for does not exist",
    }.get(category, "the API server refuses the pod")
    return Diagnosis(
        category=category,
        what=f"{what}: {why}",
        evidence=(Evidence.of_event(told[-1]),),
        arithmetic=_amounts(why),
        remedy=_allow(facts, category, why),
    )


def _allow(facts: Facts, category: str, why: str) -> str:
    """What makes a pod acceptable that the API server refused."""
    resources = resources_of(facts.step)
    if category == "quota":
        name = re.search(r"exceeded quota: ([^,]+)", why)
        left = [_left(text) for text in _amounts(why)]
        less = next((text for text in left if text), "")
        if less and facts.step:
            return setting(facts.step, less)
        return f"kubectl describe resourcequota{' ' + name[1] if name else ''} -n {facts.namespace}"
    if category == "limit-range":
        found = re.search(r"(?:maximum|minimum) (\S+) usage per (?:Container|Pod) is (\w+)", why)
        # Whole cores and whole accelerators are what a step may ask for; of storage it asks for nothing.
        field = found[1] if found and found[1] in ("memory", "cpu") else "gpus" if found and "/" in found[1] else ""
        if found and facts.step and field and (field == "memory" or found[2].isdecimal()):
            return setting(facts.step, f"{field}: {found[2]}")
        return (
            f'driver_memory = "{found[2]}" in modelyard.toml'
            if found and found[1] == "memory"
            else f"kubectl describe limitrange -n {facts.namespace}"
        )
    if category == "pod-security":
        refused = re.search(r": (.+)$", why.partition("violates PodSecurity")[2])
        field = refused[1].partition(" (")[0] if refused else "what it names"
        return f"take {field} out of {resources}.overlay" if facts.step else f"kubectl get namespace {facts.namespace} --show-labels"
    if category == "service-account-missing":
        return f"kubectl apply -n {facts.namespace} -f examples/cluster/access.yaml"
    if category == "priority-missing":
        return f"{resources}: {{priority: NAME}} (kubectl get priorityclasses)"
    return f"kubectl describe job {(facts.job or {})['metadata']['name']} -n {facts.namespace}"


def _amounts(said: str) -> tuple[str, ...]:
    """The arithmetic of a quota, a line for each resource: `requests.nvidia.com/gpu: 8 asked, 0 of 4 in use`."""
    parts = [
        dict(re.findall(r"([\w./-]+)=([\w.]+)", found[1])) if (found := re.search(rf"{word}: ([^:]+?)(?:, \w+:|$)", said)) else {} for word in _QUOTA
    ]
    requested, used, limited = parts
    lines = [f"{name}: {amount} asked, {used.get(name, '?')} of {limited.get(name, '?')} in use" for name, amount in requested.items()]
    return tuple(lines) or tuple(re.findall(r"insufficient [^;]*", said)) or tuple(re.findall(r"(?:maximum|minimum) .*", said))


def _left(line: str) -> str:
    """The setting that asks for what a quota has left, of a whole number of accelerators; empty where there is none."""
    found = re.fullmatch(r"requests\.\S+/\S+: (\d+) asked, (\d+) of (\d+) in use", line)
    left = int(found[3]) - int(found[2]) if found else 0
    return f"gpus: {left}" if left > 0 else ""
