"""Accelerators that no node has: a resource in a node's status, and the labels that the vendor's feature discovery would set.

The scheduler counts such a resource as a real one, so pods are placed and left pending as they would be; no device reaches a container.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.cluster.harness.cluster import Cluster


@dataclass(frozen=True)
class Accelerator:
    """A kind of accelerator: the extended resource, how many a node has, and the labels of such a node."""

    resource: str
    count: int
    labels: dict[str, str]


NVIDIA = Accelerator(
    "nvidia.com/gpu",
    8,
    {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.family": "hopper",
        "nvidia.com/gpu.memory": "81559",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    },
)
MIG = Accelerator(  # of the strategy "mixed": slices have a resource of their own, and whole GPUs keep theirs
    "nvidia.com/mig-1g.10gb",
    7,
    {
        "nvidia.com/mig.capable": "true",
        "nvidia.com/mig.strategy": "mixed",
        "nvidia.com/mig-1g.10gb.count": "7",
        "nvidia.com/mig-1g.10gb.memory": "9984",
        "nvidia.com/mig-1g.10gb.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb",
    },
)
AMD = Accelerator(
    "amd.com/gpu",
    8,
    {
        "amd.com/gpu.family": "AI",
        "amd.com/gpu.device-id": "74a1",
        "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
        "amd.com/gpu.vram": "192G",
    },
)
ASCEND = Accelerator(
    "huawei.com/Ascend910",
    8,
    {
        "accelerator": "huawei-Ascend910",
        "accelerator-type": "module-910b-8",
        "node.kubernetes.io/npu.chip.name": "910B3",
    },
)


def give(cluster: Cluster, node: str, kind: Accelerator) -> None:
    """Gives a node accelerators of a kind."""
    path = _pointer(kind.resource)
    _patch_status(cluster, node, [{"op": "add", "path": f"/status/{part}/{path}", "value": str(kind.count)} for part in ("capacity", "allocatable")])
    cluster.kubectl("label", "node", node, "--overwrite", *(f"{name}={value}" for name, value in kind.labels.items()))


def take(cluster: Cluster, node: str, kind: Accelerator) -> None:
    """Takes a node's accelerators of a kind away, and their labels."""
    path = _pointer(kind.resource)
    _patch_status(cluster, node, [{"op": "remove", "path": f"/status/{part}/{path}"} for part in ("capacity", "allocatable")])
    cluster.kubectl("label", "node", node, *(f"{name}-" for name in kind.labels))


@contextmanager
def given(cluster: Cluster, node: str, kind: Accelerator) -> Iterator[None]:
    """A node has accelerators of a kind for as long as the block runs."""
    give(cluster, node, kind)
    try:
        yield
    finally:
        take(cluster, node, kind)


def _pointer(resource: str) -> str:
    return resource.replace("~", "~0").replace("/", "~1")


def _patch_status(cluster: Cluster, node: str, patch: list[dict[str, str]]) -> None:
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")
