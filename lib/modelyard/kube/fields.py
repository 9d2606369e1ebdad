"""Where a field of a manifest comes from: what the API server says about `spec.template.spec.priorityClassName` is about `resources.priority`.

What no setting stands behind keeps the path that it has in Kubernetes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from modelyard.devices import vendor_of
from modelyard.kube import names, overlay
from modelyard.kube.cluster import Manifest
from modelyard.kube.render import QUEUE

_PART = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")
_AMOUNT = re.compile(r"\.(?:limits|requests)(?:\.(?P<named>.+)|\[(?P<keyed>[^\]]+)\])$")
_SETTINGS = (
    (r"metadata\.name", "name"),
    (r"metadata\.namespace", "namespace"),
    (r".*containers\[\d+\]\.image", "image"),
    (r".*imagePullSecrets.*", "pull_secret"),
    (r".*\.secretKeyRef\.name", "secret"),
    (r".*\.persistentVolumeClaim\.claimName", "yard"),
    (r"metadata\.labels.*modelyard\.dev/yard.*", "yard"),
    (rf"metadata\.(?:labels|annotations).*{re.escape(QUEUE)}.*", "queue"),
)
"""Fields that every object of a run has -> the setting."""
_RESOURCES = (
    (r"spec\.template\.spec\.priorityClassName", "priority"),
    (r"spec\.template\.spec\.affinity\.nodeAffinity.*", "gpu_model"),
    (r"spec\.activeDeadlineSeconds", "time_limit"),
    (rf"metadata\.(?:labels|annotations).*{re.escape(QUEUE)}.*", "queue"),
)
"""Fields of a step's Job -> what its resources say."""


def ours(field: str, manifest: Manifest) -> str:
    """Our path of a manifest's field; the field itself where there is none."""
    step = manifest.get("metadata", {}).get("labels", {}).get(names.STEP)
    if step and (found := _of_step(field, manifest)):
        return f"steps.{step}.resources.{found}"
    return next((setting for pattern, setting in _SETTINGS if re.fullmatch(pattern, field)), field)


def _of_step(field: str, manifest: Manifest) -> str:
    """The path in the step's resources; empty for what is not from there."""
    template, parts = manifest["spec"]["template"], _parts(field)
    resources = json.loads(template["metadata"]["annotations"][names.ORDER])["resources"]
    in_pod = parts[2:] if parts[:2] == ["spec", "template"] else []
    if resources["overlay"] and in_pod and (found := _in_overlay(in_pod, resources["overlay"], template)):
        return f"overlay.{found}"
    if amount := _AMOUNT.search(field):
        kind = amount["named"] or amount["keyed"]
        return kind if kind in ("cpu", "memory") else "gpus" if "/" in kind else ""
    match in_pod:
        case ["spec", "tolerations", int(index), *rest]:
            own = index - (len(vendor_of(resources["accelerator"]).taints) if resources["gpus"] else 0)
            return f"tolerations[{own}]" + "".join(f".{part}" for part in rest) if own >= 0 else ""
        case ["spec", "volumes", int(index), *_]:
            return "shm" if [volume["name"] for volume in template["spec"]["volumes"]][index : index + 1] == ["shm"] else ""
    found = next((name for pattern, name in _RESOURCES if re.fullmatch(pattern, field)), "")
    return "" if found == "queue" and not resources["queue"] else found


def _in_overlay(path: Sequence[str | int], patch: Any, pod: Any) -> str:
    """The path as the overlay writes it, as far as it goes into that; empty where the overlay does not touch the field."""
    written = ""
    for part in path:
        if isinstance(part, int):
            item = pod[part] if isinstance(pod, list) and part < len(pod) else None
            index = _index(patch, item, part, written.rpartition(".")[2])
            if index is None:
                return ""
            written, patch, pod = f"{written}[{index}]", patch[index], item
        elif isinstance(patch, dict) and part in patch:
            written, patch, pod = f"{written}.{part}".lstrip("."), patch[part], pod.get(part) if isinstance(pod, dict) else None
        else:
            return ""
        if not isinstance(patch, dict | list):
            break
    return written


def _index(patch: Any, item: Any, index: int, field: str) -> int | None:
    """Which item of an overlay's list stands for an item of the pod's."""
    if not isinstance(patch, list):
        return None
    key = overlay.merge_key(field)
    if key is None or not isinstance(item, dict):
        return index if index < len(patch) else None
    return next((number for number, entry in enumerate(patch) if isinstance(entry, dict) and entry.get(key) == item.get(key)), None)


def _parts(field: str) -> list[Any]:
    """`a.b[0].c` as its parts."""
    return [int(found[2]) if found[2] and found[2].isdecimal() else found[1] or found[2] for found in _PART.finditer(field)]
