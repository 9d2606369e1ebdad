"""Every line of a run once, over streams that break, repeat, rotate and go."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from modelyard.errors import Unavailable
from modelyard.kube import logs, names
from modelyard.kube.logs import Line, Once, Pod
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus

from .fake import FakeCluster


def written(number: int, *, second: int = 0, attempt: int = 1, **more: Any) -> bytes:
    """A step's line as a kubelet gives it."""
    entry = {"seq": number, "at": f"2026-01-01T00:00:{second:02}.{attempt:02}{number:04}Z", "event": "begin" if number == 1 else "step", **more}
    if number == 1:
        entry["attempt"] = attempt
    return f"2026-01-01T00:00:{second:02}.{attempt:02}{number:04}000Z {json.dumps(entry)}".encode()


def numbers(lines: list[Line]) -> list[int]:
    return [line.entry["seq"] for line in lines]


def fed(pod: Pod, *lines: bytes) -> list[Line]:
    return [found for line in lines for found in pod.feed(line)]


@pytest.fixture
def pod() -> Pod:
    return Pod(Once(), "tuned", "tuned-x")


def test_a_stream_taken_up_again_gives_nothing_twice(pod: Pod) -> None:
    assert numbers(fed(pod, written(1), written(2), written(3))) == [1, 2, 3]
    assert pod.since == "2026-01-01T00:00:00.010003000Z"
    pod.broke()
    assert numbers(fed(pod, written(1), written(2), written(3), written(4))) == [4]
    assert not pod.missing


def test_half_a_line_is_not_shown(pod: Pod) -> None:
    half = written(2)[:60]
    assert numbers(fed(pod, written(1), half)) == [1]
    assert pod.since == "2026-01-01T00:00:00.010001000Z"  # so that it comes again
    pod.broke()
    assert numbers(fed(pod, written(1), written(2))) == [2]
    assert pod.end() == []


@pytest.mark.parametrize("cut", [1, 10, 29, 30, 31, 45])
def test_wherever_it_is_cut(pod: Pod, cut: int) -> None:
    fed(pod, written(1), written(2)[:cut])
    pod.broke()
    assert numbers(fed(pod, written(2), written(3))) == [2, 3]
    assert pod.end() == []


def test_lines_that_are_no_steps_come_once_and_in_order(pod: Pod) -> None:
    torch = b"2026-01-01T00:00:01.000000001Z Segmentation fault"
    found = fed(pod, written(1), torch, torch, written(2, second=1))
    pod.broke()
    found += fed(pod, torch, written(2, second=1), b"2026-01-01T00:00:01.5Z Segmentation fault", b"2026-01-01T00:00:01.6Z ")
    found += pod.end()
    assert [line.entry["event"] for line in found] == ["begin", "Segmentation fault", "step", "Segmentation fault"]


@pytest.mark.parametrize(
    "line", [b"", b"x", b"2026-01-01T00:00:01Z", b'2026-01-01T00:00:01Z {"seq": "1"}', b"2026-01-01T00:00:01Z [1]", b"\xff\xfe \xff"]
)
def test_what_is_no_line_at_all_ends_nothing(pod: Pod, line: bytes) -> None:
    assert numbers([found for found in fed(pod, line, written(1)) + pod.end() if "seq" in found.entry]) == [1]


def test_many_lines_of_one_time(pod: Pod) -> None:
    same = [b"2026-01-01T00:00:00.000000000Z " + written(number).split(b" ", 1)[1] for number in (1, 2, 3)]
    assert numbers(fed(pod, *same[:2])) == [1, 2]
    pod.broke()
    assert numbers(fed(pod, *same)) == [3]


def test_lines_out_of_their_order_all_come(pod: Pod) -> None:
    assert numbers(fed(pod, written(1), written(3), written(2), written(4))) == [1, 3, 2, 4]


def test_what_the_kubelet_rotated_away_is_missed_and_the_rest_comes(pod: Pod) -> None:
    fed(pod, written(1), written(2))
    pod.broke()
    assert numbers(fed(pod, written(7), written(8))) == [7, 8]
    assert pod.missing


def test_the_next_attempt_counts_from_one_again() -> None:
    once = Once()
    first, second = Pod(once, "tuned", "tuned-x"), Pod(once, "tuned", "tuned-y")
    assert [(line.attempt, line.entry["seq"]) for line in fed(first, written(1), written(2))] == [(1, 1), (1, 2)]
    lines = fed(second, written(1, attempt=2), written(2, attempt=2), written(2, attempt=2))
    assert [(line.attempt, line.entry["seq"]) for line in lines] == [(2, 1), (2, 2)]


RUN = "p-0123456789-r1"


class Site:
    """A run with a step `tuned`, in memory."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.status(RunState.RUNNING)

    def status(self, state: RunState, attempt: int = 1, step: StepState = StepState.RUNNING) -> None:
        steps = {"tuned": StepStatus(verb="finetune", state=step, attempt=attempt), "score": StepStatus(verb="evaluate")}
        said = RunStatus(run=RUN, pipeline="p", state=state, steps=steps).model_dump_json()
        data = {"status.json": said, "jobs.json": json.dumps({"tuned": "p-tuned-abc"})}
        if self.cluster.patch("ConfigMap", names.status_name(RUN), {"data": data}) is None:
            labels = {names.RUN: RUN, names.ROLE: "status"}
            self.cluster.create({"kind": "ConfigMap", "metadata": {"name": names.status_name(RUN), "labels": labels}, "data": data})

    def pod(self, name: str, *streams: list[bytes], phase: str = "Running", run: str = RUN) -> None:
        labels = {names.RUN: run, names.ROLE: "step", names.STEP: "tuned", names.JOB: "p-tuned-abc"}
        state = {"running": {}} if phase == "Running" else {"terminated": {}}
        status = {"phase": phase, "containerStatuses": [{"state": state}]} if phase != "Pending" else {"phase": phase}
        self.cluster.create({"kind": "Pod", "metadata": {"name": name, "labels": labels}, "status": status})
        self.cluster.streams[name] = [list(stream) for stream in streams]

    def ends(self, name: str) -> None:
        self.cluster.patch("Pod", name, {"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {}}}]}})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(logs, "_LOOK", 0.01)
    monkeypatch.setattr(logs, "_PAUSE", 0.01)
    return Site()


def end(number: int, attempt: int = 1) -> bytes:
    return written(number, attempt=attempt).replace(b'"step"', b'"end"')


def test_a_follow_begins_before_the_pod_does_and_ends_with_the_run(site: Site) -> None:
    site.pod("tuned-x", phase="Pending")
    follow = logs.lines(site.cluster, RUN, follow=True)

    site.cluster.streams["tuned-x"] = [[written(1), written(2)], [written(2), written(3), end(4)]]
    site.cluster.patch("Pod", "tuned-x", {"status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}})
    assert numbers([next(follow), next(follow)]) == [1, 2]
    site.ends("tuned-x")
    site.status(RunState.DONE, step=StepState.DONE)
    assert numbers(list(follow)) == [3, 4]


def test_the_next_attempts_pod_is_found(site: Site) -> None:
    site.pod("tuned-x", [written(1), written(2)], phase="Failed")
    follow = logs.lines(site.cluster, RUN, follow=True)
    assert numbers([next(follow), next(follow)]) == [1, 2]
    site.pod("tuned-y", [written(1, attempt=2), end(2, attempt=2)], phase="Succeeded")
    lines = [next(follow), next(follow)]
    assert [(line.attempt, line.entry["seq"]) for line in lines] == [(2, 1), (2, 2)]
    site.status(RunState.DONE, attempt=2, step=StepState.DONE)
    assert list(follow) == []


def test_the_job_that_an_earlier_run_began_is_followed(site: Site) -> None:
    site.pod("tuned-x", [written(1), end(2)], phase="Succeeded", run="p-0123456789-r0")
    site.status(RunState.DONE, step=StepState.DONE)
    assert numbers(list(logs.lines(site.cluster, RUN, follow=False))) == [1, 2]


def test_one_step_alone(site: Site) -> None:
    site.pod("tuned-x", [written(1), end(2)], phase="Succeeded")
    site.status(RunState.DONE, step=StepState.DONE)
    assert list(logs.lines(site.cluster, RUN, "score", follow=True)) == []
    assert numbers(list(logs.lines(site.cluster, RUN, "tuned", follow=True))) == [1, 2]


def from_yard(*found: bytes, attempt: int = 1) -> list[Line]:
    return [Line("tuned", attempt, json.loads(line.split(b" ", 1)[1])) for line in found]


@pytest.mark.parametrize("phase", ["gone", "rotated"])
def test_what_pods_cannot_tell_comes_from_the_yard(site: Site, phase: str) -> None:
    asked = []
    if phase == "rotated":
        site.pod("tuned-x", [written(3), end(4)], phase="Succeeded")
    site.status(RunState.FAILED, step=StepState.FAILED)

    def yard() -> list[Line]:
        asked.append(1)
        return from_yard(written(1), written(2), written(3), end(4))

    lines = list(logs.lines(site.cluster, RUN, follow=False, yard=yard))
    assert sorted(numbers(lines)) == [1, 2, 3, 4]
    assert asked == [1]


def test_the_yard_is_not_asked_for_what_pods_told(site: Site) -> None:
    site.pod("tuned-x", [written(1), end(2)], phase="Succeeded")
    site.status(RunState.DONE, step=StepState.DONE)

    def yard() -> list[Line]:
        raise AssertionError

    assert numbers(list(logs.lines(site.cluster, RUN, follow=False, yard=yard))) == [1, 2]


def test_a_pod_that_goes_while_it_is_read_is_asked_for_in_the_yard(site: Site) -> None:
    site.pod("tuned-x", [written(1), written(2)])
    follow = logs.lines(site.cluster, RUN, follow=True, yard=lambda: from_yard(written(1), written(2), written(3)))
    assert numbers([next(follow), next(follow)]) == [1, 2]
    site.cluster.delete("Pod", "tuned-x")
    site.status(RunState.FAILED, step=StepState.FAILED)
    assert numbers(list(follow)) == [3]


def test_an_api_server_that_goes_away_ends_no_follow(site: Site) -> None:
    site.pod("tuned-x", [written(1)], [written(1), written(2)])
    follow = logs.lines(site.cluster, RUN, follow=True)
    assert numbers([next(follow)]) == [1]
    site.cluster.down = Unavailable("the API server does not answer")
    comes = threading.Timer(0.1, lambda: setattr(site.cluster, "down", None))
    comes.start()
    assert numbers([next(follow)]) == [2]
    comes.join()  # the second line may have been read before the server went away
    site.ends("tuned-x")
    site.status(RunState.DONE, step=StepState.DONE)
    assert list(follow) == []


def test_an_api_server_that_stays_away_ends_it_with_its_class(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.runs, "AWAY", 0.05)
    site.pod("tuned-x", [written(1)])
    follow = logs.lines(site.cluster, RUN, follow=True)
    assert numbers([next(follow)]) == [1]
    site.cluster.down = Unavailable("the API server does not answer")
    with pytest.raises(Unavailable, match="does not answer"):
        list(follow)
