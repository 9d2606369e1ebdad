"""Runs: one maker each, found by a part of the name, alive as long as the heartbeat moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import Corrupt, NoInput
from modelyard.order import Outcome
from modelyard.yard import Yard
from modelyard.yard.runs import Progress, Run, RunState, RunStatus, StepState, StepStatus


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path)


def make(yard: Yard, name: str, state: RunState = RunState.RUNNING, **steps: StepStatus) -> Run:
    run = yard.runs.create(name, {"pipeline": {}}, RunStatus(run=name, pipeline="a", state=state, steps=steps))
    assert run is not None
    return run


def test_a_run_is_made_once(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    assert yard.runs.create("a-1-r1", {}, RunStatus(run="a-1-r1", pipeline="b")) is None
    assert run.status().pipeline == "a"
    assert run.spec()["pipeline"] == {}
    assert list((yard.root / "staging").iterdir()) == []


def test_a_run_is_found_by_what_begins_its_name(yard: Yard) -> None:
    for name in ("abc-1-r1", "abc-1-r10", "other-2-r1"):
        make(yard, name)
    assert yard.runs.get("o").id == "other-2-r1"
    assert yard.runs.get("abc-1-r1").id == "abc-1-r1"
    assert [run.id for run in yard.runs.named("abc-1")] == ["abc-1-r1", "abc-1-r10"]
    with pytest.raises(NoInput, match="begins the names of 2 runs"):
        yard.runs.get("abc")
    with pytest.raises(NoInput) as caught:
        yard.runs.get("othr-2-r1")
    assert "other-2-r1" in caught.value.remedy


@pytest.mark.parametrize("name", ["../artifacts", "", "a/b", "A"])
def test_names_that_are_none_find_nothing(yard: Yard, name: str) -> None:
    make(yard, "a-1-r1")
    make(yard, "b-1-r1")
    with pytest.raises(NoInput):
        yard.runs.get(name)


def test_no_run_yet(yard: Yard) -> None:
    assert yard.runs.list() == []
    with pytest.raises(NoInput, match="no run yet"):
        yard.runs.latest()


def watched(run: Run, on_sleep: Callable[[float], None]) -> bool:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        on_sleep(now)

    return run.live(10, clock=lambda: now, sleep=sleep)


def test_a_heartbeat_that_moves_is_life(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    assert watched(run, lambda now: run.beat(1) if now > 9 else None)


def test_a_heartbeat_that_stands_still_is_none(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    run.beat(7)
    assert not watched(run, lambda _: None)


def test_a_run_that_ends_while_it_is_watched_is_not_live(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    done = run.status().model_copy(update={"state": RunState.DONE})
    assert not watched(run, lambda _: run.write_status(done))
    assert not watched(make(yard, "b-1-r1", RunState.FAILED), lambda _: pytest.fail("nothing to wait for"))


def test_attempts_count_up_and_keep_their_records(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    numbers = [run.new_attempt("step").number for _ in range(11)]
    assert numbers == list(range(1, 12))
    attempt = run.attempts("step")[-1]
    assert (attempt.number, attempt.id) == (11, "a-1-r1.step.11")
    assert (attempt.outcome(), attempt.progress(), attempt.last_sample(), attempt.seconds()) == (None, None, None, 0.0)
    attempt.write_progress(Progress(done=1, total=2, unit="rows"))
    attempt.add_sample({"t": 1.5})
    attempt.add_sample({"t": 2.5})
    with attempt.path.joinpath("samples.jsonl").open("ab") as file:
        file.write(b'{"t": 9')  # torn by a kill
    assert attempt.seconds() == 2.5
    attempt.write_outcome(Outcome(exit_code=0, seconds=4.0))
    assert (attempt.seconds(), attempt.ended()) == (4.0, "ok")


def test_a_torn_status_is_corrupt_not_a_traceback(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    (run.path / "status.json").write_text('{"run": ')
    with pytest.raises(Corrupt):
        run.status()


def test_live_digests_are_those_of_runs_that_have_not_ended(yard: Yard) -> None:
    make(yard, "a-1-r1", s=StepStatus(verb="fetch", state=StepState.DONE, artifact="1" * 64), t=StepStatus(verb="infer"))
    make(yard, "b-1-r1", RunState.DONE, s=StepStatus(verb="fetch", state=StepState.DONE, artifact="2" * 64))
    assert set(yard.runs.live_digests()) == {"1" * 64}
