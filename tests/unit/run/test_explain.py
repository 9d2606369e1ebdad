"""Why a step failed is kept when it does: in the yard, beside the run's status, and in what a caller is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelyard
from modelyard.errors import Crashed, HostOom, NoInput, NoSpace, Unavailable, VolumeFailed
from modelyard.kube import names
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.facts import DIAGNOSES
from modelyard.order import Outcome
from modelyard.run import explain
from modelyard.run.mirror import Mirror
from modelyard.run.pipeline import Driver, Signals, first_status
from modelyard.run.settings import Settings
from modelyard.run.submit import ended_well
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Resources, Search
from modelyard.yard import Yard
from modelyard.yard.runs import Progress, Run, RunState, RunStatus, StepState, StepStatus

from .standin import Clock, Standin
from .test_kubernetes import PLACE, executor, unschedulable

NAME = "looks-0123456789-r1"
LOOKS = Pipeline("looks", {"find": Search(query="x", resources=Resources(pending_limit=60))})


class Notes(View):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def drive(yard: Yard, cluster: Standin, view: View | None = None, pipeline: Pipeline = LOOKS) -> tuple[Run, RunStatus]:
    """A run to its end, mirrored as a driver's pod does it."""
    run = yard.runs.create(NAME, {"pipeline": pipeline.to_dict()}, first_status(NAME, pipeline))
    assert run
    jobs = executor(yard, cluster, NAME)
    mirrored = Mirror(cluster, run, "looks", view or View(), yard=yard, jobs=lambda: jobs.made)
    status = Driver(run, pipeline, yard, jobs, Settings(yard.root, {}), mirrored, Signals()).drive()
    assert mirrored.push()
    return run, status


def kept(cluster: Standin) -> dict[str, Diagnosis]:
    return explain.kept_there(cluster, NAME)


def test_a_step_that_finds_no_place_ends_in_the_category_of_what_held_it_up(yard: Yard, cluster: Standin, clock: Clock) -> None:
    def stuck() -> None:
        (name,) = cluster.jobs()
        said = "0/1 nodes are available: 1 node(s) had untolerated taint {team: vision}."
        cluster.pod(name, phase="Pending", conditions=[unschedulable(said)])

    spec = {"accessModes": ["ReadWriteMany"]}
    cluster.create({"kind": "PersistentVolumeClaim", "metadata": {"name": PLACE.claim}, "spec": spec, "status": {"phase": "Bound"}})
    cluster.forbidden = {("list", "Node")}  # a driver has no right to look at them
    clock.then = [(clock.now + 2, stuck)]
    run, status = drive(yard, cluster)
    assert cluster.jobs() == []  # its Job is gone, and its pod with it
    found = kept(cluster)["find"]
    assert (found.category, found.exit_code, found.step) == ("taint", Unavailable.exit_code, "find")
    assert "steps.find.resources: {tolerations: [{key: team, value: vision}]}" in found.remedy
    assert found.arithmetic[0].startswith("capacity unknown")
    assert found.what.startswith("the step found no place within 1m00s: ")
    assert ("steps.find.resources.pending_limit", "the step found no place within 1m00s") in [(one.field, one.value) for one in found.evidence]
    assert run.diagnosis("find", 0, Diagnosis) == found
    assert (run.path / "steps" / "find" / "diagnosis.json").exists()
    assert explain.here(run) == explain.there(cluster, NAME) == found
    assert explain.there(cluster) == found
    assert status.steps["find"].category == "unavailable"
    assert status.steps["find"].remedy == found.remedy
    with pytest.raises(modelyard.StepFailed) as raised:
        ended_well(status, kept(cluster))
    assert (raised.value.category, raised.value.remedy) == ("taint", found.remedy)


def test_what_was_held_up_too_long_is_not_told_to_wait(yard: Yard, cluster: Standin, clock: Clock) -> None:
    """Its Job is gone: it does not begin by itself any more."""

    def stuck() -> None:
        (name,) = cluster.jobs()
        cluster.pod(name, phase="Pending", conditions=[unschedulable("0/1 nodes are available: 1 Insufficient cpu. 1 No preemption victims found.")])

    cluster.forbidden = {("list", "Node"), ("get", "PersistentVolumeClaim")}
    clock.then = [(clock.now + 2, stuck)]
    _, status = drive(yard, cluster)
    found = kept(cluster)["find"]
    assert found.category == "busy"
    assert found.remedy == "modelyard run FILE (when there is room; or steps.find.resources: {pending_limit: LONGER})"
    assert status.steps["find"].remedy == found.remedy


def test_a_failed_attempt_keeps_what_its_pod_said(yard: Yard, cluster: Standin, clock: Clock) -> None:
    def fails() -> None:
        (name,) = cluster.jobs()
        attempt = yard.runs.get(NAME).new_attempt("find")
        outcome = Outcome.of(HostOom("the memory limit was reached", remedy="resources: {memory: 3Gi}, or a smaller batch_size"), 2.0)
        attempt.write_outcome(outcome.model_copy(update={"attempt": attempt.number}))
        cluster.ends(name, outcome.model_copy(update={"attempt": attempt.number}), oom=True)

    clock.then = [(clock.now + 2, fails)]
    run, _ = drive(yard, cluster)
    assert (run.path / "steps" / "find" / "1" / "diagnosis.json").exists()
    found = kept(cluster)["find"]
    assert (found.category, found.remedy, found.exit_code) == ("host-oom", "steps.find.resources: {memory: 3Gi}", 83)
    assert "OOMKilled" in [one.value for one in found.evidence]
    for name in cluster.jobs():
        cluster.vanish("Job", name)
    assert explain.there(cluster, NAME) == found


def test_a_ref_that_stands_for_nothing_is_kept_without_an_attempt(yard: Yard, cluster: Standin, clock: Clock, tmp_path: Path) -> None:
    run, _ = drive(yard, cluster, pipeline=Pipeline("looks", {"rows": Fetch(dataset=f"{tmp_path}/none.csv")}))
    found = run.diagnosis("rows", 0, Diagnosis)
    assert found
    assert (found.category, found.exit_code) == (NoInput.category, NoInput.exit_code)
    assert kept(cluster) == {"rows": found}


def test_a_full_volume_does_not_take_the_answer(yard: Yard, cluster: Standin, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise NoSpace("the volume is full")

    monkeypatch.setattr(Run, "write_diagnosis", full)
    notes = Notes()
    _, status = drive(yard, cluster, notes, Pipeline("looks", {"rows": Fetch(dataset=f"{tmp_path}/none.csv")}))
    assert status.state is RunState.FAILED
    assert notes.notes == ["rows: why it failed cannot be kept: the volume is full"]
    assert kept(cluster)["rows"].category == "no-input"


def test_the_next_driver_keeps_what_the_last_one_found_out(yard: Yard, cluster: Standin) -> None:
    run = yard.runs.create(NAME, {"pipeline": LOOKS.to_dict()}, first_status(NAME, LOOKS))
    assert run
    failed = StepStatus(verb="search", state=StepState.FAILED, exit_code=137, category="crashed")
    first = Mirror(cluster, run, "looks", View(), yard=yard)
    first.diagnosed("find", Diagnosis(category="killed", what="it was killed"))
    first.changed(run.status().model_copy(update={"steps": {"find": failed}}))
    assert first.push()
    run.write_status(run.status().model_copy(update={"steps": {"find": failed}}))
    second = Mirror(cluster, run, "looks", View(), yard=yard)
    assert second.push()
    assert kept(cluster)["find"].category == "killed"


@pytest.mark.parametrize("text", ["{", "[]", '{"find": {}}', "[" * 5000])
def test_what_is_kept_and_torn_leaves_the_steps_own_word(cluster: Standin, text: str) -> None:
    labels = {names.ROLE: "status", names.RUN: NAME}
    cluster.create({"kind": "ConfigMap", "metadata": {"name": names.status_name(NAME), "labels": labels}, "data": {DIAGNOSES: text}})
    assert kept(cluster) == {}


def of(yard: Yard, state: RunState, **steps: StepStatus) -> Run:
    status = RunStatus(run=NAME, pipeline="looks", state=state, exit_code=None if state is RunState.RUNNING else 1, steps=steps)
    run = yard.runs.create(NAME, {"pipeline": LOOKS.to_dict()}, status)
    assert run
    return run


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "live", lambda _: False)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "live", lambda _: True)


def step(state: StepState, **told: object) -> StepStatus:
    return StepStatus.model_validate({"verb": "search", "state": state, **told})


@pytest.mark.usefixtures("dead")
def test_a_run_here_whose_driver_is_gone(yard: Yard) -> None:
    found = explain.here(of(yard, RunState.RUNNING, find=step(StepState.RUNNING, attempt=1)))
    assert (found.category, found.evidence[-1].field) == ("driver-gone", "heartbeat")
    assert "modelyard run FILE" in found.remedy


@pytest.mark.usefixtures("live")
def test_a_run_here_that_goes_on(yard: Yard) -> None:
    run = of(yard, RunState.RUNNING, find=step(StepState.RUNNING, attempt=1), more=step(StepState.WAITING))
    run.new_attempt("find").write_progress(Progress(done=2, total=5, unit="rows"))
    assert explain.here(run).what == "it runs: 2 of 5 rows"
    assert (explain.here(run).category, explain.here(run, "more").category) == ("running", "waits-for-step")
    with pytest.raises(NoInput) as unknown:
        explain.here(run, "fnd")
    assert "find" in unknown.value.remedy


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize(
    ("state", "of_step", "category"),
    [
        (RunState.DONE, step(StepState.DONE), "done"),
        (RunState.CANCELLED, step(StepState.STOPPED), "interrupted"),
        (RunState.STOPPED, step(StepState.STOPPED), "yielded"),
        (RunState.FAILED, step(StepState.SKIPPED), "crashed"),
        (RunState.FAILED, step(StepState.FAILED, **Outcome.of(VolumeFailed("broken"), 0.0).model_dump()), "io"),
        (RunState.FAILED, step(StepState.FAILED, **Outcome.of(Crashed("it ended with SIGSEGV"), 0.0).model_dump()), "segfault"),
    ],
)
def test_a_run_here_that_is_over(yard: Yard, state: RunState, of_step: StepStatus, category: str) -> None:
    assert explain.here(of(yard, state, find=of_step)).category == category
