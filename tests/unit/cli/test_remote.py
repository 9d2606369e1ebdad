"""Commands over a claim: the same command line in a pod, with the same result, the same failure, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from modelyard.cli import remote
from modelyard.cli.lazy import root
from modelyard.errors import NoInput, NoPermission
from modelyard.kube.cluster import Answer, Manifest
from modelyard.yard import Yard
from modelyard.yard.runs import RunState
from tests.unit.cli.conftest import Call, commit, make_run
from tests.unit.kube.pods import Pods

ON = ("--on", "kubernetes")


@pytest.fixture
def pods(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    """A cluster whose claim is the yard of these tests."""
    pods = Pods(yard=yard.root)
    pods.claim = {"metadata": {"name": "modelyard"}, "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10Gi"}}}}
    monkeypatch.setattr(remote, "cluster", lambda _: pods)
    monkeypatch.setattr(pods, "dry_run", lambda _: Answer())
    yield pods
    assert pods.pods == {}, "a pod was left"


def mounted(pods: Pods) -> list[str]:
    """How each pod that was made had the yard."""
    return ["read" if mount.get("readOnly") else "write" for pod in pods.made for mount in pod["spec"]["containers"][0]["volumeMounts"][:1]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["yard", "ls"], ["yard", "ls"]),
        (
            ["yard", "ls", "--on", "kubernetes", "--yard=claim", "-n", "ns", "--context", "c", "-qo", "json"],
            ["yard", "ls", "--output=json", "--quiet"],
        ),
        (["yard", "show", "--", "-x"], ["yard", "show", "--", "-x"]),
        (["yard", "verify", "a", "-o", "name", "b"], ["yard", "verify", "--output=name", "--", "a", "b"]),
        (["yard", "gc", "--older-than", "7d", "--dry-run"], ["yard", "gc", "--older-than=7d", "--dry-run"]),
        (["yard", "pin", "3f", "--why", "--remove", "--remove"], ["yard", "pin", "--why=--remove", "--remove", "--", "3f"]),
        (["yard", "pin", "--why", "the paper; rm -rf /", "3f"], ["yard", "pin", "--why=the paper; rm -rf /", "--", "3f"]),
    ],
)
def test_the_same_words_without_the_place(arguments: list[str], words: list[str]) -> None:
    with root.make_context("modelyard", list(arguments)) as context:
        group = root.get_command(context, "yard")
        assert isinstance(group, click.Group)
        with group.make_context("yard", arguments[1:], parent=context) as inner:
            command = group.get_command(inner, arguments[1])
            assert command is not None
            with command.make_context(arguments[1], arguments[2:], parent=inner) as called:
                assert remote.words(called) == words


def test_reading_commands_answer_as_here(call: Call, yard: Yard, pods: Pods) -> None:
    made = commit(yard)
    yard.refs.move("models/reviews@champion", made.digest, source="test")
    for command in (
        ["ls"],
        ["ls", "-o", "json"],
        ["ls", "-q"],
        ["show", made.digest[:6]],
        ["show", "models/reviews@champion", "-o", "yaml"],
        ["verify"],
    ):
        here, there = call("yard", *command), call("yard", *command, *ON)
        assert here == there
        assert here.code == 0
    assert set(mounted(pods)) == {"read"}
    for command in (["show", "zz"], ["show", "models/absent"]):
        here, there = call("yard", *command), call("yard", *command, *ON)
        assert here == there
        assert here.code == 66


def test_changing_commands_mount_the_yard_writable(call: Call, yard: Yard, pods: Pods) -> None:
    made = commit(yard)
    assert call("yard", "pin", made.digest, "--why", "the 'paper'; $HOME", *ON).code == 0
    assert [pin.why for pin in yard.pins.list()] == ["the 'paper'; $HOME"]
    assert call("yard", "gc", "--older-than", "1d", *ON).code == 0
    assert mounted(pods) == ["write", "write"]


def test_put_and_get(call: Call, yard: Yard, pods: Pods, folder: Path) -> None:
    model = folder / "model"
    (model / "sub").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 9000)
    (model / "sub" / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"x")
    done = call("yard", "put", "model", "models/base", *ON, "-o", "json")
    assert done.code == 0
    assert done.err == "left out pytorch_model.bin: a pickle; the weights are there as safetensors\n"
    digest = json.loads(done.out)["digest"]
    assert yard.refs.get("models/base").digest == digest
    assert yard.refs.get("models/base").source == str(model)
    assert call("yard", "put", "model", "models/base", "-q").out == f"{digest}\n", "here and there the same"
    assert call("yard", "get", "models/base", "copy", *ON).out == "copy\n"
    assert {str(path.relative_to(folder / "copy")) for path in (folder / "copy").rglob("*") if path.is_file()} == {
        "model.safetensors",
        "sub/config.json",
    }
    assert (folder / "copy" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert mounted(pods) == ["write", "read"]


def test_a_put_that_cannot_be_needs_no_pod(call: Call, yard: Yard, pods: Pods, folder: Path) -> None:
    (folder / "link").mkdir()
    (folder / "link" / "a.csv").symlink_to("/etc/hostname")
    assert call("yard", "put", "absent", "datasets/x", *ON).code == 66
    assert call("yard", "put", "link", "datasets/x", *ON).code == 81
    assert call("yard", "put", "link", "x", *ON).code == 64
    assert call("yard", "get", "models/x", "link", *ON).code == 64
    assert pods.made == []


def test_an_upload_that_breaks_off_leaves_nothing(call: Call, yard: Yard, pods: Pods, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rows.csv").write_bytes(b"a,b\n" * 100_000)
    execute = pods.execute

    def cut(pod: str, command: Any, *, stdin: Any = None, stdout: Any) -> tuple[int, bytes]:
        import io

        return execute(pod, command, stdin=io.BytesIO(stdin.read()[:200_000]), stdout=stdout)

    monkeypatch.setattr(pods, "execute", cut)
    done = call("yard", "put", "rows.csv", "datasets/rows", *ON)
    assert done.code == 76
    assert "broke off" in done.err
    assert [yard.artifacts.digests(), yard.refs.list(), list((yard.root / "staging").iterdir())] == [[], {}, []]


def test_a_download_that_breaks_off_leaves_no_folder(call: Call, yard: Yard, pods: Pods, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit(yard, b"x" * 5000)
    execute = pods.execute

    def cut(pod: str, command: Any, *, stdin: Any = None, stdout: Any) -> tuple[int, bytes]:
        import io

        whole = io.BytesIO()
        code, said = execute(pod, command, stdin=stdin, stdout=whole)
        stdout.write(whole.getvalue()[:-1])
        return code, said

    monkeypatch.setattr(pods, "execute", cut)
    done = call("yard", "get", made.digest, "copy", *ON)
    assert (done.code, done.out) == (76, "")
    assert [path.name for path in folder.iterdir()] == [".yard"]


def test_what_changed_in_the_yard_is_noticed_on_the_way_out(call: Call, yard: Yard, pods: Pods, folder: Path) -> None:
    made = commit(yard, b"[1]")
    (made.path / "metrics.json").chmod(0o600)
    (made.path / "metrics.json").write_bytes(b"[2]")
    for place in ((), ON):
        done = call("yard", "get", made.digest, "copy", *place)
        assert done.code == 76
        assert "'metrics.json' is not what it was" in done.err
        assert [path.name for path in folder.iterdir()] == [".yard"]


def test_from_yard_to_yard_in_one_stream(call: Call, yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit(yard, b"a,b\n", "dataset", "rows.csv")
    done = call("yard", "get", made.digest, "-")
    (folder / "stream").write_text(done.out)
    with (folder / "stream").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        done = call("yard", "put", "-", "datasets/rows", "--yard", "other", "-q")
    assert (done.code, done.out) == (0, f"{made.digest}\n")


def test_a_report_is_made_there(call: Call, yard: Yard, pods: Pods, folder: Path) -> None:
    run = make_run(yard, state=RunState.DONE)
    assert call("report", *ON).out == f"{folder / run.id}.html\n"
    there = (folder / f"{run.id}.html").read_text()
    assert run.id in there
    assert call("report", run.id[:9], "--out", "page.html", *ON).code == 0
    assert run.id in (folder / "page.html").read_text()
    assert call("report", "--out", "-", *ON).out.rstrip().endswith("</html>")
    here, done = call("report", "none-such"), call("report", "none-such", *ON)
    assert (here, here.code) == (done, 66)
    assert set(mounted(pods)) == {"read"}


def test_no_claim(call: Call, pods: Pods) -> None:
    pods.claim = None
    done = call("yard", "ls", *ON)
    assert done.code == 66
    assert "try: modelyard yard create --on kubernetes -n research --yard modelyard" in done.err


def test_a_namespace_that_does_not_exist_is_called_so(call: Call, pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    def dry_run(_: Manifest) -> Answer:
        raise failure

    pods.claim = None
    monkeypatch.setattr(pods, "dry_run", dry_run)
    failure: Exception = NoInput("there is no namespace 'research'")
    done = call("yard", "ls", *ON)
    assert (done.code, done.err) == (66, "error: there is no namespace 'research'\n")
    failure = NoPermission("may not create configmaps")  # then nobody knows, and what is missing is told
    assert "there is no claim 'modelyard'" in call("yard", "ls", *ON).err


def test_create(call: Call, pods: Pods) -> None:
    pods.claim = None
    done = call("yard", "create", *ON, "--size", "500Gi", "--storage-class", "nfs", "--access-mode", "ReadWriteOnce", "-o", "json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "apiVersion": "modelyard/v1",
        "kind": "Yard",
        "claim": "modelyard",
        "namespace": "research",
        "size": "500Gi",
        "accessMode": "ReadWriteOnce",
        "created": True,
    }
    assert "next: modelyard run FILE --on kubernetes -n research" in done.err
    claim: Manifest = pods.claim or {}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "nfs",
        "resources": {"requests": {"storage": "500Gi"}},
    }
    again = call("yard", "create", *ON, "--size", "1Ti")
    assert again.code == 0
    assert again.out == "claim modelyard in namespace research, 500Gi, ReadWriteOnce: it was there already\n"
    assert "it has 500Gi, not 1Ti" in again.err
    assert "its access mode is ReadWriteOnce, not ReadWriteMany" in again.err
    assert call("yard", "create", *ON, "--size", "10Gi", "--access-mode", "ReadWriteOnce").err.startswith("next: ")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 64, "needs no making"),
        ((*ON, "--access-mode", "ReadWriteOncePod"), 64, "one pod alone could mount it"),
        ((*ON, "--access-mode", "ReadOnlyMany"), 64, "cannot be a yard"),
        ((*ON, "--size", "much"), 64, "'much'"),
        ((*ON, "--size", "0"), 64, "'0'"),
        ((*ON, "--yard", "../x"), 64, "is no claim"),
    ],
)
def test_create_refuses(call: Call, pods: Pods, options: tuple[str, ...], code: int, said: str) -> None:
    pods.claim = None
    done = call("yard", "create", *options)
    assert done.code == code
    assert said in done.err
    assert pods.claim is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_pod(call: Call, pods: Pods, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def execute(*_: Any, **__: Any) -> tuple[int, bytes]:
        os.kill(os.getpid(), number)
        raise AssertionError

    monkeypatch.setattr(pods, "execute", execute)
    assert call("yard", "ls", *ON).code == 130
    assert signal.getsignal(number) is before
    assert len(pods.deleted) == 1


def test_progress_of_bytes() -> None:
    told: list[str] = []
    now = 0.0
    meter = remote.Meter(told.append, "copied", 4 << 30, lambda: now)
    for now in (100.5, 101.0, 102.0, 103.0, 104.0, 105.5, 106.0, 110.5):  # noqa: B007  # the clock reads it
        meter.count(1 << 20)
    assert told == ["copied 6 MiB of 4 GiB, 1.2 MiB/s", "copied 8 MiB of 4 GiB, 819 KiB/s"]
