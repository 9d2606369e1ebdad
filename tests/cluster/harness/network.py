"""The cluster's network: a bridge on the host, and a network namespace for each node.

Everything that the network plugins and kube-proxy do (pods' interfaces, iptables chains) happens inside the nodes' namespaces and goes with them: the
host keeps its own iptables, sysctls and ports. The control plane listens on the bridge's address alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.harness.processes import run

BRIDGE = "modelyard0"
HOST = "172.30.0.1"  # the control plane and the cluster's DNS, from everywhere
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
PODS = "10.244.0.0/16"
NODES = ("node1", "node2")


def namespace(node: str) -> str:
    """The network namespace of a node."""
    return f"modelyard-{node}"


def address(node: str) -> str:
    """A node's address."""
    return f"172.30.0.{10 + _number(node)}"


def pods(node: str) -> str:
    """The addresses of a node's pods."""
    return f"10.244.{_number(node)}.0/24"


def make() -> None:
    """Makes the bridge, the nodes' namespaces, and the routes between pods, nodes and the host."""
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{HOST}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for node in NODES:
        inside = ("ip", "-n", namespace(node))
        outside = f"modelyard-{_number(node)}"
        run("ip", "netns", "add", namespace(node))
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace(node))
        run("ip", "link", "set", outside, "master", BRIDGE, "up")
        run(*inside, "address", "add", f"{address(node)}/24", "dev", "eth0")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", "default", "via", HOST)
        for other in NODES:
            if other != node:
                run(*inside, "route", "add", pods(other), "via", address(other))
        run("ip", "route", "add", pods(node), "via", address(node))
        run("nsenter", f"--net=/run/netns/{namespace(node)}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    # What runs on the host (tests, and the API server's calls of webhooks) reaches Services by the kube-proxy of the first node.
    run("ip", "route", "add", SERVICES, "via", address(NODES[0]))


def write_plugins(node: str, folder: Path) -> Path:
    """Writes the network plugins' configuration of a node; returns its folder.

    Point-to-point links and routes, no bridge: on a bridge, the answer of a pod on the same node would go around kube-proxy's translation.
    """
    addresses = {"type": "host-local", "ranges": [[{"subnet": pods(node)}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(folder / "addresses")}
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    configuration = folder / "configuration"
    configuration.mkdir(parents=True)
    (configuration / "10-modelyard.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": namespace(node), "plugins": plugins}))
    return configuration


def _number(node: str) -> int:
    return int(node.removeprefix("node"))
