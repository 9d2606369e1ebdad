"""The client on a real API server: what every Cluster does, strict validation, commands in pods, and logs over an API server that dies."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from modelyard.errors import NoInput, NoPermission, Unavailable, Usage
from modelyard.kube import logs, names, runs
from modelyard.kube.client import Client, connect
from modelyard.run.view import View
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus
from tests.cluster.cutting import Wire
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import BUSYBOX
from tests.cluster.harness.local import LocalCluster
from tests.unit.kube.alike import *  # noqa: F403  # its tests are this module's
from tests.unit.kube.alike import Eventually, Speaks

SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod(name: str, command: list[str], **labels: str) -> dict[str, Any]:
    """A pod that the restricted standard lets in."""
    container = {"name": "step", "image": BUSYBOX, "command": command, "securityContext": SECURE}
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "securityContext": security, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


@pytest.fixture
def client(local_cluster: LocalCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("KUBECONFIG", str(local_cluster.kubeconfig))
    return connect(namespace=namespace)


@pytest.fixture
def eventually(cluster: Cluster) -> Eventually:
    return lambda done: cluster.wait("what a controller does", done, within=60)


@pytest.fixture
def speaks(client: Client, cluster: Cluster) -> Speaks:
    def speak(name: str, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        assert client.create(pod(name, ["printf", "%s", text]))
        cluster.wait_for_pod(name, "Succeeded", namespace=client.namespace)

    return speak


@pytest.fixture
def shell(client: Client, cluster: Cluster) -> str:
    """The name of a pod that waits for commands."""
    assert client.create(pod("shell", ["sleep", "600"]))
    cluster.wait_for_pod("shell", "Running", namespace=client.namespace)
    return "shell"


class Sink(io.RawIOBase):
    """Takes bytes and keeps their digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return len(data)


@pytest.mark.parametrize("mebibytes", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_bytes_in_and_out_at_once(client: Client, shell: str, mebibytes: int) -> None:
    data = os.urandom(1 << 20) * mebibytes
    out = Sink()
    assert client.execute(shell, ["cat"], stdin=io.BytesIO(data), stdout=out) == (0, b"")
    assert (out.size, out.digest.hexdigest()) == (len(data), hashlib.sha256(data).hexdigest())
    told = io.BytesIO()
    assert client.execute(shell, ["sha256sum"], stdin=io.BytesIO(data), stdout=told)[0] == 0
    assert told.getvalue().split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_how_a_command_ends(client: Client, shell: str) -> None:
    out = io.BytesIO()
    assert client.execute(shell, ["sh", "-c", "echo out; echo err >&2; exit 73"], stdout=out) == (73, b"err\n")
    assert out.getvalue() == b"out\n"
    assert client.execute(shell, ["printf", "%s|", "a b", "", "ü"], stdout=(words := io.BytesIO()))[0] == 0
    assert words.getvalue().decode() == "a b||ü|"
    assert client.execute(shell, ["cat"], stdin=io.BytesIO(b""), stdout=io.BytesIO()) == (0, b"")
    code, said = client.execute(shell, ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x >&2"], stdout=io.BytesIO())
    assert code == 0
    assert 0 < len(said) <= 1 << 16


def test_a_command_that_cannot_begin(client: Client, shell: str) -> None:
    with pytest.raises(Unavailable, match="no-such-program"):
        client.execute(shell, ["no-such-program"], stdout=io.BytesIO())
    with pytest.raises(NoInput, match="gone"):
        client.execute("none", ["true"], stdout=io.BytesIO())


def test_a_pod_that_dies_under_a_command(client: Client, shell: str) -> None:
    threading.Timer(1.0, lambda: client.delete("Pod", shell, grace=0)).start()
    with contextlib.suppress(Unavailable):  # or the exit code of a killed process: whoever is told first
        code, _ = client.execute(shell, ["sleep", "100000"], stdout=io.BytesIO())  # nobody waits for that
        assert code != 0


def test_dry_runs_say_all_that_is_wrong(client: Client) -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": pod("x", ["true"])}}
    del job["spec"]["template"]["apiVersion"], job["spec"]["template"]["kind"]  # type: ignore[index]
    assert not client.dry_run(job).causes
    assert client.get("Job", "j") is None
    fields = {cause.field for cause in client.dry_run({**job, "spec": {**job["spec"], "foo": 1, "template": {"spec": {"bar": 2}}}}).causes}  # type: ignore[dict-item]
    assert fields == {"spec.foo", "spec.template.spec.bar"}
    bare = {"containers": [{"name": "A!", "image": "x"}], "restartPolicy": "Always"}
    fields = {cause.field for cause in client.dry_run({**job, "spec": {"template": {"spec": bare}}}).causes}
    assert {"spec.template.spec.containers[0].name", "spec.template.spec.restartPolicy"} <= fields
    bare = {"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Never"}
    answer = client.dry_run({**job, "spec": {"template": {"spec": bare}}})
    assert not answer.causes
    assert any("restricted" in warning for warning in answer.warnings)
    (cause,) = client.dry_run({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": bare}).causes
    assert "violates PodSecurity" in cause.message


def test_rights_that_are_missing(client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    cluster.kubectl("create", "serviceaccount", "nobody", f"--namespace={client.namespace}")
    token = cluster.kubectl("create", "token", "nobody", f"--namespace={client.namespace}").strip()
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--output=json"))
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    nobody = connect(namespace=client.namespace, patience=10)
    with pytest.raises(NoPermission) as raised:
        nobody.create(pod("x", ["true"]))
    assert raised.value.what == "may not create pods"
    assert "can-i create pods" in raised.value.remedy
    assert token not in str(raised.value.record())
    with pytest.raises(NoPermission):
        nobody.dry_run(pod("x", ["true"]))
    with pytest.raises(NoPermission, match="pods/exec"):
        nobody.execute("x", ["true"], stdout=io.BytesIO())


RUN = "p-0123456789-r1"
SCRIPT = """
i=0
while [ $i -lt COUNT ]; do
    i=$((i+1))
    echo "{\\"seq\\": $i, \\"at\\": \\"$(date -u +%Y-%m-%dT%H:%M:%S).$HOSTNAME\\", \\"event\\": \\"step\\"}"
    usleep PAUSE
done
"""


def told(client: Client, state: RunState, attempt: int = 1) -> None:
    """What a driver would mirror."""
    step = StepState.RUNNING if state is RunState.RUNNING else StepState.DONE
    status = RunStatus(run=RUN, pipeline="p", state=state, steps={"tuned": StepStatus(verb="finetune", state=step, attempt=attempt)})
    data = {"status.json": status.model_dump_json()}
    if client.patch("ConfigMap", names.status_name(RUN), {"data": data}) is None:
        metadata = {"name": names.status_name(RUN), "labels": {names.RUN: RUN, names.ROLE: "status"}}
        assert client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def counts(client: Client, name: str, count: int, pause: float) -> None:
    """A pod of the run's step that counts."""
    labels = {names.RUN: RUN, names.ROLE: "step", names.STEP: "tuned"}
    manifest = pod(name, ["sh", "-c", SCRIPT.replace("COUNT", str(count)).replace("PAUSE", str(int(pause * 1e6)))])
    manifest["metadata"]["labels"] = labels
    assert client.create(manifest)


def test_every_line_once_over_two_pods(client: Client, cluster: Cluster) -> None:
    told(client, RunState.RUNNING)
    follow = logs.lines(client, RUN, follow=True)
    threading.Thread(target=lambda: (counts(client, "first", 500, 0.001), counts(client, "second", 500, 0.001)), daemon=True).start()
    found = [next(follow) for _ in range(1000)]
    told(client, RunState.DONE, attempt=2)
    assert list(follow) == []
    assert sorted(line.entry["seq"] for line in found) == sorted([*range(1, 501)] * 2)


def test_a_pod_that_is_gone_is_asked_for_in_the_yard(client: Client, cluster: Cluster) -> None:
    told(client, RunState.RUNNING)
    counts(client, "first", 10_000, 0.05)
    asked = []

    def yard() -> list[logs.Line]:
        asked.append(1)
        return [logs.Line("tuned", 1, {"seq": 99_999, "at": "9", "event": "end"})]

    follow = logs.lines(client, RUN, follow=True, yard=yard)
    begin = [next(follow) for _ in range(10)]
    assert [line.entry["seq"] for line in begin] == [*range(1, 11)]
    client.delete("Pod", "first", grace=0)
    told(client, RunState.FAILED)
    *rest, last = follow
    assert [line.entry["seq"] for line in rest] == [*range(11, 11 + len(rest))]
    assert last.entry["seq"] == 99_999
    assert asked == [1]


@pytest.fixture
def wire(cluster: Cluster, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wire]:
    """Between this machine and the API server; what connects from now on goes through it."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--output=json"))
    server = config["clusters"][0]["cluster"]
    address = urlsplit(server["server"])
    wire = Wire(str(address.hostname), address.port or 443)
    server |= {"server": f"https://127.0.0.1:{wire.port}", "tls-server-name": address.hostname}
    (tmp_path / "through-the-wire").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "through-the-wire"))
    yield wire
    wire.cut()


def test_a_wire_that_is_cut_loses_and_doubles_no_line(client: Client, wire: Wire) -> None:
    told(client, RunState.RUNNING)
    counts(client, "first", 1500, 0.005)
    follow = logs.lines(connect(namespace=client.namespace), RUN, follow=True)
    found = []
    for _ in range(4):
        found += [next(follow) for _ in range(100)]
        wire.cut()
        threading.Timer(1.5, wire.mend).start()
    found += [next(follow) for _ in range(1100)]
    told(client, RunState.DONE)
    assert list(follow) == []
    assert [line.entry["seq"] for line in found] == [*range(1, 1501)]


def test_a_follow_goes_on_over_a_wire_that_is_cut(client: Client, wire: Wire) -> None:
    told(client, RunState.RUNNING)
    states: list[RunState] = []

    class Watching(View):
        def changed(self, status: RunStatus) -> None:
            states.append(status.state)
            if status.state is RunState.RUNNING:
                wire.cut()
                threading.Timer(2.0, lambda: (told(client, RunState.DONE), wire.mend())).start()

    assert runs.follow(connect(namespace=client.namespace, patience=1), RUN, Watching()).state is RunState.DONE
    assert states == [RunState.RUNNING, RunState.DONE]


def test_a_command_over_a_wire_that_is_cut_ends(client: Client, shell: str, wire: Wire) -> None:
    threading.Timer(1.0, wire.cut).start()
    with pytest.raises(Unavailable, match="broke"):
        connect(namespace=client.namespace).execute(shell, ["sleep", "600"], stdout=io.BytesIO())


@pytest.mark.slow
def test_an_api_server_that_is_killed_loses_and_doubles_no_line(client: Client, local_cluster: LocalCluster) -> None:
    told(client, RunState.RUNNING)
    counts(client, "first", 800, 0.05)
    follow = logs.lines(client, RUN, follow=True)
    found = [next(follow) for _ in range(20)]
    killing = threading.Thread(target=lambda: local_cluster.restart_api_server(20), daemon=True)
    killing.start()
    found += [next(follow) for _ in range(780)]
    killing.join()
    told(client, RunState.DONE)
    assert list(follow) == []
    assert [line.entry["seq"] for line in found] == [*range(1, 801)]


def test_of_several_containers_the_one_that_is_named(client: Client, cluster: Cluster) -> None:
    """As where a mesh or an overlay puts another one into a step's pod."""
    both = pod("both", ["echo", "ours"])
    both["spec"]["containers"].append({**both["spec"]["containers"][0], "name": "mesh", "command": ["echo", "theirs"]})
    assert client.create(both)
    cluster.wait_for_pod("both", "Succeeded", namespace=client.namespace)
    said = {name: [line.partition(b" ")[2] for line in client.logs("both", container=name)] for name in ("step", "mesh")}
    assert said == {"step": [b"ours"], "mesh": [b"theirs"]}


def test_who_acts_as_another_has_that_ones_rights(
    local_cluster: LocalCluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`as:` in a kubeconfig, which kubectl heeds."""
    told = yaml.safe_load(local_cluster.kubeconfig.read_text())
    for user in told["users"]:
        user["user"]["as"] = "somebody"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(told))
    monkeypatch.setenv("KUBECONFIG", str(file))
    other = connect(namespace=namespace)
    with pytest.raises(NoPermission, match="may not list pods"):
        other.list("Pod")
    assert not other.may("list", "Pod")
    for user in told["users"]:
        user["user"]["as-groups"] = ["system:masters"]
    file.write_text(yaml.safe_dump(told))
    with pytest.raises(Usage, match="as-groups"):
        connect(namespace=namespace).list("Pod")
