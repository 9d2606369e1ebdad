"""Why a pod has no node: what its claim lacks, and what keeps it from each node. Pure.

Where nodes were looked at, arithmetic says it; where they may not be, the scheduler's own words do, and how much room there is stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from modelyard.devices import VENDORS
from modelyard.errors import Usage
from modelyard.kube import claims
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnosis import Diagnosis, Evidence, resources_of, setting
from modelyard.kube.facts import Facts, unscheduled
from modelyard.kube.room import Fit, Space, fit, requests, tolerated, vendor_of_resource

CAPACITY_UNKNOWN = "capacity unknown"

_CODES: Mapping[str, str] = MappingProxyType(
    {
        "busy": "busy",
        "cordoned": "cordoned",
        "not-ready": "nodes-not-ready",
        "no-nodes": "nodes-not-ready",
        "taint": "taint",
        "gpu-model": "gpu-model",
        "selector": "node-label",
        "beside": "yard-node",
        "too-large": "never-fits",
    }
)
"""Code of `room.fit` -> category."""
_WORDS: Sequence[tuple[str, str]] = (
    (r"Insufficient (?!.*node\(s\))(?!.*No preemption victims).*Preemption is not helpful", "never-fits"),
    (r"Insufficient |Too many pods", "busy"),
    (r"no nodes available|node\.kubernetes\.io/(?:unreachable|not-ready)|node\(s\) were not ready", "nodes-not-ready"),
    (r"node\(s\) were unschedulable", "cordoned"),
    (r"untolerated taint", "taint"),
    (r"didn't match pod affinity rules", "yard-node"),
    (r"didn't match Pod's node affinity|didn't match node selector", "node-label"),
)
"""The scheduler's words -> category, from what passes by itself to what does not: of several nodes the one nearest to taking the pod speaks."""
_WHAT: Mapping[str, str] = MappingProxyType(
    {
        "busy": "there is no room now: what could take the pod is in use",
        "cordoned": "the node that could take the pod is cordoned",
        "nodes-not-ready": "no node that could take the pod is ready",
        "taint": "the pod does not tolerate the taint of the node that could take it",
        "yard-node": "the yard can be mounted on one node alone, and that one cannot take the pod",
        "never-fits": "no node is large enough, even if nothing else ran there",
    }
)


_OF_NODES = "node.kubernetes.io/"
"""The beginning of taints by which Kubernetes itself says that a node is not well: memory-pressure, disk-pressure, out-of-service."""


def pending(facts: Facts, pod: Manifest) -> Diagnosis:
    """Why the scheduler finds no node for a pod, of which it has said so."""
    return _claims(facts, pod) or _nodes(facts, pod)


def _claims(facts: Facts, pod: Manifest) -> Diagnosis | None:
    said = unscheduled(pod)
    words = Evidence.of(pod, "status.conditions[PodScheduled].message", said)
    create = f"modelyard yard create --on kubernetes -n {facts.namespace} --yard"
    gone = re.search(r'persistentvolumeclaim "([^"]+)" not found', said)
    missing = [gone[1]] if gone else [name for name, claim in facts.claims.items() if claim is None]
    if missing:
        absent = Evidence(object=f"PersistentVolumeClaim {missing[0]}", field="metadata.name", value="not found")
        return _found("claim-missing", f"there is no claim {missing[0]!r}", (words, absent), f"{create} {missing[0]}")
    other = f"{create} NEW --access-mode ReadWriteMany"
    for name, claim in facts.claims.items():
        if claim is None:
            continue
        status = claim.get("status", {})
        phase = Evidence.of(claim, "status.phase", status.get("phase"))
        if deleted := claim["metadata"].get("deletionTimestamp"):
            evidence = (Evidence.of(claim, "metadata.deletionTimestamp", deleted), words)
            return _found("claim-being-deleted", f"claim {name!r} is being deleted, and takes no more pods", evidence, f"{create} NEW")
        if status.get("phase") == "Lost":
            return _found("claim-lost", f"claim {name!r} has lost its volume", (phase, words), f"{create} NEW")
        if status.get("phase") == "Pending" and "PersistentVolume" in said:
            return _unbound(facts, claim, (phase, words), create)
        try:
            claims.access_of(claim)
        except Usage as failure:
            modes = Evidence.of(claim, "status.accessModes", ", ".join(status.get("accessModes") or claim["spec"].get("accessModes") or []))
            return _found("claim-access-mode", f"{failure.what}: {failure.why}", (modes, words), other)
    if "ReadWriteOncePod" in said:
        return _found("claim-access-mode", "the claim allows one pod at a time, and another one has it", (words,), other)
    if "unbound immediate PersistentVolumeClaims" in said or "available persistent volumes to bind" in said:
        return _found("claim-unbound", "a claim of the pod has no volume", (words,), f"{create} NEW --storage-class CLASS")
    if "volume node affinity conflict" in said:
        return _found("volume-elsewhere", "the volume cannot be reached from the nodes that could take the pod", (words,), other)
    return None


def _unbound(facts: Facts, claim: Manifest, evidence: tuple[Evidence, ...], create: str) -> Diagnosis:
    """A claim that has no volume, and what its controller says of it."""
    name, wanted = claim["metadata"]["name"], claim["spec"].get("storageClassName")
    told = [event for event in facts.events if event["involvedObject"].get("kind") == "PersistentVolumeClaim"]
    told = [event for event in told if event["involvedObject"].get("name") == name]
    evidence = (*evidence, *map(Evidence.of_event, told[-1:]))
    said = " ".join(event.get("message") or "" for event in told)
    if "incompatible accessMode" in said or "access mode" in said.lower():
        modes = claim["spec"].get("accessModes") or []
        asked = Evidence.of(claim, "spec.accessModes", ", ".join(modes))
        what = f"claim {name!r} asks for an access mode that its volume does not have"
        other = "ReadWriteOnce" if "ReadWriteMany" in modes else "ReadWriteMany"
        return _found("claim-access-mode", what, (asked, *evidence), f"{create} NEW --access-mode {other}")
    unknown = f"StorageClass {wanted}" in facts.unknown
    if wanted and ((facts.storage_class is None and not unknown) or re.search(r"storageclass.* not found", said)):
        asked = Evidence.of(claim, "spec.storageClassName", wanted)
        what = f"there is no storage class {wanted!r}, which claim {name!r} asks for"
        return _found("storage-class-missing", what, (asked, *evidence), f"{create} NEW --storage-class CLASS (kubectl get storageclass)")
    remedy = f"{create} NEW --storage-class CLASS (kubectl get storageclass)"
    return _found("claim-unbound", f"claim {name!r} has no volume", evidence, remedy)


def _nodes(facts: Facts, pod: Manifest) -> Diagnosis:
    said = unscheduled(pod)
    words = Evidence.of(pod, "status.conditions[PodScheduled].message", said)
    try:
        found = fit(pod, facts.spaces)
    except ValueError as error:
        found, facts = fit(pod, None), replace(facts, spaces=None, unknown={**facts.unknown, "nodes": str(error)})
    category = _CODES.get(found.code) or _by_words(said, pod)
    lines = found.lines
    if facts.spaces is None:
        lines = (f"{CAPACITY_UNKNOWN}: {facts.unknown.get('nodes', 'nodes were not looked at')}",)
    what = {
        "unschedulable": f"the scheduler finds no node: {said}",
        "node-label": f"no node has {_labels(pod)}",
        "gpu-model": f"no node has an accelerator of the model {_model(pod)}",
    }.get(category) or _WHAT[category]
    asked = _asked(pod)
    return Diagnosis(category=category, what=what, evidence=(*asked, words), arithmetic=lines, remedy=_remedy(category, facts, pod, found, said))


def _by_words(said: str, pod: Manifest) -> str:
    category = next((name for pattern, name in _WORDS if re.search(pattern, said)), "unschedulable")
    return "gpu-model" if category == "node-label" and _model(pod) else category


def _asked(pod: Manifest) -> tuple[Evidence, ...]:
    """What the pod asks for, where it is asked for."""
    container = next(iter(pod["spec"].get("containers") or [{}]))
    amounts = (container.get("resources") or {}).get("requests") or {}
    written = ", ".join(f"{name}: {amount}" for name, amount in amounts.items())
    found = [Evidence.of(pod, "spec.containers[0].resources.requests", written)] if written else []
    if model := _model(pod):
        found.append(Evidence.of(pod, "spec.affinity.nodeAffinity", model))
    if selector := pod["spec"].get("nodeSelector"):
        found.append(Evidence.of(pod, "spec.nodeSelector", ", ".join(f"{name}={value}" for name, value in selector.items())))
    return tuple(found)


def _remedy(category: str, facts: Facts, pod: Manifest, found: Fit, said: str) -> str:
    nearest = next((space for space in facts.spaces or [] if found.lines and found.lines[0].startswith(f"{space.name}: ")), None)
    node = nearest.name if nearest else "NODE"
    match category:
        case "never-fits":
            return _smaller(facts, pod)
        case "gpu-model":
            wanted = requests(pod["spec"]) if facts.spaces else {}
            device = next((name for name in wanted if vendor_of_resource(name)), "")
            asked = wanted.get(device, 0)
            models = [space.model(device) for space in facts.spaces or [] if space.allocatable.get(device, 0) >= asked and space.model(device)]
            return setting(facts.step, f"gpu_model: {models[0]}") if models else "modelyard gpus (the models that there are)"
        case "node-label":
            return f"take {_labels(pod)} out of {resources_of(facts.step)}.overlay" if facts.step else f"kubectl label node NODE {_labels(pod)}"
        case "taint":
            return _tolerate(facts, pod, nearest, said)
        case "cordoned":
            return f"kubectl uncordon {node}"
        case "nodes-not-ready":
            return f"kubectl describe node {node}" if nearest else "kubectl get nodes"
        case "yard-node":
            return f"modelyard yard create --on kubernetes -n {facts.namespace} --yard NEW --access-mode ReadWriteMany"
        case "busy":
            return _now(facts, pod)
    return f"kubectl describe pod {pod['metadata']['name']} -n {facts.namespace}"


def _smaller(facts: Facts, pod: Manifest) -> str:
    """The setting with the most that one node has."""
    there = facts.spaces or []
    asked = requests(pod["spec"]) if there else {}
    short: list[str] = []
    for name, amount in asked.items():
        most = max((space.allocatable.get(name, 0) for space in there), default=0)
        if amount <= most:
            continue
        if vendor_of_resource(name):
            short.append(f"gpus: {most}")
        elif name == "cpu" and most >= 1000:
            short.append(f"cpu: {most // 1000}")
        elif name == "memory" and most >> 20:
            short.append(f"memory: {most >> 30}Gi" if most >> 30 else f"memory: {most >> 20}Mi")
    if not facts.step and (less := [text for text in short if text.startswith("memory: ")]):
        return f'driver_memory = "{less[0].removeprefix("memory: ")}" in modelyard.toml'
    if not facts.step:
        return "kubectl get nodes (no node has room for a driver)"
    return setting(facts.step, ", ".join(short)) if short else "modelyard gpus (the largest block that one node has)"


def _now(facts: Facts, pod: Manifest) -> str:
    """What would run at once, else waiting."""
    asked = requests(pod["spec"]) if facts.spaces else {}
    device = next((name for name in asked if vendor_of_resource(name)), None)
    free = max((space.free(device) or 0 for space in facts.spaces or [] if space.ready and not space.cordoned), default=0) if device else 0
    if device and facts.step and 0 < free < asked[device]:
        return f"{setting(facts.step, f'gpus: {free}')} would run now"
    return f"modelyard wait {facts.run} (it begins by itself when there is room)"


def _tolerate(facts: Facts, pod: Manifest, nearest: Space | None, said: str) -> str:
    refused = [taint for taint in (nearest.taints if nearest else ()) if not tolerated(taint, pod["spec"].get("tolerations") or [])]
    if not refused:
        named: list[Mapping[str, str]] = [
            {"key": key, "value": value} for key, value in re.findall(r"untolerated taint\(?s?\)? ?\{([^:}]+): ?([^}]*)\}", said)
        ]
        refused = sorted(named, key=lambda taint: "node-role.kubernetes.io/" in taint["key"])[:1]  # a control plane is rarely what is meant
    if any(taint["key"].startswith(_OF_NODES) for taint in refused):  # it goes when the node is well again, and a pod has no business there before
        return f"kubectl describe node {nearest.name if nearest else 'NODE'}"
    if not facts.step and refused:
        return f"kubectl taint node {nearest.name if nearest else 'NODE'} {refused[0]['key']}-"
    items = ", ".join(_toleration(taint) for taint in refused) or "{key: KEY, operator: Exists}"
    return setting(facts.step, f"tolerations: [{items}]")


def _toleration(taint: Mapping[str, Any]) -> str:
    value = f"value: {taint['value']}" if taint.get("value") else "operator: Exists"
    return f"{{key: {taint['key']}, {value}" + (f", effect: {taint['effect']}}}" if taint.get("effect") else "}")


def _model(pod: Manifest) -> str:
    """The models of accelerator that the pod's affinity asks for."""
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    parts = [one for term in required.get("nodeSelectorTerms") or [] for one in term.get("matchExpressions") or []]
    return ", ".join(
        dict.fromkeys(
            value for one in parts if any(one.get("key") in vendor.labels for vendor in VENDORS.values()) for value in one.get("values") or []
        )
    )


def _labels(pod: Manifest) -> str:
    return ",".join(f"{name}={value}" for name, value in (pod["spec"].get("nodeSelector") or {}).items()) or "its affinity"


def _found(category: str, what: str, evidence: Sequence[Evidence], remedy: str) -> Diagnosis:
    return Diagnosis(category=category, what=what, evidence=tuple(evidence), remedy=remedy)
