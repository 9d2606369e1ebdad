"""An answer to "why does it wait, why did it die": the words that all answers use, and the one table of categories.

A category never changes its name, so that scripts may test for it. A step that ended with a class of the table of failures has that class's name
as its category; what Kubernetes alone can know has names of its own. Nothing is looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict

from modelyard.errors import REGISTRY, Interrupted, NoInput, NoPermission, Rule, Unavailable, Yielded


class Group(StrEnum):
    """Where a category is seen, in the order in which it is looked there."""

    ACCESS = "API object and access"
    JOB = "conditions of the Job"
    QUEUE = "Workload of Kueue"
    CREATE = "events of a Job without a pod"
    SCHEDULING = "scheduling"
    CLAIM = "claim and volume"
    KUBELET = "rejection by the node"
    IMAGE = "image and configuration"
    ENDED = "end of the container"
    NODE = "node lost"
    DISRUPTION = "disruption"
    PROGRESS = "progress"
    RUN = "the run itself"


class Category(NamedTuple):
    """One row. meaning: one line."""

    meaning: str
    group: Group


_ACCESS = (NoInput, NoPermission, Unavailable)
_RUN = (Interrupted, Yielded)
_OWN: Mapping[Group, Mapping[str, str]] = {
    Group.ACCESS: {kind.category: kind.meaning for kind in _ACCESS},
    Group.JOB: {
        "being-deleted": "the Job is being deleted",
        "failing": "the failure is decided, and its pods are still ending",
        "retries-used": "all attempts failed, and their pods are gone with what they said",
        "suspended": "somebody suspended the Job",
    },
    Group.QUEUE: {
        "queue-missing": "the queue that the Job is put into does not exist",
        "queue-inactive": "the queue takes no Jobs now: it is stopped, or not set up",
        "queue-never": "the queue can never admit it: more is asked than it may ever give",
        "queue-waits": "the queue's quota is in use by others",
        "queue-silent": "a queue is asked for, and nothing answers for it",
    },
    Group.CREATE: {
        "quota": "the namespace's ResourceQuota leaves no room for the pod",
        "limit-range": "a LimitRange of the namespace forbids what the pod asks for",
        "pod-security": "the namespace's Pod Security level refuses the pod",
        "service-account-missing": "the service account of the pod does not exist",
        "priority-missing": "the priority class that is asked for does not exist",
        "admission": "the API server or a webhook of it refuses the pod",
        "no-pod": "the Job has no pod, and nothing says why",
    },
    Group.SCHEDULING: {
        "never-fits": "more is asked than any node has, even if nothing else ran there",
        "gpu-model": "no node has an accelerator of the model asked for",
        "node-label": "no node has the labels asked for",
        "taint": "nodes that could take the pod have a taint that it does not tolerate",
        "cordoned": "nodes that could take the pod are cordoned",
        "nodes-not-ready": "nodes that could take the pod are not ready, or there is none",
        "yard-node": "the volume can be mounted on one node alone, which cannot take the pod",
        "busy": "nodes could take the pod, but for what runs there now",
        "scheduling-gated": "a scheduling gate holds the pod back",
        "unschedulable": "the scheduler finds no node, for another reason",
        "unscheduled": "no scheduler has looked at the pod yet",
    },
    Group.CLAIM: {
        "claim-missing": "the claim of the yard does not exist",
        "claim-unbound": "the claim of the yard has no volume",
        "claim-access-mode": "the claim's access mode is not one that its volume or a yard can have",
        "storage-class-missing": "the storage class of the claim does not exist",
        "claim-being-deleted": "the claim is being deleted",
        "claim-lost": "the claim has lost its volume",
        "volume-elsewhere": "the volume can be reached from other nodes only",
        "volume-in-use": "the volume is attached to another node",
        "mount-failed": "the node could not mount a volume",
    },
    Group.KUBELET: {
        "device-refused": "the node could not give the pod its device",
        "node-full": "the node had no room any more when the pod came",
        "node-mismatch": "the node does not match what the pod asks for",
        "kubelet-refused": "the node refused the pod, for another reason",
    },
    Group.IMAGE: {
        "image-not-found": "the registry or the node does not have the image",
        "image-refused": "the registry refuses to give the image: pull Secret missing or wrong",
        "registry-unreachable": "the registry does not answer",
        "image-name": "the name of the image is not one",
        "image-architecture": "the image is for another kind of processor",
        "image-pull": "the image could not be pulled, for another reason",
        "secret-missing": "a Secret that the pod needs does not exist",
        "config-map-missing": "a ConfigMap that the pod needs does not exist",
        "key-missing": "a Secret or a ConfigMap lacks the key that the pod needs",
        "runs-as-root": "the image would run as root, which the pod forbids",
        "command-not-found": "the image does not have the command",
        "command-not-executable": "the command may not be executed",
        "container-refused": "the container could not be made or started, for another reason",
        "init-failed": "a container that comes before the step failed",
    },
    Group.ENDED: {
        **{name: kind.meaning for name, kind in REGISTRY.items() if kind.rule is not Rule.CLI and kind not in (*_ACCESS, *_RUN)},
        "segfault": "the process read or wrote memory that is not its own (SIGSEGV)",
        "killed": "somebody killed the process (SIGKILL), and not at its memory limit",
    },
    Group.NODE: {
        "node-lost": "the node went silent with the pod on it",
    },
    Group.DISRUPTION: {
        "evicted": "the pod was evicted: by somebody, or by its node, which ran short of memory, disk or processes",
        "preempted": "the pod gave way to one of higher priority",
        "drained": "the pod's node was drained, shut down or tainted, and its pods had to go",
    },
    Group.PROGRESS: {
        "silent": "it runs, and has said nothing for a long time",
        "backing-off": "an attempt failed, and the next one begins after a pause",
        "starting": "its container is being made",
        "running": "it runs",
    },
    Group.RUN: {
        **{kind.category: kind.meaning for kind in _RUN},
        "driver-gone": "the run has not ended, and nothing drives it",
        "waits-for-run": "another run does the same work, and this one waits for it",
        "waits-for-step": "it waits for the steps that it needs",
        "skipped": "it never began, since another step failed or the run was ended",
        "done": "it ended well",
    },
}
CATEGORIES: Mapping[str, Category] = MappingProxyType({name: Category(text, group) for group, found in _OWN.items() for name, text in found.items()})
"""Category -> what it means and where it is seen, in the order in which it is looked for."""


LONGEST = 2000
"""Letters of a text in an answer; of a longer one the middle is left out. The answers of a whole run have to fit into a ConfigMap."""
_SECRETS = re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)|\b((?:password|passwd|token)=)[^\s,;&\"']+", re.IGNORECASE)
"""What drivers of volumes and registries say of how they log in: arguments of a mount, addresses."""


def told(text: str) -> str:
    """What a cluster says as an answer repeats it: without passwords, and of bounded length."""
    plain = _SECRETS.sub(r"\1\2***", text.encode(errors="replace").decode())
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST // 2]} ... {plain[-LONGEST // 2 :]}"


Told = Annotated[str, AfterValidator(told)]


class Evidence(BaseModel):
    """What an answer rests on. object: `Pod NAME`; field: a path in it, such as `status.phase`; value: what is there, in the cluster's own words."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    object: str
    field: str
    value: Told

    @classmethod
    def of(cls, found: Mapping[str, Any], path: str, value: Any) -> Evidence:
        """What is there in an object of the API."""
        return cls(object=f"{found.get('kind', 'Pod')} {found['metadata']['name']}", field=path, value=str(value))

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> Evidence:
        """What was said of an object."""
        about = event["involvedObject"]
        return cls(
            object=f"{about.get('kind', '')} {about.get('name', '')}", field=f"event {event.get('reason', '')}", value=event.get("message") or ""
        )


class Diagnosis(BaseModel):
    """An answer; as JSON it is an attempt's diagnosis.json.

    what: one line. arithmetic: lines that show why it does not fit. remedy: one command, or one setting exactly as it is written; empty where nothing
    has to be done. exit_code: what it ended with, None while it has not ended. step: empty where the answer is about the run's driver.
    unknown: what could not be looked at, and why.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    category: str
    what: Told
    evidence: tuple[Evidence, ...] = ()
    arithmetic: tuple[str, ...] = ()
    remedy: str = ""
    exit_code: int | None = None
    run: str = ""
    step: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        """What its category means; empty for one that a later version has kept."""
        return CATEGORIES[self.category].meaning if self.category in CATEGORIES else ""

    @property
    def seen(self) -> str:
        """Where its category is seen; empty as `meaning` is."""
        return CATEGORIES[self.category].group.value if self.category in CATEGORIES else ""


def setting(step: str, text: str) -> str:
    """What to write into the pipeline for a step: `steps.tuned.resources: {memory: 9Gi}`."""
    return f"{resources_of(step)}: {{{text}}}"


def resources_of(step: str) -> str:
    """Where a step's resources are written; a driver's are not in the pipeline."""
    return f"steps.{step}.resources" if step else "the driver's pod"


def by_words(words: Sequence[tuple[str, str]], said: str) -> str:
    """The category of the first pattern that a text has; empty where it has none."""
    return next((category for pattern, category in words if re.search(pattern, said, re.IGNORECASE)), "")
