"""The yard on a cluster, as a person far from it sees it: everything goes through a reader pod, and nothing of that stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Unavailable
from modelyard.kube import claims
from modelyard.kube.client import connect
from modelyard.kube.place import Place
from modelyard.kube.reader import reader
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, StepStatus
from tests.cluster import images
from tests.cluster.harness import volumes
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.local import LocalCluster
from tests.unit.cli.conftest import make_run

ROOT = Path(__file__).parents[2]
READERS = "modelyard.dev/role=reader"


@dataclass(frozen=True)
class Shell:
    """The command line in a namespace, as a person calls it."""

    cluster: Cluster
    namespace: str
    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "an error of modelyard" not in done.stderr
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "modelyard", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # in the background it is ignored, and that is inherited
        )

    def nothing_left(self) -> None:
        """Pods of this namespace are gone, or on their way out."""
        self.cluster.wait("no reader pod is left", lambda: not self.cluster.items("pods", namespace=self.namespace, selector=READERS))


@pytest.fixture(scope="session")
def image(local_cluster: LocalCluster) -> str:
    """The light image in the cluster; its name without the suffix."""
    made = images.image("light")
    local_cluster.load_image(made)
    return made.removesuffix("-light")


@pytest.fixture
def shell(cluster: Cluster, image: str, namespace: str, tmp_path: Path) -> Iterator[Shell]:
    settings = {"ON": "kubernetes", "NAMESPACE": namespace, "IMAGE": image}
    environment = {**os.environ, **{f"MODELYARD_{name}": value for name, value in settings.items()}, "KUBECONFIG": str(cluster.kubeconfig)}
    shell = Shell(cluster, namespace, tmp_path, {**environment, "PYTHONPATH": str(ROOT / "lib")})
    yield shell
    shell.nothing_left()


@pytest.fixture
def shared(local_cluster: LocalCluster, namespace: str) -> Path:
    """The folder behind the claim `modelyard`, which any number of nodes may mount."""
    return volumes.make_volume(local_cluster, namespace, "modelyard")


@pytest.fixture(params=[pytest.param("ReadWriteMany", marks=pytest.mark.slow), "ReadWriteOnce"])
def volume(request: pytest.FixtureRequest, local_cluster: LocalCluster, namespace: str) -> Path:
    """The same in each of the ways in which a yard's claim can be mounted; the tests of `shared` see the first of them."""
    return volumes.make_volume(local_cluster, namespace, "modelyard", access_modes=(request.param,))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_goes_there_and_comes_back(shell: Shell, volume: Path) -> None:
    rows = shell.folder / "rows"
    for number in range(200):
        file = rows / f"{number % 7}" / f"part-{number:03}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"text,label\n{number},x\n" * number)
    (rows / "large.parquet").write_bytes(os.urandom(50 << 20))
    (rows / "model.bin").write_bytes(b"a pickle")
    put = shell("yard", "put", "rows", "datasets/rows", "-q")
    assert put.returncode == 0, put.stderr
    here = shell("yard", "put", "rows", "datasets/rows", "-q", "--on", "local", "--yard", "here")
    assert put.stdout == here.stdout, "the same artifact, wherever it was made"
    digest = put.stdout.strip()
    listed = shell("yard", "ls", "-o", "json")
    assert [(item["digest"], item["names"]) for item in json.loads(listed.stdout)["items"]] == [(digest, ["yard://datasets/rows@latest"])]
    assert shell("yard", "get", "datasets/rows", "back").stdout == "back\n"
    (rows / "model.bin").unlink()
    assert contents(shell.folder / "back") == contents(rows)
    assert shell("yard", "verify").stdout.split()[-2:] == [digest, "whole"]
    assert shell("yard", "pin", digest[:8], "--why", "the paper").returncode == 0
    assert json.loads(shell("yard", "ls", "-o", "json").stdout)["items"][0]["pinned"] is True


def test_a_failure_there_is_the_failure_here(shell: Shell, shared: Path) -> None:
    nothing = shell("yard", "ls")
    assert (nothing.returncode, nothing.stdout) == (66, "")
    assert nothing.stderr.startswith("error: /yard: there is no yard\n  try: ")
    Yard.open(shared)
    absent = shell("yard", "show", "models/absent")
    assert absent.returncode == 66
    assert absent.stderr.count("error: ") == 1
    assert shell("yard", "put", "absent.csv", "datasets/x").returncode == 66


def test_the_report_of_a_run(shell: Shell, shared: Path) -> None:
    run = make_run(Yard.open(shared), state=RunState.DONE)
    done = shell("report", "--out", "page.html")
    assert (done.returncode, done.stdout) == (0, f"{shell.folder / 'page.html'}\n"), done.stderr
    page = (shell.folder / "page.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert run.id in page
    absent = shell("report", "none-such")
    assert absent.returncode == 66
    assert "there is no run 'none-such'" in absent.stderr


def test_the_logs_of_a_run(cluster: Cluster, shared: Path, namespace: str, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(Yard.open(shared), steps={"tuned": StepStatus(verb="finetune", attempt=1)})
    log = shared / "runs" / run.id / "steps" / "tuned" / "1" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"seq": seq, "at": f"2024-05-01T10:00:0{seq}+00:00", "event": f"line {seq}"}) + "\n" for seq in range(3)))
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    there = connect(namespace=namespace)
    with reader(there, claims.placed(there, Place(namespace=namespace, image=image, claim="modelyard"))) as pod:
        lines = [json.loads(line) for line in pod.logs(run.id, "tuned").splitlines()]
    assert [line["entry"]["event"] for line in lines] == ["line 0", "line 1", "line 2"]


def test_create(shell: Shell, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    wanted = claims.manifest(Place(namespace=namespace, image="x:1", claim="other"), size="1Ti", storage_class="nfs")
    answer = connect(namespace=namespace).dry_run(wanted)
    assert (list(answer.causes), list(answer.warnings)) == ([], [])
    made = shell("yard", "create", "--size", "20Gi", "--storage-class", "none-such", "--access-mode", "ReadWriteOnce")
    assert (made.returncode, made.stdout) == (0, f"claim modelyard in namespace {namespace}, 20Gi, ReadWriteOnce\n"), made.stderr
    spec = cluster.get("persistentvolumeclaim", "modelyard", namespace=namespace)["spec"]
    assert (spec["accessModes"], spec["storageClassName"], spec["resources"]["requests"]) == (["ReadWriteOnce"], "none-such", {"storage": "20Gi"})
    again = shell("yard", "create", "--size", "30Gi", "-o", "json")
    assert json.loads(again.stdout)["created"] is False
    assert "it has 20Gi, not 30Gi" in again.stderr
    assert shell("yard", "create", "--access-mode", "ReadWriteOncePod", "--yard", "other").returncode == 64
    assert not cluster.has("persistentvolumeclaim", "other", namespace=namespace)


def test_why_a_pod_does_not_run(shell: Shell, cluster: Cluster, image: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = shell("yard", "ls")
    assert absent.returncode == 66
    assert "there is no claim 'modelyard'" in absent.stderr
    assert f"try: modelyard yard create --on kubernetes -n {namespace}" in absent.stderr
    assert shell("yard", "create", "--storage-class", "none-such").returncode == 0
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    there, told = connect(namespace=namespace), list[str]()
    place = claims.placed(there, Place(namespace=namespace, image=image, claim="modelyard"))
    with pytest.raises(Unavailable) as caught, reader(there, place, tell=told.append, patience=8):
        raise AssertionError
    assert "unbound immediate PersistentVolumeClaims" in caught.value.why
    assert "unbound immediate PersistentVolumeClaims" in told[0]


def test_an_image_that_is_not_there(shell: Shell, shared: Path) -> None:
    done = shell("yard", "ls", MODELYARD_IMAGE="localhost/none-such:1")
    assert done.returncode == 66
    assert "the image localhost/none-such:1-light cannot be pulled" in done.stderr
    assert "MODELYARD_IMAGE" in done.stderr


def test_a_namespace_that_is_full(shell: Shell, shared: Path, cluster: Cluster, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply(quota, namespace=namespace)
    cluster.wait("the quota counts", lambda: cluster.get("resourcequota", "none", namespace=namespace).get("status", {}).get("hard"))
    done = shell("yard", "ls")
    assert done.returncode in (64, 77)
    assert "exceeded quota: none" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_upload_that_is_interrupted_leaves_nothing(shell: Shell, shared: Path, number: signal.Signals) -> None:
    begun = shell.begin("yard", "put", "-", "datasets/rows")
    assert begun.stdin
    head = {"format": "modelyard-files/1", "source": "test", "files": [["a.csv", 1000, None], ["b.csv", 10, None]]}
    begun.stdin.write(json.dumps(head).encode() + b"\n" + b"x" * 100)
    begun.stdin.flush()
    staging: Callable[[], list[Any]] = lambda: list(shared.glob("staging/*/files/a.csv"))  # noqa: E731
    shell.cluster.wait("the upload has begun", staging)
    os.killpg(begun.pid, number)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130, said
    shell.nothing_left()
    assert [path.name for path in (shared / "staging").iterdir()] == []
    assert [path.name for path in (shared / "artifacts").iterdir()] == []
    assert list((shared / "refs").rglob("*.json")) == []
