"""What is looked at for an answer: how much, about which step, and what happens where it may not be looked at."""

from __future__ import annotations

import pytest

from modelyard.errors import Corrupt, NoInput, NoPermission, Unavailable
from modelyard.kube.cluster import Kind, Manifest
from modelyard.kube.diagnose import diagnose
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.facts import DIAGNOSES, LIMIT, gather
from modelyard.yard.runs import RunState, StepState

from . import objects
from .objects import RUN, STEP, claim, event, failed, job, mirror, node, pod, runs, terminated, unplaced, waiting

DRIVER = job(role="driver")
TAINTED = "0/1 nodes are available: 1 node(s) had untolerated taint {team: vision}."


def running(**states: StepState) -> Manifest:
    return mirror({"other": StepState.WAITING, **states})


def test_the_dearest_case_stays_within_the_limit() -> None:
    """A name that has to be looked for, a Job of another run, a pod without a node."""
    other = job(run="other-0123456789-r1", name="other-tuned-abcdef0123")
    stuck = {**unplaced(TAINTED), "metadata": pod(of=other, node="")["metadata"]}
    stuck["spec"]["volumes"].append({"name": "more", "persistentVolumeClaim": {"claimName": "more"}})
    stuck["spec"]["volumes"].append({"name": "most", "persistentVolumeClaim": {"claimName": "most"}})
    status = mirror({STEP: StepState.RUNNING}, jobs={STEP: "other-tuned-abcdef0123"})
    cluster = objects.cluster(other, stuck, status, node(taints=[{"key": "team", "effect": "NoSchedule"}]), claim(), claim(name="more"))
    found = diagnose(gather(cluster, "reviews-0"))
    assert found.category == "taint"
    assert LIMIT - 1 <= cluster.requests <= LIMIT
    exact = objects.cluster(*cluster.objects.values())
    assert diagnose(gather(exact, RUN, STEP)).category == "taint"
    assert exact.requests <= LIMIT


@pytest.mark.parametrize(("verb", "kind"), [("list", "Node"), ("list", "Event"), ("get", "PersistentVolumeClaim")])
def test_what_may_not_be_looked_at_is_unknown(verb: str, kind: Kind) -> None:
    cluster = objects.cluster(job(), unplaced(TAINTED), node(taints=[{"key": "team", "effect": "NoSchedule"}]), claim())
    cluster.forbidden = {(verb, kind)}
    found = diagnose(gather(cluster, RUN))
    assert found.category == "taint"  # by the scheduler's words where nodes are hidden
    assert any("does not allow" in text for text in found.unknown)
    assert (found.arithmetic[0].startswith("capacity unknown")) is (kind == "Node")
    assert "team" in found.remedy


def test_without_events_a_job_without_pods_says_what_is_missing() -> None:
    cluster = objects.cluster(job(), event(job(), "FailedCreate", "exceeded quota: x"))
    cluster.forbidden = {("list", "Event")}
    found = diagnose(gather(cluster, RUN))
    assert found.category == "no-pod"
    assert found.remedy == "kubectl describe job reviews-tuned-abcdef0123 -n team"


def test_events_of_others_are_not_ours() -> None:
    cluster = objects.cluster(job(), event(job(name="somebody"), "FailedCreate", "exceeded quota: x"))
    assert diagnose(gather(cluster, RUN)).category == "starting"


def test_a_namespace_that_says_nothing_is_a_failure() -> None:
    cluster = objects.cluster(job())
    cluster.forbidden = {("list", "Job")}
    with pytest.raises(NoPermission):
        gather(cluster, RUN)
    cluster.down = Unavailable("away")
    with pytest.raises(Unavailable):
        gather(cluster)


@pytest.mark.parametrize("asked", [None, RUN, "reviews"])
def test_a_run_is_found_by_its_name_or_the_beginning_or_as_the_latest(asked: str | None) -> None:
    older = job(run="reviews0-0123456789-r1", name="old")
    older["metadata"]["creationTimestamp"] = "2025-12-01T00:00:00Z"
    found = [job(), pod(waiting("ContainerCreating"))]
    cluster = objects.cluster(*found, *([] if asked == "reviews" else [older]))
    assert gather(cluster, asked).run == RUN


def test_what_is_not_there_is_said() -> None:
    cluster = objects.cluster(job(), job(run="reviews-0123456789-r2", name="another"))
    with pytest.raises(NoInput, match="begins the names of 2 runs"):
        gather(cluster, "reviews")
    for odd in ("x-r1", "a,b=c-r1", "../x-r1", "\x1b[2J-r1"):
        with pytest.raises(NoInput, match="there is no run"):
            gather(cluster, odd)
    with pytest.raises(NoInput) as unknown:
        gather(cluster, RUN, "tunet")
    assert "tuned" in unknown.value.remedy
    with pytest.raises(NoInput, match="no run yet"):
        gather(objects.cluster())


def test_the_step_that_says_most_is_chosen() -> None:
    working = [DRIVER, pod(runs(), of=DRIVER, phase="Running")]
    stuck, at_work = pod(waiting("ErrImagePull")), pod(runs(), phase="Running")
    bad = mirror({"other": StepState.RUNNING, STEP: failed("data", 65)})
    assert gather(objects.cluster(*working, job(), pod(terminated(65)), bad)).step == STEP
    assert gather(objects.cluster(*working, job(), stuck, running(tuned=StepState.RUNNING))).step == STEP
    assert gather(objects.cluster(*working, job(), at_work, running(tuned=StepState.RUNNING))).step == STEP
    dead = pod(terminated(137, "OOMKilled"), of=DRIVER, phase="Failed")
    assert gather(objects.cluster(DRIVER, dead, job(), at_work, running(tuned=StepState.RUNNING))).step == ""
    assert gather(objects.cluster(*working, running(tuned=StepState.WAITING))).step == ""
    assert gather(objects.cluster(DRIVER)).step == ""
    over = job({"type": "Failed", "status": "True"}, role="driver")
    assert gather(objects.cluster(over, dead, job(), at_work, running(tuned=StepState.RUNNING))).step == ""


def test_what_was_found_out_at_the_failure_comes_first() -> None:
    """Nothing else is looked at, and what is there by now does not count."""
    stored = Diagnosis(category="node-label", what="no node has it", remedy="label one", exit_code=69)
    kept = mirror({STEP: failed("unavailable", 69)}, state=RunState.FAILED, kept={STEP: stored})
    cluster = objects.cluster(DRIVER, job(), pod(runs(), phase="Running"), kept)
    found = diagnose(gather(cluster, RUN))
    assert found == stored.model_copy(update={"run": RUN, "step": STEP})
    assert cluster.requests == 2
    assert diagnose(gather(cluster, RUN, STEP)) == found


def test_a_driver_of_a_schedule_that_has_not_begun_is_found_by_its_jobs_name() -> None:
    fresh = job(role="driver", name="nightly-29384756", run="")
    del fresh["metadata"]["labels"]["modelyard.dev/run"]
    cluster = objects.cluster(fresh, pod(waiting("CreateContainerConfigError", 'secret "k" not found'), of=fresh))
    found = diagnose(gather(cluster, "nightly"))
    assert (found.run, found.category) == ("nightly-29384756", "secret-missing")


def test_a_status_that_is_torn_says_which() -> None:
    torn = running()
    torn["data"]["status.json"] = "{"
    with pytest.raises(Corrupt, match="cannot be read") as found:
        gather(objects.cluster(DRIVER, torn), RUN)
    assert found.value.remedy == f"kubectl delete configmap {RUN}-status -n team"


@pytest.mark.parametrize("key", ["jobs.json", "progress.json", DIAGNOSES])
@pytest.mark.parametrize("text", ["{", "[]", '{"tuned": 1}', "[" * 5000])
def test_what_is_torn_beside_the_status_takes_no_answer(key: str, text: str) -> None:
    torn = mirror({STEP: failed("data", 65)}, state=RunState.FAILED)
    torn["data"][key] = text
    found = diagnose(gather(objects.cluster(torn), RUN))
    assert (found.category, found.step) == ("data", STEP)


def test_a_schedules_driver_at_work_is_found_though_its_pod_was_made_without_the_runs_name() -> None:
    """The driver names the run, and labels its Job; its pod was there before."""
    nightly = job(role="driver", name="nightly-29384756")
    made = pod(runs(), of=nightly, phase="Running")
    del made["metadata"]["labels"]["modelyard.dev/run"]
    at_work = [nightly, made, job(), pod(runs(), phase="Running"), running(tuned=StepState.RUNNING)]
    facts = gather(objects.cluster(*at_work), RUN)
    assert (facts.step, diagnose(facts).category) == (STEP, "running")
    assert diagnose(gather(objects.cluster(*at_work), RUN, "")).evidence[0].object == "Pod nightly-29384756-1"
    made["status"] = pod(terminated(137, "OOMKilled"), of=nightly, phase="Failed")["status"]
    assert diagnose(gather(objects.cluster(*at_work), RUN)).category == "host-oom"


def test_what_looks_like_a_name_and_is_the_beginning_of_one_stays_within_the_limit() -> None:
    long = f"{RUN}2"
    other = job(run="other-0123456789-r1", name="other-tuned-abcdef0123")
    stuck = {**unplaced(TAINTED), "metadata": pod(of=other, node="")["metadata"]}
    stuck["spec"]["volumes"].append({"name": "more", "persistentVolumeClaim": {"claimName": "more"}})
    status = mirror({STEP: StepState.RUNNING}, jobs={STEP: "other-tuned-abcdef0123"})
    status["metadata"]["name"] = f"{long}-status"
    nightly = job(role="driver", name="nightly", run=long)
    made = pod(runs(), of=nightly, phase="Running")
    del made["metadata"]["labels"]["modelyard.dev/run"]
    cluster = objects.cluster(
        nightly, made, other, stuck, status, node(taints=[{"key": "team", "effect": "NoSchedule"}]), claim(), claim(name="more")
    )
    facts = gather(cluster, RUN)
    assert (facts.run, diagnose(facts).category) == (long, "taint")
    assert cluster.requests <= LIMIT


def test_without_pods_nothing_is_said_of_them() -> None:
    cluster = objects.cluster(job(), pod(terminated(1)))
    cluster.forbidden = {("list", "Pod")}
    found = diagnose(gather(cluster, RUN))
    assert (found.category, found.what) == ("no-pod", "its pods may not be looked at")
    assert any(text.startswith("pods: ") for text in found.unknown)


def test_a_job_of_a_step_that_the_status_does_not_have() -> None:
    """As of a run that was begun again from a file of other steps, and torn in between."""
    status = mirror({"other": StepState.WAITING}, jobs={STEP: "gone"})
    assert diagnose(gather(objects.cluster(job(), pod(runs(), phase="Running"), status), RUN, STEP)).category == "running"


def test_an_answer_of_a_later_version_is_one() -> None:
    stored = Diagnosis(category="of-tomorrow", what="who knows")
    found = diagnose(gather(objects.cluster(mirror({STEP: failed("bug", 70)}, state=RunState.FAILED, kept={STEP: stored})), RUN))
    assert (found.category, found.meaning, found.seen) == ("of-tomorrow", "", "")
