"""A row for each branch of an answer: objects as an API server writes them, and what they amount to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from modelyard.errors import REGISTRY, Crashed, Failure, Interrupted, Rule, Yielded
from modelyard.kube import names
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnose import SILENT, diagnose
from modelyard.kube.diagnosis import CATEGORIES, LONGEST, Diagnosis, Group
from modelyard.kube.facts import LIMIT, gather
from modelyard.order import Outcome, termination_message
from modelyard.yard.runs import Progress, RunState, StepState

from . import objects
from .objects import FAILED, JOB, NODE, RUN, STEP, claim, condition, event, failed, job, mirror, node, pod, runs, terminated, unplaced, waiting

QUEUE = "kueue.x-k8s.io/queue-name"
BUSY = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
NEVER = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
BACK_OFF = 'Back-off pulling image "registry.example/team/modelyard:1-cuda"'
PULLING = 'failed to pull and unpack image "registry.example/team/modelyard:1-cuda": failed to resolve reference'
DISRUPTED = "DisruptionTarget"
ABSENT = [condition("Ready", "", "", "False"), condition("ContainersReady")]
WAITS = {"role": "step"}


@dataclass(frozen=True)
class Row:
    """evidence: one of the answer's, as patterns of object, field and value."""

    category: str
    objects: Sequence[Manifest]
    evidence: tuple[str, str, str]
    remedy: str
    arithmetic: str = ""
    exit_code: int | None = None
    of: str = STEP


def said(failure: Failure) -> str:
    return termination_message(Outcome.of(failure, 2.0)).decode()


def ended(state: Manifest, reason: str = "PodFailurePolicy", **status: object) -> list[Manifest]:
    return [job(condition("Failed", reason)), pod(state, phase="Failed", **status)]


def deleted(one: Manifest) -> Manifest:
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:50Z"
    return one


def queued(*conditions: Manifest, exists: bool = True) -> list[Manifest]:
    held = job(suspend=True)
    held["metadata"]["labels"][QUEUE] = "gpus"
    workload = {"kind": "Workload", "metadata": {"name": "w", "labels": {"kueue.x-k8s.io/job-uid": held["metadata"]["uid"]}}}
    found = [held, *([{"kind": "LocalQueue", "metadata": {"name": "gpus"}}] if exists else [])]
    return [*found, {**workload, "status": {"conditions": list(conditions)}}] if conditions else found


def uncreated(message: str) -> list[Manifest]:
    return [job(), event(job(), "FailedCreate", f'Error creating: pods "{JOB}-x" is forbidden: {message}')]


def selecting(**selector: str) -> Manifest:
    found = unplaced("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    found["spec"]["nodeSelector"] = selector
    return found


def of_model(model: str) -> Manifest:
    found = unplaced("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    term = {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": [model]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    found["spec"]["affinity"] = {"nodeAffinity": required}
    return found


def pulling(words: str, *events: Manifest, secret: str = "") -> list[Manifest]:
    found = pod(waiting("ImagePullBackOff", f"{BACK_OFF}: ErrImagePull: {PULLING}: {words}"))
    found["spec"]["imagePullSecrets"] = [{"name": secret}] if secret else []
    return [job(), found, *events]


def mounting(words: str, reason: str = "FailedMount") -> list[Manifest]:
    found = pod(waiting("ContainerCreating"))
    return [job(), found, event(found, reason, words), claim()]


def taking(gpus: int) -> Manifest:
    """Somebody else's pod on the node."""
    asks = {"containers": [{"name": "x", "resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}], "nodeName": NODE}
    return {"kind": "Pod", "metadata": {"name": "theirs", "namespace": "other"}, "spec": asks, "status": {"phase": "Running"}}


def gated() -> Manifest:
    found = pod(node="", conditions=[condition("PodScheduled", "SchedulingGated", "", "False")])
    found["spec"]["schedulingGates"] = [{"name": "team.example/quota"}]
    return found


def large(gpus: int) -> Manifest:
    found = unplaced(NEVER)
    found["spec"]["containers"][0]["resources"] = {"requests": {"nvidia.com/gpu": str(gpus)}}
    return found


DRIVER = job(role="driver")
POD = r"Pod reviews-tuned-abcdef0123-1"
SCHEDULED = r"status.conditions\[PodScheduled\].message"
WAITED = r"status.containerStatuses\[0\].state.waiting"
END = r"status.containerStatuses\[0\].state.terminated"
TAINT = {"key": "team", "value": "vision", "effect": "NoSchedule"}
HOLDS = event(pod(), "FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (login); attempting to pull may not succeed.")
OTHER = job(run="other-0123456789-r1", name="other-tuned-abcdef0123")

SHUT_DOWN = {
    "reason": "Terminated",
    "message": "Pod was terminated in response to imminent node shutdown.",
    "conditions": [condition(DISRUPTED, "TerminationByKubelet", "Pod was terminated in response to imminent node shutdown.")],
}

ROWS = {
    "the Job is being deleted": Row("being-deleted", [deleted(job())], ("Job", "metadata.deletionTimestamp", "2026"), "modelyard wait"),
    "the failure is decided": Row(
        "failing",
        [job(condition("FailureTarget", "PodFailurePolicy", "exit code 65")), pod(runs(), phase="Running")],
        ("Job", r"status.conditions\[FailureTarget\].reason", "PodFailurePolicy"),
        "modelyard wait",
    ),
    "the failure is decided, and its pod says which": Row(
        "data",
        [
            job(condition("FailureTarget", "PodFailurePolicy")),
            pod(terminated(65, message=said(REGISTRY["data"]("rows are empty", remedy="fill them")))),
        ],
        (POD, f"{END}.exitCode", "65"),
        "fill them",
        exit_code=65,
    ),
    "all pods are gone": Row(
        "retries-used",
        [job(condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"))],
        ("Job", r"status.conditions\[Failed\].reason", "BackoffLimitExceeded"),
        f"modelyard logs {RUN} {STEP}",
        exit_code=Crashed.exit_code,
    ),
    "the Job's own deadline": Row(
        "deadline",
        ended(terminated(75, message=said(Yielded("asked to stop"))), "DeadlineExceeded"),
        ("Job", r"status.conditions\[Failed\].reason", "DeadlineExceeded"),
        "steps.tuned.resources: {time_limit: 7200s}",
        exit_code=79,
    ),
    "suspended": Row("suspended", [job(suspend=True)], ("Job", "spec.suspend", "true"), "kubectl patch job reviews-tuned-abcdef0123 -n team"),
    "no such queue": Row("queue-missing", queued(exists=False), ("LocalQueue gpus", "metadata.name", "not found"), "{queue: NAME}"),
    "the queue says nothing": Row("queue-silent", queued(), ("Job", "metadata.labels", "gpus"), "kubectl describe localqueue gpus -n team"),
    "the queue waits for quota": Row(
        "queue-waits",
        queued(condition("QuotaReserved", "Pending", "insufficient unused quota for nvidia.com/gpu in flavor gpu, 4 more needed", "False")),
        ("Workload w", r"status.conditions\[QuotaReserved\].message", "4 more needed"),
        "modelyard wait",
        "4 more needed",
    ),
    "the queue can never give it": Row(
        "queue-never",
        queued(
            condition("QuotaReserved", "Pending", "insufficient quota for nvidia.com/gpu in flavor gpu, request > maximum capacity (16 > 8)", "False")
        ),
        ("Workload w", "QuotaReserved", "16 > 8"),
        "gpus: FEWER",
    ),
    "the queue is stopped": Row(
        "queue-inactive",
        queued(condition("QuotaReserved", "Inadmissible", "ClusterQueue team is inactive", "False")),
        ("Workload w", "QuotaReserved", "inactive"),
        "kubectl describe localqueue gpus",
    ),
    "quota": Row(
        "quota",
        uncreated("exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=1, limited: requests.nvidia.com/gpu=4"),
        (f"Job {JOB}", "event FailedCreate", "exceeded quota: gpus"),
        "steps.tuned.resources: {gpus: 3}",
        "requests.nvidia.com/gpu: 8 asked, 1 of 4 in use",
    ),
    "quota of several resources": Row(
        "quota",
        uncreated(
            "exceeded quota: all, requested: limits.memory=6Gi,requests.cpu=1, used: limits.memory=10Gi,requests.cpu=2, "
            "limited: limits.memory=12Gi,requests.cpu=2"
        ),
        ("Job", "event FailedCreate", "exceeded quota: all"),
        "kubectl describe resourcequota all -n team",
        "limits.memory: 6Gi asked, 10Gi of 12Gi in use",
    ),
    "limit range": Row(
        "limit-range",
        uncreated("maximum memory usage per Container is 4Gi, but limit is 6Gi"),
        ("Job", "event FailedCreate", "maximum memory"),
        "steps.tuned.resources: {memory: 4Gi}",
        "maximum memory usage",
    ),
    "limit range of storage": Row(
        "limit-range",
        uncreated("maximum ephemeral-storage usage per Container is 1Gi, but limit is 2Gi"),
        ("Job", "event FailedCreate", "ephemeral-storage"),
        "kubectl describe limitrange -n team",
    ),
    "limit range of parts of a core": Row(
        "limit-range",
        uncreated("maximum cpu usage per Container is 500m, but limit is 1"),
        ("Job", "event FailedCreate", "500m"),
        "kubectl describe limitrange -n team",
    ),
    "pod security": Row(
        "pod-security",
        uncreated('violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'),
        ("Job", "event FailedCreate", "PodSecurity"),
        "take host namespaces out of steps.tuned.resources.overlay",
    ),
    "no service account": Row(
        "service-account-missing",
        [
            job(),
            event(
                job(),
                "FailedCreate",
                f'Error creating: pods "{JOB}-x" is forbidden: error looking up service account team/m: serviceaccount "m" not found',
            ),
        ],
        ("Job", "event FailedCreate", "serviceaccount"),
        "kubectl apply -n team -f examples/cluster/access.yaml",
    ),
    "a node that is short of memory": Row(
        "taint",
        [
            job(),
            unplaced("0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/memory-pressure: }."),
            node(taints=[{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]),
            claim(),
        ],
        (POD, SCHEDULED, "memory-pressure"),
        "^kubectl describe node node1$",
    ),
    "a node that is shut down": Row(
        "drained",
        [job(condition("Failed", "BackoffLimitExceeded")), pod(phase="Failed", **SHUT_DOWN)],
        (POD, "status.reason", "Terminated"),
        "modelyard run FILE",
        exit_code=Crashed.exit_code,
    ),
    "a node that began anew": Row(
        "node-lost",
        ended(terminated(137, "ContainerStatusUnknown"), "BackoffLimitExceeded"),
        (POD, f"{END}.reason", "ContainerStatusUnknown"),
        "modelyard run FILE",
        exit_code=Crashed.exit_code,
    ),
    "a container before the step that failed for good": Row(
        "init-failed",
        ended(waiting("PodInitializing"), "BackoffLimitExceeded", initContainerStatuses=[{"name": "mesh", **terminated(3)}]),
        (POD, r"status.initContainerStatuses\[0\].state.terminated.exitCode", "3"),
        f"^kubectl logs {JOB}-1 -c mesh -n team$",
        exit_code=Crashed.exit_code,
    ),
    "a container beside the step that does not start": Row(
        "running",
        [job(), pod(runs(), phase="Running", initContainerStatuses=[{"name": "mesh", **waiting("CrashLoopBackOff", "back-off 10s")}])],
        (POD, "spec.nodeName", NODE),
        "modelyard wait",
    ),
    "a class that is none": Row(
        "crashed",
        ended(terminated(1, message='{"exit_code": 1, "category": "no such class", "what": "odd"}')),
        (POD, f"{END}.message", "no such class"),
        f"modelyard logs {RUN} {STEP}",
        exit_code=1,
    ),
    "a message that is no word": Row(
        "crashed",
        ended(terminated(1, message="[" * 4096)),
        (POD, f"{END}.message", r"^\[+$"),
        f"modelyard logs {RUN} {STEP}",
        exit_code=Crashed.exit_code,
    ),
    "no priority class": Row(
        "priority-missing", uncreated("no PriorityClass with name high was found"), ("Job", "event", "PriorityClass"), "priority: NAME"
    ),
    "a webhook refuses": Row(
        "admission",
        uncreated('admission webhook "team.example" denied the request: no'),
        ("Job", "event FailedCreate", "webhook"),
        "kubectl describe job",
    ),
    "no pod yet": Row("starting", [job()], ("Job", "status.active", "0"), "modelyard wait"),
    "busy": Row(
        "busy",
        [job(), unplaced(BUSY), node(), taking(7), claim()],
        (POD, SCHEDULED, "Insufficient nvidia.com/gpu"),
        "steps.tuned.resources: {gpus: 1} would run now",
        "8 nvidia.com/gpu .* 7 in use, 1 free",
    ),
    "busy with nothing free": Row(
        "busy", [job(), unplaced(BUSY), node(), taking(8), claim()], (POD, SCHEDULED, "Insufficient"), "modelyard wait", "8 in use"
    ),
    "never fits": Row(
        "never-fits",
        [job(), large(16), node(), claim()],
        (POD, r"spec.containers\[0\].resources.requests", "nvidia.com/gpu: 16"),
        "steps.tuned.resources: {gpus: 8}",
        "16 asked",
    ),
    "no such model": Row(
        "gpu-model",
        [job(), of_model("NVIDIA-B200"), node(), claim()],
        (POD, "spec.affinity.nodeAffinity", "NVIDIA-B200"),
        "steps.tuned.resources: {gpu_model: NVIDIA-H100-80GB-HBM3}",
        "NVIDIA-H100-80GB-HBM3",
    ),
    "a label that nobody has": Row(
        "node-label",
        [job(), selecting(disk="fast"), node(), claim()],
        (POD, "spec.nodeSelector", "disk=fast"),
        "disk=fast out of steps.tuned.resources.overlay",
    ),
    "a taint": Row(
        "taint",
        [job(), unplaced("0/1 nodes are available: 1 node(s) had untolerated taint {team: vision}."), node(taints=[TAINT]), claim()],
        (POD, SCHEDULED, "untolerated taint"),
        r"steps.tuned.resources: {tolerations: \[{key: team, value: vision, effect: NoSchedule}\]}",
        "node1: .*taint team=vision:NoSchedule is not tolerated",
    ),
    "cordoned": Row(
        "cordoned",
        [job(), unplaced("0/1 nodes are available: 1 node(s) were unschedulable."), node(unschedulable=True), claim()],
        (POD, SCHEDULED, "unschedulable"),
        "kubectl uncordon node1",
        "cordoned",
    ),
    "not ready": Row(
        "nodes-not-ready",
        [job(), unplaced("0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."), node(ready="False"), claim()],
        (POD, SCHEDULED, "not-ready"),
        "kubectl describe node node1",
        "not ready",
    ),
    "no node at all": Row(
        "nodes-not-ready", [job(), unplaced("no nodes available to schedule pods"), claim()], (POD, SCHEDULED, "no nodes"), "kubectl get nodes"
    ),
    "in words that nobody knows": Row(
        "unschedulable",
        [job(), unplaced("0/1 nodes are available: 1 node(s) are blue."), node(), claim()],
        (POD, SCHEDULED, "blue"),
        "kubectl describe pod",
    ),
    "a gate": Row("scheduling-gated", [job(), gated()], (POD, "spec.schedulingGates", "team.example/quota"), "kubectl describe pod"),
    "no scheduler": Row("unscheduled", [job(), pod(node="")], (POD, "spec.schedulerName", "default-scheduler"), "modelyard wait"),
    "no claim": Row(
        "claim-missing",
        [job(), unplaced('0/1 nodes are available: persistentvolumeclaim "modelyard" not found. not found')],
        ("PersistentVolumeClaim modelyard", "metadata.name", "not found"),
        "modelyard yard create --on kubernetes -n team --yard modelyard",
    ),
    "the claim has no volume": Row(
        "claim-unbound",
        [job(), unplaced("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."), claim("Pending")],
        ("PersistentVolumeClaim modelyard", "status.phase", "Pending"),
        "modelyard yard create --on kubernetes -n team --yard NEW --storage-class CLASS",
    ),
    "no storage class": Row(
        "storage-class-missing",
        [job(), unplaced("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."), claim("Pending", storageClassName="fast")],
        ("PersistentVolumeClaim modelyard", "spec.storageClassName", "fast"),
        "--storage-class CLASS",
    ),
    "a storage class that is there": Row(
        "claim-unbound",
        [
            job(),
            unplaced("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            claim("Pending", storageClassName="fast"),
            {"kind": "StorageClass", "metadata": {"name": "fast"}},
        ],
        ("PersistentVolumeClaim modelyard", "status.phase", "Pending"),
        "--storage-class CLASS",
    ),
    "the volume has another access mode": Row(
        "claim-access-mode",
        [
            job(),
            unplaced("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            claim("Pending"),
            event(claim(), "VolumeMismatch", 'Cannot bind to requested volume "v": incompatible accessMode'),
        ],
        ("PersistentVolumeClaim modelyard", "spec.accessModes", "ReadWriteMany"),
        "--access-mode ReadWriteOnce$",
    ),
    "the claim is for one pod": Row(
        "claim-access-mode",
        [
            job(),
            unplaced("0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use"),
            claim(modes="ReadWriteOncePod"),
        ],
        ("PersistentVolumeClaim modelyard", "status.accessModes", "ReadWriteOncePod"),
        "--access-mode ReadWriteMany",
    ),
    "the claim is being deleted": Row(
        "claim-being-deleted",
        [job(), unplaced('0/1 nodes are available: persistentvolumeclaim "modelyard" is being deleted.'), deleted(claim())],
        ("PersistentVolumeClaim modelyard", "metadata.deletionTimestamp", "2026"),
        "--yard NEW",
    ),
    "the claim lost its volume": Row(
        "claim-lost", [job(), unplaced("0/1 nodes are available: x."), claim("Lost")], ("PersistentVolumeClaim", "status.phase", "Lost"), "--yard NEW"
    ),
    "the volume is elsewhere": Row(
        "volume-elsewhere",
        [job(), unplaced("0/1 nodes are available: 1 node(s) had volume node affinity conflict."), claim(), node()],
        (POD, SCHEDULED, "volume node affinity"),
        "--access-mode ReadWriteMany",
    ),
    "the volume is attached to another node": Row(
        "volume-in-use",
        mounting('Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node', "FailedAttachVolume"),
        (POD, "event FailedAttachVolume", "Multi-Attach"),
        "--access-mode ReadWriteMany",
    ),
    "the volume cannot be mounted": Row(
        "mount-failed",
        mounting('MountVolume.SetUp failed for volume "yard" : mount failed: exit status 32'),
        (POD, "event FailedMount", "exit status 32"),
        "kubectl describe node node1",
    ),
    "the device is refused": Row(
        "device-refused",
        [
            job(condition("Failed", "BackoffLimitExceeded")),
            pod(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices"),
        ],
        (POD, "status.reason", "UnexpectedAdmissionError: Allocate failed"),
        "modelyard gpus",
        exit_code=137,
    ),
    "the node is full": Row(
        "node-full",
        [job(FAILED), pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu")],
        (POD, "status.reason", "OutOfcpu"),
        "modelyard run FILE",
        exit_code=137,
    ),
    "the node does not match": Row(
        "node-mismatch",
        [job(FAILED), pod(phase="Failed", reason="NodeAffinity")],
        (POD, "status.reason", "NodeAffinity"),
        "modelyard run FILE",
        exit_code=137,
    ),
    "the kubelet refuses": Row(
        "kubelet-refused",
        [job(FAILED), pod(phase="Failed", reason="AppArmor")],
        (POD, "status.reason", "AppArmor"),
        "modelyard run FILE",
        exit_code=137,
    ),
    "no such image": Row(
        "image-not-found",
        pulling("registry.example/team/modelyard:1-cuda: not found"),
        (POD, f"{WAITED}.reason", "ImagePullBackOff"),
        'image = "REGISTRY/NAME:VERSION"',
    ),
    "no such image, of an older kubelet": Row(
        "image-not-found",
        [job(), pod(waiting("ImagePullBackOff", BACK_OFF)), event(pod(), "Failed", f"Failed to pull image: {PULLING}: manifest unknown")],
        (POD, "event Failed", "manifest unknown"),
        "image = ",
    ),
    "an image that may not be pulled": Row(
        "image-not-found",
        [job(), pod(waiting("ErrImageNeverPull", "not present with pull policy of Never"))],
        (POD, f"{WAITED}.reason", "ErrImageNeverPull"),
        "image =",
    ),
    "a pull Secret that is missing": Row(
        "image-refused",
        pulling("failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized", HOLDS, secret="login"),
        (POD, "event FailedToRetrieveImagePullSecret", "login"),
        "kubectl create secret docker-registry login -n team --docker-server=registry.example --docker-username=USER --docker-password=TOKEN$",
    ),
    "a pull Secret that is wrong": Row(
        "image-refused",
        pulling("failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized", secret="login"),
        (POD, "spec.imagePullSecrets", "login"),
        r"--dry-run=client -o yaml \| kubectl apply -f -",
    ),
    "no pull Secret": Row(
        "image-refused",
        pulling("pull access denied, repository does not exist or may require authorization"),
        (POD, "spec.imagePullSecrets", "none"),
        'pull_secret = "regcred"',
    ),
    "the registry is away": Row(
        "registry-unreachable",
        pulling('failed to do request: Head "https://registry.example/v2/": dial tcp 10.0.0.1:443: i/o timeout'),
        (POD, f"{WAITED}.message", "i/o timeout"),
        "image = ",
    ),
    "no name of an image": Row(
        "image-name",
        [job(), pod(waiting("InvalidImageName", 'couldn\'t parse image name "A B"'))],
        (POD, f"{WAITED}.reason", "InvalidImageName"),
        "image = ",
    ),
    "another processor": Row(
        "image-architecture",
        pulling("no match for platform in manifest: not found"),
        (POD, f"{WAITED}.message", "no match for platform"),
        "kubernetes.io/arch",
    ),
    "an image that fails otherwise": Row("image-pull", pulling("429 Too Many Requests"), (POD, f"{WAITED}.message", "429"), "kubectl describe pod"),
    "no Secret": Row(
        "secret-missing",
        [job(), pod(waiting("CreateContainerConfigError", 'secret "team-key" not found'))],
        (POD, f"{WAITED}.message", "team-key"),
        "kubectl create secret generic team-key -n team",
    ),
    "no Secret to mount": Row(
        "secret-missing",
        mounting('MountVolume.SetUp failed for volume "k" : secret "team-key" not found'),
        (POD, "event FailedMount", "team-key"),
        "secret generic team-key",
    ),
    "no ConfigMap": Row(
        "config-map-missing",
        mounting('MountVolume.SetUp failed for volume "labels" : configmap "label-names" not found'),
        (POD, "event FailedMount", "label-names"),
        "kubectl create configmap label-names -n team",
    ),
    "no key": Row(
        "key-missing",
        [job(), pod(waiting("CreateContainerConfigError", "couldn't find key token in Secret team/team-key"))],
        (POD, f"{WAITED}.message", "token"),
        """kubectl patch secret team-key -n team -p '{"stringData": {"token": "VALUE"}}'""",
    ),
    "runs as root": Row(
        "runs-as-root",
        [job(), pod(waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"))],
        (POD, f"{WAITED}.message", "runAsNonRoot"),
        "USER",
    ),
    "no such command": Row(
        "command-not-found",
        [job(), pod(waiting("RunContainerError", 'exec: "pyton": executable file not found in $PATH'))],
        (POD, f"{WAITED}.reason", "RunContainerError"),
        "take the command out of steps.tuned.resources.overlay",
    ),
    "a command that ended before it began": Row(
        "command-not-found",
        ended(terminated(128, "StartError", 'failed to create containerd task: exec: "pyton": executable file not found in $PATH')),
        (POD, f"{END}.reason", "StartError"),
        "steps.tuned.resources.overlay",
        exit_code=137,
    ),
    "a command that may not be executed": Row(
        "command-not-executable",
        [job(), pod(waiting("CreateContainerError", 'exec: "/data": permission denied'))],
        (POD, f"{WAITED}.reason", "CreateContainerError"),
        "steps.tuned.resources.overlay",
    ),
    "a container that cannot be made": Row(
        "container-refused",
        [job(), pod(waiting("CreateContainerError", "context deadline"))],
        (POD, f"{WAITED}.message", "context"),
        "kubectl describe pod",
    ),
    "a container before it failed": Row(
        "init-failed",
        [job(), pod(initContainerStatuses=[{"name": "prepare", **terminated(3)}])],
        (POD, r"status.initContainerStatuses\[0\].state.terminated.exitCode", "3"),
        "kubectl logs reviews-tuned-abcdef0123-1 -c prepare -n team",
    ),
    "out of memory": Row(
        "host-oom", ended(terminated(137, "OOMKilled")), (POD, f"{END}.reason", "OOMKilled"), "steps.tuned.resources: {memory: 9Gi}", exit_code=83
    ),
    "a segfault": Row("segfault", ended(terminated(139)), (POD, f"{END}.exitCode", "139"), f"modelyard logs {RUN} {STEP}", exit_code=137),
    "a segfault of the work": Row(
        "segfault",
        ended(terminated(137, message=said(Crashed("the work was ended by SIGSEGV")))),
        (POD, f"{END}.exitCode", "137"),
        "modelyard logs",
        exit_code=137,
    ),
    "a SIGKILL": Row("killed", ended(terminated(137)), (POD, f"{END}.exitCode", "137"), "modelyard logs", exit_code=137),
    "an exit code of nobody": Row("crashed", ended(terminated(3)), (POD, f"{END}.exitCode", "3"), "modelyard logs", exit_code=137),
    "the node went silent": Row(
        "node-lost",
        [job(), pod(runs(), phase="Running", conditions=ABSENT), node(ready="Unknown"), event(pod(), "NodeNotReady", "Node is not ready")],
        ("Node node1", r"status.conditions\[Ready\].status", "Unknown"),
        "kubectl taint node node1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
    ),
    "a deleted pod on a silent node": Row(
        "node-lost",
        [job(), deleted(pod(runs(), phase="Running", conditions=ABSENT)), node(ready="Unknown")],
        (POD, "metadata.deletionTimestamp", "2026"),
        "kubectl delete node node1",
    ),
    "a deleted Job on a silent node": Row(
        "node-lost",
        [deleted(job()), deleted(pod(runs(), phase="Running", conditions=ABSENT)), node(ready="Unknown")],
        ("Node node1", "Ready", "Unknown"),
        "kubectl taint",
    ),
    "the node is gone": Row(
        "node-lost", [job(), deleted(pod(runs(), phase="Running"))], (POD, "metadata.deletionTimestamp", "2026"), "modelyard wait"
    ),
    "evicted": Row(
        "evicted",
        [job(), deleted(pod(runs(), phase="Running", conditions=[condition(DISRUPTED, "EvictionByEvictionAPI", "Eviction API: evicting")])), node()],
        (POD, r"status.conditions\[DisruptionTarget\].reason", "EvictionByEvictionAPI"),
        "another attempt",
    ),
    "evicted by its node": Row(
        "evicted",
        [job(), pod(terminated(137), phase="Failed", reason="Evicted", message="The node was low on resource: memory.")],
        (POD, "status.reason", "low on resource: memory"),
        "another attempt",
    ),
    "drained": Row(
        "drained",
        [job(), deleted(pod(runs(), phase="Running", conditions=[condition(DISRUPTED, "EvictionByEvictionAPI")])), node(unschedulable=True)],
        ("Node node1", "spec.unschedulable", "true"),
        "another attempt",
    ),
    "preempted": Row(
        "preempted",
        [
            job(),
            pod(terminated(75, message=said(Yielded("asked to stop"))), phase="Failed", conditions=[condition(DISRUPTED, "PreemptionByScheduler")]),
        ],
        (POD, r"status.conditions\[DisruptionTarget\].reason", "PreemptionByScheduler"),
        "another attempt",
    ),
    "preempted, and another one has its place": Row(
        "preempted",
        [
            job(),
            pod(terminated(75), phase="Failed", conditions=[condition(DISRUPTED, "PreemptionByScheduler")]),
            pod(runs(), phase="Running", number=2),
        ],
        (POD, r"status.conditions\[DisruptionTarget\].reason", "PreemptionByScheduler"),
        "another attempt",
    ),
    "evicted, and its node takes nothing": Row(
        "drained",
        [
            job(),
            pod(terminated(75), phase="Failed", conditions=[condition(DISRUPTED, "EvictionByEvictionAPI")]),
            {**unplaced("0/1 nodes are available: 1 node(s) were unschedulable."), "metadata": pod(number=2)["metadata"]},
            node(unschedulable=True),
            claim(),
        ],
        (POD, "DisruptionTarget", "EvictionByEvictionAPI"),
        "kubectl uncordon node1",
    ),
    "backing off": Row("backing-off", [job(), pod(terminated(69), phase="Failed")], ("Job", "status.failed", "1"), "another attempt"),
    "being made": Row("starting", [job(), pod(waiting("ContainerCreating"))], (POD, "status.phase", "Pending"), "modelyard wait"),
    "running": Row(
        "running",
        [job(), pod(runs(), phase="Running"), mirror({STEP: StepState.RUNNING}, progress={STEP: Progress(done=3, total=9, unit="steps", left=60.0)})],
        (POD, "spec.nodeName", "node1"),
        "modelyard wait",
    ),
    "done": Row("done", [job(condition("Complete"))], ("Job", r"status.conditions\[Complete\].status", "True"), "", exit_code=0),
    "done long ago": Row("done", [mirror({STEP: StepState.DONE}, state=RunState.DONE)], ("run", "steps.tuned.state", "done"), "", exit_code=0),
    "reused": Row("done", [mirror({STEP: StepState.REUSED}, state=RunState.DONE)], ("run", "steps.tuned.state", "reused"), "", exit_code=0),
    "skipped": Row(
        "skipped",
        [mirror({"base": failed("data", 65), STEP: StepState.SKIPPED}, state=RunState.FAILED)],
        ("run", "steps.tuned.state", "skipped"),
        f"modelyard explain {RUN}",
    ),
    "cancelled": Row(
        "interrupted", [mirror({STEP: StepState.STOPPED}, state=RunState.CANCELLED)], ("run", "steps.tuned.state", "stopped"), "modelyard run FILE"
    ),
    "stopped": Row(
        "yielded", [mirror({STEP: StepState.STOPPED}, state=RunState.STOPPED)], ("run", "steps.tuned.state", "stopped"), "modelyard run FILE"
    ),
    "before its turn": Row(
        "waits-for-step",
        [mirror({"base": StepState.RUNNING, STEP: StepState.WAITING})],
        ("run", "steps.tuned.state", "waiting"),
        f"modelyard explain {RUN} base",
    ),
    "its Job is gone": Row(
        "no-accelerator",
        [mirror({STEP: failed("no-accelerator", 78, why="there is no /dev/nvidia0")}, state=RunState.FAILED, jobs={})],
        (f"run {RUN}", "steps.tuned.why", "/dev/nvidia0"),
        "steps.tuned.resources: {fallback: cpu}",
        exit_code=78,
    ),
    "another run's Job runs": Row(
        "waits-for-run",
        [OTHER, pod(runs(), of=OTHER, phase="Running"), mirror({STEP: StepState.RUNNING}, jobs={STEP: "other-tuned-abcdef0123"})],
        ("Job other", "metadata.labels", "other-0123456789-r1"),
        f"modelyard wait {RUN}",
    ),
    "another run's Job waits": Row(
        "secret-missing",
        [
            OTHER,
            pod(waiting("CreateContainerConfigError", 'secret "k" not found'), of=OTHER),
            mirror({STEP: StepState.RUNNING}, jobs={STEP: "other-tuned-abcdef0123"}),
        ],
        ("Job other", "metadata.labels", "other-0123456789-r1"),
        "kubectl create secret generic k",
    ),
    "the Job of before is still there": Row(
        "being-deleted",
        [
            mirror(
                {STEP: failed("", 0).model_copy(update={"state": StepState.RUNNING, "note": f"waits until the Job {JOB} of before is gone"})}, jobs={}
            )
        ],
        ("run", "steps.tuned.note", "of before is gone"),
        "modelyard wait",
    ),
    "a driver without its Role": Row(
        "no-permission",
        [
            job(FAILED, role="driver"),
            pod(terminated(77, message=said(REGISTRY["no-permission"]("may not get jobs.batch", remedy="a Role"))), of=DRIVER),
        ],
        ("Pod", f"{END}.exitCode", "77"),
        "kubectl apply -n team -f examples/cluster/access.yaml",
        exit_code=77,
        of="",
    ),
    "a driver without memory": Row(
        "host-oom",
        [DRIVER, pod(terminated(137, "OOMKilled"), of=DRIVER, phase="Failed")],
        ("Pod", f"{END}.reason", "OOMKilled"),
        r'driver_memory = "1Gi" in modelyard.toml \(it was 512 MiB\)',
        of="",
    ),
    "a driver without memory, tried again": Row(
        "host-oom",
        [DRIVER, pod(terminated(137, "OOMKilled"), of=DRIVER, phase="Failed"), pod(runs(), of=DRIVER, phase="Running", number=2)],
        ("Pod", f"{END}.reason", "OOMKilled"),
        "driver_memory",
        of="",
    ),
    "a driver that waits": Row(
        "image-not-found",
        [DRIVER, pod(waiting("ErrImagePull", f"{PULLING}: not found"), of=DRIVER)],
        ("Pod", f"{WAITED}.reason", "ErrImagePull"),
        "image = ",
        of="",
    ),
    "a driver at work": Row("running", [DRIVER, pod(runs(), of=DRIVER, phase="Running")], ("Pod", "spec.nodeName", "node1"), "modelyard wait", of=""),
    "no driver": Row("driver-gone", [mirror({STEP: StepState.WAITING})], ("run", "state", "running"), "modelyard run FILE", of=""),
    "a run that is over": Row("done", [mirror({STEP: StepState.DONE}, state=RunState.DONE)], ("run", "state", "done"), "", exit_code=0, of=""),
    "a run that was cancelled": Row(
        "interrupted",
        [mirror({STEP: StepState.SKIPPED}, state=RunState.CANCELLED)],
        ("run", "state", "cancelled"),
        "modelyard run FILE",
        exit_code=1,
        of="",
    ),
    "a run that failed without a step": Row(
        "crashed",
        [mirror({STEP: StepState.SKIPPED}, state=RunState.FAILED, notes=("KeyError: x",))],
        ("run", "state", "failed"),
        "modelyard show",
        exit_code=1,
        of="",
    ),
}


def answer(row: Row) -> Diagnosis:
    cluster = objects.cluster(*row.objects)
    found = diagnose(gather(cluster, RUN, row.of))
    assert cluster.requests <= LIMIT
    return found


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_objects_amount_to_an_answer(row: Row) -> None:
    found = answer(row)
    assert found.category == row.category
    assert re.search(row.remedy, found.remedy), found.remedy
    assert bool(found.remedy) is bool(row.remedy)
    told = [(one.object, one.field, one.value) for one in found.evidence]
    assert any(all(map(re.search, row.evidence, one)) for one in told), told
    assert re.search(row.arithmetic, "\n".join(found.arithmetic)), found.arithmetic
    assert found.exit_code == row.exit_code
    assert (found.run, found.step) == (RUN, row.of)
    assert found.what


def test_the_table_of_categories_is_reached() -> None:
    """All that objects can show is a row above; the others are raised, or named below."""
    elsewhere = {"no-input", "unavailable", "silent", "no-pod", "yard-node"} | {
        kind.category for kind in REGISTRY.values() if kind.rule is not Rule.CLI
    }
    assert set(CATEGORIES) - {row.category for row in ROWS.values()} <= elsewhere
    assert list(dict.fromkeys(category.group for category in CATEGORIES.values())) == list(Group)


OF_STEPS = [kind for kind in REGISTRY.values() if kind.rule is not Rule.CLI]


@pytest.mark.parametrize("kind", OF_STEPS, ids=lambda kind: kind.category)
def test_every_class_of_the_table_is_a_category(kind: type[Failure]) -> None:
    told = said(kind("it went wrong", why="so", remedy="mend it"))
    found = answer(Row("", ended(terminated(kind.exit_code, message=told)), ("", "", ""), ""))
    assert (found.category, found.exit_code) == (kind.category, kind.exit_code)
    assert found.category in CATEGORIES
    assert found.what == "it went wrong: so"
    assert found.remedy


@pytest.mark.parametrize("kind", [*OF_STEPS, Interrupted], ids=lambda kind: kind.category)
def test_a_status_alone_has_the_class(kind: type[Failure]) -> None:
    """Jobs and pods are gone, nothing was stored: the mirror has the step's own word."""
    step = failed(kind.category, kind.exit_code, remedy="mend it")
    found = answer(Row("", [mirror({STEP: step}, state=RunState.FAILED)], ("", "", ""), ""))
    assert (found.category, found.exit_code) == (kind.category, kind.exit_code)


def test_a_silent_container_is_told_from_one_that_works() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    cluster = objects.cluster(job(), pod(runs(), phase="Running"))
    cluster.streams[f"{JOB}-1"] = [[b'2026-01-01T00:00:00.123456789Z {"event": "progress"}']]
    facts = gather(cluster, RUN)
    assert facts.last_line == began
    late, soon = (facts.__class__(**{**vars(facts), "now": began + passed}) for passed in (SILENT * 1.1, SILENT * 0.9))
    assert [diagnose(one).category for one in (late, soon)] == ["silent", "running"]


def test_a_yard_of_one_node_that_cannot_take_the_step() -> None:
    """The volume can be mounted where the driver is, and there is no accelerator there."""
    bound = unplaced("0/1 nodes are available: 1 node(s) didn't match pod affinity rules.")
    term = {"labelSelector": {"matchLabels": {names.YARD: "modelyard"}}, "topologyKey": "kubernetes.io/hostname"}
    bound["spec"]["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    beside = pod(runs(), of=job(role="driver"), node="node2", phase="Running")
    second = node("node2", gpus=0)
    found = diagnose(gather(objects.cluster(job(), bound, beside, node(), second, claim(modes="ReadWriteOnce")), RUN, STEP))
    assert found.category == "yard-node"
    assert any(line.startswith("node1: ") and "node2" in line for line in found.arithmetic)
    assert "--access-mode ReadWriteMany" in found.remedy


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ("mount failed: -o username=u,password=hunter2,vers=3", "username=u,password=***,vers=3"),
        ("Get https://bot:hunter2@registry.example/v2: no", "https://***@registry.example/v2"),
        ("Get https://registry.example/t?scope=a&token=hunter2: no", "scope=a&token=***"),
    ],
)
def test_passwords_of_drivers_are_not_repeated(said: str, there: str) -> None:
    found = diagnose(gather(objects.cluster(*mounting(said)), RUN, STEP))
    assert found.category == "mount-failed"
    assert there in found.evidence[-1].value
    assert "hunter2" not in found.model_dump_json()


def test_a_long_word_keeps_its_beginning_and_its_end() -> None:
    """Container runtimes say at the end what it was."""
    found = diagnose(gather(objects.cluster(*pulling(f"{'x' * 100_000}: not found")), RUN, STEP))
    assert found.category == "image-not-found"
    (long,) = (one.value for one in found.evidence if one.field.endswith("waiting.message"))
    assert len(long) < LONGEST + 10
    assert long.startswith(BACK_OFF)
    assert long.endswith(": not found")


def test_small_nodes_are_asked_for_what_they_have() -> None:
    """No remedy asks for no memory at all, or for no core."""
    small = node(gpus=8)
    small["status"]["allocatable"] |= {"cpu": "900m", "memory": "700Mi"}
    found = diagnose(gather(objects.cluster(job(), unplaced(NEVER), small, claim()), RUN, STEP))
    assert (found.category, found.remedy) == ("never-fits", "steps.tuned.resources: {memory: 700Mi}")


def test_of_several_taints_the_control_planes_is_the_last_to_be_tolerated() -> None:
    """Where nodes are hidden, and the scheduler's words are all there is."""
    words = "0/2 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
    cluster = objects.cluster(job(), unplaced(f"{words}1 node(s) had untolerated taint {{team: vision}}."), claim())
    cluster.forbidden = {("list", "Node")}
    assert diagnose(gather(cluster, RUN)).remedy == "steps.tuned.resources: {tolerations: [{key: team, value: vision}]}"


def test_a_readiness_gate_is_no_silent_node() -> None:
    gated_pod = pod(runs(), phase="Running", conditions=ABSENT)
    cluster = objects.cluster(job(), gated_pod)
    cluster.forbidden = {("get", "Node")}
    assert diagnose(gather(cluster, RUN)).category == "node-lost"
    gated_pod["spec"]["readinessGates"] = [{"conditionType": "team.example/ready"}]
    assert diagnose(gather(cluster, RUN)).category == "running"
