"""`explain` over runs in a yard here and on a cluster."""

from __future__ import annotations

import json

import pytest

from modelyard.cli import remote
from modelyard.errors import Refused, Unavailable
from modelyard.kube.diagnosis import CATEGORIES, Diagnosis
from modelyard.order import Outcome
from modelyard.run import explain as explaining
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, StepState, StepStatus
from tests.unit.kube import objects
from tests.unit.kube.fake import FakeCluster

from .conftest import Call, make_run

ENDING = Outcome.of(Refused("the gate said no", why="accuracy 0.7", remedy="lower gate.at_least.accuracy"), 1.0).model_dump()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    large = objects.unplaced("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    large["spec"]["containers"][0]["resources"] = {"requests": {"nvidia.com/gpu": "16"}}
    cluster = objects.cluster(objects.job(), large, objects.node(), objects.claim())
    monkeypatch.setattr(remote, "cluster", lambda _: cluster)
    monkeypatch.setenv("MODELYARD_ON", "kubernetes")
    return cluster


def test_a_run_there_is_explained_with_evidence_and_arithmetic(call: Call, cluster: FakeCluster) -> None:
    done = call("explain")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"run {objects.RUN}, step tuned: never-fits"
    assert any(line.split()[:2] == ["Pod", "reviews-tuned-abcdef0123-1"] and "16" in line for line in lines)
    assert any(line.startswith("node1: 8 nvidia.com/gpu") for line in lines)
    assert lines[-1] == "try: steps.tuned.resources: {gpus: 8}"


def test_a_remedy_says_where_as_the_command_did(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = objects.cluster(objects.job(), objects.pod(node=""))
    monkeypatch.setattr(remote, "cluster", lambda _: cluster)
    options = ("--on", "kubernetes", "-n", "research")
    remedy = f"modelyard wait {objects.RUN} --on kubernetes --namespace research"
    assert call("explain", *options).out.splitlines()[-1] == f"try: {remedy}"
    assert json.loads(call("explain", *options, "-o", "json").out)["remedy"] == remedy


@pytest.mark.parametrize(
    ("remedy", "told"),
    [
        ("modelyard cancel r1 (and run it again)", "modelyard cancel r1 --on kubernetes (and run it again)"),
        ("modelyard logs r1 tuned", "modelyard logs r1 tuned --on kubernetes"),
        ("modelyard run FILE (it goes on from what was kept)", "modelyard run FILE --on kubernetes (it goes on from what was kept)"),
        ("steps.tuned.resources: {gpus: 8}", "steps.tuned.resources: {gpus: 8}"),
        ("modelyard yard gc --on kubernetes -n team", "modelyard yard gc --on kubernetes -n team"),
    ],
)
def test_a_command_in_a_remedy_is_told_where(call: Call, monkeypatch: pytest.MonkeyPatch, remedy: str, told: str) -> None:
    monkeypatch.setattr(remote, "cluster", lambda _: objects.cluster())
    monkeypatch.setattr(explaining, "there", lambda *_: Diagnosis(category="busy", what="it waits", remedy=remedy, run="r1"))
    assert call("explain", "--on", "kubernetes").out.splitlines()[-1] == f"try: {told}"


def test_json_has_the_category_and_where_it_is_seen(call: Call, cluster: FakeCluster) -> None:
    found = json.loads(call("explain", "reviews", "tuned", "-o", "json").out)
    assert (found["apiVersion"], found["kind"]) == ("modelyard/v1", "Diagnosis")
    assert found["meaning"] == CATEGORIES["never-fits"].meaning
    assert (found["category"], found["seen"], found["exit_code"]) == ("never-fits", "scheduling", None)
    assert found["evidence"][0].keys() == {"object", "field", "value"}
    assert found["remedy"] == "steps.tuned.resources: {gpus: 8}"
    assert call("explain", "-q").out == "never-fits\n"


def test_what_may_not_be_looked_at_is_told(call: Call, cluster: FakeCluster) -> None:
    cluster.forbidden = {("list", "Node")}
    done = call("explain", objects.RUN)
    assert "capacity unknown" in done.out
    assert "not known: nodes: " in done.out
    assert done.code == 0


def test_no_answer_has_the_exit_code_of_its_class(call: Call, cluster: FakeCluster) -> None:
    assert call("explain", "nobody").code == 66
    assert call("explain", objects.RUN, "nothing").code == 66
    cluster.down = Unavailable("the API server is away")
    assert call("explain").code == 69


def test_a_run_here_is_explained_by_its_files(call: Call, yard: Yard) -> None:
    make_run(yard, steps={"release": StepStatus(verb="publish", state=StepState.FAILED, **ENDING)}, state=RunState.FAILED, exit_code=81)
    done = call("explain")
    assert done.code == 0
    assert done.out.splitlines()[0].endswith("step release: refused, exit code 81")
    assert "the gate said no: accuracy 0.7" in done.out
    assert done.out.endswith("try: lower gate.at_least.accuracy\n")
    assert call("explain", "reviews-0123456789-r1", "nothing").code == 66
