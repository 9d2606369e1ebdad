"""Runs: one maker each, found by a part of the name, alive as long as the heartbeat moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import Corrupt, NoInput, Usage
from modelyard.order import Outcome
from modelyard.spec import Pipeline
from modelyard.steps import Evaluate, Fetch, Finetune
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


def at_once(count: int, call: Callable[[], object]) -> list[object]:
    """What as many calls give that begin together."""
    together, given = threading.Barrier(count), []

    def one() -> None:
        together.wait()
        given.append(call())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == count
    return given


def test_those_who_count_at_once_get_attempts_of_their_own(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    numbers = [number for _ in range(10) for number in at_once(8, lambda: run.new_attempt("step").number)]
    assert sorted(numbers) == list(range(1, 81))


PIPELINE = Pipeline(
    "a", {"rows": Fetch(dataset="hf://datasets/me/rows"), "tuned": Finetune(model="./m", data="rows"), "score": Evaluate(model="tuned", data="rows")}
)


def undriven(yard: Yard) -> Run:
    return yard.runs.undriven("a-1-r1", {"pipeline": PIPELINE.to_dict()})


def test_a_run_that_nobody_drives_here_is_written_down_once(yard: Yard) -> None:
    assert {run.id for run in at_once(8, lambda: undriven(yard))} == {"a-1-r1"}
    assert yard.runs.undriven("a-1-r1", {"pipeline": {}}).spec()["pipeline"] == PIPELINE.to_dict()
    assert yard.runs.create("a-1-r1", {}, RunStatus(run="a-1-r1", pipeline="a")) is None
    assert list((yard.root / "staging").iterdir()) == []
    assert not (yard.runs.get("a-1-r1").path / "status.json").exists()


@pytest.mark.parametrize("name", ["../a", "", "a/b", "A", "a" * 64])
def test_a_run_that_nobody_drives_here_needs_a_name(yard: Yard, name: str) -> None:
    with pytest.raises(Usage):
        yard.runs.undriven(name, {})
    assert yard.runs.list() == []


def test_a_run_that_nobody_drives_here_stands_as_its_attempts_do(yard: Yard) -> None:
    run = undriven(yard)
    fetch = next(name for name in PIPELINE.steps if name.startswith("fetch-"))
    status = run.status()
    assert (status.state, status.pipeline, status.ended) == (RunState.RUNNING, "a", "")
    assert {step.state for step in status.steps.values()} == {StepState.WAITING}
    assert list(status.steps) == PIPELINE.order()
    ends = {
        "rows": [Outcome(exit_code=69, category="unavailable"), Outcome(exit_code=0, artifact="1" * 64, seconds=2.0)],
        fetch: [Outcome(exit_code=0, artifact="2" * 64, reused=True)],
        "tuned": [None],
    }
    for name, outcomes in ends.items():
        for outcome in outcomes:
            attempt = run.new_attempt(name)
            if outcome:
                attempt.write_outcome(outcome)
    steps = run.status().steps
    assert {name: (step.state, step.attempt, step.kind) for name, step in steps.items()} == {
        "rows": (StepState.DONE, 2, "dataset"),
        fetch: (StepState.REUSED, 1, "model"),
        "tuned": (StepState.RUNNING, 1, ""),
        "score": (StepState.WAITING, 0, ""),
    }
    assert (steps["rows"].artifact, steps["rows"].seconds) == ("1" * 64, 2.0)
    tuned = run.attempts("tuned")[-1]
    tuned.write_outcome(Outcome(exit_code=75, category="yielded"))
    assert (run.status().state, run.status().exit_code) == (RunState.STOPPED, 75)
    tuned.write_outcome(Outcome(exit_code=65, category="data", what="they do not fit"))
    status = run.status()
    assert (status.state, status.exit_code, status.steps["tuned"].what) == (RunState.FAILED, 65, "they do not fit")
    for name in ("tuned", "score"):
        run.new_attempt(name).write_outcome(Outcome(exit_code=0, artifact="3" * 64))
    status = run.status()
    assert (status.state, status.exit_code) == (RunState.DONE, 0)
    assert status.started <= status.ended
    assert [found.id for found in yard.runs.list()] == ["a-1-r1"]


def test_what_its_attempts_resolved_is_in_the_spec_of_a_run_that_nobody_drives_here(yard: Yard) -> None:
    run = undriven(yard)
    assert run.spec()["resolved"] == {}
    run.new_attempt("rows").write_resolved({"ref": "hf://datasets/me/rows", "listing": {"revision": "a" * 40}})
    run.new_attempt("rows")
    assert run.spec()["resolved"] == {"rows": {"ref": "hf://datasets/me/rows", "listing": {"revision": "a" * 40}}}


def test_a_spec_that_is_no_pipeline_is_corrupt(yard: Yard) -> None:
    with pytest.raises(Corrupt):
        yard.runs.undriven("a-1-r1", {"pipeline": {"name": 1}}).status()


def test_a_torn_status_is_corrupt_not_a_traceback(yard: Yard) -> None:
    run = make(yard, "a-1-r1")
    (run.path / "status.json").write_text('{"run": ')
    with pytest.raises(Corrupt):
        run.status()


def test_live_digests_are_those_of_runs_that_have_not_ended(yard: Yard) -> None:
    make(yard, "a-1-r1", s=StepStatus(verb="fetch", state=StepState.DONE, artifact="1" * 64), t=StepStatus(verb="infer"))
    make(yard, "b-1-r1", RunState.DONE, s=StepStatus(verb="fetch", state=StepState.DONE, artifact="2" * 64))
    assert set(yard.runs.live_digests()) == {"1" * 64}
