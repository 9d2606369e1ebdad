"""A reader: the pod that it makes, what is said while it starts, what comes out of it, and that nothing of it stays."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli.output import complain
from modelyard.errors import REGISTRY, Crashed, Failure, NoInput, NoPermission, NoSpace, Refused, Unavailable, Usage, from_record
from modelyard.kube import claims, render
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.kube.reader import heard, reader
from modelyard.yard import Yard
from tests.unit.kube.pods import RUNS, Pods

PLACE = Place(namespace="research", image="modelyard:1", claim="modelyard")


def start(pods: Pods, told: list[str] | None = None, **more: Any) -> Any:
    tell: Callable[[str], object] = (told if told is not None else []).append
    return reader(pods, PLACE, tell=tell, clock=lambda: pods.now, sleep=pods.sleep, **more)


def waiting(reason: str, message: str = "") -> Manifest:
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


def unscheduled(message: str) -> Manifest:
    return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


@pytest.mark.parametrize("write", [False, True])
def test_the_pod_mounts_the_claim_and_is_deleted(write: bool) -> None:
    pods = Pods({"phase": "Pending"}, waiting("ContainerCreating"), RUNS)
    with start(pods, write=write):
        (pod,) = pods.pods.values()
        (mount,) = [mount for mount in pod["spec"]["containers"][0]["volumeMounts"] if mount["name"] == "yard"]
        assert mount.get("readOnly", False) is not write
        assert pod["spec"]["activeDeadlineSeconds"] > 0
        assert pod["metadata"]["labels"]["modelyard.dev/role"] == "reader"
        first = pod["metadata"]["name"]
    assert pods.pods == {}
    with start(pods):
        assert first not in pods.pods, "each has a name of its own"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NoSpace("full"), RuntimeError("no")])
def test_it_is_deleted_whatever_happens(error: BaseException) -> None:
    pods = Pods()
    with pytest.raises(type(error)), start(pods):
        raise error
    assert (len(pods.pods), len(pods.deleted)) == (0, 1)

    class Torn(Pods):
        def create(self, manifest: Manifest) -> Manifest | None:
            super().create(manifest)
            raise error  # the answer never came: the pod may be there

    pods = Torn()
    with pytest.raises(type(error)), start(pods):
        raise AssertionError
    assert (len(pods.pods), len(pods.deleted)) == (0, 1)


def test_a_pod_that_cannot_be_deleted_is_named() -> None:
    class Stuck(Pods):
        def delete(self, *_: Any, **__: Any) -> bool:
            raise Unavailable("no answer")

    told: list[str] = []
    with start(Stuck(), told):
        pass
    assert "kubectl -n research delete pod modelyard-reader-" in told[0]


def test_what_it_waits_for_is_told_once() -> None:
    told: list[str] = []
    busy = unscheduled("0/2 nodes are available: 2 Insufficient memory.")
    pods = Pods(*[busy] * 30, *[waiting("ErrImagePull", "i/o timeout")] * 3, RUNS)
    with start(pods, told):
        pass
    assert told == [
        "the reader pod waits: Unschedulable: 0/2 nodes are available: 2 Insufficient memory.",
        "the reader pod waits: ErrImagePull: i/o timeout",
    ]


def test_nothing_is_told_of_a_quick_start() -> None:
    told: list[str] = []
    with start(Pods(*[waiting("ContainerCreating")] * 8, RUNS), told):
        pass
    assert told == []


def test_events_say_why_a_container_is_not_made() -> None:
    events = [
        {"reason": "FailedMount", "message": "no such volume", "lastTimestamp": "2024-05-01T10:00:02Z"},
        {"reason": "Scheduled", "message": "assigned", "lastTimestamp": "2024-05-01T10:00:00Z"},
    ]
    with pytest.raises(Unavailable) as caught, start(Pods(waiting("ContainerCreating"), events=events)):
        raise AssertionError
    assert caught.value.why == "FailedMount: no such volume"
    assert "describe pvc modelyard" in caught.value.remedy


@pytest.mark.parametrize(
    ("state", "failure", "said", "remedy"),
    [
        (unscheduled("0/2 nodes are available: 2 Insufficient cpu."), Unavailable, "Insufficient cpu", "kubectl"),
        (unscheduled('persistentvolumeclaim "modelyard" not found'), NoInput, "modelyard", "modelyard yard create"),
        (waiting("ImagePullBackOff", 'Back-off pulling image "modelyard:1-light": not found'), NoInput, "not found", "MODELYARD_IMAGE"),
        (waiting("ErrImageNeverPull", "is not present"), NoInput, "is not present", "image ="),
        (waiting("InvalidImageName", "couldn't parse"), NoInput, "couldn't parse", "image ="),
        (waiting("ImagePullBackOff", "failed to authorize: 401 Unauthorized"), NoPermission, "Unauthorized", "pull_secret"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), Unavailable, 'secret "x" not found', "cluster"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, Unavailable, "Evicted: low on memory", "again"),
        (None, Unavailable, "deleted by somebody else", "again"),
    ],
)
def test_a_pod_that_does_not_start(state: Manifest | None, failure: type[Failure], said: str, remedy: str) -> None:
    pods = Pods(state)
    with pytest.raises(failure) as caught, start(pods):
        raise AssertionError
    assert type(caught.value) is failure
    assert said in str(caught.value)
    assert remedy in caught.value.remedy
    assert len(pods.deleted) == 1


def test_commands_run_over_the_yard(tmp_path: Path) -> None:
    Yard.open(tmp_path / "yard")
    told: list[str] = []
    with start(Pods(yard=tmp_path / "yard"), told) as pod:
        out = io.BytesIO()
        pod.run(["yard", "ls", "-o", "json"], out)
        assert b'"items": []' in out.getvalue()
        with pytest.raises(NoInput) as caught:
            pod.run(["report", "--", "none-such"], out)
        assert "there is no run 'none-such'" in str(caught.value)
        assert caught.value.remedy == "modelyard run FILE"
        with pytest.raises(NoInput):
            pod.logs("none-such", "tuned")
    assert told == []


@pytest.mark.parametrize("kind", REGISTRY.values())
def test_a_failure_is_heard_as_it_was_told(kind: type[Failure], capsys: pytest.CaptureFixture[str]) -> None:
    told = kind("it went wrong", where="a/b: c", why="because\nof this", remedy="do that")
    for fields in (told.record(), {**told.record(), "why": ""}, {**told.record(), "remedy": ""}, {**told.record(), "where": ""}):
        one = from_record(fields)
        sys.stderr.write("first a note\nand another\n")
        complain(one)
        said = capsys.readouterr().err
        notes, failure = heard(kind.exit_code, said)
        assert notes == "first a note\nand another"
        assert type(failure) is kind
        complain(failure)
        assert f"first a note\nand another\n{capsys.readouterr().err}" == said, "nothing is said twice"


def test_what_ends_without_words() -> None:
    notes, failure = heard(137, "Killed\n")
    assert notes == ""
    assert isinstance(failure, Crashed)
    assert (failure.where, failure.why) == ("SIGKILL", "Killed")
    assert heard(0, "left out a.bin: a pickle\n") == ("left out a.bin: a pickle", None)
    assert heard(0, "error: is a word\n") == ("error: is a word", None)
    _, failure = heard(81, "error: a\nerror: the last counts\n")
    assert isinstance(failure, Refused)
    assert failure.what == "the last counts"


@pytest.mark.parametrize(
    ("spec", "status", "access"),
    [
        (["ReadWriteMany"], [], "ReadWriteMany"),
        (["ReadWriteOnce"], [], "ReadWriteOnce"),
        (["ReadWriteOnce"], ["ReadWriteOnce", "ReadWriteMany"], "ReadWriteMany"),
        (["ReadWriteOncePod"], [], None),
        (["ReadOnlyMany"], [], None),
    ],
)
def test_access_of_a_claim(spec: list[str], status: list[str], access: str | None) -> None:
    claim = {"metadata": {"name": "c"}, "spec": {"accessModes": spec}, "status": {"accessModes": status}}
    pods = Pods()
    pods.claim = claim
    if access:
        assert claims.placed(pods, PLACE).access == access
        return
    with pytest.raises(Usage) as caught:
        claims.placed(pods, PLACE)
    assert spec[0] in str(caught.value)


def test_a_claim_that_is_not_there() -> None:
    with pytest.raises(NoInput) as caught:
        claims.placed(Pods(), PLACE)
    assert caught.value.remedy == "modelyard yard create --on kubernetes -n research --yard modelyard"


def test_a_volume_of_one_node_takes_the_pod_there() -> None:
    pod = render.reader_pod(PLACE.model_copy(update={"access": "ReadWriteOnce"}), "r", write=False, seconds=60)
    assert "podAffinity" in pod["spec"]["affinity"]
