"""How a step's Job ended, from the Job and its pods as an API server shows them. Pure: nothing is asked, and nothing in the yard is read.

What the step said itself comes first (the termination message of its last pod), then what Kubernetes says of the container, the pod and the Job.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ValidationError

from modelyard.errors import Crashed, Deadline, Failure, HostOom, Interrupted, Unavailable, Yielded, from_exit, signal_name
from modelyard.kube import names
from modelyard.kube.cluster import Manifest
from modelyard.order import Outcome
from modelyard.quantities import format_bytes, parse_milli

DISRUPTED = "DisruptionTarget"
"""The condition of a pod that was ended for a reason that is not its own: evicted, preempted, its node drained or gone."""

_GIB = 1 << 30


def finished(job: Manifest) -> Literal["Complete", "Failed"] | None:
    """How the Job ended, None while it has not. A Job whose failure is decided, and whose pods are still ending, has not."""
    for kind in ("Complete", "Failed"):
        if _condition(job, kind):
            return kind
    return None


def outcome(job: Manifest, pods: Sequence[Manifest]) -> Outcome:
    """How a finished Job ended, or one that was deleted. Of a step that succeeded and left no message only the exit code is known."""
    pod = last(pods)
    container = terminated(pod) if pod else None
    said = _message(container)
    failed = _condition(job, "Failed")
    reason = failed.get("reason", "") if failed else ""
    if reason == "DeadlineExceeded" and (said is None or said.exit_code == Yielded.exit_code):  # the step only knows that it was asked to stop
        remedy = "raise time_limit; the next run resumes"
        return _failure(Deadline("the Job ran too long", where=_at(job), why=failed.get("message", "") if failed else "", remedy=remedy), said)
    if said is not None and (said.exit_code != 0 or not failed):
        return said
    if not failed and finished(job):
        return Outcome(exit_code=0)
    if pod is None:
        return _failure(_without_pods(job, failed))
    if container and container.get("reason") == "OOMKilled":
        return _failure(host_oom(_limit(pod), _at(pod)), seconds=_seconds(container))
    if words := disruption(pod):
        return _failure(Crashed("the pod was ended from outside", where=_at(pod), why=words, remedy="run it again: it goes on from what was kept"))
    if container is None:
        status = pod.get("status", {})
        why = ": ".join(text for text in (status.get("reason"), status.get("message")) if text) or reason
        return _failure(Crashed("the pod ended before its container did", where=_at(pod), why=why, remedy="see `kubectl describe pod`"))
    code = container.get("exitCode", Crashed.exit_code)
    words = container.get("message", "").strip().splitlines()
    why = "; ".join(text for text in (container.get("reason", ""), words[-1] if words else "") if text)
    kind = from_exit(code) or Crashed
    what = f"the step's container ended with {signal_name(code)} and left no outcome"
    return _failure(kind(what, where=_at(pod), why=why, remedy="see the step's log"), seconds=_seconds(container))


def deleted(name: str, pods: Sequence[Manifest], *, asked: bool) -> Outcome:
    """How a step ended whose Job is gone. asked: the driver itself deleted it, so that the step had to stop."""
    pod = last(pods)
    said = _message(terminated(pod)) if pod else None
    if said is not None and (asked or said.exit_code != Yielded.exit_code):
        return said
    if asked:
        return _failure(Yielded("asked to stop", where=f"Job {name}", remedy="the same command goes on from here"))
    return _failure(Interrupted("somebody deleted the step's Job", where=f"Job {name}", remedy="run it again: it goes on from what was kept"))


def last(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod that speaks for the Job: of those that have ended the one that ended last, else the youngest."""

    def age(pod: Manifest) -> tuple[bool, str, str, str]:
        container = terminated(pod)
        return (
            container is not None,
            (container or {}).get("finishedAt") or "",
            pod["metadata"].get("creationTimestamp") or "",
            pod["metadata"]["name"],
        )

    return max(pods, key=age, default=None)


def terminated(pod: Manifest) -> dict[str, Any] | None:
    """How our container ended: Kubernetes' `terminated`, None while it has not."""
    found: dict[str, Any] | None = own(pod, pod.get("status", {}).get("containerStatuses")).get("state", {}).get("terminated")
    return found


def own(pod: Manifest, containers: Sequence[Manifest] | None) -> Manifest:
    """Of a pod's containers, or what is said of them, our own, which has the name of its role; others come by an overlay or a mesh."""
    role = pod["metadata"].get("labels", {}).get(names.ROLE)
    return next((container for container in containers or [] if container.get("name") == role), {})


def node(pod: Manifest) -> str:
    """The node that the pod was given, empty before that."""
    return str(pod.get("spec", {}).get("nodeName") or "")


def disruption(pod: Manifest) -> str:
    """Why the pod was ended from outside, in Kubernetes' words; empty where it was not."""
    condition = _condition(pod, DISRUPTED)
    status = pod.get("status", {})
    found = (condition or {}).get("reason"), status.get("reason"), status.get("message") or (condition or {}).get("message")
    return (
        ": ".join(dict.fromkeys(text for text in found if text)) if condition or status.get("reason") in ("Evicted", "NodeLost", "Shutdown") else ""
    )


def memory_limit(container: Manifest) -> int | None:
    """Bytes that a container may use; None where nothing says so."""
    try:
        return parse_milli(((container.get("resources") or {}).get("limits") or {})["memory"]) // 1000
    except (KeyError, ValueError):
        return None


def host_oom(limit: int | None, where: str) -> HostOom:
    """The failure of a container that the kernel ended at its memory limit, with the number to ask for."""
    if limit is None:
        return HostOom("the node's memory was used up", where=where, remedy="set `memory` under resources, or a smaller batch_size")
    ask = -(-limit * 3 // 2 // _GIB)
    remedy = f"resources: {{memory: {ask}Gi}}, or a smaller batch_size"
    return HostOom(f"the memory limit of {format_bytes(limit)} was reached", where=where, why="OOMKilled", remedy=remedy)


def _without_pods(job: Manifest, failed: dict[str, Any] | None) -> Failure:
    text = (failed or {}).get("message", "")
    code = re.search(r"exit code (\d+)", text)
    if code and (kind := from_exit(int(code[1]))):
        return kind("the step failed, and its pod is gone with what it said", where=_at(job), why=text, remedy="run it again, and see its log")
    return Crashed(
        "the step's pods are gone", where=_at(job), why=text or "somebody deleted them", remedy="run it again: it goes on from what was kept"
    )


def unreachable(failure: Failure, seconds: float) -> Unavailable:
    """The failure of a step that nobody could look at for too long."""
    return Unavailable(f"the cluster has not answered for {seconds:g} s", why=str(failure), remedy="the step goes on; run it again to follow it")


def _failure(failure: Failure, said: Outcome | None = None, *, seconds: float = 0.0) -> Outcome:
    made = Outcome.of(failure, said.seconds if said else seconds)
    return made.model_copy(update={"attempt": said.attempt, "key": said.key}) if said else made


def _message(container: dict[str, Any] | None) -> Outcome | None:
    """The outcome in a termination message, None where there is none: a container may also leave its last log line there."""
    try:
        return Outcome.model_validate_json((container or {}).get("message") or "")
    except ValidationError:
        return None


def _condition(of: Manifest, kind: str) -> dict[str, Any] | None:
    for condition in of.get("status", {}).get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == "True":
            return dict(condition)
    return None


def _limit(pod: Manifest) -> int | None:
    return memory_limit(own(pod, pod.get("spec", {}).get("containers")))


def _seconds(container: dict[str, Any]) -> float:
    """Running time by the kubelet's clock, to a second; none of a container that never began, which began in 1970 for a kubelet."""
    from datetime import datetime  # late: rendering never needs it

    began, ended = container.get("startedAt"), container.get("finishedAt")
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() if began and ended and began[:4] != "1970" else 0.0
    except ValueError:
        return 0.0  # how long it ran is not what an answer hangs on


def _at(of: Manifest) -> str:
    return f"{of.get('kind', 'Pod')} {of['metadata']['name']}"
