"""The table of situations in which a run waits or has ended badly, with what kubectl and what modelyard have to say of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.cluster.explain import provoking, registry
from tests.cluster.explain.there import Seen, There
from tests.cluster.stepjobs import fetch, wrong


@dataclass(frozen=True)
class Situation:
    """One row of the table.

    title: for people. begin: what provokes it. ready: whether it is there. described: the words of `kubectl describe` that say most, as a pattern.
    category, evidence (kinds of objects, and fields), remedy: modelyard's answer; {namespace} and {run} stand for those. arithmetic: lines that
    have to be among its lines, as patterns. around: what the nodes are like meanwhile; such a situation has them for itself.
    """

    title: str
    begin: Callable[[There, str], None]
    ready: Callable[[Seen], bool]
    described: str
    category: str
    evidence: Sequence[str]
    remedy: str
    arithmetic: Sequence[str] = ()
    limited: bool = False
    around: Callable[[There, str], AbstractContextManager[None]] | None = None
    slow: bool = False

    def namespace(self, there: There) -> str:
        return there.limited if self.limited else there.namespace


REQUESTS, MODEL = "Pod spec.containers[0].resources.requests", "Pod spec.affinity.nodeAffinity"
SELECTOR, UNPLACED = "Pod spec.nodeSelector", "Pod status.conditions[PodScheduled].message"
CLAIM, MODES = "PersistentVolumeClaim status.phase", "PersistentVolumeClaim spec.accessModes"
WAITING = ("Pod status.containerStatuses[0].state.waiting.reason", "Pod status.containerStatuses[0].state.waiting.message")
FAILED, UNCREATED = "Job status.conditions[Failed].reason", "Job event FailedCreate"
KILLED = tuple(f"Pod status.containerStatuses[0].state.terminated.{field}" for field in ("exitCode", "reason"))
ENDED = (FAILED, *KILLED, "Pod status.containerStatuses[0].state.terminated.message")
LOGIN = "--docker-server=127.0.0.1:5077 --docker-username=USER --docker-password=TOKEN"
SAID = r'"what":"(?:[^"\\]|\\.)*"'
"""What a step or a driver said of itself at its end, which is its container's termination message."""
KEY = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "team-key", "key": "key"}}}
LABELS = {"name": "labels", "configMap": {"name": "label-names"}}
UNTOLERATED = "{tolerations: [{key: modelyard-tests/reserved, value: team-vision, effect: NoSchedule}]}"

SITUATIONS: dict[str, Situation] = {
    "image-not-found": Situation(
        "image not found",
        provoking.image(registry.ABSENT),
        provoking.unpulled,
        "Failed to pull image .*: not found",
        "image-not-found",
        WAITING,
        "image = \"REGISTRY/NAME:VERSION\" in modelyard.toml (it is '127.0.0.1:5077/team/absent:1.0' now, and needs -light and -cuda)",
    ),
    "pull-secret-wrong": Situation(
        "pull Secret wrong",
        provoking.image(registry.PRIVATE, pull_secret="wrong-login"),
        provoking.unpulled,
        "Failed to pull image .* 401 Unauthorized",
        "image-refused",
        (*WAITING, "Pod spec.imagePullSecrets"),
        f"kubectl create secret docker-registry wrong-login -n {{namespace}} {LOGIN} --dry-run=client -o yaml | kubectl apply -f -",
    ),
    "pull-secret-missing": Situation(
        "pull Secret missing",
        provoking.image(registry.PRIVATE, pull_secret="no-login"),
        provoking.unpulled,
        "Unable to retrieve some image pull secrets .*",
        "image-refused",
        (*WAITING, "Pod event FailedToRetrieveImagePullSecret", "Pod spec.imagePullSecrets"),
        f"kubectl create secret docker-registry no-login -n {{namespace}} {LOGIN}",
    ),
    "claim-unbound": Situation(
        "claim without a volume",
        provoking.lone(fetch("small", claim="unbound")),
        provoking.unplaced,
        "pod has unbound immediate PersistentVolumeClaims",
        "claim-unbound",
        (CLAIM, UNPLACED),
        "modelyard yard create --on kubernetes -n {namespace} --yard NEW --storage-class CLASS (kubectl get storageclass)",
    ),
    "claim-missing": Situation(
        "claim missing",
        provoking.lone(fetch("small", claim="absent")),
        provoking.unplaced,
        'persistentvolumeclaim "absent" not found',
        "claim-missing",
        (UNPLACED, "PersistentVolumeClaim metadata.name"),
        "modelyard yard create --on kubernetes -n {namespace} --yard absent",
    ),
    "access-mode": Situation(
        "access mode that the volume lacks",
        provoking.lone(fetch("small", claim="mismatch")),
        provoking.unclaimed,
        "pod has unbound immediate PersistentVolumeClaims",
        "claim-access-mode",
        (MODES, CLAIM, UNPLACED, "PersistentVolumeClaim event VolumeMismatch"),
        "modelyard yard create --on kubernetes -n {namespace} --yard NEW --access-mode ReadWriteOnce",
    ),
    "claim-held": Situation(
        "claim that one pod alone may mount",
        provoking.alone,
        provoking.unplaced,
        "PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
        "claim-access-mode",
        ("PersistentVolumeClaim status.accessModes", UNPLACED),
        "modelyard yard create --on kubernetes -n {namespace} --yard NEW --access-mode ReadWriteMany",
    ),
    "volume-full": Situation(
        "volume full",
        provoking.lone(fetch("large", claim="full")),
        provoking.ended,
        SAID,
        "no-space",
        ENDED,
        "modelyard yard gc --on kubernetes -n {namespace}",
    ),
    "quota": Situation(
        "quota used up",
        provoking.lone(wrong("sleep", resources={"gpus": 8}, hub=""), limited=True),
        provoking.refused,
        "exceeded quota: .*",
        "quota",
        (UNCREATED,),
        "steps.it.resources: {gpus: 4}",
        arithmetic=("requests.nvidia.com/gpu: 8 asked, 0 of 4 in use",),
        limited=True,
    ),
    "limit-range": Situation(
        "more than a LimitRange allows",
        provoking.lone(wrong("sleep", memory="16Gi", hub=""), limited=True),
        provoking.refused,
        "maximum memory usage per Container is .*",
        "limit-range",
        (UNCREATED,),
        "steps.it.resources: {memory: 8Gi}",
        limited=True,
    ),
    "pod-security": Situation(
        "refused by Pod Security",
        provoking.lone(wrong("sleep", pod={"hostNetwork": True}, hub=""), limited=True),
        provoking.refused,
        "violates PodSecurity .*",
        "pod-security",
        (UNCREATED,),
        "take host namespaces out of steps.it.resources.overlay",
        limited=True,
    ),
    "taint": Situation(
        "taint",
        provoking.lone(wrong("sleep", pod=provoking.ON_NODE)),
        provoking.unplaced,
        "1 node.s. had untolerated taint.s.",
        "taint",
        (REQUESTS, SELECTOR, UNPLACED),
        f"steps.it.resources: {UNTOLERATED}",
        arithmetic=("node2: taint modelyard-tests/reserved=team-vision:NoSchedule is not tolerated",),
        around=provoking.tainted,
    ),
    "cordoned": Situation(
        "node cordoned",
        provoking.lone(wrong("sleep", pod=provoking.ON_NODE)),
        provoking.unplaced,
        "1 node.s. were unschedulable",
        "cordoned",
        (REQUESTS, SELECTOR, UNPLACED),
        "kubectl uncordon node2",
        arithmetic=("node2: cordoned",),
        around=provoking.cordoned,
    ),
    "gpu-model": Situation(
        "model of GPU that no node has",
        provoking.lone(wrong("sleep", resources={"gpus": 1, "gpu_model": "NVIDIA-B200"})),
        provoking.unplaced,
        "2 node.s. didn't match Pod's node affinity/selector",
        "gpu-model",
        (REQUESTS, MODEL, UNPLACED),
        "steps.it.resources: {gpu_model: NVIDIA-H100-80GB-HBM3}",
        arithmetic=("node1: 8 nvidia.com/gpu .*; not the model asked for, NVIDIA-B200",),
    ),
    "never-fits": Situation(
        "more GPUs than any node has",
        provoking.lone(wrong("sleep", resources={"gpus": 16})),
        provoking.unplaced,
        "2 Insufficient nvidia.com/gpu",
        "never-fits",
        (REQUESTS, UNPLACED),
        "steps.it.resources: {gpus: 8}",
        arithmetic=("node1: 8 nvidia.com/gpu .*; 16 asked", "node2: 8 nvidia.com/gpu .*; 16 asked"),
    ),
    "busy": Situation(
        "GPUs in use by others",
        provoking.busy,
        provoking.unplaced,
        "2 Insufficient nvidia.com/mig-2g.20gb",
        "busy",
        (REQUESTS, UNPLACED),
        "modelyard wait {run} (it begins by itself when there is room)",
        arithmetic=("node2: 2 nvidia.com/mig-2g.20gb .*2 in use, 0 free; 2 asked",),
        around=provoking.sliced,
    ),
    "secret-missing": Situation(
        "Secret missing",
        provoking.lone(wrong("sleep", container={"env": [KEY]})),
        provoking.misconfigured,
        'secret "team-key" not found',
        "secret-missing",
        WAITING,
        "kubectl create secret generic team-key -n {namespace} --from-literal=KEY=VALUE",
    ),
    "config-map-missing": Situation(
        "ConfigMap missing",
        provoking.lone(wrong("sleep", container={"volumeMounts": [{"name": "labels", "mountPath": "/labels"}]}, pod={"volumes": [LABELS]})),
        provoking.unmounted,
        "MountVolume.SetUp failed .*",
        "config-map-missing",
        ("Pod event FailedMount",),
        "kubectl create configmap label-names -n {namespace} --from-literal=KEY=VALUE",
    ),
    "host-oom": Situation(
        "memory limit reached",
        provoking.lone(wrong("memory", memory="160Mi")),
        provoking.ended,
        SAID,
        "host-oom",
        ENDED,
        "steps.it.resources: {memory: 1Gi}",
    ),
    "device-missing": Situation(
        "GPU not usable on any node",
        provoking.run_with(wrong("none", resources={"gpus": 1, "pending_limit": "30s"})),
        provoking.ended,
        SAID,
        "no-accelerator",
        ("run steps.it.category", "run steps.it.why"),
        "steps.it.resources: {fallback: cpu}",
    ),
    "segfault": Situation(
        "segmentation fault",
        provoking.lone(wrong("segfault")),
        provoking.ended,
        SAID,
        "segfault",
        ENDED,
        "modelyard logs {run} it",
    ),
    "killed": Situation(
        "SIGKILL",
        provoking.lone(wrong("signal:9")),
        provoking.ended,
        SAID,
        "killed",
        ENDED,
        "modelyard logs {run} it",
    ),
    "deadline": Situation(
        "time limit reached",
        provoking.lone(wrong("sleep:deadline", resources={"time_limit": "1s"})),
        provoking.ended,
        SAID,
        "deadline",
        ENDED,
        "steps.it.resources: {time_limit: 2s}",
    ),
    "pending-deadline": Situation(
        "no place within pending_limit",
        provoking.nowhere,
        provoking.ended,
        SAID,
        "node-label",
        (REQUESTS, SELECTOR, UNPLACED, "run steps.far.resources.pending_limit"),
        "take nobody=has-this out of steps.far.resources.overlay",
    ),
    "evicted": Situation(
        "evicted",
        provoking.evicted,
        provoking.disrupted,
        "DisruptionTarget *True",
        "evicted",
        ("Pod metadata.deletionTimestamp", "Pod status.conditions[DisruptionTarget].reason"),
        "nothing: another attempt goes on from what was kept",
        around=provoking.as_they_are,
    ),
    "drained": Situation(
        "node drained",
        provoking.drained,
        provoking.disrupted,
        "DisruptionTarget *True",
        "drained",
        ("Pod metadata.deletionTimestamp", "Node spec.unschedulable", "Pod status.conditions[DisruptionTarget].reason"),
        "nothing: another attempt goes on from what was kept",
        around=provoking.uncordoned_after,
    ),
    "node-silent": Situation(
        "node gone silent",
        provoking.silent,
        provoking.lost,
        "Node is not ready",
        "node-lost",
        ("Node status.conditions[Ready].status", "Pod status.conditions[Ready].status", "Pod event NodeNotReady"),
        "kubectl taint node node2 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute (once it is off; for good: kubectl delete node node2)",
        around=provoking.heard_again,
        slow=True,
    ),
    "driver-without-role": Situation(
        "driver without its Role",
        provoking.without_role,
        provoking.ended,
        SAID,
        "no-permission",
        ENDED,
        "kubectl apply -n {namespace} -f examples/cluster/access.yaml",
        limited=True,
    ),
    "driver-oom": Situation(
        "driver out of memory",
        provoking.small_driver,
        provoking.ended,
        "OOMKilled",
        "host-oom",
        (FAILED, *KILLED),
        'driver_memory = "1Gi" in modelyard.toml (it was 24 MiB)',
    ),
    "hub-down": Situation(
        "hub down",
        provoking.hub_down,
        provoking.ended,
        SAID,
        "unavailable",
        ("run steps.base.category", "run steps.base.where", "run steps.base.why"),
        "run again later; look at the hub's address and at the network",
    ),
    "gate-refused": Situation(
        "gate refused",
        provoking.gate,
        provoking.ended,
        SAID,
        "refused",
        ENDED,
        "make the model better, or lower gate.at_least.accuracy",
    ),
    "corrupt": Situation(
        "content that is not what its hash says",
        provoking.lone(fetch("corrupt")),
        provoking.ended,
        SAID,
        "corrupt",
        ENDED,
        "run again; if it stays, the hub holds another file than it lists (of a folder: copy the file again, or correct its SHA256SUMS)",
    ),
}
"""Name -> situation; the names are those of the pipelines."""
