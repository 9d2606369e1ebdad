"""One node of the cluster: containerd, kubelet and kube-proxy in the node's network namespace, with folders and a cgroup of the node's own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.cluster.harness import network, processes
from tests.cluster.harness.binaries import program
from tests.cluster.harness.certificates import Authority
from tests.cluster.harness.controlplane import kubeconfig
from tests.cluster.harness.images import PAUSE, seed
from tests.cluster.harness.leftovers import cgroup_mounts
from tests.cluster.harness.state import State

PLUGINS = "/usr/lib/cni"  # where Debian puts them

CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{configuration}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{folder}/runc"
        SystemdCgroup = false
"""


def socket(state: State, node: str) -> Path:
    """Where a node's containerd listens."""
    return state.node(node) / "containerd.sock"


def start_containerd(state: State, node: str) -> None:
    """Starts a node's containerd, with the cached images in it."""
    folder = state.node(node)
    folder.mkdir(parents=True)
    seed(folder / "containerd")
    configuration = network.write_plugins(node, folder / "network")
    text = CONTAINERD.format(folder=folder, socket=socket(state, node), pause=PAUSE, plugins=PLUGINS, configuration=configuration)
    (folder / "containerd.toml").write_text(text)
    name = f"{node}-containerd"
    processes.start(state, name, ["containerd", "--config", folder / "containerd.toml"], namespace=network.namespace(node))


def start_kubelet(state: State, node: str, authority: Authority) -> None:
    """Starts a node's kubelet as soon as its containerd serves it (before that, the kubelet would end), and its kube-proxy."""
    folder = state.node(node)
    log = state.logs / f"{node}-containerd.log"
    served = "containerd successfully booted"
    processes.wait(state, f"containerd of {node} serves", lambda: log.exists() and served in log.read_text(), process=f"{node}-containerd", within=60)
    _make_cgroup(node)
    (folder / "kubelet.json").write_text(json.dumps(_kubelet_configuration(folder, node, authority)))
    start_kubelet_again(state, node)
    proxy = [
        f"--kubeconfig={kubeconfig(state, 'kube-proxy')}",
        f"--hostname-override={node}",
        f"--cluster-cidr={network.PODS}",
        "--proxy-mode=iptables",
        "--iptables-min-sync-period=100ms",
        # The kernel lets only the first network namespace set these.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]
    processes.start(state, f"{node}-kube-proxy", [program("kube-proxy"), *proxy], namespace=network.namespace(node))


def start_kubelet_again(state: State, node: str) -> None:
    """Starts a node's kubelet with the configuration that it has, unless it runs."""
    if f"{node}-kubelet" in processes.running(state):
        return
    folder = state.node(node)
    words = [
        f"--config={folder}/kubelet.json",
        f"--kubeconfig={kubeconfig(state, node)}",
        f"--hostname-override={node}",
        f"--node-ip={network.address(node)}",
        f"--root-dir={folder}/kubelet",
        f"--cert-dir={folder}/kubelet-certificates",
    ]
    processes.start(state, f"{node}-kubelet", [program("kubelet"), *words], namespace=network.namespace(node))


def stop_kubelet(state: State, node: str) -> None:
    """Kills a node's kubelet, as a machine that fails or loses its network would: its containers are left as they are."""
    processes.stop(state, f"{node}-kubelet", how=signal.SIGKILL)


def _kubelet_configuration(folder: Path, node: str, authority: Authority) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(authority.certificate)}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{network.namespace(node)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},  # a machine without CAP_SYS_RESOURCE, as most virtual ones are
        "localStorageCapacityIsolation": False,
        "clusterDNS": [network.HOST],
        "clusterDomain": "cluster.local",
        # The node's disk is the tests' machine's: nearly full is no reason to evict pods, nor to delete images that no registry could give again.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 110,
        "nodeStatusReportFrequency": "10s",
        "nodeStatusUpdateFrequency": "2s",
        "podLogsDir": str(folder / "pods"),
        "registerWithTaints": [],
        "resolvConf": "/etc/resolv.conf",
        "serializeImagePulls": False,
        "volumePluginDir": str(folder / "volume-plugins"),
    }


def _make_cgroup(node: str) -> None:
    """The kubelet does not make its own root; on cgroup v1 that is one folder for each controller, and cpuset's starts out empty."""
    for mount in cgroup_mounts():
        folder = mount / network.namespace(node)
        folder.mkdir(exist_ok=True)
        if (mount / "cgroup.subtree_control").exists() and (controllers := (mount / "cgroup.controllers").read_text().split()):
            os.write(handle := os.open(mount / "cgroup.subtree_control", os.O_WRONLY), " ".join(f"+{name}" for name in controllers).encode())
            os.close(handle)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (mount / name).exists():
                (folder / name).write_text((mount / name).read_text())
