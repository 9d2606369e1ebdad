"""The commands over runs look the same for runs in a yard here and for runs on a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.cli import remote
from modelyard.errors import NoInput
from modelyard.kube import logs, names, runs
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
    assert "ended already: cancelled" in call("cancel", RUN, *THERE).err
    assert call("cancel", RUN, "--purge", *THERE).code == 0
    assert not cluster.objects
    assert call("cancel", RUN, *THERE).code == NoInput.exit_code


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
