"""The cluster that the tests of this tier run on, and a namespace of its own for each test.

In this order: the one that a user gives (MODELYARD_TEST_CLUSTER=1 and KUBECONFIG), one made by kind where Docker answers, and one that this machine
runs by itself. The last is left up where `make cluster-up` started it, else it is started here and stopped at the end, after Ctrl-C too. Where none
of the three can be had the whole tier is skipped, and says in one line what is missing.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

from examples import demo_hub
from tests.cluster import images
from tests.cluster.chart import Helm
from tests.cluster.harness import kind, local, packages
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.local import LocalCluster
from tests.cluster.harness.namespaces import own_namespace
from tests.cluster.site import Site, fill, site

HERE = Path(__file__).parent
OF_THIS_MACHINE = {"any_image", "light", "cuda", "storage", "no_cluster"}
"""Fixtures that take what a local cluster takes, wherever the other tests have their cluster."""
PATIENCE = 1800
"""Seconds that a test may take by itself. A first start is none of a test's: that builds programs and images for as long as it takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Counts a test's own time alone, and lets those be first that want no cluster to be up."""
    items.sort(key=lambda item: not item.path.is_relative_to(HERE / "lifecycle"))
    for item in items:
        if item.path.is_relative_to(HERE) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PATIENCE, func_only=True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips every test that needs a cluster or images, where none can be had; from here, so that all of them are one line of the summary."""
    needs = set(getattr(item, "fixturenames", ()))
    if lacks := tuple(packages.missing()) if needs & OF_THIS_MACHINE else _lacks() if "cluster" in needs else ():
        choices = "MODELYARD_TEST_CLUSTER=1 with KUBECONFIG, or kind with Docker, or a local cluster, for which this machine lacks"
        pytest.skip(f"THE CLUSTER TESTS DID NOT RUN: they need {choices} {', '.join(lacks)}")


@pytest.fixture(scope="session", autouse=True)
def heeding_sigterm() -> Iterator[None]:
    """Who ends the tests by SIGTERM, as a CI does, leaves as little behind as who presses Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


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
        pytest.skip("needs the local cluster: it takes images from buildah, looks at the nodes' disks, or kills the API server")
    return cluster


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm, which renders without a cluster; its own, or built by the Go toolchain."""
    if shutil.which("helm") is None and shutil.which("go") is None:
        pytest.skip("THE TESTS OF THE CHART DID NOT RUN: they need helm, or a Go toolchain to build it with")
    return Helm()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    with own_namespace(cluster) as name:
        yield name


@pytest.fixture(scope="session")
def demo_site(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A person's namespace with the demo's hub in it, for all that train there."""
    demo = tmp_path_factory.mktemp("demo") / "hub"
    demo_hub.main(demo)
    with site(local_cluster, tmp_path_factory.mktemp("home")) as made:
        fill(made.hub, demo)
        yield made


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _given() -> str | None:
    return os.environ.get("KUBECONFIG") if os.environ.get("MODELYARD_TEST_CLUSTER") == "1" else None


@cache
def _lacks() -> tuple[str, ...]:
    """What keeps this session from having a cluster; empty where it can have one."""
    return () if _given() or local.find() or kind.available() else tuple(packages.missing())
