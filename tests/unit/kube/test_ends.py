"""How a Job ended: every class by its message, by its exit code, and by what Kubernetes alone can know."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import REGISTRY, BadData, Crashed, Deadline, Failure, HostOom, Interrupted, Rule, Unavailable, Yielded
from modelyard.kube import ends, names, waits
from modelyard.kube.cluster import Manifest
from modelyard.order import Outcome, termination_message

OF_STEPS = [kind for kind in REGISTRY.values() if kind.rule is not Rule.CLI]


def job(kind: str = "Failed", reason: str = "PodFailurePolicy", message: str = "") -> Manifest:
    conditions = [{"type": kind, "status": "True", "reason": reason, "message": message}] if kind else []
    return {"kind": "Job", "metadata": {"name": "reviews-tuned-0123456789", "uid": "u"}, "status": {"conditions": conditions}}


def pod(exit_code: int = 1, words: str = "", *, name: str = "pod-a", ended_by: str = "Error", at: str = "10", **status: Any) -> Manifest:
    ended = {
        "exitCode": exit_code,
        "reason": ended_by,
        "message": words,
        "finishedAt": f"2026-01-01T00:00:{at}Z",
        "startedAt": "2026-01-01T00:00:00Z",
    }
    limits = {"containers": [{"name": "step", "resources": {"limits": {"memory": "6Gi"}}}], "nodeName": "node-1"}
    found = {"phase": "Failed", "containerStatuses": [{"name": "step", "state": {"terminated": ended}}], **status}
    metadata = {"name": name, "labels": {names.ROLE: "step"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"kind": "Pod", "metadata": metadata, "spec": limits, "status": found}


def said(failure: Failure) -> str:
    return termination_message(Outcome.of(failure, 2.0).model_copy(update={"attempt": 2})).decode()


def test_another_container_of_the_pod_says_nothing_of_the_step() -> None:
    """A mesh's, or an overlay's: it comes first in the list, and ends by itself."""
    found = pod(HostOom.exit_code, said(HostOom("too small")))
    beside = {"name": "proxy", "state": {"terminated": {"exitCode": 0}}}
    found["status"]["containerStatuses"].insert(0, beside)
    assert ends.outcome(job(), [found]).category == "host-oom"
    killed = pod(137, ended_by="OOMKilled")
    killed["spec"]["containers"].insert(0, {"name": "proxy", "resources": {"limits": {"memory": "1Gi"}}})
    assert "9Gi" in ends.outcome(job(), [killed]).remedy
    runs = [{"name": "proxy", "state": {"running": {}}}, {"name": "step", "state": {"waiting": {"reason": "ErrImagePull"}}}]
    assert not waits.working([pod(containerStatuses=runs)])


@pytest.mark.parametrize("kind", OF_STEPS, ids=lambda kind: kind.category)
def test_a_message_is_the_outcome_whatever_the_class(kind: type[Failure]) -> None:
    found = ends.outcome(job(), [pod(kind.exit_code, said(kind("what happened", why="so", remedy="mend it")))])
    assert (found.exit_code, found.category, found.what, found.why, found.remedy, found.attempt) == (
        kind.exit_code,
        kind.category,
        "what happened",
        "so",
        "mend it",
        2,
    )


@pytest.mark.parametrize("kind", OF_STEPS, ids=lambda kind: kind.category)
@pytest.mark.parametrize("message", ["", "the last line of a log", '{"event": "x"}', '{"exit_code": "so'])
def test_without_a_message_the_exit_code_names_the_class(kind: type[Failure], message: str) -> None:
    found = ends.outcome(job(), [pod(kind.exit_code, message)])
    assert (found.exit_code, found.category) == (kind.exit_code, kind.category)
    assert found.seconds == 10.0
    assert message in found.why


def test_a_code_that_no_class_has_is_a_crash() -> None:
    for code, word in ((139, "SIGSEGV"), (3, "exit 3")):
        found = ends.outcome(job(reason="BackoffLimitExceeded"), [pod(code)])
        assert found.exit_code == Crashed.exit_code
        assert word in found.what


def test_after_retries_the_last_pod_speaks() -> None:
    first, last = pod(69, said(Unavailable("the hub is away")), at="10"), pod(76, "", name="pod-b", at="20")
    for pods in ([first, last], [last, first]):
        assert ends.outcome(job(reason="BackoffLimitExceeded"), pods).category == "corrupt"
    pending = {"metadata": {"name": "pod-c", "creationTimestamp": "2026-01-01T01:00:00Z"}, "status": {"phase": "Pending"}}
    assert ends.outcome(job(reason="BackoffLimitExceeded"), [first, last, pending]).category == "corrupt"


def test_a_success_is_told_whole_or_by_its_code_alone() -> None:
    message = termination_message(Outcome(exit_code=0, artifact="a" * 64, key="b" * 64, attempt=3)).decode()
    assert ends.outcome(job("Complete"), [pod(0, message)]).artifact == "a" * 64
    assert ends.outcome(job("Complete"), [pod(0)]) == Outcome(exit_code=0)
    assert ends.outcome(job("Complete"), []) == Outcome(exit_code=0)


@pytest.mark.parametrize(("limit", "ask"), [("6Gi", "9Gi"), ("1536Mi", "3Gi"), ("500M", "1Gi"), ("2147483648", "3Gi")])
def test_a_kill_by_the_kernel_names_the_number_to_ask_for(limit: str, ask: str) -> None:
    killed = pod(137, ended_by="OOMKilled")
    killed["spec"]["containers"][0]["resources"]["limits"]["memory"] = limit
    found = ends.outcome(job(reason="BackoffLimitExceeded"), [killed])
    assert found.exit_code == HostOom.exit_code
    assert f"memory: {ask}" in found.remedy


def test_a_kill_by_the_kernel_without_a_limit_is_the_nodes() -> None:
    killed = pod(137, ended_by="OOMKilled")
    killed["spec"]["containers"][0]["resources"] = {}
    found = ends.outcome(job(), [killed])
    assert (found.exit_code, found.what) == (HostOom.exit_code, "the node's memory was used up")


@pytest.mark.parametrize("message", ["", said(Yielded("asked to stop"))])
def test_the_backstop_is_a_deadline_also_where_the_step_only_knew_that_it_had_to_stop(message: str) -> None:
    found = ends.outcome(job(reason="DeadlineExceeded", message="Job was active longer"), [pod(75, message)])
    assert (found.exit_code, found.why) == (Deadline.exit_code, "Job was active longer")
    assert ends.outcome(job(reason="DeadlineExceeded"), []).exit_code == Deadline.exit_code
    assert ends.outcome(job(reason="DeadlineExceeded"), [pod(65, said(BadData("no labels")))]).exit_code == BadData.exit_code


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, "Evicted: The node was low on resource: memory."),
        ({"reason": "NodeLost"}, "NodeLost"),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting"}]},
            "PreemptionByScheduler: preempting",
        ),
    ],
)
def test_a_pod_that_was_ended_from_outside_says_by_what(status: dict[str, Any], words: str) -> None:
    for ended in (pod(137, **status), pod(**{**status, "containerStatuses": []})):
        found = ends.outcome(job(reason="BackoffLimitExceeded"), [ended])
        assert (found.exit_code, found.why) == (Crashed.exit_code, words)


def test_a_pod_that_never_had_a_container_says_what_the_kubelet_said() -> None:
    found = ends.outcome(job(reason="BackoffLimitExceeded"), [pod(containerStatuses=[], reason="UnexpectedAdmissionError", message="no device")])
    assert (found.exit_code, found.why) == (Crashed.exit_code, "UnexpectedAdmissionError: no device")


def test_pods_that_are_gone_leave_the_jobs_words() -> None:
    text = "Container step for pod team/x failed with exit code 65 matching FailJob rule at index 2"
    assert ends.outcome(job(message=text), []).exit_code == BadData.exit_code
    found = ends.outcome(job(reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit"), [])
    assert (found.exit_code, found.why) == (Crashed.exit_code, "Job has reached the specified backoff limit")


def test_a_job_that_was_deleted() -> None:
    assert ends.deleted("j", [], asked=True).exit_code == Yielded.exit_code
    assert ends.deleted("j", [], asked=False).exit_code == Interrupted.exit_code
    assert ends.deleted("j", [pod(65, said(BadData("no labels")))], asked=True).exit_code == BadData.exit_code
    found = ends.deleted("j", [pod(75, said(Yielded("asked to stop")))], asked=False)
    assert found.exit_code == Interrupted.exit_code  # it stopped because it was deleted; nobody here had asked for that


def test_a_job_whose_failure_is_decided_has_not_ended() -> None:
    assert ends.finished(job("FailureTarget")) is None
    assert ends.finished(job("")) is None
    assert ends.finished(job("Failed")) == "Failed"
    assert ends.finished(job("Complete")) == "Complete"


def test_a_container_that_never_began_ran_for_no_time() -> None:
    """The kubelet has it begin in 1970."""
    never = pod(128, "exec: no such file", ended_by="StartError")
    never["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    assert ends.outcome(job(), [never]).seconds == 0.0
