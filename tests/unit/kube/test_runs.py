"""Runs on a cluster as their Jobs and ConfigMaps tell them: pending, at work, ended with and without a last word, followed, cancelled."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from modelyard.errors import Bug, Corrupt, Deadline, NoInput, NoPermission, TimedOut, Unavailable
from modelyard.kube import names, runs
from modelyard.kube.cluster import Kind
from modelyard.order import Outcome, termination_message
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import STEPS
from modelyard.yard.runs import Progress, RunState, RunStatus, StepState, StepStatus

from .fake import FakeCluster

RUN = "p-0123456789-r1"
PIPELINE = Pipeline("p", {"look": STEPS["search"](query="bert")})


class Clock:
    """Sleeping is what lets things happen: `then` says what, one after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: list[Callable[[], object]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.then:
            self.then.pop(0)()


class Seen(View):
    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.rates: list[tuple[str, int]] = []
        self.notes: list[str] = []

    def changed(self, status: RunStatus) -> None:
        self.states.append((status.state.value, status.steps["look"].state.value))

    def progress(self, step: str, progress: Progress) -> None:
        self.rates.append((step, progress.done))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def labels(role: str, run: str = RUN) -> dict[str, str]:
    return {names.RUN: run, names.PIPELINE: "p", names.ROLE: role}


def submit(cluster: FakeCluster, run: str = RUN) -> None:
    """What a submitter creates."""
    data = {"run.json": json.dumps({"run": run, "settings": {}, "place": {}}), "pipeline.yaml": json.dumps(PIPELINE.to_dict())}
    cluster.create({"kind": "ConfigMap", "metadata": {"name": run, "labels": labels("driver", run)}, "data": data})
    cluster.create({"kind": "Job", "metadata": {"name": run, "labels": labels("driver", run)}, "spec": {}, "status": {}})


def pod(cluster: FakeCluster, **status: Any) -> None:
    cluster.delete("Pod", f"{RUN}-x")
    cluster.create(
        {"kind": "Pod", "metadata": {"name": f"{RUN}-x", "labels": labels("driver") | {names.JOB: RUN}}, "spec": {"containers": []}, "status": status}
    )


def mirror(cluster: FakeCluster, state: RunState = RunState.RUNNING, step: StepState = StepState.RUNNING, run: str = RUN, **more: Any) -> None:
    """What a driver says."""
    code = {RunState.RUNNING: None, RunState.DONE: 0}.get(state, 70)
    steps = {"look": StepStatus(verb="search", state=step, attempt=1)}
    status = RunStatus(run=run, pipeline="p", state=state, exit_code=code, started="2026-01-01T01:00:00+00:00", steps=steps)
    data = {"status.json": status.model_dump_json(), **{f"{name}.json": json.dumps(value) for name, value in more.items()}}
    name = names.status_name(run)
    if cluster.patch("ConfigMap", name, {"data": data}) is None:
        cluster.create({"kind": "ConfigMap", "metadata": {"name": name, "labels": labels("status", run)}, "data": data})


def over(cluster: FakeCluster, kind: str = "Failed") -> None:
    condition = {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T02:00:00Z"}
    cluster.patch("Job", RUN, {"status": {"conditions": [condition]}})


def driver_ends(cluster: FakeCluster, outcome: Outcome) -> None:
    ended = {"exitCode": outcome.exit_code, "message": termination_message(outcome).decode()}
    pod(cluster, phase="Failed" if outcome.exit_code else "Succeeded", containerStatuses=[{"name": "driver", "state": {"terminated": ended}}])
    over(cluster, "Failed" if outcome.exit_code else "Complete")


def test_a_run_whose_driver_has_not_begun(cluster: FakeCluster) -> None:
    submit(cluster)
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    pod(cluster, phase="Pending", containerStatuses=[{"name": "driver", "state": {"waiting": waiting}}])
    seen = runs.look(cluster, RUN)
    assert seen.live
    assert seen.waits == "ErrImagePull: no such image"
    assert seen.status.state is RunState.RUNNING
    assert [(name, step.verb, step.state) for name, step in seen.status.steps.items()] == [("look", "search", StepState.WAITING)]
    assert [status.run for status in runs.runs(cluster)] == [RUN]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_driver_without_a_pod_says_why_in_the_words_of_its_events(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    submit(cluster)
    involved = {"kind": "Job", "name": RUN}
    event = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: small", "involvedObject": involved}
    cluster.create({"kind": "Event", "metadata": {"name": "e"}, **event})
    listed = cluster.list

    def refusing(kind: Kind, *rest: Any, **more: Any) -> Any:
        if kind == "Event" and not allowed:
            raise NoPermission("may not list events")
        return listed(kind, *rest, **more)

    monkeypatch.setattr(cluster, "list", refusing)
    waits = runs.look(cluster, RUN).waits
    assert waits == ("FailedCreate: exceeded quota: small" if allowed else "the Job has no pod yet, and events may not be read: may not list events")


def test_a_run_at_work(cluster: FakeCluster) -> None:
    submit(cluster)
    progress = {"look": {"done": 3, "unit": "files"}, "gone": {"done": 1, "unit": "files"}}
    mirror(cluster, progress=progress, jobs={"look": "p-look-abc"}, results={"metrics": {"m": 1}, "results": {"look": {"found": []}}})
    seen = runs.look(cluster, RUN)
    assert (seen.live, seen.waits, dict(seen.jobs)) == (True, "", {"look": "p-look-abc"})
    value = seen.described()
    assert value["steps"]["look"]["progress"]["done"] == 3
    assert (value["metrics"], value["results"]) == ({"m": 1}, {"look": {"found": []}})


def test_a_driver_that_died_without_a_word_ended_as_its_job_says(cluster: FakeCluster) -> None:
    submit(cluster)
    mirror(cluster)
    driver_ends(cluster, Outcome.of(Deadline("too long", remedy="raise time_limit"), 1.0))
    status = runs.look(cluster, RUN).status
    assert (status.state, status.exit_code, status.ended) == (RunState.FAILED, 79, "2026-01-01T02:00:00+00:00")
    assert status.steps["look"].state is StepState.STOPPED
    assert any("too long" in note for note in status.notes)
    assert "raise time_limit" in status.notes
    assert runs.runs(cluster) == [status]


def test_a_driver_that_never_said_anything_and_failed(cluster: FakeCluster) -> None:
    submit(cluster)
    over(cluster)
    status = runs.look(cluster, RUN).status
    assert status.state is RunState.FAILED
    assert status.exit_code
    assert status.notes
    assert status.steps["look"].state is StepState.SKIPPED


def test_found_by_the_beginning_of_its_name(cluster: FakeCluster) -> None:
    with pytest.raises(NoInput, match="no run yet"):
        runs.find(cluster)
    for run in ("p-1-r1", "p-1-r10", "q-2-r1"):
        submit(cluster, run)
    assert runs.find(cluster, "q") == "q-2-r1"
    assert runs.find(cluster, "p-1-r1") == "p-1-r1"
    assert runs.find(cluster) == "q-2-r1"
    with pytest.raises(NoInput, match="begins the names of 2"):
        runs.find(cluster, "p")
    with pytest.raises(NoInput, match="no run 'x'"):
        runs.find(cluster, "x")
    with pytest.raises(NoInput, match="no run 'x'"):
        runs.look(cluster, "x")


def test_what_outlives_its_job_is_listed(cluster: FakeCluster) -> None:
    mirror(cluster, RunState.DONE, StepState.DONE)
    assert [(status.run, status.state) for status in runs.runs(cluster)] == [(RUN, RunState.DONE)]
    assert not runs.look(cluster, RUN).live


def test_a_status_that_is_none(cluster: FakeCluster) -> None:
    mirror(cluster)
    cluster.patch("ConfigMap", names.status_name(RUN), {"data": {"status.json": "{"}})
    with pytest.raises(Corrupt, match="cannot be read") as raised:
        runs.look(cluster, RUN)
    assert f"configmap {names.status_name(RUN)}" in raised.value.remedy  # `cancel` would have to read it, too


def test_followed_from_pending_to_the_end(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    waiting = {"reason": "ImagePullBackOff", "message": "x"}
    pod(cluster, phase="Pending", containerStatuses=[{"name": "driver", "state": {"waiting": waiting}}])
    clock.then = [
        lambda: None,
        lambda: mirror(cluster),
        lambda: mirror(cluster, progress={"look": {"done": 1, "unit": "files"}}),
        lambda: mirror(cluster, RunState.DONE, StepState.DONE),
    ]
    view = Seen()
    assert runs.follow(cluster, RUN, view, clock=clock, sleep=clock.sleep).state is RunState.DONE
    assert view.states == [("running", "waiting"), ("running", "running"), ("done", "done")]
    assert view.rates == [("look", 1)]
    assert view.notes == [f"the driver waits: ImagePullBackOff: x; where that cannot come: modelyard cancel {RUN}"]


def test_an_api_server_that_is_away_ends_no_follow(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    mirror(cluster)

    def goes() -> None:
        cluster.down = Unavailable("the API server does not answer")

    def comes() -> None:
        cluster.down = None
        mirror(cluster, RunState.DONE, StepState.DONE)

    clock.then = [goes, lambda: None, lambda: None, comes]
    view = Seen()
    assert runs.follow(cluster, RUN, view, clock=clock, sleep=clock.sleep).state is RunState.DONE
    assert view.notes == ["the API server does not answer; waiting for it, the run goes on"]


def test_one_that_stays_away_does(cluster: FakeCluster, clock: Clock) -> None:
    cluster.down = Unavailable("the API server does not answer")
    with pytest.raises(Unavailable):
        runs.follow(cluster, RUN, Seen(), clock=clock, sleep=clock.sleep)
    assert runs.AWAY <= clock.now < runs.AWAY + 2


def test_followed_no_longer_than_asked(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    mirror(cluster)
    with pytest.raises(TimedOut):
        runs.follow(cluster, RUN, Seen(), timeout=5, clock=clock, sleep=clock.sleep)
    assert 5 <= clock.now < 7


def step_job(cluster: FakeCluster, name: str, run: str = RUN) -> None:
    cluster.create({"kind": "Job", "metadata": {"name": name, "labels": labels("step", run)}, "status": {}})


def test_a_cancel_that_the_driver_obeys(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    mirror(cluster)
    clock.then = [lambda: None, lambda: mirror(cluster, RunState.CANCELLED, StepState.STOPPED)]
    assert runs.cancel(cluster, RUN, clock=clock, sleep=clock.sleep).state is RunState.CANCELLED
    assert cluster.objects["ConfigMap", names.status_name(RUN)]["data"]["cancel"] == "1"
    assert cluster.get("Job", RUN)


@pytest.mark.parametrize("begun", [True, False])
def test_a_driver_that_does_not_obey_is_deleted_and_its_steps_with_it(cluster: FakeCluster, clock: Clock, begun: bool) -> None:
    submit(cluster)
    if begun:
        mirror(cluster)
    step_job(cluster, "p-look-abc")
    step_job(cluster, "p-other-abc", "another-run")
    status = runs.cancel(cluster, RUN, clock=clock, sleep=clock.sleep)
    assert (status.state, status.exit_code) == (RunState.CANCELLED, 130)
    assert cluster.get("Job", RUN) is None
    assert cluster.get("Job", "p-look-abc") is None
    assert cluster.get("Job", "p-other-abc")
    assert runs.look(cluster, RUN).status == status
    assert clock.now >= runs.OBEY if begun else clock.now < 1


def test_a_driver_that_is_deleted_is_waited_for_before_its_steps_are(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    owner = cluster.objects["Job", RUN]["metadata"]["uid"]
    metadata = {"name": f"{RUN}-x", "labels": labels("driver"), "finalizers": ["kubelet"], "ownerReferences": [{"uid": owner}]}
    cluster.create({"kind": "Pod", "metadata": metadata, "spec": {}, "status": {}})

    def last_breath() -> None:
        step_job(cluster, "p-look-abc")
        cluster.patch("Pod", f"{RUN}-x", {"metadata": {"finalizers": None}})

    clock.then = [last_breath]
    assert runs.cancel(cluster, RUN, clock=clock, sleep=clock.sleep).state is RunState.CANCELLED
    assert cluster.list("Job") == []


def test_a_driver_on_a_silent_node_does_not_keep_its_steps_alive(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    owner = cluster.objects["Job", RUN]["metadata"]["uid"]
    metadata = {"name": f"{RUN}-x", "labels": labels("driver"), "finalizers": ["kubelet"], "ownerReferences": [{"uid": owner}]}
    cluster.create({"kind": "Pod", "metadata": metadata, "spec": {}, "status": {}})
    step_job(cluster, "p-look-abc")
    assert runs.cancel(cluster, RUN, clock=clock, sleep=clock.sleep).state is RunState.CANCELLED
    assert [job["metadata"]["name"] for job in cluster.list("Job")] == [RUN]


def test_a_purge_takes_the_jobs_of_steps_but_those_that_another_run_found(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    mirror(cluster, RunState.FAILED, StepState.FAILED)
    for name in ("p-look-abc", "p-find-abc"):
        step_job(cluster, name)
    owners = [{"name": RUN, "uid": "gone"}, {"name": "p-0123456789-r2", "uid": "there"}]
    cluster.patch("Job", "p-find-abc", {"metadata": {"ownerReferences": owners}})
    runs.purge(cluster, RUN)
    assert list(cluster.objects) == [("Job", "p-find-abc")]


def test_what_has_ended_is_not_cancelled_but_can_be_purged(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    mirror(cluster, RunState.DONE, StepState.DONE)
    assert runs.cancel(cluster, RUN, clock=clock, sleep=clock.sleep).state is RunState.DONE
    assert "cancel" not in cluster.objects["ConfigMap", names.status_name(RUN)]["data"]
    runs.purge(cluster, RUN)
    assert not cluster.objects


def test_a_run_whose_job_has_another_name_is_found_by_the_label_that_its_driver_writes(cluster: FakeCluster) -> None:
    submit(cluster, "nightly-1")
    job = cluster.objects["Job", "nightly-1"]
    del job["metadata"]["labels"][names.RUN]
    assert [status.run for status in runs.runs(cluster)] == ["nightly-1"], "before its driver has named it"
    job["metadata"]["labels"][names.RUN] = RUN
    mirror(cluster)
    assert [status.run for status in runs.runs(cluster)] == [RUN]
    assert runs.look(cluster, RUN).live
    assert runs.find(cluster) == RUN
    step_job(cluster, "p-look-abc")
    cluster.patch("Job", "p-look-abc", {"metadata": {"ownerReferences": [{"name": "nightly-1", "uid": "kept by nobody"}]}})
    runs.purge(cluster, RUN)
    assert cluster.list("Job") == []


def test_a_run_that_its_driver_names_while_it_is_cancelled_is_the_one_that_ends(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster, "nightly-1")
    job = cluster.objects["Job", "nightly-1"]
    del job["metadata"]["labels"][names.RUN]
    metadata = {"name": "nightly-1-x", "labels": {}, "finalizers": ["kubelet"], "ownerReferences": [{"uid": job["metadata"]["uid"]}]}
    cluster.create({"kind": "Pod", "metadata": metadata, "spec": {}, "status": {}})

    def named() -> None:
        cluster.patch("Job", "nightly-1", {"metadata": {"labels": {names.RUN: RUN}}})
        mirror(cluster)
        step_job(cluster, "p-look-abc")

    clock.then = [named, lambda: cluster.patch("Pod", "nightly-1-x", {"metadata": {"finalizers": None}})]
    status = runs.cancel(cluster, "nightly-1", clock=clock, sleep=clock.sleep)
    assert (status.run, status.state) == (RUN, RunState.CANCELLED)
    assert cluster.list("Job") == []
    assert [seen.state for seen in runs.runs(cluster)] == [RunState.CANCELLED]


def test_a_run_is_followed_by_the_name_that_its_driver_gives_it(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster, "nightly-1")
    del cluster.objects["Job", "nightly-1"]["metadata"]["labels"][names.RUN]

    def named() -> None:
        cluster.patch("Job", "nightly-1", {"metadata": {"labels": {names.RUN: RUN}}})
        mirror(cluster)

    def gone() -> None:
        mirror(cluster, RunState.DONE, StepState.DONE)
        cluster.delete("Job", "nightly-1")

    clock.then = [named, lambda: None, gone]
    assert runs.follow(cluster, "nightly-1", Seen(), clock=clock, sleep=clock.sleep).run == RUN


def test_what_a_crashed_drivers_run_left_at_work_is_ended(cluster: FakeCluster, clock: Clock) -> None:
    submit(cluster)
    mirror(cluster)
    step_job(cluster, "p-look-abc")
    step_job(cluster, "p-done-abc")
    cluster.objects["Job", "p-done-abc"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    driver_ends(cluster, Outcome.of(Bug("it fell over"), 1.0))
    assert runs.cancel(cluster, RUN, clock=clock, sleep=clock.sleep).state is RunState.FAILED
    assert cluster.get("Job", "p-look-abc") is None
    assert cluster.get("Job", "p-done-abc"), "what has ended can still be looked at"


def test_what_is_told_of_runs_that_ended_long_ago_goes_with_gc(cluster: FakeCluster) -> None:
    for run, state in (("p-0-r1", RunState.DONE), ("p-0-r2", RunState.RUNNING), ("p-0-r3", RunState.DONE), ("p-0-r4", RunState.FAILED)):
        mirror(cluster, state, StepState.DONE, run)
        data = cluster.objects["ConfigMap", names.status_name(run)]["data"]
        told = RunStatus.model_validate_json(data["status.json"])
        ended = {"p-0-r1": "2026-01-01T02:00:00+00:00", "p-0-r3": "2026-01-01T02:00:00+00:00", "p-0-r4": "2026-02-01T02:00:00+00:00"}.get(run)
        data["status.json"] = told.model_copy(update={"ended": ended}).model_dump_json()
    submit(cluster, "p-0-r3")  # its Job is still there
    cluster.create({"kind": "ConfigMap", "metadata": {"name": "p-0-r5-status", "labels": labels("status", "p-0-r5")}, "data": {"status.json": "{"}})
    before = datetime(2026, 1, 15, tzinfo=UTC)
    assert runs.forget(cluster, before, dry_run=True) == ["p-0-r1"]
    assert cluster.get("ConfigMap", "p-0-r1-status")
    assert runs.forget(cluster, before) == ["p-0-r1"]
    assert [found["metadata"]["name"] for found in cluster.list("ConfigMap", {names.ROLE: "status"})] == [
        f"p-0-r{number}-status" for number in (2, 3, 4, 5)
    ]


def test_one_that_cannot_be_read_hides_no_other(cluster: FakeCluster) -> None:
    mirror(cluster, RunState.DONE, StepState.DONE)
    torn = {"name": "p-0-r1-status", "labels": labels("status", "p-0-r1")}
    cluster.create({"kind": "ConfigMap", "metadata": torn, "data": {"status.json": "{"}})
    assert {status.run: (status.state, status.exit_code) for status in runs.runs(cluster)} == {
        RUN: (RunState.DONE, 0),
        "p-0-r1": (RunState.FAILED, Corrupt.exit_code),
    }
    with pytest.raises(Corrupt):
        runs.look(cluster, "p-0-r1")
