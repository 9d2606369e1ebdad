"""Objects as an API server writes them, as far as an answer needs them: a run's Jobs, their pods, and what is around them."""

from __future__ import annotations

import json
from typing import Any

from modelyard.kube import names
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.facts import DIAGNOSES
from modelyard.order import Ending
from modelyard.yard.runs import Progress, RunState, RunStatus, StepState, StepStatus

from .fake import FakeCluster

RUN, STEP, JOB, NODE = "reviews-0123456789-r1", "tuned", "reviews-tuned-abcdef0123", "node1"
AT = "2026-01-01T00:00:"


def job(*conditions: Manifest, role: str = "step", name: str = "", run: str = RUN, **spec: Any) -> Manifest:
    name = name or (JOB if role == "step" else run)
    labels = {"app.kubernetes.io/name": "modelyard", names.ROLE: role, names.RUN: run, **({names.STEP: STEP} if role == "step" else {})}
    order = {names.ORDER: json.dumps({"resources": {"time_limit": 3600}})}
    template = {"metadata": {"annotations": order}, "spec": {"containers": [container(role)]}}
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "labels": labels, "creationTimestamp": f"{AT}00Z"}
    status = {"conditions": list(conditions), "failed": 1}
    return {"kind": "Job", "metadata": metadata, "spec": {"backoffLimit": 2, "template": template, **spec}, "status": status}


def container(role: str = "step") -> Manifest:
    amounts = {"cpu": "1", "memory": "6Gi", "nvidia.com/gpu": "2"} if role == "step" else {"cpu": "250m", "memory": "512Mi"}
    return {
        "name": role,
        "image": "registry.example/team/modelyard:1-cuda",
        "command": ["python"],
        "resources": {"requests": amounts, "limits": amounts},
    }


def condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> Manifest:
    return {"type": kind, "status": status, "reason": reason, "message": message}


FAILED = condition("Failed", "PodFailurePolicy")


def pod(*states: Manifest, name: str = "", of: Manifest | None = None, node: str = NODE, number: int = 1, **status: Any) -> Manifest:
    """states: of its container; none where it has none yet."""
    of = of or job()
    role = of["metadata"]["labels"][names.ROLE]
    labels = {**of["metadata"]["labels"], names.JOB: of["metadata"]["name"], names.YARD: "modelyard"}
    metadata = {"name": name or f"{of['metadata']['name']}-{number}", "namespace": "team", "labels": labels, "creationTimestamp": f"{AT}{number:02}Z"}
    spec = {"containers": [container(role)], "volumes": [{"name": "yard", "persistentVolumeClaim": {"claimName": "modelyard"}}]}
    spec |= {"nodeName": node} if node else {}
    found = {
        "phase": "Pending",
        **({"containerStatuses": [{"name": role, "image": container()["image"], **one} for one in states]} if states else {}),
    }
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {**found, **status}}


def waiting(reason: str, message: str = "") -> Manifest:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def runs() -> Manifest:
    return {"state": {"running": {"startedAt": f"{AT}05Z"}}}


def terminated(code: int, reason: str = "Error", message: str = "", at: str = "30") -> Manifest:
    ended = {"exitCode": code, "reason": reason, "message": message, "startedAt": f"{AT}05Z", "finishedAt": f"{AT}{at}Z"}
    return {"state": {"terminated": ended}}


def unplaced(said: str) -> Manifest:
    return pod(node="", conditions=[condition("PodScheduled", "Unschedulable", said, "False")])


def event(about: Manifest, reason: str, message: str, kind: str = "Warning") -> Manifest:
    of = {"kind": about["kind"], "name": about["metadata"]["name"]}
    metadata = {"name": f"{of['name']}.{reason}.{len(message)}"}
    return {
        "kind": "Event",
        "metadata": metadata,
        "involvedObject": of,
        "reason": reason,
        "message": message,
        "type": kind,
        "lastTimestamp": f"{AT}40Z",
    }


def claim(phase: str = "Bound", modes: str = "ReadWriteMany", name: str = "modelyard", **spec: Any) -> Manifest:
    status = {"phase": phase, **({"accessModes": [modes]} if phase == "Bound" else {})}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {"accessModes": [modes], **spec}, "status": status}


def node(name: str = NODE, *, gpus: int = 8, ready: str = "True", model: str = "NVIDIA-H100-80GB-HBM3", **spec: Any) -> Manifest:
    amounts = {"cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    words = condition("Ready", "KubeletReady" if ready == "True" else "NodeStatusUnknown", "", ready)
    status = {"allocatable": amounts, "capacity": amounts, "conditions": [words]}
    return {"kind": "Node", "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": model}}, "spec": spec, "status": status}


def mirror(
    states: dict[str, StepState | StepStatus],
    *,
    state: RunState = RunState.RUNNING,
    jobs: dict[str, str] | None = None,
    progress: dict[str, Progress] | None = None,
    kept: dict[str, Diagnosis] | None = None,
    notes: tuple[str, ...] = (),
) -> Manifest:
    steps = {name: one if isinstance(one, StepStatus) else StepStatus(verb="finetune", state=one) for name, one in states.items()}
    code = None if state is RunState.RUNNING else 0 if state is RunState.DONE else 1
    status = RunStatus(run=RUN, pipeline="reviews", state=state, exit_code=code, started=f"{AT}00+00:00", notes=notes, steps=steps)
    data = {"status.json": status.model_dump_json(), "jobs.json": json.dumps({STEP: JOB} if jobs is None else jobs)}
    data["progress.json"] = json.dumps({name: one.model_dump() for name, one in (progress or {}).items()})
    data |= {DIAGNOSES: json.dumps({name: one.model_dump(mode="json") for name, one in kept.items()})} if kept else {}
    metadata = {"name": names.status_name(RUN), "labels": {names.RUN: RUN, names.ROLE: "status"}, "creationTimestamp": f"{AT}00Z"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": data}


def failed(category: str, code: int, **told: str) -> StepStatus:
    ending = Ending(exit_code=code, category=category, what="it went wrong", **told).model_dump()
    return StepStatus(verb="finetune", state=StepState.FAILED, attempt=1, **ending)


def cluster(*objects: Manifest) -> FakeCluster:
    made = FakeCluster()
    for one in objects:
        made.objects[one["kind"], one["metadata"]["name"]] = one
    return made
