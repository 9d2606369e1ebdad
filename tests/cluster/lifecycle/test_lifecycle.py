"""Start, crash, start anew and stop of the local cluster, and what is left of it.

Runs before the cluster of the other tests starts, and never on one that is up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import kind, leftovers, local, processes
from tests.cluster.harness.images import BUSYBOX
from tests.cluster.harness.leftovers import OUTSIDE, SETTINGS
from tests.cluster.harness.network import namespace
from tests.cluster.harness.state import State, state


@pytest.fixture
def no_cluster() -> Iterator[State]:
    """The state folder, with no cluster before and after."""
    if local.find() is not None:
        pytest.skip("a cluster is up already, and these tests would stop it: `make cluster-down` first")
    if kind.available():
        pytest.skip("kind is here, and serves the tests instead of a local cluster")
    local.down()
    local.prepare()
    yield state()
    local.down()


def look() -> dict[str, object]:
    """What a cluster could leave outside of its folder, in so far as nothing else on the machine changes it."""
    settings = {name: (Path("/proc/sys") / name).read_text() for name in SETTINGS}
    results = sorted(path.name for path in Path("/var/lib/cni/results").glob(f"{namespace('node')}*"))
    logs = [link for link in Path("/var/log/containers").glob("*") if str(link.readlink()).startswith(str(state().root))]
    return {
        "folders": [path for path in OUTSIDE if Path(path).exists()],
        "results": results,
        "logs": logs,
        "routes": processes.run("ip", "route"),
        "settings": settings,
    }


@pytest.mark.slow  # that a stop leaves nothing is held at the end of every session: `local.down` fails where it does
def test_a_killed_cluster_is_removed_by_the_next_start_and_a_stop_leaves_nothing(no_cluster: State) -> None:
    before = look()
    first = local.up()
    names = processes.running(no_cluster)
    assert {"etcd", "kube-apiserver", "coredns", "node1-kubelet", "node2-containerd", "node2-kube-proxy"} <= set(names)
    sleeper = {"restartPolicy": "Never", "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "100000"]}]}
    for node in first.workers():
        first.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": node}, "spec": {**sleeper, "nodeName": node}}, namespace="default")
    for node in first.workers():
        first.wait_for_pod(node, "Running", namespace="default")

    for name in names:
        os.kill(int((no_cluster.processes / name).read_text().split()[0]), signal.SIGKILL)
    first.wait("every process ended", lambda: not processes.running(no_cluster), within=10)
    assert local.find() is None
    left = leftovers.found(no_cluster)
    # The pods live on without those who started them: that is what the next start has to end.
    for kind_of_thing in ("process", "mount", "namespace", "interface", "cgroup"):
        assert any(thing.startswith(kind_of_thing) for thing in left), left

    second = local.up()
    assert sorted(second.workers()) == ["node1", "node2"]
    assert second.items("pods", namespace="default") == []

    assert local.down()
    assert leftovers.found(no_cluster) == []
    assert look() == before
    assert not local.down()
