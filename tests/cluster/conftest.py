"""The cluster that the tests of this tier run on, and a namespace of its own for each test.

In this order: the one that a user gives (MODELYARD_TEST_CLUSTER=1 and KUBECONFIG), one made by kind where Docker answers, and one that this machine
runs by itself. The last is left up where `make cluster-up` started it, else it is started here and stopped at the end, after Ctrl-C too. Where none
of the three can be had the whole tier is skipped, and says in one line what is missing.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.harness import kind, local, volumes
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.local import LocalCluster


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips every test that needs a cluster, where none can be had; from here, so that all of them are one line of the summary."""
    if "cluster" in getattr(item, "fixturenames", ()) and (lacks := _lacks()):
        choices = "MODELYARD_TEST_CLUSTER=1 with KUBECONFIG, or kind with Docker, or a local cluster, for which this machine lacks"
        pytest.skip(f"THE CLUSTER TESTS DID NOT RUN: they need {choices} {', '.join(lacks)}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if given := _given():
        yield Cluster(Path(given))
    elif (running := local.find()) is not None:
        yield running
    elif kind.available():
        yield kind.up(tmp_path_factory.mktemp("kind"))
        kind.down()
    else:
        for target in images.TARGETS:  # before the start: then both nodes share one copy, and get it in no time
            images.image(target)
        yield local.up()
        local.down()


@pytest.fixture(scope="session")
def local_cluster(cluster: Cluster) -> LocalCluster:
    """The cluster where it is the local one: what only that can do (an API server to kill, volumes on the host) is not tested on others."""
    if not isinstance(cluster, LocalCluster):
        pytest.skip("needs the local cluster: it looks at the nodes' disks, or kills the API server")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace under the restricted pod security standard, removed at the end with its volumes."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(name)
    yield name
    cluster.remove_namespace(name)
    if isinstance(cluster, LocalCluster):
        volumes.remove_volumes(cluster, name)


def _given() -> str | None:
    return os.environ.get("KUBECONFIG") if os.environ.get("MODELYARD_TEST_CLUSTER") == "1" else None


@cache
def _lacks() -> tuple[str, ...]:
    """What keeps this session from having a cluster; empty where it can have one."""
    return () if _given() or local.find() or kind.available() else tuple(images.missing())
