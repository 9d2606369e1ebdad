"""A driver's pod: what it makes of its file, what it leaves behind, and how the next one goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Bug, Crashed, HostOom, NoPermission, Unavailable, Yielded
from modelyard.kube import names, render
from modelyard.kube.place import Place
from modelyard.kube.policy import CRASHED_STEP
from modelyard.order import Outcome
from modelyard.run import driver as module
from modelyard.run.driver import main
from modelyard.spec import Pipeline
from modelyard.steps import Search
from modelyard.yard import Yard
from modelyard.yard.runs import Run, RunState, StepState

from .standin import Clock, Standin

PLACE = Place(namespace="team", image="modelyard:1", claim="modelyard")
PIPELINE = Pipeline("looks", {"find": Search(query="x")})
RUN = names.run_name(PIPELINE, PLACE.image, 1)


@pytest.fixture(autouse=True)
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("MODELYARD_TERMINATION_LOG", str(path))
    before = signal.getsignal(signal.SIGTERM)
    yield path
    signal.signal(signal.SIGTERM, before)


class Pod:
    """What a driver's pod has: the file, the yard, the cluster with the driver's own Job."""

    def __init__(self, folder: Path) -> None:
        self.file, self.yard, self.cluster = folder / "run.json", folder / "yard", Standin()
        config, job = render.driver(PIPELINE, {"hubs": {"modelscope": "http://hub:1"}, "jobs": 1, "force": []}, PLACE)
        for name, text in config["data"].items():
            (folder / name).write_text(text)
        self.cluster.create(job)

    def drive(self) -> int:
        return main([str(self.file), "--yard", str(self.yard)], self.cluster)

    def end(self, outcome: Outcome) -> None:
        (name,) = self.cluster.jobs()
        self.cluster.ends(name, outcome)


@pytest.fixture
def pod(tmp_path: Path, clock: Clock) -> Pod:
    return Pod(tmp_path)


def said(terminal: Path) -> dict[str, Any]:
    return dict(json.loads(terminal.read_bytes()))


def test_a_number_that_is_given_again_is_a_run_of_its_own(pod: Pod, clock: Clock, terminal: Path) -> None:
    """A purge removes the Job and the mirrored status; what the yard has of that run does not answer for the next one of its name."""
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome(exit_code=0, attempt=1)))]
    assert pod.drive() == 0
    before = Yard.open(pod.yard).runs.get(RUN).spec()["settings"]["driver"]
    assert pod.drive() == 0  # the same Job: its run has ended
    pod.cluster.objects["Job", RUN]["metadata"]["uid"] = "another"
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome(exit_code=0, attempt=1)))]
    pod.cluster.objects = {key: value for key, value in pod.cluster.objects.items() if key[1] == RUN}
    assert pod.drive() == 0
    assert before != Yard.open(pod.yard).runs.get(RUN).spec()["settings"]["driver"] == "another"
    assert len(pod.cluster.jobs()) == 1


def test_a_job_that_a_schedule_made_names_its_run_by_the_tick(pod: Pod, clock: Clock, terminal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second pod of the same Job goes on with its run; another tick's Job has a run of its own, and so has one of the same tick after it."""
    monkeypatch.setenv("MODELYARD_JOB", "nightly-1")
    pod.file.write_text(json.dumps({**json.loads(pod.file.read_text()), "run": ""}))
    runs = []
    for name, at in (("nightly-1", "2026-11-23T03:00:00+01:00"), ("nightly-2", "2026-11-23T04:00:00+01:00"), ("nightly-3", "2026-11-23T02:00:00Z")):
        annotations = {"batch.kubernetes.io/cronjob-scheduled-timestamp": at}
        pod.cluster.create({"kind": "Job", "metadata": {"name": name, "annotations": annotations}})
        monkeypatch.setenv("MODELYARD_JOB", name)
        clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
        assert pod.drive() == Yielded.exit_code
        runs.append(pod.cluster.objects["Job", name]["metadata"]["labels"][names.RUN])
        clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
        assert pod.drive() == Yielded.exit_code
        assert len(Yard.open(pod.yard).runs.list()) == len(runs), "the second pod found the first one's run"
    assert runs == [
        names.run_name(PIPELINE, PLACE.image, number, tick)
        for number, tick in ((1, "2026-11-23T02:00:00Z"), (1, "2026-11-23T03:00:00Z"), (2, "2026-11-23T02:00:00Z"))
    ]


def by_a_chart(pod: Pod, monkeypatch: pytest.MonkeyPatch, **metadata: Any) -> None:
    """A Job whose driver names the run."""
    pod.file.write_text(json.dumps({**json.loads(pod.file.read_text()), "run": ""}))
    pod.cluster.create({"kind": "Job", "metadata": {"name": "looks-chart", **metadata}})
    monkeypatch.setenv("MODELYARD_JOB", "looks-chart")


def stopped(pod: Pod, clock: Clock) -> str:
    """Drive until SIGTERM comes; the run that the Job is labelled with."""
    clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
    assert pod.drive() == Yielded.exit_code
    return str(pod.cluster.objects["Job", "looks-chart"]["metadata"]["labels"][names.RUN])


@pytest.mark.parametrize("left", ["Job", "ConfigMap"])
def test_a_number_that_the_cluster_has_given_is_not_given_again(pod: Pod, clock: Clock, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    """A submitter's driver has not begun, or one elsewhere has mirrored its run: the yard knows neither."""
    if left == "ConfigMap":
        del pod.cluster.objects["Job", RUN]
        pod.cluster.create({"kind": "ConfigMap", "metadata": {"name": names.status_name(RUN)}, "data": {"cancel": "1"}})
    by_a_chart(pod, monkeypatch)
    assert stopped(pod, clock) == names.run_name(PIPELINE, PLACE.image, 2)
    assert stopped(pod, clock) == names.run_name(PIPELINE, PLACE.image, 2)


def test_two_pods_of_one_job_at_once_have_one_run(pod: Pod, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    del pod.cluster.objects["Job", RUN]
    by_a_chart(pod, monkeypatch)
    assert stopped(pod, clock) == RUN
    runs = type(Yard.open(pod.yard).runs)
    named, looks = runs.named, iter([list[Run]()])  # the second one looked before the first had made the run
    monkeypatch.setattr(runs, "named", lambda *arguments: next(looks, named(*arguments)))
    assert stopped(pod, clock) == RUN
    assert len(Yard.open(pod.yard).runs.list()) == 1


def test_a_pod_that_no_job_made_is_told_so(pod: Pod, monkeypatch: pytest.MonkeyPatch, terminal: Path) -> None:
    by_a_chart(pod, monkeypatch)
    monkeypatch.setenv("MODELYARD_JOB", "")
    assert pod.drive() == 64
    assert "MODELYARD_JOB is empty" in said(terminal)["why"]


@pytest.mark.parametrize("text", ["tonight", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_a_tick_that_is_no_time_is_no_error_of_ours(pod: Pod, monkeypatch: pytest.MonkeyPatch, terminal: Path, text: str) -> None:
    by_a_chart(pod, monkeypatch, annotations={names.TICK: text})
    assert pod.drive() == 64
    assert text in said(terminal)["what"]


def test_a_job_that_is_gone_names_no_run(pod: Pod, monkeypatch: pytest.MonkeyPatch, terminal: Path) -> None:
    by_a_chart(pod, monkeypatch)
    del pod.cluster.objects["Job", "looks-chart"]
    assert pod.drive() == 66
    assert not Yard.open(pod.yard).runs.list()


def test_a_pipeline_that_is_none_is_told_by_the_driver_of_a_chart(pod: Pod, terminal: Path) -> None:
    pod.file.with_name("pipeline.yaml").write_text("name: reviews\nsteps:\n  find: {serach: {}}\n")
    assert pod.drive() == 64
    assert said(terminal)["where"] == "pipeline.yaml:3: steps.find.serach"


def test_it_drives_its_run_to_the_end(pod: Pod, clock: Clock, capsys: pytest.CaptureFixture[str], terminal: Path) -> None:
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome(exit_code=0, attempt=1)))]
    assert pod.drive() == 0
    run = Yard.open(pod.yard).runs.get(RUN)
    assert run.spec()["pipeline"] == PIPELINE.to_dict()
    assert run.spec()["settings"] == {
        "hubs": {"modelscope": "http://hub:1"},
        "jobs": 1,
        "force": [],
        "driver": pod.cluster.objects["Job", RUN]["metadata"]["uid"],
    }
    assert run.status().state is RunState.DONE
    (name,) = pod.cluster.jobs()
    owner = pod.cluster.objects["Job", name]["metadata"]["ownerReferences"][0]
    assert (owner["name"], owner["uid"]) == (RUN, pod.cluster.objects["Job", RUN]["metadata"]["uid"])
    assert pod.cluster.data(names.status_name(RUN))["jobs.json"] == {"find": name}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["event"] for line in lines if line["event"] != "running"] == ["begun", "done", "ended"]
    assert said(terminal)["exit_code"] == 0


def test_what_was_left_of_a_run_that_was_purged_neither_resumes_nor_cancels_its_successor(pod: Pod, clock: Clock) -> None:
    clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
    assert pod.drive() == Yielded.exit_code
    Yard.open(pod.yard).runs.get(RUN).request_cancel()
    pod.cluster.objects["Job", RUN]["metadata"]["uid"] = "another"
    pod.cluster.objects = {key: value for key, value in pod.cluster.objects.items() if key == ("Job", RUN)}
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome(exit_code=0, attempt=1)))]
    assert pod.drive() == 0


def test_a_driver_whose_job_is_being_removed_does_not_take_its_run_for_anothers(pod: Pod, clock: Clock) -> None:
    clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
    assert pod.drive() == Yielded.exit_code
    before = Yard.open(pod.yard).runs.get(RUN).spec()
    pod.cluster.vanish("Job", RUN)
    clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
    assert pod.drive() == Yielded.exit_code
    assert Yard.open(pod.yard).runs.get(RUN).spec() == before


def test_sigterm_while_the_cluster_has_not_answered_yet_leaves_the_run_to_the_next_driver(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod.cluster, "get", lambda *_: signal.raise_signal(signal.SIGTERM) or away())

    def away() -> None:
        raise Unavailable("no answer")

    assert pod.drive() == Yielded.exit_code


def test_a_step_that_failed_is_its_exit_code_and_its_last_words(pod: Pod, clock: Clock, terminal: Path) -> None:
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome.of(HostOom("too small", remedy="memory: 9Gi"), 1.0)))]
    assert pod.drive() == HostOom.exit_code
    told = said(terminal)
    assert (told["category"], told["where"], told["what"], told["remedy"]) == ("host-oom", "find", "too small", "memory: 9Gi")


def test_a_step_that_crashed_does_not_look_like_a_driver_that_was_killed(pod: Pod, clock: Clock, terminal: Path) -> None:
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome.of(Crashed("it fell over"), 1.0)))]
    assert pod.drive() == CRASHED_STEP
    assert said(terminal)["exit_code"] == Crashed.exit_code


def test_sigterm_ends_the_driver_alone_and_the_next_one_goes_on(pod: Pod, clock: Clock, terminal: Path) -> None:
    clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGTERM))]
    assert pod.drive() == Yielded.exit_code
    assert said(terminal)["category"] == "yielded"
    assert ("delete", "Job") not in pod.cluster.calls
    run = Yard.open(pod.yard).runs.get(RUN)
    assert (run.status().state, run.status().steps["find"].state) == (RunState.RUNNING, StepState.RUNNING)
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome(exit_code=0, attempt=1)))]
    assert pod.drive() == 0
    assert len(pod.cluster.jobs()) == 1
    assert run.status().state is RunState.DONE


def test_a_driver_of_a_run_that_has_ended_ends_like_it_and_does_nothing(pod: Pod, clock: Clock) -> None:
    clock.then = [(clock.now + 1, lambda: pod.end(Outcome.of(HostOom("too small"), 1.0)))]
    assert pod.drive() == HostOom.exit_code
    del pod.cluster.objects["ConfigMap", names.status_name(RUN)]  # it died before it could say so
    assert pod.drive() == HostOom.exit_code
    assert len(pod.cluster.jobs()) == 1
    assert pod.cluster.data(names.status_name(RUN))["status.json"]["exit_code"] == HostOom.exit_code


def test_a_cluster_that_denies_it_its_rights_is_named(pod: Pod, terminal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod.cluster.down = NoPermission("may not get jobs.batch", remedy="a Role with the rule")
    assert pod.drive() == NoPermission.exit_code
    assert (said(terminal)["what"], said(terminal)["remedy"]) == ("may not get jobs.batch", "a Role with the rule")
    assert "may not get jobs.batch" in capsys.readouterr().err


def test_an_error_of_ours_has_a_name_and_a_traceback(
    pod: Pod, terminal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "Mirror", None)
    assert pod.drive() == Bug.exit_code
    assert said(terminal)["category"] == "bug"
    assert "Traceback" in capsys.readouterr().err
