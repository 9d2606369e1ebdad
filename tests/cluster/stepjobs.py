"""Jobs of single steps that end, or wait, as a test wants: what `render` makes, with a hub's folder mounted and, where told, a step that misbehaves.

Steps that misbehave are `infer` in the light image with tests/steps/misbehaving in front of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.kube import render
from modelyard.kube.place import Place
from modelyard.order import Order
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Infer, Resources, Step
from modelyard.yard import Yard
from tests.cluster import images
from tests.cluster.harness import network
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.processes import run

IMAGE = images.name("light").removesuffix("-light")
NOBODY = f"http://{network.HOST}:9"
"""An address where nothing listens."""
FRONT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "front"},
    "data": {"sitecustomize.py": (Path(__file__).parents[1] / "steps" / "misbehaving" / "sitecustomize.py").read_text()},
}
"""What stands in front of a step that misbehaves."""


@dataclass
class Case:
    """A step's Job. claim: its yard. hub: where it is; `served` for an address that is known later. resources: beside the step's own.

    container, pod: over what its overlay says of its container and its pod. place: over where it runs. inputs: field -> digest; those of a step that
    misbehaves are made for it. beside: further steps of its pipeline. broken: in place of its order.
    """

    step: Step
    misbehave: str = ""
    claim: str = "modelyard"
    hub: str = "/hub"
    resources: Mapping[str, Any] = field(default_factory=dict)
    memory: str = "200Mi"
    container: Mapping[str, Any] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, Step] = field(default_factory=dict)
    broken: str = ""


def fetch(name: str, **more: Any) -> Case:
    """A fetch of a model of the hub."""
    return Case(Fetch(model=f"hf://me/{name}"), **more)


def wrong(misbehave: str, **more: Any) -> Case:
    """A step that misbehaves. Each has settings of its own: what one of them makes or keeps is not another's."""
    return Case(Infer(model="hf://me/small", data="hf://datasets/me/rows", seed=zlib.crc32(misbehave.encode())), misbehave, **more)


def run_of(name: str) -> str:
    """The id of the run that a case's Job belongs to."""
    return f"{name}-0123456789-r1"


def manifest(name: str, case: Case, namespace: str, *, inputs: Mapping[str, str] | None = None, served: str = "", number: int = 1) -> dict[str, Any]:
    """The Job of a case. inputs: of the steps that misbehave. served: the address for `hub: served`."""
    resources = {kind: {"cpu": "50m" if kind == "requests" else "1", "memory": case.memory} for kind in ("requests", "limits")}
    container: dict[str, Any] = {"name": "step", "image": f"{IMAGE}-light", "resources": resources, "volumeMounts": [], "env": []}
    mounted: list[dict[str, Any]] = []
    if case.hub == "/hub":
        container["volumeMounts"].append({"name": "hub", "mountPath": "/hub", "readOnly": True})
        mounted.append({"name": "hub", "persistentVolumeClaim": {"claimName": "hub", "readOnly": True}})
    if case.misbehave:
        container["env"] = [{"name": "PYTHONPATH", "value": "/front"}, {"name": "MISBEHAVE", "value": case.misbehave}]
        container["volumeMounts"].append({"name": "front", "mountPath": "/front", "readOnly": True})
        mounted.append({"name": "front", "configMap": {"name": "front"}})
    for key, value in case.container.items():
        container[key] = [*container[key], *value] if isinstance(value, list) else value
    pod = {key: value for key, value in case.pod.items() if key != "volumes"}
    volumes = [*mounted, *case.pod.get("volumes", [])]
    overlay = {"spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 20, **pod}}
    equipped = case.step.model_copy(update={"resources": Resources(**case.resources, overlay=overlay)})
    pipeline = Pipeline(name, {"it": equipped, **case.beside})
    step = pipeline.steps["it"]
    order = Order(
        run=run_of(name),
        step="it",
        verb=step.verb,
        settings=step.settings(),
        resources=pipeline.resources_of("it"),
        inputs=dict(case.inputs or (inputs or {} if case.misbehave else {})),
        hubs={"huggingface": served if case.hub == "served" else case.hub},
        pipeline=pipeline.to_dict(),
    )
    place = Place(**{"namespace": namespace, "image": IMAGE, "claim": case.claim, **case.place})
    job = render.step_job(order, place, pipeline=name, number=number)
    if case.broken:
        job["spec"]["template"]["metadata"]["annotations"]["modelyard.dev/order"] = case.broken
    return job


def commit(folder: Path, name: str, kind: Any) -> str:
    """An artifact of one small file in a yard; its digest."""
    yard = Yard.open(folder)
    with yard.staging(f"made.{name}.1") as staging:
        (staging.files / "file").write_text(name)
        return yard.artifacts.commit(staging, kind=kind).digest


def make_hub(root: Path) -> None:
    """Repositories of every kind, as a folder that pods see at /hub."""
    files = {
        "me/small/model.safetensors": b"weights",
        "me/corrupt/model.safetensors": b"other weights",
        "me/corrupt/SHA256SUMS": b"0" * 64 + b"  model.safetensors\n",
        "me/pickled/pytorch_model.bin": b"weights",
        "me/private/model.safetensors": b"weights",
        "me/large/model.safetensors": bytes(8 << 20),
    }
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    run("chmod", "-R", "a+rX", root)


def evict(cluster: Cluster, namespace: str, pod: str) -> None:
    """By the Eviction API, as `kubectl drain` does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-", stdin=json.dumps(body))
