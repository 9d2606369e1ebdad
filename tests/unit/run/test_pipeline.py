"""The driver, with steps that end as they are told to: order, reuse, retries, stopping, refs that do not resolve."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from modelyard.errors import Corrupt, Failure, HostOom, Interrupted, NoSpace, Unavailable, Yielded
from modelyard.hubs import Listing, resolving
from modelyard.order import Order, Outcome
from modelyard.refs import HubRef
from modelyard.run import pipeline as module
from modelyard.run.local import Process
from modelyard.run.pipeline import Driver, Signals, first_status
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import STEPS, Evaluate, Fetch, Finetune, Preflight, Search
from modelyard.yard import Action, Yard
from modelyard.yard.runs import Attempt, Run, RunState, RunStatus, StepState

KINDS = {"fetch": "model", "finetune": "model", "evaluate": "metrics", "infer": "dataset"}


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Ended:
    """An execution that ends after some looks at it, or when it is told to."""

    end: Callable[[], int]
    looks: int = 1
    stopped: bool = False

    def poll(self) -> int | None:
        self.looks -= 1
        return self.end() if self.looks < 0 or self.stopped else None

    def terminate(self) -> None:
        self.stopped = True

    def kill(self) -> None:
        self.stopped = True


@dataclass
class Scripted:
    """An executor whose attempts end by a script: step -> the failures of its first attempts; then they succeed."""

    yard: Yard
    script: dict[str, list[type[Failure] | int]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    together: int = 0
    running: int = 0
    looks: int = 1
    seen: Callable[[str], None] = lambda _: None
    retries = False
    outlives = False
    shares_yard = True

    def begin(self, order: Order) -> Process:
        attempt = self.yard.runs.get(order.run).new_attempt(order.step)
        self.started.append(order.step)
        self.running += 1
        self.together = max(self.together, self.running)
        ends = self.script.get(order.step, [])
        end = ends.pop(0) if ends else None
        self.seen(order.step)
        execution = Ended(lambda: 0, self.looks)
        execution.end = lambda: self._end(order, attempt, end, execution)
        return Process(attempt, order.key, execution)

    def _end(self, order: Order, attempt: Attempt, end: type[Failure] | int | None, execution: Ended) -> int:
        self.running -= 1
        if execution.stopped and end is None:
            end = Yielded
        if isinstance(end, int):
            (attempt.path / "stderr.txt").write_text("first\nlast words\n")
            return end
        if end is not None:
            attempt.write_outcome(Outcome.of(end("it failed", remedy="mend it"), 1.0))
            return end.exit_code
        if not STEPS[order.verb].model_validate(order.settings, strict=False).makes():
            attempt.write_outcome(Outcome(exit_code=0, key=order.key, seconds=1.0, result={}))
            return 0
        with self.yard.staging(attempt.id) as staging:
            (staging.files / "made").write_text(f"{order.verb} {sorted(order.inputs.items())} {order.settings.get('seed')}")
            artifact = self.yard.artifacts.commit(staging, kind="dataset" if order.settings.get("dataset") else KINDS[order.verb])
        self.yard.actions.put(order.key, Action(key=order.key, verb=order.verb, artifact=artifact.digest))
        attempt.write_outcome(Outcome(exit_code=0, key=order.key, artifact=artifact.digest, seconds=1.0))
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "BEAT_EVERY", 1e-3)
    return clock


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"x")
    rows, base = Fetch(dataset=f"{tmp_path}/rows.csv"), Fetch(model=f"{tmp_path}/base")
    tuned = Finetune(model=base, data=rows)
    return Pipeline(
        "reviews",
        {"rows": rows, "base": base, "tuned": tuned, "score": Evaluate(model=tuned, data=rows), "before": Evaluate(model=base, data=rows, seed=1)},
    )


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path / "yard")


def drive(
    yard: Yard,
    pipeline: Pipeline,
    executor: Scripted,
    signals: Signals | None = None,
    jobs: int = 1,
    force: frozenset[str] = frozenset(),
    number: int = 1,
) -> RunStatus:
    run = yard.runs.create(f"run-r{number}", {"pipeline": pipeline.to_dict()}, first_status(f"run-r{number}", pipeline))
    assert isinstance(run, Run)
    return Driver(run, pipeline, yard, executor, Settings(yard.root, jobs=jobs, force=force), View(), signals or Signals()).drive()


def states(status: RunStatus) -> dict[str, str]:
    return {name: step.state.value for name, step in status.steps.items()}


def test_steps_run_in_order_and_the_run_is_done(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    executor = Scripted(yard)
    status = drive(yard, pipeline, executor)
    assert (status.state, status.exit_code) == (RunState.DONE, 0)
    assert set(states(status).values()) == {"done"}
    assert executor.started.index("tuned") < executor.started.index("score")
    assert executor.together == 1
    assert yard.runs.get("run-r1").status() == status
    assert json.loads((yard.root / "runs/run-r1/spec.json").read_text())["resolved"]["rows"]["listing"]["files"]


def test_a_second_run_executes_nothing(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    first = drive(yard, pipeline, Scripted(yard))
    again = Scripted(yard)
    second = drive(yard, pipeline, again, number=2)
    assert again.started == []
    assert set(states(second).values()) == {"reused"}
    assert {name: step.artifact for name, step in first.steps.items()} == {name: step.artifact for name, step in second.steps.items()}


def test_only_what_depends_on_a_change_runs_again(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    drive(yard, pipeline, Scripted(yard))
    changed = Pipeline("reviews", {**pipeline.steps, "tuned": pipeline.steps["tuned"].model_copy(update={"seed": 7})})
    executor = Scripted(yard)
    assert drive(yard, changed, executor, number=2).state is RunState.DONE
    assert executor.started == ["tuned", "score"]


def test_forced_steps_run_again(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    drive(yard, pipeline, Scripted(yard))
    executor = Scripted(yard)
    assert drive(yard, pipeline, executor, force=frozenset({"score"}), number=2).state is RunState.DONE
    assert executor.started == ["score"]


def test_a_forced_fetch_of_a_commit_is_fetched_again(clock: Clock, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub"
    (hub / "me/small").mkdir(parents=True)
    (hub / "me/small/model.safetensors").write_bytes(b"x")
    monkeypatch.setattr(HubRef, "is_commit", True)
    pipeline, settings = Pipeline("a", {"model": Fetch(model="hf://me/small")}), Settings(yard.root, {"huggingface": str(hub)})
    starts = []
    for number, force in enumerate(((), (), ("model",)), 1):
        run = yard.runs.create(f"a-r{number}", {"pipeline": pipeline.to_dict()}, first_status(f"a-r{number}", pipeline))
        assert run
        executor = Scripted(yard)
        Driver(run, pipeline, yard, executor, replace(settings, force=frozenset(force)), View()).drive()
        starts.append(executor.started)
    assert starts == [["model"], [], ["model"]]


@pytest.mark.parametrize("by", ["signal", "request"])
def test_the_end_may_be_asked_for_before_refs_are_resolved(
    clock: Clock, yard: Yard, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    signals, asked = Signals(), []

    def resolve(ref: object, *_: object) -> Listing:
        asked.append(ref)
        if by == "signal":
            signals.stop = True
        else:
            yard.runs.get("run-r1").request_cancel()
        return real(ref, *_)  # type: ignore[arg-type]

    real = resolving.resolve
    monkeypatch.setattr(resolving, "resolve", resolve)
    executor = Scripted(yard)
    status = drive(yard, pipeline, executor, signals)
    assert (len(asked), executor.started) == (1, [])
    assert (status.state, status.exit_code) == ((RunState.STOPPED, 75) if by == "signal" else (RunState.CANCELLED, 130))
    assert set(states(status).values()) == {"skipped"}


def test_an_action_whose_artifact_is_gone_answers_nothing(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    status = drive(yard, pipeline, Scripted(yard))
    yard.artifacts.discard(status.steps["score"].artifact or "")
    yard.artifacts.delete(status.steps["score"].artifact or "")
    executor = Scripted(yard)
    drive(yard, pipeline, executor, number=2)
    assert executor.started == ["score"]


def test_independent_steps_run_side_by_side_when_allowed(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    executor = Scripted(yard, looks=3)
    assert drive(yard, pipeline, executor, jobs=2).state is RunState.DONE
    assert executor.together == 2


def test_a_class_that_fails_ends_the_run_and_what_runs_goes_on(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    executor = Scripted(yard, {"before": [HostOom]}, looks=3)
    status = drive(yard, pipeline, executor, jobs=2)
    assert (status.state, status.exit_code) == (RunState.FAILED, HostOom.exit_code)
    assert states(status) == {"rows": "done", "base": "done", "tuned": "done", "score": "skipped", "before": "failed"}
    assert (status.steps["before"].category, status.steps["before"].what, status.steps["before"].remedy) == ("host-oom", "it failed", "mend it")


def test_a_preflight_comes_before_what_it_is_for_and_is_never_reused(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    looked = Pipeline("reviews", {**pipeline.steps, "found": Search(query="x"), "ready": Preflight()})
    executor = Scripted(yard)
    assert drive(yard, looked, executor).state is RunState.DONE
    assert set(executor.started[:2]) == {"found", "ready"}
    again = Scripted(yard)
    assert states(drive(yard, looked, again, number=2)) == {**dict.fromkeys(pipeline.steps, "reused"), "found": "done", "ready": "done"}
    assert set(again.started) == {"found", "ready"}


def test_after_a_preflight_that_failed_nothing_begins(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    executor = Scripted(yard, {"ready": [NoSpace]})
    status = drive(yard, Pipeline("reviews", {**pipeline.steps, "ready": Preflight()}), executor, jobs=4, force=frozenset(pipeline.steps))
    assert (status.state, status.exit_code, executor.started) == (RunState.FAILED, NoSpace.exit_code, ["ready"])
    assert states(status) == {**dict.fromkeys(pipeline.steps, "skipped"), "ready": "failed"}


@pytest.mark.parametrize(("failures", "ends"), [(1, "done"), (2, "done"), (3, "failed")])
@pytest.mark.parametrize("kind", [Unavailable, Corrupt, -9, 1])
def test_a_class_that_counts_is_tried_twice_more(
    clock: Clock, yard: Yard, pipeline: Pipeline, kind: type[Failure] | int, failures: int, ends: str
) -> None:
    executor = Scripted(yard, {"tuned": [kind] * failures})
    status = drive(yard, pipeline, executor)
    assert states(status)["tuned"] == ends
    assert executor.started.count("tuned") == min(failures + 1, 3)
    assert clock.now >= sum(module.RETRY_AFTER[:failures])
    if isinstance(kind, int) and ends == "failed":
        assert (status.exit_code, status.steps["tuned"].why) == (137, "last words")


def test_a_class_that_is_ignored_is_tried_as_often_as_it_takes(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    executor = Scripted(yard, {"tuned": [Yielded] * 7})
    assert drive(yard, pipeline, executor).state is RunState.DONE
    assert executor.started.count("tuned") == 8


@pytest.mark.parametrize("by", [Yielded, Interrupted])
def test_a_stop_reaches_the_steps_and_the_next_run_goes_on(clock: Clock, yard: Yard, pipeline: Pipeline, by: type[Failure]) -> None:
    signals = Signals(by=by)
    executor = Scripted(yard, looks=1000)
    executor.seen = lambda step: setattr(signals, "stop", step == "tuned")
    status = drive(yard, pipeline, Scripted(yard))  # rows, base are known by now
    executor.script = {}
    status = drive(yard, pipeline, executor, signals, force=frozenset({"tuned"}), number=2)
    assert (status.state, status.exit_code) == (RunState.STOPPED, by.exit_code)
    assert states(status)["tuned"] == "stopped"
    assert states(status)["score"] == "skipped"
    assert drive(yard, pipeline, Scripted(yard), number=3).state is RunState.DONE


def test_cancel_ends_the_run(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    executor = Scripted(yard, looks=1000)
    executor.seen = lambda _: yard.runs.get("run-r1").request_cancel()
    status = drive(yard, pipeline, executor)
    assert (status.state, status.exit_code) == (RunState.CANCELLED, Interrupted.exit_code)


def test_a_ref_that_does_not_resolve_fails_its_step_before_anything_runs(clock: Clock, yard: Yard, tmp_path: Path) -> None:
    executor = Scripted(yard)
    status = drive(yard, Pipeline("a", {"rows": Fetch(dataset=str(tmp_path / "none.csv"))}), executor)
    assert (status.state, status.exit_code, status.steps["rows"].state) == (RunState.FAILED, 66, StepState.FAILED)
    assert "none.csv" in f"{status.steps['rows'].what} {status.steps['rows'].where}"
    assert executor.started == []


def test_a_yard_ref_is_the_artifact_that_it_names(clock: Clock, yard: Yard, pipeline: Pipeline) -> None:
    made = drive(yard, pipeline, Scripted(yard)).steps["tuned"].artifact or ""
    yard.refs.move("models/reviews@champion", made, source="test")
    executor = Scripted(yard)
    status = drive(yard, Pipeline("a", {"champion": Fetch(model="yard://models/reviews@champion")}), executor, number=2)
    assert (status.steps["champion"].artifact, executor.started) == (made, [])


def test_offline_uses_what_a_ref_stood_for_last(clock: Clock, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub"
    (hub / "me/small").mkdir(parents=True)
    (hub / "me/small/model.safetensors").write_bytes(b"x")
    pipeline = Pipeline("a", {"model": Fetch(model="hf://me/small")})
    settings = Settings(yard.root, hubs={"huggingface": str(hub)})

    def once(number: int, fresh: bool = False) -> RunStatus:
        asked = Pipeline("a", {"model": Fetch(model="hf://me/small", fresh=fresh)})
        run = yard.runs.create(f"off-r{number}", {"pipeline": pipeline.to_dict()}, first_status(f"off-r{number}", asked))
        assert run
        return Driver(run, asked, yard, Scripted(yard), settings, View()).drive()

    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    assert once(1).exit_code == Unavailable.exit_code
    monkeypatch.delenv("MODELYARD_OFFLINE")
    first = once(2)
    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    offline = once(3)
    assert offline.steps["model"].artifact == first.steps["model"].artifact
    assert offline.steps["model"].state is StepState.REUSED
    assert "hf://me/small" in offline.notes[0]
    assert once(4, fresh=True).exit_code == Unavailable.exit_code
