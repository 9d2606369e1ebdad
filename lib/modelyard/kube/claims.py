"""The claim that is the yard on a cluster: its manifest, and how many nodes may mount it.

Which volume it gets is the cluster's business. Nothing here waits for one: many storage classes make it only when the first pod asks.
"""

from __future__ import annotations

from typing import cast, get_args

from modelyard.errors import NoInput, Usage
from modelyard.kube import pods
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.place import Access, Place
from modelyard.quantities import parse_bytes

_ALONE = "one pod alone could mount it, and a driver and its steps do so at the same time"


def manifest(place: Place, *, size: str, storage_class: str | None = None) -> Manifest:
    """The claim of a place. size: as Kubernetes writes amounts. storage_class: None for the cluster's own choice. Raises Usage: no such size."""
    try:
        enough = parse_bytes(size) > 0
    except ValueError:
        enough = False
    if not enough:
        raise Usage(f"{size!r} is no amount of space", where="--size", remedy="write it as 500Gi or 2Ti")
    spec: Manifest = {"accessModes": [place.access], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    metadata = {"name": place.claim, "namespace": place.namespace, "labels": pods.labels("yard", place)}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def check_access(mode: str) -> Access:
    """The access mode of a new claim. Raises Usage for one with which it could be no yard."""
    if mode in get_args(Access):
        return cast(Access, mode)
    why = _ALONE if mode == "ReadWriteOncePod" else ""
    remedy = "ReadWriteMany, or ReadWriteOnce where all pods may share one node"
    raise Usage(f"with access mode {mode!r} a claim cannot be a yard", where="--access-mode", why=why, remedy=remedy)


def size_of(claim: Manifest) -> str:
    """The space that a claim has, or while it has no volume, asks for."""
    return str(claim.get("status", {}).get("capacity", {}).get("storage") or claim["spec"]["resources"]["requests"]["storage"])


def smaller(size: str, other: str) -> bool:
    """Whether one amount is less than another, as far as they can be read."""
    try:
        return parse_bytes(size) < parse_bytes(other)
    except ValueError:
        return size != other


def placed(cluster: Cluster, place: Place) -> Place:
    """The place with the access mode that its claim has. Raises NoInput: there is no such claim; Usage: it cannot be a yard."""
    found = cluster.get("PersistentVolumeClaim", place.claim)
    if found is None:
        where, remedy = f"namespace {cluster.namespace}", f"modelyard yard create --on kubernetes -n {cluster.namespace} --yard {place.claim}"
        raise NoInput(f"there is no claim {place.claim!r}", where=where, remedy=remedy)
    return place.model_copy(update={"access": access_of(found)})


def access_of(claim: Manifest) -> Access:
    """The widest way in which a claim's volume may be mounted for writing. Raises Usage when that is too little for a yard."""
    modes = claim.get("status", {}).get("accessModes") or claim["spec"].get("accessModes", [])
    if "ReadWriteMany" in modes:
        return "ReadWriteMany"
    if "ReadWriteOnce" in modes:
        return "ReadWriteOnce"
    why = _ALONE if "ReadWriteOncePod" in modes else "nothing could be written"
    raise Usage(
        f"a claim that is {' and '.join(modes) or 'without an access mode'} cannot be a yard",
        where=f"claim {claim['metadata']['name']}",
        why=why,
        remedy="make another one: modelyard yard create --on kubernetes --yard NAME --access-mode ReadWriteMany (or ReadWriteOnce)",
    )
