"""A namespace for a test, or for all tests of a module that do not disturb each other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.harness import volumes
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.local import LocalCluster


@contextmanager
def own_namespace(cluster: Cluster, *, level: str = "restricted") -> Iterator[str]:
    """The name of a namespace under a pod security standard, removed at the end with its volumes."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(name, level=level)
    try:
        yield name
    finally:
        cluster.remove_namespace(name)
        if isinstance(cluster, LocalCluster):
            volumes.remove_volumes(cluster, name)
