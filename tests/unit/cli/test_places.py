"""The commands over runs look the same for runs in a yard here and for runs on a cluster."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from modelyard.cli import remote, session
from modelyard.cli import runs as commands
from modelyard.cli.session import complete_runs
from modelyard.errors import NoInput
from modelyard.kube import client, logs, names, runs
from modelyard.run import remote as start
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus
from tests.unit.kube.fake import FakeCluster

from .conftest import Call, make_run

RUN = "reviews-0123456789-r1"
THERE = ("--on", "kubernetes")
ENTRIES = [{"seq": 1, "at": "2024-05-01T10:00:01.1Z", "event": "begin", "attempt": 1}, {"seq": 2, "at": "2024-05-01T10:00:02.1Z", "event": "end"}]


@pytest.fixture
def steps() -> dict[str, StepStatus]:
    return {"look": StepStatus(verb="search", state=StepState.DONE, attempt=1, exit_code=0, seconds=1.0)}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    monkeypatch.setattr(remote, "cluster", lambda _: cluster)
    monkeypatch.setattr(logs, "_LOOK", 0.01)
    monkeypatch.setattr(logs, "_PAUSE", 0.01)
    return cluster


@pytest.fixture
def both(call: Call, cluster: FakeCluster, yard: Yard, steps: dict[str, StepStatus]) -> None:
    """The same run in the yard and on the cluster: it has ended."""
    run = make_run(yard, RUN, steps, state=RunState.DONE, exit_code=0, ended="2024-05-01T10:01:00+00:00")
    attempt = run.new_attempt("look")
    mirror(cluster, run.status())
    pod(cluster)
    for entry in ENTRIES:
        attempt.add_log(json.dumps(entry).encode() + b"\n")


def mirror(cluster: FakeCluster, status: RunStatus) -> None:
    metadata = {"name": names.status_name(RUN), "labels": {names.RUN: RUN, names.ROLE: "status", names.PIPELINE: "reviews"}}
    cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": {"status.json": status.model_dump_json()}})


def pod(cluster: FakeCluster) -> None:
    labels = {names.RUN: RUN, names.ROLE: "step", names.STEP: "look"}
    status = {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {}}}]}
    cluster.create({"kind": "Pod", "metadata": {"name": "look-x", "labels": labels}, "status": status})
    cluster.streams["look-x"] = [[f"{entry['at']} {json.dumps(entry)}".encode() for entry in ENTRIES]]


@pytest.mark.parametrize(
    "words", [["ls"], ["ls", "-q"], ["show", RUN], ["show"], ["logs", "reviews"], ["logs", "reviews", "look"], ["logs", "-f"], ["wait", "reviews"]]
)
@pytest.mark.parametrize("form", ["json", "table", "yaml"])
@pytest.mark.usefixtures("both")
def test_the_same_from_both(call: Call, words: list[str], form: str) -> None:
    here, there = call(*words, "-o", form), call(*words, "-o", form, *THERE)
    assert here.code == there.code == 0
    assert here.out
    assert there.out == here.out


@pytest.mark.parametrize("words", [["show", "x"], ["logs", RUN, "nostep"], ["wait", "x"], ["cancel", "x"]])
@pytest.mark.usefixtures("both")
def test_what_is_not_there_is_the_same_class(call: Call, words: list[str]) -> None:
    assert call(*words).code == call(*words, *THERE).code == NoInput.exit_code


def test_cancel_there(call: Call, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, steps: dict[str, StepStatus]) -> None:
    monkeypatch.setattr(runs, "OBEY", 0.0)
    mirror(cluster, RunStatus(run=RUN, pipeline="reviews", started="2024-05-01T10:00:00+00:00", steps=steps))
    done = call("cancel", "reviews", "-o", "json", *THERE)
    assert (done.code, json.loads(done.out)["run"]) == (0, RUN)
    assert call("wait", RUN, *THERE).code == 130
    again = call("cancel", RUN, "-o", "json", *THERE)
    assert "ended already: cancelled" in again.err
    assert "next:" not in again.err
    assert json.loads(again.out)["run"] == RUN
    assert call("cancel", RUN, "--purge", *THERE).code == 0
    assert not cluster.objects
    assert call("cancel", RUN, *THERE).code == NoInput.exit_code


def test_no_run_there_is_said(call: Call, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("ls", *THERE)
    assert (done.code, done.out, done.err) == (0, "", f"there is no run in namespace {cluster.namespace}\n")

    def none(_: Any) -> Any:
        raise NoInput("there is no namespace 'typo'")

    monkeypatch.setattr(cluster, "dry_run", none)
    for words in (["ls"], ["show"], ["logs", "x"]):
        done = call(*words, *THERE)
        assert (done.code, done.out, done.err) == (66, "", "error: there is no namespace 'typo'\n")


def test_a_run_that_has_ended_is_not_alive_while_its_job_says_nothing(call: Call, cluster: FakeCluster, steps: dict[str, StepStatus]) -> None:
    mirror(cluster, RunStatus(run=RUN, pipeline="reviews", state=RunState.DONE, exit_code=0, started="2024-05-01T10:00:00+00:00", steps=steps))
    cluster.create({"kind": "Job", "metadata": {"name": RUN, "labels": {names.RUN: RUN, names.ROLE: "driver"}}, "spec": {}, "status": {"active": 1}})
    assert json.loads(call("show", "-o", "json", *THERE).out)["live"] is False


@pytest.mark.usefixtures("both")
def test_names_of_runs_there_complete_in_time(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    context = click.Context(commands.show)
    context.params = {"on": "kubernetes"}
    assert [item.value for item in complete_runs(context, click.Argument(["run"]), "rev")] == [RUN]
    waiting = threading.Event()
    monkeypatch.setattr(session, "_COMPLETION", 0.01)
    monkeypatch.setattr(cluster, "list", lambda *_, **__: waiting.wait(60) and [])
    assert complete_runs(context, click.Argument(["run"]), "rev") == []
    waiting.set()


@pytest.mark.usefixtures("both")
def test_the_next_command_looks_where_this_one_did(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told = call("wait", RUN, *THERE, "-n", "research")
    assert told.err.endswith(f"next: modelyard show {RUN} --on kubernetes --namespace research\n")
    monkeypatch.setenv("MODELYARD_ON", "kubernetes")
    assert call("wait", RUN).err.endswith(f"next: modelyard show {RUN}\n")


def test_who_types_hears_soon_that_there_is_no_cluster(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def connect(*_: str, patience: float) -> FakeCluster:
        asked.append(patience)
        return FakeCluster()

    monkeypatch.setattr(client, "connect", connect)
    for words in (["ls"], ["show"], ["yard", "ls"]):
        call(*words, *THERE)
    assert asked == [remote.PATIENCE] * 3
    assert remote.PATIENCE < client.PATIENCE


def test_who_leaves_a_run_there_hears_that_it_goes_on(
    call: Call, cluster: FakeCluster, folder: Path, monkeypatch: pytest.MonkeyPatch, steps: dict[str, StepStatus]
) -> None:
    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    (folder / "p.yaml").write_text("name: reviews\nsteps: {look: {search: {query: x}}}\n")
    mirror(cluster, RunStatus(run=RUN, pipeline="reviews", started="2024-05-01T10:00:00+00:00", steps=steps))
    monkeypatch.setenv("MODELYARD_HUBS_MODELSCOPE", "http://hub:1")
    monkeypatch.setattr(start, "submit", lambda *_: (RUN, True))
    monkeypatch.setattr(runs, "follow", leave)
    done = call("run", "p.yaml", *THERE)
    assert done.code == 130
    assert f"error: {RUN}: not followed any more; it goes on" in done.err
    assert f"modelyard cancel {RUN}" in done.err


@pytest.mark.usefixtures("both")
def test_there_is_nothing_to_purge_here(call: Call) -> None:
    done = call("cancel", RUN, "--purge")
    assert done.code == 64
    assert "--purge" in done.err


@pytest.mark.usefixtures("both")
def test_lines_of_a_pod_that_is_gone_come_from_the_yard(call: Call, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"step": "look", "attempt": 1, "entry": entry} for entry in ENTRIES]

    @contextmanager
    def reader(_: Any) -> Iterator[Any]:
        yield SimpleNamespace(logs=lambda _: "".join(json.dumps(line) + "\n" for line in lines).encode())

    monkeypatch.setattr(remote, "reader", reader)
    cluster.delete("Pod", "look-x")
    assert call("logs", "-o", "json", *THERE).out == call("logs", "-o", "json").out

    @contextmanager
    def none(_: Any) -> Iterator[Any]:
        raise NoInput("there is no claim 'modelyard'")
        yield

    monkeypatch.setattr(remote, "reader", none)
    done = call("logs", *THERE)
    assert (done.code, done.out) == (0, "")
    assert "there is no claim" in done.err


def test_a_failure_there_leads_to_explain(call: Call, cluster: FakeCluster) -> None:
    failed = StepStatus(verb="finetune", state=StepState.FAILED, exit_code=69, category="unavailable", what="no place within 30m")
    mirror(
        cluster,
        RunStatus(run=RUN, pipeline="reviews", state=RunState.FAILED, exit_code=69, started="2024-05-01T10:00:00+00:00", steps={"tuned": failed}),
    )
    done = call("wait", RUN, *THERE)
    assert done.code == 69
    assert done.err.endswith(f"next: modelyard explain {RUN} tuned --on kubernetes\n")
