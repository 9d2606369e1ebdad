"""Volumes of the local cluster: a folder on the host, which both nodes see, as a PersistentVolume with its claim.

Beside the ordinary kind there is one that is full after a few mebibytes, and one that refuses every write, as a failed disk does once it is mounted
again read-only. What is in a volume can be read on the host: tests look at the folder that they get.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.cluster.harness.leftovers import mounts
from tests.cluster.harness.local import LocalCluster
from tests.cluster.harness.processes import run

GROUP = 10001  # that the project's pods run as


def make_volume(
    cluster: LocalCluster, namespace: str, claim: str, *, size: str = "10Gi", access_modes: tuple[str, ...] = ("ReadWriteMany",), gid: int = GROUP
) -> Path:
    """Makes a volume and its claim, bound to each other; returns the folder on the host."""
    folder = _folder(cluster, namespace, claim, gid)
    _declare(cluster, folder, namespace, claim, size, access_modes)
    return folder


def make_unclaimed(
    cluster: LocalCluster, namespace: str, claim: str, *, size: str = "10Gi", access_modes: tuple[str, ...] = ("ReadWriteMany",)
) -> Path:
    """Makes a volume that waits for a claim of that name without a storage class, which somebody else makes; returns the folder on the host."""
    folder = _folder(cluster, namespace, claim, GROUP)
    cluster.apply(_volume(folder, namespace, claim, size, access_modes))
    return folder


def make_small_volume(cluster: LocalCluster, namespace: str, claim: str, *, mebibytes: int = 4, gid: int = GROUP) -> Path:
    """Makes a volume that is full after a few mebibytes, and its claim."""
    folder = _folder(cluster, namespace, claim, gid)
    run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=2775,gid={gid}", "modelyard-volume", folder)
    _declare(cluster, folder, namespace, claim, f"{mebibytes}Mi", ("ReadWriteMany",))
    return folder


def make_read_only(folder: Path) -> None:
    """Has a volume refuse every write from now on, as long as no pod that started before holds it."""
    run("mount", "--bind", folder, folder)
    run("mount", "-o", "remount,bind,ro", folder)


def remove_volumes(cluster: LocalCluster, namespace: str) -> None:
    """Removes the volumes of a namespace and what is in them; its pods must have been deleted."""
    cluster.kubectl("delete", "persistentvolumes", f"--selector=modelyard-tests/namespace={namespace}", "--wait=false")
    top = cluster.state.volumes / namespace
    for path in reversed(mounts(top)):
        run("umount", "-l", path)
    if top.exists():
        shutil.rmtree(top)


def _folder(cluster: LocalCluster, namespace: str, claim: str, gid: int) -> Path:
    """The folder's group is the pods', and what is made in it keeps that group."""
    folder = cluster.state.volumes / namespace / claim
    folder.mkdir(parents=True)
    os.chown(folder, 0, gid)
    folder.chmod(0o2775)
    return folder


def _declare(cluster: LocalCluster, folder: Path, namespace: str, claim: str, size: str, access_modes: tuple[str, ...]) -> None:
    volume = _volume(folder, namespace, claim, size, access_modes)
    name = volume["metadata"]["name"]
    asked = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": namespace},
        "spec": {"accessModes": access_modes, "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": size}}},
    }
    cluster.apply(volume, asked)
    cluster.wait(
        f"claim {claim} is bound",
        lambda: cluster.get("persistentvolumeclaim", claim, namespace=namespace).get("status", {}).get("phase") == "Bound",
    )


def _volume(folder: Path, namespace: str, claim: str, size: str, access_modes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}", "labels": {"modelyard-tests/namespace": namespace}},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": access_modes,
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }
