"""`overlay:`, a strategic merge patch over the pod of a step: the one way to say what has no setting of its own.

Maps are merged, null removes, lists replace, except those that Kubernetes merges by a key of their items. `$patch: delete` in an item removes it,
`$patch: replace` replaces what it stands in, as kubectl has it.
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from copy import deepcopy
from types import MappingProxyType
from typing import Any

from modelyard.errors import Usage
from modelyard.kube.cluster import Manifest

_KEYS = MappingProxyType(
    {
        "containers": "name",
        "initContainers": "name",
        "ephemeralContainers": "name",
        "volumes": "name",
        "env": "name",
        "volumeMounts": "mountPath",
        "volumeDevices": "devicePath",
        "ports": "containerPort",
        "imagePullSecrets": "name",
        "hostAliases": "ip",
        "topologySpreadConstraints": "topologyKey",
        "resourceClaims": "name",
        "schedulingGates": "name",
        "ownerReferences": "uid",
    }
)
"""Lists of a pod that are merged, and the key of their items (patchMergeKey in k8s.io/api/core/v1/types.go); the others are replaced."""
_PATCH, _RETAIN = "$patch", "$retainKeys"
_WHERE = "resources.overlay"


def apply(pod: Manifest, overlay: Manifest) -> Manifest:
    """The pod (metadata and spec) under the overlay. Raises Usage: what comes out is no step any more, or the overlay is none."""
    unknown = sorted(set(overlay) - {"metadata", "spec"})
    if unknown:
        remedy = "begin with `spec:` or `metadata:`, as in a pod"
        raise Usage(f"{unknown[0]!r} is no part of a pod", where=f"{_WHERE}.{unknown[0]}", remedy=remedy)
    patched: Manifest = merge(pod, overlay)
    _check(pod, patched)
    return patched


def merge_key(field: str) -> str | None:
    """The key by which the items of a list of that name are merged; None: the list is replaced."""
    return _KEYS.get(field)


def merge(value: Any, patch: Any, path: str = _WHERE) -> Any:
    """The value under a patch; neither is changed. Raises Usage: a directive that is none."""
    if isinstance(value, dict | list) and not isinstance(patch, type(value)):
        raise Usage(f"should be a {'mapping' if isinstance(value, dict) else 'list'}, not {patch!r}", where=path, remedy="write it as in a pod")
    if not isinstance(patch, dict):
        return deepcopy(patch)
    directive, retained = _directive(patch, path), patch.get(_RETAIN)
    if directive == "delete":
        return {}
    before = value if isinstance(value, dict) and directive != "replace" else {}
    merged = {name: item for name, item in before.items() if retained is None or name in retained}
    for name, item in patch.items():
        if name in (_PATCH, _RETAIN):
            continue
        if item is None:
            merged.pop(name, None)
        elif isinstance(item, list) and name in _KEYS:
            merged[name] = _merge_list(merged.get(name) or [], item, _KEYS[name], f"{path}.{name}")
        else:
            merged[name] = merge(merged.get(name), item, f"{path}.{name}")
    return merged


def _merge_list(items: list[Manifest], patch: list[Manifest], key: str, path: str) -> list[Manifest]:
    """Items of a list by their key. What the patch names stands in its order, what it does not name keeps its place among that."""
    odd = next((index for index, item in enumerate(patch) if not isinstance(item, dict)), None)
    if odd is not None:
        raise Usage(f"should be a mapping, not {patch[odd]!r}", where=f"{path}[{odd}]", remedy=f"name the item by its {key}")
    replaced = any(item.get(_PATCH) == "replace" for item in patch)
    before = {} if replaced else {item.get(key): item for item in items}
    told: dict[Any, Manifest] = {}
    for index, item in enumerate(patch):
        directive, name = _directive(item, f"{path}[{index}]"), item.get(key)
        if directive == "replace":
            continue
        if name is None:
            raise Usage(f"an item without {key!r}", where=f"{path}[{index}]", remedy=f"name it by its {key}")
        if directive == "delete":
            before.pop(name, None)
        else:
            told[name] = merge(told.get(name, before.get(name, {})), item, f"{path}[{index}]")
    order = list(before)
    kept = [name for name in order if name not in told]
    merged: list[Manifest] = []
    for name, item in told.items():
        while kept and name in before and order.index(kept[0]) < order.index(name):
            merged.append(before[kept.pop(0)])
        merged.append(item)
    return [*merged, *(before[name] for name in kept)]


def _directive(patch: Manifest, path: str) -> str | None:
    unknown = [name for name in patch if isinstance(name, str) and name.startswith("$") and name not in (_PATCH, _RETAIN)]
    if unknown:
        raise Usage(f"{unknown[0]!r} is no directive that is understood", where=path, remedy=f"use {_PATCH}: delete, or {_PATCH}: replace")
    directive: str | None = patch.get(_PATCH)
    if directive not in (None, "delete", "replace", "merge"):
        raise Usage(f"{_PATCH}: {directive} is no directive", where=path, remedy="delete, replace or merge")
    return directive


def _check(pod: Manifest, patched: Manifest) -> None:
    """Refuse what would not be found again, would not know its order, or would never end."""
    remedy = "leave it out of the overlay"
    spec, metadata = patched.get("spec") or {}, patched.get("metadata") or {}
    container = pod["spec"]["containers"][0]
    found = next((item for item in spec.get("containers") or [] if item.get("name") == container["name"]), None)
    if found is None:
        raise Usage(f"the container {container['name']!r} is gone", where=f"{_WHERE}.spec.containers", remedy=remedy)
    if found.get("command") != container["command"] or found.get("args"):
        what = f"the container {container['name']!r} would execute something else"
        raise Usage(what, where=f"{_WHERE}.spec.containers", why="its command makes it a step", remedy=remedy)
    mounts = {mount.get("mountPath"): mount.get("name") for mount in found.get("volumeMounts") or []}
    volumes = {volume.get("name"): volume for volume in spec.get("volumes") or []}
    sources = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in container["volumeMounts"]:
        name = mount["name"]
        if name in ("yard", "order") and (mounts.get(mount["mountPath"]) != name or volumes.get(name) != sources[name]):
            raise Usage(f"the volume {name!r} is gone or another one", where=f"{_WHERE}.spec.volumes", remedy=remedy)
    if spec.get("restartPolicy") != "Never":
        raise Usage("restartPolicy has to be Never", where=f"{_WHERE}.spec.restartPolicy", why="a Job tries again", remedy=remedy)
    for part in ("labels", "annotations"):
        own = pod["metadata"].get(part, {})
        changed = sorted(name for name in own if (metadata.get(part) or {}).get(name) != own[name])
        if changed:
            raise Usage(f"{changed[0]!r} would be lost", where=f"{_WHERE}.metadata.{part}", why="by it the step is found again", remedy=remedy)
