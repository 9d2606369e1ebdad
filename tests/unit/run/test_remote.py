"""Starting a run on a cluster: one driver however many submit it, the next number, what is refused, and a driver on this machine."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.errors import Failure, Interrupted, NoInput, NoPermission, TimedOut, Unavailable, Usage
from modelyard.kube import names
from modelyard.kube.cluster import Kind, Manifest
from modelyard.kube.place import Place
from modelyard.order import Order, Outcome
from modelyard.run.pipeline import first_status
from modelyard.run.remote import drive_here, state_folder, submit
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Search
from modelyard.yard.runs import Run, RunState, RunStatus, StepState

from .standin import Clock, Standin

PLACE = Place(namespace="team", image="modelyard:1", claim="modelyard")
HUBS = {"modelscope": "http://hub:8000", "huggingface": "http://hub:8000"}
PIPELINE = Pipeline("looks", {"find": Search(query="x")})
FIRST = names.run_name(PIPELINE, PLACE.image, 1)


def claim(*modes: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "modelyard"}, "spec": {"accessModes": list(modes)}}


def account() -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.DRIVER_ACCOUNT}}


@pytest.fixture
def cluster() -> Standin:
    made = Standin()
    made.create(claim("ReadWriteMany"))
    made.create(account())
    return made


def settings(**update: Any) -> Settings:
    return Settings(Path("/nowhere"), **{"hubs": HUBS, **update})


def run_file(cluster: Standin, run: str) -> dict[str, Any]:
    return dict(json.loads(cluster.objects["ConfigMap", run]["data"]["run.json"]))


def test_a_submit_makes_a_config_map_and_its_driver_job(cluster: Standin) -> None:
    assert submit(PIPELINE, settings(jobs=2, force=frozenset({"find"})), PLACE, cluster) == (FIRST, False)
    assert cluster.jobs("driver") == [FIRST]
    told = run_file(cluster, FIRST)
    assert told["run"] == FIRST
    assert json.loads(cluster.objects["ConfigMap", FIRST]["data"]["pipeline.yaml"]) == PIPELINE.to_dict()
    assert told["settings"] == {"hubs": HUBS, "jobs": 2, "force": ["find"]}
    assert Place.model_validate(told["place"]) == PLACE
    (owner,) = cluster.objects["ConfigMap", FIRST]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", cluster.objects["Job", FIRST]["metadata"]["uid"])


def test_a_live_run_is_joined_and_one_that_has_ended_is_followed_by_the_next_number(cluster: Standin) -> None:
    submit(PIPELINE, settings(), PLACE, cluster)
    assert submit(PIPELINE, settings(), PLACE, cluster) == (FIRST, True)
    for number, kind in ((2, "Failed"), (3, "Complete")):
        cluster.over(names.run_name(PIPELINE, PLACE.image, number - 1), kind, "")
        assert submit(PIPELINE, settings(), PLACE, cluster) == (names.run_name(PIPELINE, PLACE.image, number), False)


def test_a_run_whose_status_has_ended_is_not_joined_although_its_job_has_not_said_so_yet(cluster: Standin) -> None:
    submit(PIPELINE, settings(), PLACE, cluster)
    mirror(cluster, first_status(FIRST, PIPELINE), {})
    assert submit(PIPELINE, settings(), PLACE, cluster) == (FIRST, True)
    mirror(cluster, first_status(FIRST, PIPELINE).over(RunState.DONE, 0), {})
    assert submit(PIPELINE, settings(), PLACE, cluster) == (names.run_name(PIPELINE, PLACE.image, 2), False)


def test_a_live_run_of_a_charts_job_is_joined(cluster: Standin) -> None:
    """By the name that its driver gave it; that of a tick is another run."""
    marks = {names.ROLE: "driver", names.PIPELINE: "looks"}
    for job, run in (("chart-1", FIRST), ("nightly-1", names.run_name(PIPELINE, PLACE.image, 1, "2026-11-23T02:00:00Z"))):
        cluster.create({"kind": "Job", "metadata": {"name": job, "labels": {**marks, names.RUN: run}}, "spec": {}})
    assert submit(PIPELINE, settings(), PLACE, cluster) == (FIRST, True)
    del cluster.objects["Job", "chart-1"]
    assert submit(PIPELINE, settings(), PLACE, cluster) == (FIRST, False)


def test_a_run_that_is_being_deleted_is_not_joined(cluster: Standin) -> None:
    submit(PIPELINE, settings(), PLACE, cluster)
    cluster.delete("Job", FIRST, wait_for_pods=True)
    assert submit(PIPELINE, settings(), PLACE, cluster) == (names.run_name(PIPELINE, PLACE.image, 2), False)


def test_a_number_is_not_used_again_after_the_job_of_it_was_removed(cluster: Standin) -> None:
    """Else the driver would find a run in the yard that has ended, and end like that."""
    labels = {names.ROLE: "status", names.PIPELINE: "looks", names.RUN: FIRST}
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": names.status_name(FIRST), "labels": labels}})
    assert submit(PIPELINE, settings(), PLACE, cluster) == (names.run_name(PIPELINE, PLACE.image, 2), False)


def test_another_pipeline_of_the_same_name_is_another_run(cluster: Standin) -> None:
    submit(PIPELINE, settings(), PLACE, cluster)
    other = Pipeline("looks", {"find": Search(query="y")})
    run, attached = submit(other, settings(), PLACE, cluster)
    assert not attached
    assert run.endswith("-r1")
    assert run != FIRST
    run, attached = submit(PIPELINE, settings(), PLACE.model_copy(update={"image": "modelyard:2"}), cluster)
    assert (attached, run == FIRST) == (False, False)


def test_ten_at_once_have_one_driver(cluster: Standin) -> None:
    """All of them look before anybody creates, and all of them create."""
    gate, lock = threading.Barrier(10), threading.Lock()
    waited = threading.local()

    class Slow(Standin):
        def list(self, kind: Kind, labels: Any = None, *, fields: Any = None, everywhere: bool = False) -> list[Manifest]:
            with lock:
                found = super().list(kind, labels, fields=fields, everywhere=everywhere)
            if kind == "ConfigMap" and not getattr(waited, "once", False):
                waited.once = True
                gate.wait(30)
            return found

        def create(self, manifest: Manifest) -> Manifest | None:
            with lock:
                return super().create(manifest)

    slow = Slow()
    slow.objects = cluster.objects
    with ThreadPoolExecutor(10) as pool:
        found = [one.result() for one in [pool.submit(submit, PIPELINE, settings(), PLACE, slow) for _ in range(10)]]
    assert {run for run, _ in found} == {FIRST}
    assert sorted(attached for _, attached in found) == [False] + [True] * 9
    assert slow.jobs("driver") == [FIRST]


def test_a_config_map_whose_submitter_never_came_to_create_the_job_gives_way(cluster: Standin) -> None:
    submit(PIPELINE, settings(hubs={"modelscope": "http://old:1"}), PLACE, cluster)
    del cluster.objects["Job", FIRST]
    assert submit(PIPELINE, settings(), PLACE, cluster) == (FIRST, False)
    assert run_file(cluster, FIRST)["settings"]["hubs"] == HUBS


def test_a_status_that_cannot_be_read_leaves_it_to_the_job_whether_the_run_goes_on(cluster: Standin) -> None:
    submit(PIPELINE, settings(), PLACE, cluster)
    mirror(cluster, first_status(FIRST, PIPELINE), {})
    cluster.objects["ConfigMap", names.status_name(FIRST)]["data"]["status.json"] = '{"of": "another version"}'
    assert submit(PIPELINE, settings(), PLACE, cluster) == (FIRST, True)


def test_an_address_with_a_secret_is_refused_without_repeating_it(cluster: Standin) -> None:
    with pytest.raises(Usage) as raised:
        submit(PIPELINE, settings(hubs={"modelscope": "ftp://me:hunter2@hub/x"}), PLACE, cluster)
    assert "hunter2" not in str(raised.value) + raised.value.remedy


@pytest.mark.parametrize(("mode", "access"), [(("ReadWriteOnce",), "ReadWriteOnce"), (("ReadWriteOnce", "ReadWriteMany"), "ReadWriteMany")])
def test_the_claims_access_goes_with_the_run(cluster: Standin, mode: tuple[str, ...], access: str) -> None:
    cluster.objects["PersistentVolumeClaim", "modelyard"] = claim(*mode)
    submit(PIPELINE, settings(), PLACE, cluster)
    assert run_file(cluster, FIRST)["place"]["access"] == access


def no_claim(cluster: Standin) -> None:
    del cluster.objects["PersistentVolumeClaim", "modelyard"]


def one_pod(cluster: Standin) -> None:
    cluster.objects["PersistentVolumeClaim", "modelyard"] = claim("ReadWriteOncePod")


def no_account(cluster: Standin) -> None:
    del cluster.objects["ServiceAccount", names.DRIVER_ACCOUNT]


@pytest.mark.parametrize(
    ("spoil", "kind", "remedy"),
    [(no_claim, NoInput, "modelyard yard create"), (one_pod, Usage, "ReadWriteMany"), (no_account, NoInput, "examples/cluster/access.yaml")],
)
def test_what_a_run_needs_is_looked_for_before_anything_is_created(
    cluster: Standin, spoil: Callable[[Standin], None], kind: type[Failure], remedy: str
) -> None:
    spoil(cluster)
    with pytest.raises(kind) as raised:
        submit(PIPELINE, settings(), PLACE, cluster)
    assert remedy in raised.value.remedy
    assert ("create", "Job") not in cluster.calls


def test_who_may_not_look_at_service_accounts_may_still_submit(cluster: Standin) -> None:
    class Strict(Standin):
        def get(self, kind: Kind, name: str) -> Manifest | None:
            if kind == "ServiceAccount":
                raise NoPermission("may not get serviceaccounts")
            return super().get(kind, name)

    strict = Strict()
    strict.objects = cluster.objects
    assert submit(PIPELINE, settings(), PLACE, strict) == (FIRST, False)


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        (Pipeline("looks", {"base": Fetch(model="/models/base")}), settings()),
        (PIPELINE, settings(hubs={"modelscope": "/hub"})),
        (PIPELINE, settings(force=frozenset({"finds"}))),
    ],
    ids=["a path", "a folder hub", "no such step"],
)
def test_what_cannot_work_there_is_refused_before_the_cluster_is_asked(cluster: Standin, pipeline: Pipeline, told: Settings) -> None:
    cluster.calls.clear()
    with pytest.raises(Usage):
        submit(pipeline, told, PLACE, cluster)
    assert cluster.calls == []


def test_a_driver_that_is_always_made_and_gone_is_given_up(cluster: Standin) -> None:
    class Gone(Standin):
        def create(self, manifest: Manifest) -> Manifest | None:
            return None if manifest["kind"] == "Job" else super().create(manifest)

    gone = Gone()
    gone.objects = cluster.objects
    with pytest.raises(Unavailable):
        submit(PIPELINE, settings(), PLACE, gone)


# --- a driver on this machine


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Notes(View):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def begun(self, run: str, note: str) -> None:
        self.notes.append(note)

    def note(self, text: str) -> None:
        self.notes.append(text)


def finish(cluster: Standin) -> None:
    for name in cluster.jobs():
        if not cluster.objects["Job", name].get("status"):
            cluster.ends(name, Outcome(exit_code=0, attempt=1))


def drive(cluster: Standin, view: View | None = None) -> RunStatus:
    return drive_here(PIPELINE, settings(), PLACE, cluster, view or View())


def test_a_driver_here_keeps_records_alone_and_mirrors_them(cluster: Standin, clock: Clock, tmp_path: Path) -> None:
    clock.then = [(clock.now + 1, lambda: finish(cluster))]
    status = drive(cluster)
    assert (status.run, status.state) == (FIRST, RunState.DONE)
    assert cluster.jobs("driver") == []
    (name,) = cluster.jobs()
    job = cluster.objects["Job", name]
    assert "ownerReferences" not in job["metadata"]
    asked = Order.model_validate_json(job["spec"]["template"]["metadata"]["annotations"][names.ORDER], strict=False)
    assert asked.pipeline == PIPELINE.to_dict()
    assert cluster.data(names.status_name(FIRST))["status.json"]["state"] == "done"
    assert state_folder("team") == tmp_path / "state" / "modelyard" / "team"
    clock.then = [(clock.now + 1, lambda: finish(cluster))]
    assert drive(cluster).run == names.run_name(PIPELINE, PLACE.image, 2)


def test_ctrl_c_leaves_the_jobs_and_the_same_command_goes_on(cluster: Standin, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    clock.then = [(clock.now + 1, lambda: signal.raise_signal(signal.SIGINT))]
    with pytest.raises(Interrupted) as raised:
        drive(cluster)
    assert signal.getsignal(signal.SIGINT) == before
    assert f"modelyard cancel {FIRST}" in raised.value.remedy
    assert cluster.data(names.status_name(FIRST))["status.json"]["state"] == "running"
    assert len(cluster.jobs()) == 1
    assert ("delete", "Job") not in cluster.calls
    monkeypatch.setattr(Run, "live", lambda _: False)
    clock.then = [(clock.now + 1, lambda: finish(cluster))]
    view = Notes()
    status = drive(cluster, view)
    assert (status.run, status.state) == (FIRST, RunState.DONE)
    assert "its driver was gone; going on with it" in view.notes
    assert len(cluster.jobs()) == 1


def test_a_cancel_through_the_config_map_ends_the_jobs_of_a_driver_here(cluster: Standin, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.run.mirror.PUSH_EVERY", 1e-3)

    class Cancelled(Standin):
        def create(self, manifest: Manifest) -> Manifest | None:
            made = super().create(manifest)
            if manifest["kind"] == "ConfigMap":
                self.objects["ConfigMap", manifest["metadata"]["name"]]["data"]["cancel"] = "now"
            return made

        def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: int | None = None, wait_for_pods: bool = False) -> bool:
            return super().delete(kind, name, uid=uid)

    cancelled = Cancelled()
    cancelled.objects = cluster.objects
    status = drive(cancelled)
    assert (status.state, status.exit_code) == (RunState.CANCELLED, 130)
    assert cancelled.jobs() == []
    assert status.steps["find"].state in (StepState.STOPPED, StepState.SKIPPED)


def test_a_run_that_a_pod_drives_is_not_driven_from_here_as_well(cluster: Standin, clock: Clock) -> None:
    submit(PIPELINE, settings(), PLACE, cluster)
    with pytest.raises(Usage, match="runs on the cluster already"):
        drive(cluster)


# --- from Python


def test_a_run_that_python_submits_there_is_waited_for_and_tells_its_metrics(cluster: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def connect(context: str, namespace: str) -> Standin:
        seen.append((context, namespace))
        return cluster

    monkeypatch.setattr("modelyard.run.there.connect", connect)
    run = modelyard.submit(PIPELINE, on="kubernetes", namespace="team", context="big", image="modelyard:1", hubs=HUBS)
    assert seen == [("big", "team")]
    assert (run.id, run.status().state) == (FIRST, RunState.RUNNING)
    status = first_status(FIRST, PIPELINE)
    find = status.steps["find"].model_copy(update={"state": StepState.DONE, "artifact": "d" * 64, "kind": "metrics"})
    status = status.model_copy(update={"steps": {"find": find}})
    mirror(cluster, status, {"metrics": {"find": {"accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 10}}}})
    with pytest.raises(TimedOut):
        run.wait(timeout=0)
    mirror(cluster, status.over(RunState.DONE, 0), {"metrics": {"find": {"accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 10}}}})
    assert run.wait().state is RunState.DONE
    assert (run.artifact("find").metrics["accuracy"], run.artifact("find").path) == (0.8, None)
    with pytest.raises(NoInput, match="no step"):
        run.artifact("fnd")


def test_a_run_there_that_failed_is_raised_by_its_class(cluster: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.run.there.connect", lambda *_: cluster)
    run = modelyard.submit(PIPELINE, on="kubernetes", image="modelyard:1", hubs=HUBS)
    status = first_status(FIRST, PIPELINE)
    ending = Outcome.of(NoPermission("no token", remedy="a Secret"), 1.0).model_dump(exclude={"attempt", "reused", "result"})
    failed = {**ending, "state": StepState.FAILED}
    mirror(cluster, status.model_copy(update={"steps": {"find": status.steps["find"].model_copy(update=failed)}}).over(RunState.FAILED, 77), {})
    with pytest.raises(modelyard.StepFailed) as raised:
        run.wait()
    assert (raised.value.step, raised.value.category, raised.value.remedy) == ("find", "no-permission", "a Secret")
    with pytest.raises(NoInput, match="has made nothing"):
        run.artifact("find")


def mirror(cluster: Standin, status: RunStatus, results: dict[str, Any]) -> None:
    labels = {names.ROLE: "status", names.PIPELINE: "looks", names.RUN: FIRST}
    data = {"status.json": status.model_dump_json(), "results.json": json.dumps(results)}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": names.status_name(FIRST), "labels": labels}, "data": data}
    if cluster.create(made) is None:
        cluster.patch("ConfigMap", names.status_name(FIRST), {"data": data})
