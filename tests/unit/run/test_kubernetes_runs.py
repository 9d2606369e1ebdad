"""Whole runs as Jobs: drivers that die, a cancel, a failure beside something that goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Failure, HostOom
from modelyard.kube import names
from modelyard.order import Order, Outcome
from modelyard.run import pipeline as driving
from modelyard.run.pipeline import Driver, Signals, first_status
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import STEPS, Fetch, Finetune
from modelyard.yard import Action, Yard
from modelyard.yard.runs import RunState, RunStatus, StepState

from .standin import Clock, Standin
from .test_kubernetes import executor


@dataclass
class Controller:
    """Ends every step's Job a moment after it was made, and puts what it made into the yard."""

    yard: Yard
    cluster: Standin
    made: list[str] = field(default_factory=list)

    def work(self) -> None:
        for name in self.cluster.jobs():
            job = self.cluster.objects["Job", name]
            if job.get("status"):
                continue
            asked = Order.model_validate_json(job["spec"]["template"]["metadata"]["annotations"][names.ORDER], strict=False)
            attempt = self.yard.runs.get(asked.run).new_attempt(asked.step)
            self.made.append(asked.step)
            outcome = Outcome(exit_code=0, key=asked.key, attempt=attempt.number, result={})
            if asked.step_settings().makes():
                with self.yard.staging(attempt.id) as staging:
                    (staging.files / "made").write_text(f"{asked.verb} {sorted(asked.inputs.items())}")
                    artifact = self.yard.artifacts.commit(staging, kind=str(asked.step_settings().makes()))
                self.yard.actions.put(asked.key, Action(key=asked.key, verb=asked.verb, artifact=artifact.digest))
                outcome = outcome.model_copy(update={"artifact": artifact.digest})
            attempt.write_outcome(outcome)
            self.cluster.ends(name, outcome)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"x")
    rows, base = Fetch(dataset=f"{tmp_path}/rows.csv"), Fetch(model=f"{tmp_path}/base")
    tuned = Finetune(model=base, data=rows)
    score = STEPS["evaluate"].model_validate({"model": tuned, "data": rows})
    return Pipeline("reviews", {"rows": rows, "base": base, "tuned": tuned, "score": score})


def drive(yard: Yard, pipeline: Pipeline, cluster: Standin, signals: Signals, run_id: str = "reviews-r9", view: View | None = None) -> RunStatus:
    jobs = executor(yard, cluster, run_id)
    if run_id == "reviews-r9" and not (jobs.run.path / "given").exists():
        jobs.run.write_spec({"pipeline": pipeline.to_dict()})
        jobs.run.write_status(first_status(run_id, pipeline))
        (jobs.run.path / "given").touch()
    return Driver(jobs.run, pipeline, yard, jobs, Settings(yard.root, jobs=2), view or View(), signals).drive()


def test_a_driver_that_dies_at_any_moment_is_followed_by_one_that_does_nothing_twice(
    yard: Yard, pipeline: Pipeline, cluster: Standin, clock: Clock
) -> None:
    controller, drivers = Controller(yard, cluster), 0
    while True:
        drivers += 1
        signals = Signals()
        after = (0.1, 1.4, 0.7)[drivers % 3]
        clock.then = [(clock.now + 0.2, controller.work), (clock.now + after, lambda s=signals: setattr(s, "stop", True))]
        status = drive(yard, pipeline, cluster, signals)
        if status.state is not RunState.RUNNING:
            break
    assert status.state is RunState.DONE
    assert drivers > 3
    assert sorted(controller.made) == ["base", "rows", "score", "tuned"]
    assert len(cluster.jobs()) == 4
    assert {step.attempt for step in status.steps.values()} == {1}


def test_a_cancelled_run_ends_its_jobs_and_then_itself(yard: Yard, pipeline: Pipeline, cluster: Standin, clock: Clock) -> None:
    def gone() -> None:
        for name in deleted(cluster):
            cluster.vanish("Job", name)

    clock.then = [(clock.now + 1, lambda: yard.runs.get("reviews-r9").request_cancel()), (clock.now + 5, gone)]
    status = drive(yard, pipeline, cluster, Signals())
    assert (status.state, status.exit_code) == (RunState.CANCELLED, 130)
    assert cluster.jobs() == []
    assert {step.state for step in status.steps.values()} == {StepState.STOPPED, StepState.SKIPPED}


def test_a_driver_that_dies_while_refs_are_resolved_leaves_those_that_are(
    yard: Yard, pipeline: Pipeline, cluster: Standin, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = driving.resolve_or_last, list[str]()

    def dies(yard: Yard, ref: str, *rest: Any, **more: Any) -> Any:
        asked.append(ref)
        if len(asked) == 2:
            raise SystemExit
        return resolve(yard, ref, *rest, **more)

    monkeypatch.setattr(driving, "resolve_or_last", dies)
    with pytest.raises(SystemExit):
        drive(yard, pipeline, cluster, Signals())
    yard.runs.get("reviews-r9").write_status(first_status("reviews-r9", pipeline))  # SIGKILL would not have let it say anything
    signals = Signals()
    clock.then = [(clock.now + 0.2, lambda: setattr(signals, "stop", True))]
    drive(yard, pipeline, cluster, signals)
    assert len(asked) == 3
    assert asked[1] == asked[2] != asked[0]


def test_a_cancel_that_came_while_no_driver_lived_ends_what_the_earlier_one_began(
    yard: Yard, pipeline: Pipeline, cluster: Standin, clock: Clock
) -> None:
    signals = Signals()
    clock.then = [(clock.now + 1, lambda: setattr(signals, "stop", True))]
    assert drive(yard, pipeline, cluster, signals).state is RunState.RUNNING
    before = cluster.jobs()
    assert len(before) == 2
    yard.runs.get("reviews-r9").request_cancel()
    clock.then = [(clock.now + 5, lambda: [cluster.vanish("Job", name) for name in deleted(cluster)])]
    assert drive(yard, pipeline, cluster, Signals()).state is RunState.CANCELLED
    assert cluster.jobs() == []


def deleted(cluster: Standin) -> list[str]:
    return [name for name in cluster.jobs() if "deletionTimestamp" in cluster.objects["Job", name]["metadata"]]


def test_a_step_that_fails_ends_the_run_by_its_class_after_what_runs_beside_it(
    yard: Yard, pipeline: Pipeline, cluster: Standin, clock: Clock
) -> None:
    def fail(failure: Failure) -> None:
        name = next(name for name in cluster.jobs() if "-base-" in name)
        cluster.ends(name, Outcome.of(failure, 1.0))

    clock.then = [(clock.now + 1, lambda: fail(HostOom("too small"))), (clock.now + 3, Controller(yard, cluster).work)]
    status = drive(yard, pipeline, cluster, Signals())
    assert (status.state, status.exit_code) == (RunState.FAILED, HostOom.exit_code)
    assert [status.steps[name].state.value for name in ("rows", "base", "tuned", "score")] == ["done", "failed", "skipped", "skipped"]
