"""A cluster made by kind, where Docker answers: kind-config.yaml at the repository's root, with accelerators as the local cluster has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.cluster.harness import accelerators
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.processes import run

NAME = "modelyard-tests"
CONFIGURATION = Path(__file__).resolve().parents[3] / "kind-config.yaml"


class KindCluster(Cluster):
    """A cluster whose nodes are containers."""

    def load_image(self, image: str) -> None:
        """Has every node take an image from Docker's storage."""
        run("kind", "load", "docker-image", image, "--name", NAME)


def available() -> bool:
    """Whether kind and Docker are here, and Docker answers."""
    if shutil.which("kind") is None or shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def up(folder: Path) -> KindCluster:
    """Makes the cluster; its kubeconfig is written into `folder`."""
    kubeconfig = folder / "kubeconfig"
    try:
        run("kind", "create", "cluster", "--name", NAME, "--config", CONFIGURATION, "--kubeconfig", kubeconfig, "--wait", "120s")
        cluster = KindCluster(kubeconfig)
        for node in cluster.workers():
            accelerators.give(cluster, node, accelerators.NVIDIA)
    except BaseException:
        down()
        raise
    return cluster


def down() -> None:
    """Deletes the cluster."""
    run("kind", "delete", "cluster", "--name", NAME)
