"""What a step's Job waits for while none of its pods works, in the words of whoever holds it up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kube import ends
from modelyard.kube.cluster import Manifest

_LONGEST = 300
_QUIET = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of a waiting container that mean that all goes as it should."""


def working(pods: Sequence[Manifest]) -> bool:
    """Whether our container runs in one of them."""
    return any("running" in ends.own(pod, _containers(pod)).get("state", {}) for pod in pods)


def waits_for(job: Manifest, pods: Sequence[Manifest], events: Sequence[Manifest] = ()) -> str:
    """What it waits for; empty where it works, or nothing is known. events: of the Job, for where no pod exists."""
    if job["metadata"].get("deletionTimestamp"):
        return "being deleted"
    if working(pods):
        return ""
    if job.get("spec", {}).get("suspend"):
        queue = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
        return f"suspended, until queue {queue} admits it" if queue else "suspended"
    words = [text for pod in reversed(pods) if (text := _pod(pod))] or [text for event in reversed(events) if (text := _event(event))]
    return words[0][:_LONGEST] if words else ""


def _pod(pod: Manifest) -> str:
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return ""
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") and waiting["reason"] not in _QUIET:
            return ": ".join(text for text in (waiting["reason"], waiting.get("message")) if text)
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', 'no node yet')}"
    return "its container is being made" if status.get("phase") == "Pending" else ""


def _event(event: Manifest) -> str:
    """A reason why the Job has no pod: quota, limits, pod security, a missing service account."""
    return f"{event.get('reason', '')}: {event.get('message', '')}" if event.get("type") == "Warning" else ""


def _containers(pod: Manifest) -> Sequence[Manifest]:
    return pod.get("status", {}).get("containerStatuses") or []
