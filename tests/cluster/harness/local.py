"""The cluster that this machine runs by itself: its start, its stop, and what only it can do (an API server to kill, images from buildah)."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.cluster.harness import accelerators, controlplane, images, leftovers, network, node, packages, processes
from tests.cluster.harness.binaries import KUBERNETES, program
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.state import HarnessFailure, State, locked, state

STOP = "make cluster-down"


class LocalCluster(Cluster):
    """A control plane of plain processes and two nodes, each in a network namespace of its own."""

    def __init__(self, its: State) -> None:
        super().__init__(its.kubeconfig)
        self.state = its

    def stop_api_server(self) -> None:
        """Kills the API server; everything else goes on."""
        controlplane.stop_api_server(self.state)

    def start_api_server(self) -> None:
        """Starts the API server again; returns when it is ready."""
        controlplane.start_api_server(self.state)

    def restart_api_server(self, down_seconds: float) -> None:
        """Kills the API server and starts it again after a while."""
        self.stop_api_server()
        try:
            time.sleep(down_seconds)
        finally:
            self.start_api_server()

    def stop_kubelet(self, name: str) -> None:
        """Kills the kubelet of a node, which the cluster then hears nothing of; its containers go on."""
        node.stop_kubelet(self.state, name)

    def start_kubelet(self, name: str) -> None:
        """Starts the kubelet of a node again; returns when the node is Ready and has its accelerators, which a kubelet that starts may take away."""
        node.start_kubelet_again(self.state, name)
        processes.wait(self.state, f"{name} is Ready", partial(self.node_ready, name), process=f"{name}-kubelet", within=90)
        accelerators.give(self, name, accelerators.NVIDIA)

    def load_image(self, image: str) -> None:
        """Has both nodes take an image from buildah's storage, as it is there now; use it with `imagePullPolicy: Never` or `IfNotPresent`."""
        images.load(self.state, network.NODES, image)


def find() -> LocalCluster | None:
    """The local cluster that runs now; None where there is none, or none that got through its start."""
    its = state()
    return LocalCluster(its) if its.kubeconfig.exists() and "kube-apiserver" in processes.running(its) else None


def up() -> LocalCluster:
    """Starts the local cluster; refuses where one runs, and first removes what a killed one left."""
    its = state()
    with locked("cluster"):
        if names := processes.running(its):
            raise HarnessFailure(f"a cluster runs already ({len(names)} processes, state in {its.root}); stop it with `{STOP}`")
        packages.install()
        leftovers.clean(its)
        prepare()
        try:
            its.root.mkdir(parents=True)
            leftovers.remember(its)
            images.begin(its)
            _start(its)
        except BaseException:
            keep = its.root.with_name("cluster-failed-logs")
            shutil.rmtree(keep, ignore_errors=True)
            if its.logs.exists():
                shutil.copytree(its.logs, keep)
            leftovers.clean(its)
            raise
    return LocalCluster(its)


def down() -> bool:
    """Stops the local cluster and removes all that it left; False where there was nothing."""
    its = state()
    with locked("cluster"):
        there = its.root.exists()
        leftovers.clean(its)
        if left := leftovers.found(its):
            raise HarnessFailure(f"the cluster is stopped, but left {', '.join(left)}")
    return there


def prepare() -> None:
    """Gets what a start needs and is not there: system packages, programs and images."""
    packages.install()
    for name in (*KUBERNETES, "coredns", "pause"):
        program(name)
    images.prepare()


def _start(its: State) -> None:
    authority = controlplane.make_certificates(its)
    network.make()
    for name in network.NODES:
        node.start_containerd(its, name)
    controlplane.start(its)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: node.start_kubelet(its, name, authority), network.NODES))
    cluster = Cluster(controlplane.kubeconfig(its, "admin"))
    for name in network.NODES:
        processes.wait(its, f"{name} is Ready", partial(cluster.node_ready, name), process=f"{name}-kubelet", within=90)
        accelerators.give(cluster, name, accelerators.NVIDIA)
    account = "the default namespace has a service account"
    processes.wait(its, account, lambda: cluster.has("serviceaccount", "default"), process="kube-controller-manager", within=60)
    controlplane.wait_for_dns(its)
    shutil.copy2(controlplane.kubeconfig(its, "admin"), its.kubeconfig)
