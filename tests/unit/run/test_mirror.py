"""The status of a run in its ConfigMap: what it holds, how it is kept small, that it never ends the run, and how a cancel comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.errors import NoPermission, Unavailable
from modelyard.kube import names
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.facts import DIAGNOSES
from modelyard.order import Outcome
from modelyard.run import mirror as module
from modelyard.run.mirror import Mirror
from modelyard.run.pipeline import first_status
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Search
from modelyard.yard import Yard
from modelyard.yard.runs import Progress, Run, RunState, RunStatus, StepState

from .standin import Standin

NAME = "looks-0123456789-r1"
PIPELINE = Pipeline("looks", {"find": Search(query="x"), "more": Search(query="y")})


class Notes(View):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def cluster() -> Standin:
    return Standin()


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path / "yard")


@pytest.fixture
def run(yard: Yard) -> Run:
    made = yard.runs.create(NAME, {"pipeline": PIPELINE.to_dict()}, first_status(NAME, PIPELINE))
    assert made
    return made


def mirror(cluster: Standin, yard: Yard | None, run: Run, inner: View | None = None, jobs: dict[str, str] | None = None) -> Mirror:
    return Mirror(cluster, run, "looks", inner or View(), yard=yard, jobs=lambda: jobs or {})


def step(run: Run, **update: object) -> RunStatus:
    status = run.status()
    find = status.steps["find"].model_copy(update={"attempt": 1, **update})
    return status.model_copy(update={"steps": {**status.steps, "find": find}})


def test_it_holds_status_progress_jobs_and_results(cluster: Standin, yard: Yard, run: Run) -> None:
    mirrored = mirror(cluster, yard, run, jobs={"find": "looks-find-1"})
    mirrored.changed(step(run, state=StepState.RUNNING))
    mirrored.progress("find", Progress(done=1, total=2, unit="hubs"))
    assert mirrored.push()
    found = cluster.objects["ConfigMap", names.status_name(NAME)]
    assert found["metadata"]["labels"] == {names.RUN: NAME, names.PIPELINE: "looks", names.ROLE: "status"}
    assert "ownerReferences" not in found["metadata"]
    data = cluster.data(names.status_name(NAME))
    assert RunStatus.model_validate(data["status.json"]).steps["find"].state is StepState.RUNNING
    assert (data["progress.json"]["find"]["done"], data["jobs.json"]) == (1, {"find": "looks-find-1"})
    run.new_attempt("find").write_outcome(Outcome(exit_code=0, attempt=1, result={"found": ["a"]}))
    mirrored.changed(step(run, state=StepState.DONE).over(RunState.DONE, 0))
    assert mirrored.push()
    data = cluster.data(names.status_name(NAME))
    assert data["results.json"] == {"metrics": {}, "results": {"find": {"found": ["a"]}}}
    assert (data["progress.json"], data["status.json"]["state"]) == ({}, "done")


def test_nothing_is_written_where_nothing_is_new(cluster: Standin, yard: Yard, run: Run) -> None:
    mirrored = mirror(cluster, yard, run)
    mirrored.push()
    cluster.calls.clear()
    mirrored.push()
    assert cluster.calls == [("get", "ConfigMap")]


def test_the_next_driver_keeps_the_names_of_jobs_that_it_did_not_make(cluster: Standin, yard: Yard, run: Run) -> None:
    mirror(cluster, yard, run, jobs={"find": "looks-find-1"}).push()
    mirror(cluster, yard, run, jobs={"more": "looks-more-1"}).push()
    assert cluster.data(names.status_name(NAME))["jobs.json"] == {"find": "looks-find-1", "more": "looks-more-1"}


@pytest.mark.parametrize("new", [True, False], ids=["beside something new", "alone"])
def test_a_cancel_that_somebody_wrote_reaches_the_run(cluster: Standin, yard: Yard, run: Run, new: bool) -> None:
    mirrored = mirror(cluster, yard, run)
    mirrored.push()
    assert not run.cancel_requested()
    cluster.patch("ConfigMap", names.status_name(NAME), {"data": {"cancel": "now"}})
    if new:
        mirrored.changed(step(run, state=StepState.RUNNING))
    mirrored.push()
    assert run.cancel_requested()
    assert cluster.objects["ConfigMap", names.status_name(NAME)]["data"]["cancel"] == "now"


def test_an_api_server_that_is_away_gets_it_later(cluster: Standin, yard: Yard, run: Run) -> None:
    mirrored = mirror(cluster, yard, run)
    cluster.down = Unavailable("no answer")
    mirrored.changed(step(run, state=StepState.RUNNING))
    assert not mirrored.push()
    cluster.down = None
    assert mirrored.push()
    assert cluster.data(names.status_name(NAME))["status.json"]["steps"]["find"]["state"] == "running"


def test_the_last_word_is_said_again_until_it_is_heard(cluster: Standin, yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored = mirror(cluster, yard, run)
    cluster.down = Unavailable("no answer")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        cluster.down = None if len(waits) == 3 else cluster.down

    monkeypatch.setattr(module.time, "sleep", sleep)
    mirrored.changed(step(run, state=StepState.DONE).over(RunState.DONE, 0))
    mirrored.close()
    assert len(waits) == 3
    assert cluster.data(names.status_name(NAME))["status.json"]["state"] == "done"
    cluster.down = Unavailable("for ever")
    mirrored.changed(step(run).over(RunState.FAILED, 1))
    mirrored.close()
    assert len(waits) == 3 + module.LAST_TRIES


def test_who_leaves_a_run_that_goes_on_does_not_wait_for_an_api_server(
    cluster: Standin, yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    cluster.down = Unavailable("no answer")
    mirror(cluster, yard, run).close()
    assert len(waits) <= 1


def test_a_right_that_is_missing_is_said_once_and_ends_nothing(cluster: Standin, yard: Yard, run: Run) -> None:
    view = Notes()
    mirrored = mirror(cluster, yard, run, view)
    cluster.down = NoPermission("may not patch configmaps")
    for _ in range(3):
        mirrored.push()
    assert view.notes == ["the run's status cannot be mirrored: may not patch configmaps"]


def test_results_that_are_too_large_are_left_out_and_it_says_so(cluster: Standin, yard: Yard, run: Run) -> None:
    run.new_attempt("find").write_outcome(Outcome(exit_code=0, attempt=1, result={"found": ["é" * module.LARGEST]}))
    run.new_attempt("more").write_outcome(Outcome(exit_code=0, attempt=1, result={"found": ["small"]}))
    status = step(run, state=StepState.DONE)
    more = status.steps["more"].model_copy(update={"attempt": 1, "state": StepState.DONE})
    mirrored = mirror(cluster, yard, run)
    mirrored.changed(status.model_copy(update={"steps": {**status.steps, "more": more}}))
    assert mirrored.push()
    raw = cluster.objects["ConfigMap", names.status_name(NAME)]["data"]
    assert sum(len(text.encode()) for text in raw.values()) < module.LARGEST
    assert json.loads(raw["results.json"])["results"] == {"more": {"found": ["small"]}}
    assert json.loads(raw["status.json"])["notes"] == ["too large to be shown without the yard: results of find"]
    assert run.status().notes == ()


def test_without_the_steps_yard_there_is_a_status_and_no_results(cluster: Standin, run: Run) -> None:
    mirrored = mirror(cluster, None, run)
    mirrored.changed(step(run, state=StepState.DONE))
    assert mirrored.push()
    assert cluster.data(names.status_name(NAME))["results.json"] == {"metrics": {}, "results": {}}


def test_what_it_is_shown_is_handed_on(cluster: Standin, yard: Yard, run: Run) -> None:
    seen: list[object] = []

    class Inner(View):
        def begun(self, run: str, note: str) -> None:
            seen.append((run, note))

        def changed(self, status: RunStatus) -> None:
            seen.append(status.state)

        def progress(self, step: str, progress: Progress) -> None:
            seen.append((step, progress.done))

        def note(self, text: str) -> None:
            seen.append(text)

    mirrored = mirror(cluster, yard, run, Inner())
    mirrored.begun(NAME, "anew")
    mirrored.changed(run.status())
    mirrored.progress("find", Progress(done=1, unit="rows"))
    mirrored.note("listen")
    assert seen == [(NAME, "anew"), RunState.RUNNING, ("find", 1), "listen"]


@pytest.mark.parametrize("text", ["{", "[]", "[" * 5000])
def test_what_is_torn_is_written_anew(cluster: Standin, yard: Yard, run: Run, text: str) -> None:
    name = names.status_name(NAME)
    cluster.create({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"jobs.json": text, DIAGNOSES: text}})
    kept = mirror(cluster, yard, run, jobs={"find": "looks-find-0"})
    kept.diagnosed("find", Diagnosis(category="data", what="no rows"))
    kept.changed(step(run, state=StepState.FAILED))
    assert kept.push()
    data = cluster.get("ConfigMap", name)["data"]  # type: ignore[index]
    assert json.loads(data["jobs.json"]) == {"find": "looks-find-0"}
    assert json.loads(data[DIAGNOSES])["find"]["what"] == "no rows"


def test_answers_that_are_too_large_are_left_out(cluster: Standin, yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 5_000)
    kept = mirror(cluster, yard, run)
    lines = tuple(f"node{number}: 8 nvidia.com/gpu; 16 asked" for number in range(1000))
    kept.diagnosed("find", Diagnosis(category="never-fits", what="too large", arithmetic=lines))
    kept.diagnosed("more", Diagnosis(category="data", what="no rows"))
    failed = step(run, state=StepState.FAILED)
    more = failed.steps["more"].model_copy(update={"state": StepState.FAILED})
    kept.changed(failed.model_copy(update={"steps": {**failed.steps, "more": more}}))
    assert kept.push()
    data = cluster.get("ConfigMap", names.status_name(NAME))["data"]  # type: ignore[index]
    assert list(json.loads(data[DIAGNOSES])) == ["more"]
    assert "diagnoses" not in json.loads(data["results.json"])
    assert any("find" in note for note in json.loads(data["status.json"])["notes"])
