"""Steps as Jobs: what is created, adopted or passed over, what a Job's end means, what is said while it waits, and an API server that is away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import Crashed, HostOom, NoAccelerator, NoPermission, Unavailable, Usage
from modelyard.kube import names
from modelyard.kube.place import Place
from modelyard.order import Order, Outcome
from modelyard.run import kubernetes as module
from modelyard.run.kubernetes import Execution, Jobs
from modelyard.run.pipeline import first_status
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Finetune, Resources, Search
from modelyard.yard import Yard
from modelyard.yard.runs import Progress

from .standin import Clock, Standin

PLACE = Place(namespace="team", image="modelyard:1", claim="modelyard")
DIGEST = "d" * 64
AWAY = Unavailable("no answer", where="https://api")


@pytest.fixture
def jobs(yard: Yard, cluster: Standin, clock: Clock) -> Jobs:
    return executor(yard, cluster, "reviews-r1")


def executor(yard: Yard, cluster: Standin, run_id: str, *, shares_yard: bool = True) -> Jobs:
    pipeline = Pipeline("reviews", {"find": Search(query="x")})
    run = yard.runs.create(run_id, {"pipeline": pipeline.to_dict()}, first_status(run_id, pipeline)) or yard.runs.get(run_id)
    cluster.create(driver_job(run_id))
    return Jobs(cluster, PLACE, yard, run, "reviews", shares_yard, owner=cluster.get("Job", run_id))


def driver_job(run_id: str) -> dict[str, Any]:
    labels = {names.ROLE: "driver", names.RUN: run_id, names.PIPELINE: "reviews"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": run_id, "labels": labels}, "spec": {}}


def order(run: str = "reviews-r1", **update: Any) -> Order:
    step = Finetune(model="base", data="rows")
    resources = update.pop("resources", Resources(gpus=1))
    told = {"step": "tuned", "verb": "finetune", "settings": step.settings(), "key": "a" * 64, "inputs": {"model": "m" * 64, "data": "n" * 64}}
    return Order(run=run, resources=resources, **{**told, **update})


def made(**update: Any) -> Outcome:
    return Outcome(exit_code=0, key="a" * 64, artifact=DIGEST, seconds=3.0, attempt=1, **update)


def wait(execution: Execution, clock: Clock, seconds: float = 1.0) -> Outcome | None:
    """A look after so many seconds."""
    clock.now += seconds
    return execution.poll()


def name_of(asked: Order, number: int = 1) -> str:
    return names.step_name("reviews", asked, number)


# --- what is created, adopted or passed over


def test_a_job_is_created_once_and_its_message_is_the_outcome(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    (name,) = cluster.jobs()
    assert name == name_of(order()) == jobs.made["tuned"]
    owner = cluster.objects["Job", name]["metadata"]["ownerReferences"]
    assert [(one["name"], one["controller"], one["blockOwnerDeletion"]) for one in owner] == [("reviews-r1", False, False)]
    assert wait(execution, clock) is None
    cluster.ends(name, made())
    found = wait(execution, clock)
    assert found is not None
    assert (found.exit_code, found.artifact, found.attempt, execution.attempt) == (0, DIGEST, 1, 1)


def test_a_live_job_is_adopted_and_gets_this_driver_as_a_further_owner(yard: Yard, cluster: Standin, clock: Clock) -> None:
    executor(yard, cluster, "reviews-r1").begin(order())
    second = executor(yard, cluster, "reviews-r2")
    execution = second.begin(order("reviews-r2"))
    (name,) = cluster.jobs()
    owners = cluster.objects["Job", name]["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == ["reviews-r1", "reviews-r2"]
    cluster.ends(name, made())
    found = wait(execution, clock)
    assert found is not None
    assert (found.artifact, found.reused, found.attempt, found.note) == (DIGEST, True, 0, "made by reviews-r1")
    assert execution.attempt == 0  # there is no attempt of it in this run


def test_a_job_of_this_run_is_found_again_after_its_driver_died_whether_it_runs_or_has_ended(yard: Yard, cluster: Standin, clock: Clock) -> None:
    executor(yard, cluster, "reviews-r1").begin(order())
    again = executor(yard, cluster, "reviews-r1").begin(order())
    cluster.ends(name_of(order()), Outcome.of(HostOom("too much"), 2.0).model_copy(update={"attempt": 2}))
    for execution in (again, executor(yard, cluster, "reviews-r1").begin(order())):
        found = wait(execution, clock)
        assert found is not None
        assert (found.exit_code, found.attempt, found.reused) == (HostOom.exit_code, 2, False)
    assert cluster.jobs() == [name_of(order())]


@pytest.mark.parametrize("outcome", [made(), Outcome.of(Crashed("it fell over"), 1.0)], ids=["complete", "failed"])
def test_what_another_run_has_ended_is_done_again_under_the_next_number(yard: Yard, cluster: Standin, clock: Clock, outcome: Outcome) -> None:
    """Its result is not in the yard, or the driver would not ask: then it is gone from there."""
    executor(yard, cluster, "reviews-r1").begin(order())
    cluster.ends(name_of(order()), outcome)
    executor(yard, cluster, "reviews-r2").begin(order("reviews-r2"))
    assert cluster.jobs() == [name_of(order()), name_of(order(), 2)]


def test_a_job_of_another_digest_is_never_adopted(jobs: Jobs, cluster: Standin) -> None:
    jobs.begin(order())
    cluster.objects["Job", name_of(order())]["metadata"]["annotations"][names.DIGEST] = names.step_digest(order())[:10] + "0" * 54
    jobs.begin(order())
    assert cluster.jobs() == [name_of(order()), name_of(order(), 2)]


def test_a_job_that_is_being_deleted_is_waited_for_and_then_made_anew(yard: Yard, cluster: Standin, clock: Clock) -> None:
    executor(yard, cluster, "reviews-r1").begin(order())
    name = name_of(order())
    cluster.delete("Job", name, wait_for_pods=True)
    before = cluster.objects["Job", name]["metadata"]["uid"]
    execution = executor(yard, cluster, "reviews-r2").begin(order("reviews-r2"))
    assert wait(execution, clock) is None
    assert execution.note() == f"waits until the Job {name} of before is gone"
    cluster.vanish("Job", name)
    assert wait(execution, clock) is None
    assert cluster.objects["Job", name]["metadata"]["uid"] != before
    assert cluster.objects["Job", name]["metadata"]["labels"][names.RUN] == "reviews-r2"


def test_an_adopted_job_that_its_own_run_ends_is_made_anew(yard: Yard, cluster: Standin, clock: Clock) -> None:
    executor(yard, cluster, "reviews-r1").begin(order())
    execution = executor(yard, cluster, "reviews-r2").begin(order("reviews-r2"))
    cluster.vanish("Job", name_of(order()))
    assert wait(execution, clock) is None
    assert wait(execution, clock) is None
    assert cluster.objects["Job", name_of(order())]["metadata"]["labels"][names.RUN] == "reviews-r2"


def test_what_the_cluster_refuses_is_raised_at_once(jobs: Jobs, cluster: Standin) -> None:
    cluster.down = NoPermission("may not create jobs.batch")
    with pytest.raises(NoPermission):
        jobs.begin(order())


def test_a_listing_that_is_too_long_for_an_annotation_is_left_to_the_frame(jobs: Jobs, cluster: Standin) -> None:
    asked = {"step": "base", "verb": "fetch", "settings": Fetch(model="modelscope://o/m").settings(), "inputs": {}, "resources": Resources()}
    for listing, kept in (({"files": ["x" * 60] * 10}, True), ({"files": ["x" * 60] * 1000}, False)):
        cluster.objects.pop(("Job", name_of(order(**asked))), None)
        jobs.begin(order(**asked, listing=listing))
        annotations = cluster.objects["Job", name_of(order(**asked))]["spec"]["template"]["metadata"]["annotations"]
        assert (json.loads(annotations[names.ORDER])["listing"] is not None) is kept


# --- nodes without a usable accelerator


def refused(node: str) -> Outcome:
    return Outcome.of(NoAccelerator("1 nvidia asked for, not usable here", why=f"no driver on {node}"), 1.0)


def test_a_step_leaves_nodes_without_a_usable_accelerator_three_at_most(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    for number, node in ((1, "node-a"), (2, "node-b"), (3, "node-c")):
        name = cluster.jobs()[-1]
        assert name == name_of(order(), number)
        cluster.ends(name, refused(node), node=node)
        found = wait(execution, clock)
        assert (found is None) is (number < 3)
        assert node in execution.note()
    avoided = [json.dumps(cluster.objects["Job", name]["spec"]["template"]["spec"].get("affinity", {})) for name in cluster.jobs()]
    assert [[node in text for node in ("node-a", "node-b", "node-c")] for text in avoided] == [[False] * 3, [True, False, False], [True, True, False]]
    assert found is not None
    assert found.exit_code == NoAccelerator.exit_code
    assert found.why == "node-a: no driver on node-a; node-b: no driver on node-b; node-c: no driver on node-c"


def test_where_it_found_an_accelerator_in_the_end_says_where_it_found_none(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.ends(name_of(order()), refused("node-a"), node="node-a")
    assert wait(execution, clock) is None
    cluster.ends(name_of(order(), 2), made(), node="node-b")
    found = wait(execution, clock)
    assert found is not None
    assert (found.artifact, found.note) == (DIGEST, "not on node-a: no usable accelerator there")


def test_a_step_that_another_node_took_may_wait_there_for_as_long_as_any(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.ends(name_of(order()), refused("node-a"), node="node-a")
    assert wait(execution, clock) is None
    second = name_of(order(), 2)
    pod = cluster.runs(second, node="node-b")
    assert wait(execution, clock) is None
    del cluster.objects["Pod", pod]  # it is preempted
    cluster.pod(second, phase="Pending", conditions=[unschedulable("0/2 nodes are available")])
    assert wait(execution, clock, 2 * module.MOVE_LIMIT) is None
    assert second in cluster.jobs()


def test_the_next_driver_knows_which_nodes_were_left(yard: Yard, cluster: Standin, clock: Clock) -> None:
    cluster_jobs = executor(yard, cluster, "reviews-r1")
    first = cluster_jobs.begin(order())
    cluster.ends(name_of(order()), refused("node-a"), node="node-a")
    wait(first, clock)
    again = executor(yard, cluster, "reviews-r1").begin(order())
    assert wait(again, clock) is None
    assert cluster.jobs() == [name_of(order()), name_of(order(), 2)]
    assert again.note().startswith("not on node-a")


def test_no_other_node_ends_with_what_was_found_on_the_first(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.ends(name_of(order()), refused("node-a"), node="node-a")
    assert wait(execution, clock) is None
    second = name_of(order(), 2)
    cluster.pod(second, phase="Pending", conditions=[unschedulable("0/1 nodes are available: 1 node(s) didn't match affinity")])
    assert wait(execution, clock) is None
    found = wait(execution, clock, module.MOVE_LIMIT)
    assert found is not None
    assert found.exit_code == NoAccelerator.exit_code
    assert "node-a: no driver on node-a" in found.why
    assert "didn't match affinity" in found.why
    assert second not in cluster.jobs()


def test_what_was_found_on_each_node_is_not_lost_to_what_the_last_attempt_wrote(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    for number, node in ((1, "node-a"), (2, "node-b"), (3, "node-c")):
        said = refused(node).model_copy(update={"attempt": number})
        jobs.run.new_attempt(order().step).write_outcome(said)
        cluster.ends(name_of(order(), number), said, node=node)
        found = wait(execution, clock)
    assert found is not None
    assert (found.attempt, found.why) == (3, "node-a: no driver on node-a; node-b: no driver on node-b; node-c: no driver on node-c")


# --- what it waits for


def unschedulable(message: str) -> dict[str, str]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def pulling(reason: str) -> list[dict[str, Any]]:
    return [{"name": "step", "state": {"waiting": {"reason": reason, "message": "no such image"}}}]


@pytest.mark.parametrize(
    ("status", "note"),
    [
        (
            {"phase": "Pending", "conditions": [unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")]},
            "2 Insufficient nvidia.com/gpu",
        ),
        ({"phase": "Pending", "containerStatuses": pulling("ImagePullBackOff")}, "ImagePullBackOff: no such image"),
        ({"phase": "Pending", "containerStatuses": pulling("ContainerCreating")}, "its container is being made"),
        ({"phase": "Running", "containerStatuses": [{"name": "step", "state": {"running": {}}}]}, ""),
    ],
)
def test_a_note_says_what_a_pod_waits_for(jobs: Jobs, cluster: Standin, clock: Clock, status: dict[str, Any], note: str) -> None:
    execution = jobs.begin(order())
    cluster.pod(name_of(order()), **status)
    assert wait(execution, clock) is None
    assert note in execution.note()
    assert bool(note) is bool(execution.note())


def test_a_job_without_a_pod_says_why_in_the_words_of_its_events(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    involved = {"kind": "Job", "name": name_of(order())}
    event = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: small", "involvedObject": involved}
    cluster.create({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, **event})
    wait(execution, clock)
    assert execution.note() == "FailedCreate: exceeded quota: small"
    asked = cluster.calls.count(("list", "Event"))
    wait(execution, clock)
    assert cluster.calls.count(("list", "Event")) == asked  # not with every look
    assert execution.note() == "FailedCreate: exceeded quota: small"


def test_a_suspended_job_names_its_queue(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order(resources=Resources(queue="night")))
    (name,) = cluster.jobs()
    cluster.objects["Job", name]["spec"]["suspend"] = True
    wait(execution, clock)
    assert execution.note() == "suspended, until queue night admits it"


def test_a_step_that_finds_no_place_in_time_ends_with_the_schedulers_words(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order(resources=Resources(gpus=1, pending_limit=60)))
    (name,) = cluster.jobs()
    cluster.pod(name, phase="Pending", conditions=[unschedulable("0/2 nodes are available")])
    assert wait(execution, clock, 59) is None
    found = wait(execution, clock, 1)
    assert found is not None
    assert found.exit_code == Unavailable.exit_code
    assert (found.what, found.why) == ("the step found no place within 1m00s", "Unschedulable: 0/2 nodes are available")
    assert cluster.jobs() == []


def test_the_limit_does_not_count_the_time_that_it_works(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order(resources=Resources(pending_limit=60)))
    cluster.runs(cluster.jobs()[0])
    for _ in range(5):
        assert wait(execution, clock, 50) is None


# --- the API server


def test_looks_are_shared_and_at_most_one_a_second(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    executions = [jobs.begin(order(step=f"tuned-{number}", key=f"{number}" * 64)) for number in range(5)]
    for execution in executions:
        cluster.runs(cluster.jobs()[executions.index(execution)])
    cluster.calls.clear()
    for _ in range(60):
        for execution in executions:
            assert wait(execution, clock, 0.01) is None
    assert len(cluster.calls) <= 8  # three seconds, two calls each, and one more look at the beginning


def test_an_api_server_that_is_away_does_not_end_a_step(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    wait(execution, clock)
    cluster.down = AWAY
    for _ in range(20):
        assert wait(execution, clock, 10) is None
    assert "has not answered for 200 s" in execution.note()
    cluster.down = None
    cluster.runs(name_of(order()))
    assert wait(execution, clock) is None
    assert execution.note() == ""
    cluster.ends(name_of(order()), made())
    found = wait(execution, clock)
    assert found is not None
    assert found.artifact == DIGEST


def test_an_api_server_that_stays_away_ends_the_following(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.down = AWAY
    found = wait(execution, clock, module.AWAY_LIMIT + 1)
    assert found is not None
    assert (found.exit_code, found.why) == (Unavailable.exit_code, str(AWAY))


def test_a_step_that_begins_while_the_api_server_is_away_begins_later(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    cluster.down = AWAY
    execution = jobs.begin(order())
    assert "does not answer" in execution.note()
    cluster.down = None
    assert wait(execution, clock) is None
    assert cluster.jobs() == [name_of(order())]


def test_a_right_that_is_taken_away_ends_the_step_by_its_name(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.down = NoPermission("may not list pods")
    found = wait(execution, clock)
    assert found is not None
    assert found.exit_code == NoPermission.exit_code


# --- what the yard adds


def test_the_result_of_a_step_comes_from_the_yard(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    asked = order(step="find", verb="search", settings=Search(query="x").settings(), inputs={}, key="")
    execution = jobs.begin(asked)
    attempt = jobs.run.new_attempt("find")
    attempt.write_progress(Progress(done=1, total=2, unit="hubs"))
    cluster.runs(cluster.jobs()[0])
    assert wait(execution, clock) is None
    assert (execution.attempt, execution.progress()) == (1, Progress(done=1, total=2, unit="hubs"))
    said = Outcome(exit_code=0, attempt=1, result={"found": ["a"]})
    attempt.write_outcome(said)
    cluster.ends(cluster.jobs()[0], said)
    found = wait(execution, clock)
    assert found is not None
    assert found.result == {"found": ["a"]}


def test_a_message_that_was_lost_is_made_good_by_the_yard_and_nothing_is_made_up(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.ends(name_of(order()))
    found = wait(execution, clock)
    assert found is not None
    assert (found.exit_code, found.artifact) == (Crashed.exit_code, None)
    assert "what it said is gone" in found.what
    jobs.run.new_attempt("tuned").write_outcome(made())
    found = wait(jobs.begin(order()), clock)
    assert found is not None
    assert found.artifact == DIGEST


def test_an_older_attempt_does_not_speak_for_one_that_crashed(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    jobs.run.new_attempt("tuned").write_outcome(Outcome.of(Usage("of before"), 1.0))
    cluster.ends(name_of(order()), exit_code=137, oom=True)
    found = wait(execution, clock)
    assert found is not None
    assert found.exit_code == HostOom.exit_code


@pytest.mark.parametrize("line", [b'{"event": "progress"}', b'{"event": "progress", "done": "many"}', b"[" * 5000])
def test_a_log_may_say_anything_of_progress(yard: Yard, cluster: Standin, clock: Clock, line: bytes) -> None:
    execution = executor(yard, cluster, "reviews-r1", shares_yard=False).begin(order())
    pod = cluster.runs(name_of(order()))
    good = b'2026-01-01T00:00:00Z {"event": "progress", "done": 3, "total": 8, "unit": "rows"}'
    cluster.streams[pod] = [[good, b"2026-01-01T00:00:01Z " + line]]
    assert wait(execution, clock) is None
    assert execution.progress() == Progress(done=3, total=8, unit="rows")


def test_without_the_yard_progress_comes_from_the_log(yard: Yard, cluster: Standin, clock: Clock) -> None:
    execution = executor(yard, cluster, "reviews-r1", shares_yard=False).begin(order())
    pod = cluster.runs(name_of(order()))
    line = json.dumps({"seq": 9, "event": "progress", "done": 3, "total": 8, "unit": "rows", "rate": 1.5, "left": 3.3}).encode()
    cluster.streams[pod] = [[b"2026-01-01T00:00:00Z " + line, b"2026-01-01T00:00:01Z a library's words", b'2026-01-01T00:00:02Z {"event": "saved"}']]
    assert wait(execution, clock) is None
    assert execution.progress() == Progress(done=3, total=8, unit="rows", rate=1.5, left=3.3)
    asked = cluster.calls.count(("logs", "Pod"))
    execution.progress()
    assert cluster.calls.count(("logs", "Pod")) == asked
    for failure in (AWAY, NoPermission("may not get pods/log")):
        clock.now += module.LOGS_EVERY
        cluster.down = failure
        assert execution.progress() == Progress(done=3, total=8, unit="rows", rate=1.5, left=3.3)


# --- ending it


def test_a_step_that_is_stopped_is_deleted_once_and_followed_until_it_is_gone(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    name = name_of(order())
    cluster.runs(name)
    wait(execution, clock)
    execution.terminate()
    for _ in range(3):
        assert wait(execution, clock) is None
        execution.terminate()
    assert cluster.calls.count(("delete", "Job")) == 1
    assert "deletionTimestamp" in cluster.objects["Job", name]["metadata"]
    assert execution.note() == "being stopped"
    cluster.vanish("Job", name)
    found = wait(execution, clock)
    assert found is not None
    assert found.category == "yielded"


def test_a_step_that_ended_well_while_it_was_stopped_has_ended_well(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    cluster.runs(name_of(order()))
    wait(execution, clock)
    execution.terminate()
    wait(execution, clock)
    jobs.run.new_attempt("tuned").write_outcome(made())
    cluster.vanish("Job", name_of(order()))
    found = wait(execution, clock)
    assert found is not None
    assert found.artifact == DIGEST


def test_stopping_leaves_a_job_to_the_run_that_made_it(yard: Yard, cluster: Standin, clock: Clock) -> None:
    executor(yard, cluster, "reviews-r1").begin(order())
    execution = executor(yard, cluster, "reviews-r2").begin(order("reviews-r2"))
    execution.terminate()
    found = wait(execution, clock)
    assert found is not None
    assert found.category == "yielded"
    assert ("delete", "Job") not in cluster.calls


@pytest.mark.parametrize("kind", ["Complete", "Failed", ""])
def test_stopping_ends_a_job_whose_run_has_ended_without_it(yard: Yard, cluster: Standin, clock: Clock, kind: str) -> None:
    """Its driver died: nobody else would ever end it. Nor where nothing but the Job is left of that run."""
    executor(yard, cluster, "reviews-r1").begin(order())
    execution = executor(yard, cluster, "reviews-r2").begin(order("reviews-r2"))
    wait(execution, clock)
    if kind:
        cluster.over("reviews-r1", kind, "")
    else:
        del cluster.objects["Job", "reviews-r1"]
    execution.terminate()
    assert wait(execution, clock) is None
    assert "deletionTimestamp" in cluster.objects["Job", name_of(order())]["metadata"]


def test_stopping_leaves_a_job_to_a_run_that_found_it(yard: Yard, cluster: Standin, clock: Clock) -> None:
    execution = executor(yard, cluster, "reviews-r1").begin(order())
    executor(yard, cluster, "reviews-r2").begin(order("reviews-r2"))
    execution.terminate()
    found = wait(execution, clock)
    assert found is not None
    assert (found.category, found.why) == ("yielded", f"the Job {name_of(order())} is left to reviews-r2")
    assert ("delete", "Job") not in cluster.calls


def test_a_step_of_a_tick_is_its_own_although_its_drivers_job_has_another_name(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    ticking = driver_job("nightly-29374")
    ticking["metadata"]["labels"][names.RUN] = jobs.run.id
    cluster.vanish("Job", "reviews-r1")
    jobs.owner = cluster.create(ticking)
    execution = jobs.begin(order())
    execution.terminate()
    assert wait(execution, clock) is None
    assert cluster.objects["Job", name_of(order())]["metadata"]["deletionTimestamp"], "it is left to nobody"


def test_an_owner_that_could_not_be_added_is_added_with_the_next_look(yard: Yard, cluster: Standin, clock: Clock, monkeypatch: Any) -> None:
    executor(yard, cluster, "reviews-r1").begin(order())
    second = executor(yard, cluster, "reviews-r2")
    with monkeypatch.context() as away:
        away.setattr(cluster, "patch", raising)
        execution = second.begin(order("reviews-r2"))
    assert wait(execution, clock) is None
    owners = cluster.objects["Job", name_of(order())]["metadata"]["ownerReferences"]
    assert [one["name"] for one in owners] == ["reviews-r1", "reviews-r2"]


def raising(*_: Any, **__: Any) -> Any:
    raise AWAY


def test_a_job_that_ends_between_two_lists_ends_as_its_pod_says(yard: Yard, cluster: Standin, clock: Clock, monkeypatch: Any) -> None:
    """Without the yard nothing else would tell; a pod that was listed before its Job could still be at work there."""
    execution = executor(yard, cluster, "reviews-r1", shares_yard=False).begin(order())
    (name,) = cluster.jobs()
    pod, lists = cluster.runs(name), cluster.list

    def ends_after(kind: Any, labels: Any = None, *, fields: Any = None) -> Any:
        found = lists(kind, labels, fields=fields)
        if ("Pod", pod) in cluster.objects:
            del cluster.objects["Pod", pod]
            cluster.ends(name, made())
        return found

    monkeypatch.setattr(cluster, "list", ends_after)
    found = wait(execution, clock) or wait(execution, clock)
    assert found is not None
    assert (found.exit_code, found.artifact) == (0, DIGEST)


def test_a_job_that_is_younger_than_the_list_has_its_own_pods(yard: Yard, cluster: Standin, clock: Clock) -> None:
    jobs = executor(yard, cluster, "reviews-r1", shares_yard=False)
    wait(jobs.begin(order(step="other")), clock)
    execution = jobs.begin(order())
    cluster.ends(name_of(order()), made())
    found = wait(execution, clock, module.LOOK_EVERY / 2)
    assert found is not None
    assert (found.exit_code, found.artifact) == (0, DIGEST)


def test_a_job_that_is_made_again_is_not_taken_for_the_deleted_one_of_its_name(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    jobs.begin(order())
    name = name_of(order())
    cluster.delete("Job", name, wait_for_pods=True)
    again = jobs.begin(order())
    wait(jobs.begin(order(step="other")), clock)  # the list holds the old one
    cluster.vanish("Job", name)
    assert wait(again, clock, module.LOOK_EVERY / 2) is None
    assert wait(again, clock) is None
    assert jobs.made["tuned"] == name


def test_stopping_waits_for_an_api_server_that_is_away(jobs: Jobs, cluster: Standin, clock: Clock) -> None:
    execution = jobs.begin(order())
    execution.terminate()
    cluster.down = AWAY
    assert wait(execution, clock) is None
    cluster.down = None
    assert wait(execution, clock) is None
    assert "deletionTimestamp" in cluster.objects["Job", name_of(order())]["metadata"]


@pytest.mark.parametrize("begun", [True, False])
def test_a_job_that_somebody_deletes_ends_its_step(jobs: Jobs, cluster: Standin, clock: Clock, begun: bool) -> None:
    execution = jobs.begin(order())
    if begun:
        cluster.runs(name_of(order()))
        wait(execution, clock)
    cluster.vanish("Job", name_of(order()))
    found = wait(execution, clock)
    assert found is not None
    assert (found.category, found.what) == ("interrupted", "somebody deleted the step's Job")
