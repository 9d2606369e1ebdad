"""What accelerators a cluster has, by vendor and model: how many, in use, free, and of no use now with the reason. Pure: nothing is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelyard.devices import Vendor
from modelyard.kube.room import Space, tolerated, vendor_of_resource, written


@dataclass(frozen=True)
class Unusable:
    """Accelerators of one node that no new pod of ours gets."""

    node: str
    count: int
    why: str


@dataclass(frozen=True)
class Stock:
    """Accelerators of one resource and model. model: as `gpu_model` takes it, empty where no label says it.

    allocatable: of nodes as they say themselves, and of those used; free and block: of nodes that take pods. block: the most on one node.
    used, free, block are None where pods may not be listed everywhere.
    """

    vendor: str
    model: str
    resource: str
    nodes: int
    allocatable: int
    used: int | None
    free: int | None
    block: int | None
    unusable: tuple[Unusable, ...]

    @property
    def name(self) -> str:
        """What a pipeline would ask for."""
        return self.model or self.resource

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "unusable": [asdict(one) for one in self.unusable]}


def stocks(found: Sequence[Space]) -> list[Stock]:
    """All accelerators, by vendor, resource and model."""
    kinds: dict[tuple[str, str, str], list[Space]] = {}
    for space in found:
        for resource in {**space.capacity, **space.allocatable}:
            vendor = vendor_of_resource(resource)
            if vendor and max(space.capacity.get(resource, 0), space.allocatable.get(resource, 0)):
                kinds.setdefault((vendor.name, resource, space.model(resource)), []).append(space)
    return [_stock(*kind, of_it) for kind, of_it in sorted(kinds.items())]


def _stock(vendor: str, resource: str, model: str, of_it: Sequence[Space]) -> Stock:
    row = vendor_of_resource(resource)
    kept = {space.name: _kept_away(space, row) for space in of_it}
    unusable = [Unusable(space.name, space.allocatable.get(resource, 0), kept[space.name]) for space in of_it if kept[space.name]]
    ill = [(space.name, space.capacity.get(resource, 0) - space.allocatable.get(resource, 0)) for space in of_it]
    unusable += [Unusable(name, count, "unhealthy") for name, count in ill if count > 0]
    known = [space for space in of_it if space.used is not None]
    counted = len(known) == len(of_it)
    free = [space.free(resource) or 0 for space in known if not kept[space.name]]
    return Stock(
        vendor=vendor,
        model=model,
        resource=resource,
        nodes=len(of_it),
        allocatable=sum(space.allocatable.get(resource, 0) for space in of_it),
        used=sum((space.used or {}).get(resource, 0) for space in known) if counted else None,
        free=sum(free) if counted else None,
        block=max(free, default=0) if counted else None,
        unusable=tuple(one for one in unusable if one.count),
    )


def _kept_away(space: Space, vendor: Vendor | None) -> str:
    """Why a step with such an accelerator would not be put on the node; empty where it may."""
    tolerations = [{"key": key, "operator": "Exists"} for key in (vendor.taints if vendor else ())]
    taints = [written(taint) for taint in space.taints if not taint["key"].startswith("node.kubernetes.io/") and not tolerated(taint, tolerations)]
    return ", ".join(_reasons(space, taints))


def _reasons(space: Space, taints: Sequence[str]) -> Iterable[str]:
    if space.cordoned:
        yield "cordoned"
    if not space.ready:
        yield "not ready"
    if taints:
        yield f"taint {', '.join(taints)}"
