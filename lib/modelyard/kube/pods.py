"""The pods of a run as plain dicts: what they mount, may do, ask for, and where they may go. They pass the Pod Security Standard `restricted`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from modelyard.devices import CPU, Vendor, vendor_of
from modelyard.errors import Usage
from modelyard.kube import names
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.quantities import format_bytes, parse_bytes
from modelyard.steps import Resources

YARD, HOME, SCRATCH = "/yard", "/home/modelyard", "/scratch"
ORDER_DIR, ORDER_FILE = "/etc/modelyard/order", "order.json"
USER = 10001
"""uid and gid of the images' user."""
GRACE = 30
"""Seconds from SIGTERM to SIGKILL; a frame needs eight to keep what it has."""
TOKENS: Mapping[str, str] = MappingProxyType({"MODELSCOPE_API_TOKEN": "modelscope", "HF_TOKEN": "huggingface"})
"""Variable -> key of the Secret."""


@dataclass(frozen=True)
class Size:
    """What a pod has, as Kubernetes writes it; requests and limits are the same, so that nobody lives on what others do not use."""

    cpu: str
    memory: str


SMALL, MEDIUM = Size("250m", "512Mi"), Size("500m", "1Gi")
SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "driver": SMALL,
        "reader": MEDIUM,
        "search": SMALL,
        "fetch": MEDIUM,
        "preflight": Size("500m", "2Gi"),
        "finetune": Size("1", "6Gi"),
        "infer": Size("1", "4Gi"),
        "evaluate": Size("1", "4Gi"),
        "export": Size("1", "4Gi"),
        "promote": SMALL,
        "publish": MEDIUM,
    }
)
"""What a role or a step has unless its resources say otherwise: small enough for a node of two cores with other pods on it."""
LIGHT = frozenset({"driver", "reader", "search", "fetch", "promote", "publish"})
"""What runs in the image without torch."""
SHARED_PART = 4
"""Of a step with several accelerators, a part of one in so many of its memory may be shared memory."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def labels(role: str, place: Place, **found: str) -> dict[str, str]:
    """The labels of an object. found: `run`, `pipeline`, `step`. Raises Usage: one of them is not allowed as a label's value."""
    known = {names.ROLE: role, names.YARD: place.claim, **{f"{names.DOMAIN}/{name}": value for name, value in found.items()}}
    for name, value in known.items():
        label_value(value, name)
    return {"app.kubernetes.io/name": "modelyard", "app.kubernetes.io/managed-by": "modelyard", **known}


def label_value(value: str, where: str) -> str:
    """The value, if it can be a label's. Raises Usage."""
    if not _LABEL.fullmatch(value):
        why = "letters, digits, '.', '_' and '-', at most 63, beginning and ending with a letter or digit"
        raise Usage(f"{value!r} cannot be the value of a label", where=where, why=why, remedy="choose another one")
    return value


def pod_spec(role: str, place: Place, command: Sequence[str], *, write: bool = True, tokens: bool = False) -> Manifest:
    """A pod's spec with one container, named `role`. write: whether it may write to the yard. tokens: whether it gets the hubs' tokens."""
    size = SIZES.get(role, SMALL)
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": role,
                "image": image(place, light=True),
                "command": list(command),
                "env": [{"name": "HOME", "value": HOME}, *(_tokens(place) if tokens else [])],
                "resources": _limits({"cpu": size.cpu, "memory": size.memory}),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePath": "/dev/termination-log",
                "volumeMounts": [{"name": "yard", "mountPath": YARD, **({} if write else {"readOnly": True})}],
            }
        ],
        "volumes": [{"name": "yard", "persistentVolumeClaim": {"claimName": place.claim}}],
    }
    mount(spec, "home", HOME, {"emptyDir": {"sizeLimit": "2Gi"}})
    mount(spec, "tmp", "/tmp", {"emptyDir": {"sizeLimit": "20Gi"}})  # noqa: S108  # the container's own
    if place.pull_secret:
        spec["imagePullSecrets"] = [{"name": place.pull_secret}]
    if place.access == "ReadWriteOnce":
        _beside_others(spec, place)
    return spec


def mount(spec: Manifest, name: str, path: str, source: Manifest, *, read_only: bool = False) -> None:
    """Add a volume to a pod's spec, and mount it in its container."""
    spec["volumes"].append({"name": name, **source})
    spec["containers"][0]["volumeMounts"].append({"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})})


def image(place: Place, *, light: bool) -> str:
    """The image with torch, or the light one without."""
    return f"{place.image}-{'light' if light else 'cuda'}"


def equip(spec: Manifest, verb: str, resources: Resources, place: Place, avoid: Sequence[str] = ()) -> None:
    """Give the pod of a step what its resources ask for. avoid: names of nodes where it may not go."""
    container = spec["containers"][0]
    container["image"] = image(place, light=verb in LIGHT)
    vendor = vendor_of(resources.accelerator) if resources.gpus else CPU
    limits, shared = _amounts(verb, resources)
    if vendor is not CPU:
        limits[vendor.resource_of(resources.accelerator)] = str(resources.gpus)
    container["resources"] = _limits(limits)
    if shared:
        mount(spec, "shm", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": shared}})  # noqa: S108  # the container's own
    if vendor.groups:
        spec["securityContext"]["supplementalGroups"] = list(vendor.groups)
    tolerations = [*({"key": key, "operator": "Exists"} for key in vendor.taints), *resources.tolerations]
    if tolerations:
        spec["tolerations"] = tolerations
    if resources.priority:
        spec["priorityClassName"] = resources.priority
    _choose_nodes(spec, vendor, resources, avoid)


def _amounts(verb: str, resources: Resources) -> tuple[dict[str, str], str]:
    """CPU and memory of a step, and how much of the memory it may share (empty: no more than the runtime gives). Raises Usage."""
    size = SIZES[verb]
    cpu = str(resources.cpu) if resources.cpu else size.cpu
    if not resources.shm:
        memory = resources.memory or size.memory
        return {"cpu": cpu, "memory": memory}, str(parse_bytes(memory) // SHARED_PART) if resources.gpus > 1 else ""
    shared = parse_bytes(resources.shm)
    memory = resources.memory or str(parse_bytes(size.memory) + shared)
    if shared >= parse_bytes(memory):
        why = f"it is part of the memory, which is {format_bytes(parse_bytes(memory))}"
        raise Usage(f"shm: {resources.shm} leaves no memory for the step", where="resources.shm", why=why, remedy="raise memory, or lower shm")
    return {"cpu": cpu, "memory": memory}, resources.shm


def _limits(amounts: Mapping[str, str]) -> Manifest:
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _tokens(place: Place) -> list[Manifest]:
    def reference(key: str) -> Manifest:
        return {"secretKeyRef": {"name": place.secret, "key": key, "optional": True}}

    return [{"name": variable, "valueFrom": reference(key)} for variable, key in TOKENS.items()] if place.secret else []


def _beside_others(spec: Manifest, place: Place) -> None:
    """A volume that one node alone can mount: all pods of the yard go where the first one went, which may go anywhere, as it matches itself."""
    term = {"labelSelector": {"matchLabels": {names.YARD: place.claim}}, "topologyKey": "kubernetes.io/hostname"}
    spec.setdefault("affinity", {})["podAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def _choose_nodes(spec: Manifest, vendor: Vendor, resources: Resources, avoid: Sequence[str]) -> None:
    """By the model of the accelerator, under whichever label a node has it, and without the nodes to avoid. Terms are alternatives."""
    away = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(avoid)]} if avoid else {}
    terms: list[Manifest] = [away] if away else []
    if resources.gpu_model and vendor is not CPU:
        model = label_value(resources.gpu_model, "resources.gpu_model")
        found = vendor.labels_of(resources.accelerator)
        terms = [{"matchExpressions": [{"key": label, "operator": "In", "values": [model]}], **away} for label in found]
    if terms:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        spec.setdefault("affinity", {})["nodeAffinity"] = required
