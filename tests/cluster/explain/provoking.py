"""How situations are provoked on a real cluster, how the nodes are meanwhile, and when a situation is there.

Most are the Job of a lone step, with an overlay for what is wrong with it; a run with its driver stands where the driver is part of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modelyard import spec
from modelyard.kube import ends, names, render
from modelyard.kube.place import Place
from modelyard.steps import Evaluate, Gate, Promote
from tests.cluster.explain.there import Seen, There
from tests.cluster.harness import accelerators
from tests.cluster.harness.accelerators import Accelerator
from tests.cluster.stepjobs import IMAGE, NOBODY, Case, evict, manifest, wrong

SLICES = Accelerator("nvidia.com/mig-2g.20gb", 2, {"nvidia.com/mig-2g.20gb.count": "2"})
"""Accelerators of a kind that no other test gives a node."""
TAINT = "modelyard-tests/reserved"
NODE = "node2"
ON_NODE = {"nodeSelector": {"kubernetes.io/hostname": NODE}}


# --- when it is there


def ended(seen: Seen) -> bool:
    """Every Job of it has ended badly, and so have its pods."""
    return bool(seen.jobs) and all(ends.finished(job) == "Failed" for job in seen.jobs) and all(ends.terminated(pod) for pod in seen.pods)


def refused(seen: Seen) -> bool:
    """Its Job cannot create a pod."""
    return bool(seen.said("FailedCreate"))


def unplaced(seen: Seen) -> bool:
    """The scheduler has said why a pod has no node."""
    return any(
        (one["type"], one["status"], one.get("reason")) == ("PodScheduled", "False", "Unschedulable") and one.get("message")
        for pod in seen.pods
        for one in pod["status"].get("conditions", [])
    )


def unclaimed(seen: Seen) -> bool:
    """The scheduler, and the controller of the claim, have said why."""
    return unplaced(seen) and bool(seen.said("VolumeMismatch", "FailedBinding"))


def unpulled(seen: Seen) -> bool:
    """Its image could not be had, twice."""
    return "ImagePullBackOff" in waiting(seen)


def misconfigured(seen: Seen) -> bool:
    """The kubelet cannot make its container."""
    return "CreateContainerConfigError" in waiting(seen)


def unmounted(seen: Seen) -> bool:
    """A volume of its pod cannot be mounted."""
    return bool(seen.said("FailedMount"))


def waiting(seen: Seen) -> set[str]:
    """Why containers wait."""
    statuses = [status for pod in seen.pods for status in pod["status"].get("containerStatuses", [])]
    return {status["state"]["waiting"].get("reason", "") for status in statuses if "waiting" in status["state"]}


# --- what provokes it


def lone(case: Case, *, limited: bool = False) -> Callable[[There, str], None]:
    """The Job of a lone step."""
    return lambda there, name: there.begin(name, case, there.limited if limited else "")


def image(repository: str, **place: str) -> Callable[[There, str], None]:
    """A step whose image is in a registry that does not give it. Nothing but the place says so, as it is where a person writes it."""

    def begin(there: There, name: str) -> None:
        place_of = Place(namespace=there.namespace, image=f"{repository}:1.0", claim="modelyard", **place)
        small = {"spec": {"containers": [{"name": "step", "resources": {"requests": {"cpu": "50m"}}}]}}
        it = {"search": {"query": "base", "hub": ["modelscope"]}, "resources": {"overlay": small}}
        pipeline = spec.load(there.home.write(f"{name}.yaml", json.dumps({"name": name, "steps": {"it": it}})))
        job = render.lone_step(pipeline, {"hubs": {"modelscope": NOBODY}, "jobs": 1, "force": []}, place_of)
        there.runs[name] = job["metadata"]["labels"][names.RUN]
        there.cluster.apply(job)

    return begin


def gate(there: There, name: str) -> None:
    """A promotion of a model that was measured below what is asked for."""
    world = there.released
    metrics = world.measure(world.tuned, accuracy=0.731)
    score = Evaluate(model="hf://me/tuned", data="hf://datasets/me/rows")
    step = Promote(model="hf://me/tuned", to="yard://models/reviews@production", gate=Gate(metrics="score", at_least={"accuracy": 0.8}))
    inputs = {"model": world.tuned.digest, "gate.metrics": metrics.digest}
    there.begin(name, Case(step, claim="yard", inputs=inputs, beside={"score": score}))


def run_with(case: Case) -> Callable[[There, str], None]:
    """A pipeline whose only step is that of a case, run with a driver there: its inputs are in the yard under names."""

    def begin(there: There, name: str) -> None:
        job = manifest(name, case, there.namespace)
        template = job["spec"]["template"]["spec"]
        (container,) = template["containers"]
        keep = ("name", "image", "resources", "env")
        front = {"volumeMounts": [{"name": "front", "mountPath": "/front", "readOnly": True}]}
        own = {key: container[key] for key in keep} | front
        own["resources"] = {kind: {k: v for k, v in amounts.items() if k in ("cpu", "memory")} for kind, amounts in container["resources"].items()}
        own["env"] = [one for one in container["env"] if one["name"] in ("PYTHONPATH", "MISBEHAVE")]
        volumes = [{"name": "front", "configMap": {"name": "front"}}]
        overlay = {"spec": {"containers": [own], "volumes": volumes, "terminationGracePeriodSeconds": 20}}
        it = {
            "infer": {"model": "yard://models/model@latest", "data": "yard://datasets/data@latest", "seed": case.step.seed},  # type: ignore[attr-defined]
            "resources": {**case.resources, "overlay": overlay},
        }
        there.submit(name, json.dumps({"name": name, "steps": {"it": it}}))

    return begin


def hub_down(there: There, name: str) -> None:
    """A run whose hub does not answer."""
    text = f"name: {name}\nsteps:\n  base: {{fetch: {{model: modelscope://me/small}}}}\n"
    there.submit(name, text, MODELYARD_HUBS_MODELSCOPE=NOBODY)


def nowhere(there: There, name: str) -> None:
    """A step that no node may take, and that says for how long it will wait."""
    overlay = "{spec: {nodeSelector: {nobody: has-this}}}"
    resources = f"{{pending_limit: 5s, overlay: {overlay}}}"
    there.submit(name, f"name: {name}\nsteps:\n  far: {{search: {{query: base, hub: [modelscope]}}, resources: {resources}}}\n")


def without_role(there: There, name: str) -> None:
    """A run in a namespace whose driver may do nothing."""
    there.submit(name, f"name: {name}\nsteps:\n  it: {{search: {{query: base, hub: [modelscope]}}}}\n", there.limited)


def small_driver(there: There, name: str) -> None:
    """A driver with too little memory to begin."""
    pipeline = spec.load(there.home.write(f"{name}.yaml", f"name: {name}\nsteps:\n  it: {{search: {{query: base, hub: [modelscope]}}}}\n"))
    place = Place(namespace=there.namespace, image=IMAGE, claim="modelyard")
    config, job = render.driver(pipeline, {"hubs": {"modelscope": NOBODY}, "jobs": 1, "force": []}, place)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["resources"] = {kind: {"cpu": "50m", "memory": "24Mi"} for kind in ("requests", "limits")}
    job["spec"]["backoffLimit"] = 0  # the tries that it has would take minutes
    there.runs[name] = job["metadata"]["name"]
    there.cluster.apply(config, job)


def alone(there: There, name: str) -> None:
    """A step whose claim one pod alone may hold, and another pod holds it."""
    holder = manifest("holder", wrong("sleep", claim="alone"), there.namespace)
    there.cluster.apply(holder)
    there.cluster.wait("the claim is held", lambda: _phase(there, "holder") == "Running", within=60)
    there.begin(name, wrong("sleep", claim="alone"))


def busy(there: There, name: str) -> None:
    """A step that waits for accelerators that another pod has."""
    amounts = {"cpu": "50m", "memory": "200Mi", SLICES.resource: str(SLICES.count)}
    there.begin("first", wrong("sleep", container={"resources": {"requests": amounts, "limits": amounts}}))
    there.cluster.wait("the accelerators are taken", lambda: _phase(there, "first") == "Running", within=60)
    there.begin(name, wrong("sleep", resources={"gpus": SLICES.count, "accelerator": "nvidia-mig:2g.20gb"}))


def evicted(there: There, name: str) -> None:
    """A step at work that does not heed SIGTERM, asked to end by the Eviction API: what is said of it is gone with its pod."""
    evict(there.cluster, there.namespace, _at_work(there, name, "deaf", {}))


def drained(there: There, name: str) -> None:
    """A step at work that does not heed SIGTERM, on a node that is drained: cordoned, and each of its pods evicted."""
    pod = _at_work(there, name, "deaf", ON_NODE)
    there.cluster.kubectl("cordon", NODE)
    evict(there.cluster, there.namespace, pod)


def silent(there: There, name: str) -> None:
    """A step at work whose node is heard of no more."""
    _at_work(there, name, "polled", ON_NODE)
    there.cluster.stop_kubelet(NODE)


def _at_work(there: There, name: str, how: str, pod: Mapping[str, Any]) -> str:
    """A step at work; the name of its pod."""
    there.begin(name, wrong(f"{how}:{name}", pod=pod))
    seen = there.wait(name, lambda seen: any(one["status"]["phase"] == "Running" for one in seen.pods))
    (only,) = seen.pods
    said = f'"event": "{how}"'
    there.cluster.wait("it works", lambda: said in there.cluster.logs(only["metadata"]["name"], namespace=there.namespace), within=60)
    return str(only["metadata"]["name"])


def _phase(there: There, name: str) -> str:
    return next((str(pod["status"].get("phase")) for pod in there.seen(name).pods), "")


# --- what the nodes are like meanwhile


@contextmanager
def tainted(there: There, _name: str) -> Iterator[None]:
    there.cluster.kubectl("taint", "node", NODE, f"{TAINT}=team-vision:NoSchedule", "--overwrite")
    try:
        yield
    finally:
        there.cluster.kubectl("taint", "node", NODE, f"{TAINT}-")


@contextmanager
def cordoned(there: There, _name: str) -> Iterator[None]:
    there.cluster.kubectl("cordon", NODE)
    try:
        yield
    finally:
        there.cluster.kubectl("uncordon", NODE)


@contextmanager
def uncordoned_after(there: There, _name: str) -> Iterator[None]:
    try:
        yield
    finally:
        there.cluster.kubectl("uncordon", NODE)


@contextmanager
def as_they_are(_there: There, _name: str) -> Iterator[None]:
    """Nothing is wrong with them; what is to be seen lasts for seconds only."""
    yield


@contextmanager
def sliced(there: There, _name: str) -> Iterator[None]:
    with accelerators.given(there.cluster, NODE, SLICES):
        yield


@contextmanager
def heard_again(there: There, _name: str) -> Iterator[None]:
    try:
        yield
    finally:
        there.cluster.start_kubelet(NODE)


def disrupted(seen: Seen) -> bool:
    """A pod is being ended from outside."""
    return any(ends.disruption(pod) and not ends.terminated(pod) for pod in seen.pods)


def lost(seen: Seen) -> bool:
    """The cluster has given up on the node of its pod."""
    return any(one["type"] == "Ready" and one["status"] == "False" for pod in seen.pods for one in pod["status"].get("conditions", []))
