"""The harness itself: what the tests of this tier take for granted of their cluster, seen once."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.cluster.harness import accelerators, local, packages, processes, volumes
from tests.cluster.harness.binaries import program
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import BUSYBOX
from tests.cluster.harness.local import LocalCluster
from tests.cluster.harness.namespaces import own_namespace
from tests.cluster.harness.processes import run
from tests.cluster.harness.state import HarnessFailure, State, cache

KIND_CONFIGURATION = Path(__file__).resolve().parents[2] / "kind-config.yaml"
NODES = ("node1", "node2")


def pod(name: str, script: str, *, node: str | None = None, **container: Any) -> dict[str, Any]:
    """A pod that the restricted standard allows, running a shell script."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-ec", script], "securityContext": security} | container],
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def mounted(document: dict[str, Any], claim: str) -> dict[str, Any]:
    """The pod with a claim's volume at /data."""
    document["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    document["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return document


def printed(cluster: Cluster, namespace: str, *pods: dict[str, Any]) -> list[str]:
    """Runs pods to their successful end; returns what each printed."""
    cluster.apply(*pods, namespace=namespace)
    said = []
    for name in (document["metadata"]["name"] for document in pods):
        ended = cluster.wait_for_pod(name, "Succeeded", "Failed", namespace=namespace)
        said.append(cluster.logs(name, namespace=namespace).strip())
        assert ended["status"]["phase"] == "Succeeded", said[-1]
    return said


def unschedulable(cluster: Cluster, namespace: str, name: str) -> str:
    """Waits until the scheduler has given its reason for not placing a pod; returns it."""

    def reason() -> str:
        conditions = cluster.get("pod", name, namespace=namespace)["status"].get("conditions", [])
        return next((condition["message"] for condition in conditions if condition.get("reason") == "Unschedulable"), "")

    return str(cluster.wait(f"pod {name} is unschedulable", reason, within=20))


def test_two_nodes_are_ready_and_have_gpus_in_name(local_cluster: LocalCluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in local_cluster.items("nodes")}
    assert set(nodes) == set(NODES) == set(local_cluster.workers())
    for name, node in nodes.items():
        assert local_cluster.node_ready(name)
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert node["metadata"]["labels"].items() >= accelerators.NVIDIA.labels.items()


def test_pods_find_each_other_by_name_across_nodes_and_reach_services(local_cluster: LocalCluster, namespace: str) -> None:
    reached: dict[str, Any] = {"selector": {"app": "web"}, "ports": [{"port": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": reached}
    headless = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hosts"}, "spec": reached | {"clusterIP": "None"}}
    server = pod("server", "mkdir /tmp/www; echo from $HOSTNAME > /tmp/www/who; httpd -f -p 8080 -h /tmp/www", node="node2")
    server["metadata"]["labels"] = {"app": "web"}
    server["spec"] |= {"hostname": "first", "subdomain": "hosts"}
    local_cluster.apply(service, headless, server, namespace=namespace)
    local_cluster.wait_for_pod("server", "Running", namespace=namespace)
    fetch = (
        f"for host in first.hosts.{namespace}.svc.cluster.local web; do until timeout 2 wget -q -O - http://$host:8080/who; do sleep 0.2; done; done"
    )
    # From the other node and from the server's own, where a Service's answer could take a short cut around the translation of its address.
    said = printed(local_cluster, namespace, *(pod(f"client-{node}", fetch, node=node) for node in NODES))
    assert said == ["from first\nfrom first"] * 2


def test_a_pod_on_each_node_reaches_the_api_server_by_its_service(local_cluster: LocalCluster, namespace: str) -> None:
    ask = "until timeout 2 wget -q --no-check-certificate -O - https://10.96.0.1/version; do sleep 0.2; done"
    said = printed(local_cluster, namespace, *(pod(f"asks-{node}", ask, node=node) for node in NODES))
    assert all('"gitVersion": "v1.34.4"' in answer for answer in said)


def test_a_pod_over_its_memory_limit_is_killed_for_that(local_cluster: LocalCluster, namespace: str) -> None:
    limit = {"resources": {"limits": {"memory": "32Mi"}}}
    # `tail` keeps the last line, and /dev/zero has no end of one.
    for node in NODES:
        local_cluster.apply(pod(f"greedy-{node}", "exec tail /dev/zero", node=node, **limit), namespace=namespace)
    for node in NODES:
        ended = local_cluster.wait_for_pod(f"greedy-{node}", "Succeeded", "Failed", namespace=namespace)
        state = ended["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)
    assert printed(local_cluster, namespace, pod("modest", "head -c 1000000 /dev/zero | tail | wc -c", **limit)) == ["1000000"]


def test_gpus_in_name_are_placed_and_run_out(local_cluster: LocalCluster, namespace: str) -> None:
    # Six of each node's eight: a third pod of the kind fits nowhere, whoever else uses the cluster.
    six = {"resources": {"limits": {"nvidia.com/gpu": "6"}}}
    for name in ("first", "second", "third"):
        local_cluster.apply(pod(name, "exec sleep 1000", **six), namespace=namespace)
    reason = unschedulable(local_cluster, namespace, "third")
    assert "2 Insufficient nvidia.com/gpu" in reason
    nodes = {local_cluster.wait_for_pod(name, "Running", namespace=namespace)["spec"]["nodeName"] for name in ("first", "second")}
    assert nodes == set(NODES)


@pytest.mark.parametrize("kind", [accelerators.MIG, accelerators.AMD, accelerators.ASCEND], ids=lambda kind: kind.resource)
def test_other_accelerators_come_and_go(local_cluster: LocalCluster, namespace: str, kind: accelerators.Accelerator) -> None:
    one = {"resources": {"limits": {kind.resource: "1"}}}
    local_cluster.apply(pod("waits", "true", **one), namespace=namespace)
    assert f"2 Insufficient {kind.resource}" in unschedulable(local_cluster, namespace, "waits")
    with accelerators.given(local_cluster, "node2", kind):
        ended = local_cluster.wait_for_pod("waits", "Succeeded", "Failed", namespace=namespace)
        assert ended["status"]["phase"] == "Succeeded"
        assert ended["spec"]["nodeName"] == "node2"
        assert [node["metadata"]["name"] for node in local_cluster.items("nodes", selector=",".join(f"{k}={v}" for k, v in kind.labels.items()))] == [
            "node2"
        ]
    node = local_cluster.get("node", "node2")
    assert kind.resource not in node["status"]["allocatable"]
    assert not set(kind.labels) & set(node["metadata"]["labels"])
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_a_restricted_namespace_refuses_a_privileged_pod(local_cluster: LocalCluster, namespace: str) -> None:
    with pytest.raises(HarnessFailure, match="violates PodSecurity"):
        local_cluster.apply(pod("bad", "true", securityContext={"privileged": True}), namespace=namespace)
    assert not local_cluster.has("pod", "bad", namespace=namespace)


def test_a_volume_is_one_folder_for_both_nodes(local_cluster: LocalCluster, namespace: str) -> None:
    folder = volumes.make_volume(local_cluster, namespace, "yard")
    printed(local_cluster, namespace, mounted(pod("writer", "mkdir /data/made; echo written > /data/made/file", node="node1"), "yard"))
    assert printed(local_cluster, namespace, mounted(pod("reader", "cat /data/made/file", node="node2"), "yard")) == ["written"]
    assert (folder / "made/file").read_text() == "written\n"
    assert {((folder / name).stat().st_uid, (folder / name).stat().st_gid) for name in ("made", "made/file")} == {(10001, 10001)}


def test_a_small_volume_runs_full(local_cluster: LocalCluster, namespace: str) -> None:
    folder = volumes.make_small_volume(local_cluster, namespace, "small", mebibytes=4)
    script = "dd if=/dev/zero of=/data/fits bs=1M count=3 2>&1; if dd if=/dev/zero of=/data/more bs=1M count=3 2>&1; then exit 3; fi"
    assert "No space left on device" in printed(local_cluster, namespace, mounted(pod("writer", script), "small"))[0]
    assert (folder / "fits").stat().st_size == 3 << 20


def test_a_read_only_volume_refuses_writes(local_cluster: LocalCluster, namespace: str) -> None:
    folder = volumes.make_volume(local_cluster, namespace, "failed")
    (folder / "kept").write_text("kept")
    volumes.make_read_only(folder)
    script = "cat /data/kept; if touch /data/new 2>&1; then exit 3; fi"
    assert "kepttouch: /data/new: Read-only file system" in printed(local_cluster, namespace, mounted(pod("writer", script), "failed"))[0]


@pytest.fixture
def open_namespace(local_cluster: LocalCluster) -> Iterator[str]:
    """A namespace where pods may run as root."""
    with own_namespace(local_cluster, level="privileged") as name:
        yield name


def test_nodes_share_an_images_files_and_none_can_change_them(local_cluster: LocalCluster, open_namespace: str) -> None:
    root = {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}
    # busybox is one file under many names: were it changed under the container, the other node's could not even start.
    spoil = "cp /bin/busybox /tmp/; /tmp/busybox rm /bin/awk /bin/busybox; echo spoilt > /bin/busybox; /tmp/busybox cat /bin/busybox"
    assert printed(local_cluster, open_namespace, pod("spoils", spoil, node="node1", **root)) == ["spoilt"]
    looks = [pod(f"looks-{node}", "ls /bin/awk; head -c 4 /bin/busybox | tail -c 3", node=node) for node in NODES]
    assert printed(local_cluster, open_namespace, *looks) == ["/bin/awk\nELF"] * 2
    shared = [path for path in (cache() / "containerd").glob("*overlayfs/snapshots/*/fs/bin/busybox") if path.stat().st_size < 4_000_000]
    assert shared
    assert all(path.read_bytes() == Path("/bin/busybox").read_bytes() for path in shared)


def test_an_image_is_loaded_into_both_nodes_and_again_when_it_changed(local_cluster: LocalCluster, namespace: str, tmp_path: Path) -> None:
    image = f"localhost/modelyard-loaded:{namespace}"
    try:
        for text in ("first", "second"):
            (tmp_path / "said").write_text(text)
            (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY said /said\n")
            run("buildah", "build", "--tag", image, tmp_path)
            local_cluster.load_image(image)
            local_cluster.load_image(image)
            pods = [pod(f"says-{text}-{node}", "cat /said", node=node, image=image, imagePullPolicy="Never") for node in NODES]
            assert printed(local_cluster, namespace, *pods) == [text] * 2
    finally:
        run("buildah", "rmi", "--force", image)
    with pytest.raises(HarnessFailure, match="buildah has no image"):
        local_cluster.load_image(image)


def test_pods_outlive_the_api_server(local_cluster: LocalCluster, namespace: str) -> None:
    local_cluster.apply(pod("works", "sleep 4; echo done"), namespace=namespace)
    local_cluster.wait_for_pod("works", "Running", namespace=namespace)
    local_cluster.stop_api_server()
    try:
        with pytest.raises(HarnessFailure, match="refused"):
            local_cluster.get("pod", "works", namespace=namespace)
    finally:
        local_cluster.start_api_server()
    local_cluster.wait_for_pod("works", "Succeeded", namespace=namespace)
    assert local_cluster.logs("works", namespace=namespace) == "done\n"


def test_a_second_cluster_is_refused_while_one_runs(local_cluster: LocalCluster) -> None:
    with pytest.raises(HarnessFailure, match=r"runs already .*`make cluster-down"):
        local.up()
    assert local_cluster.node_ready("node1")


def test_on_a_bare_machine_packages_come_before_all_that_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installs(Exception):
        pass

    def install() -> None:
        raise Installs

    monkeypatch.setattr(packages, "install", install)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for begin in (local.prepare, images.base, lambda: images.image("light")):
        with pytest.raises(Installs):
            begin()


def test_a_process_that_starts_while_the_start_is_interrupted_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = subprocess.Popen

    def interrupted(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        made = begin(*words, **options)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in the background may not hear it
    try:
        with pytest.raises(KeyboardInterrupt):
            processes.start(State(tmp_path), "sleeper", ["sleep", "1000"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert processes.running(State(tmp_path)) == ["sleeper"]
    processes.stop(State(tmp_path), "sleeper")
    assert processes.running(State(tmp_path)) == []


@pytest.mark.skipif(shutil.which("go") is None, reason="kind-config.yaml was not held against kind's own types: that takes Go")
def test_kind_takes_the_configuration_and_would_refuse_an_unknown_field(tmp_path: Path) -> None:
    def read(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program("kindconfig"), path], capture_output=True, text=True, check=False)

    good = read(KIND_CONFIGURATION)
    assert (good.returncode, good.stdout) == (0, "3 nodes\n"), good.stderr
    bad = tmp_path / "kind-config.yaml"
    bad.write_text(KIND_CONFIGURATION.read_text().replace("extraMounts:", "extraMount:"))
    refused = read(bad)
    assert refused.returncode == 1
    assert "extraMount not found in type" in refused.stderr
