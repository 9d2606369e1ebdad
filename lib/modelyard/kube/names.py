"""What objects are called on a cluster, and how they are found again.

A name says what an object is for, so that the same work has the same name: who creates it twice finds the first one. `-rN` counts the executions.
"""

from __future__ import annotations

from modelyard.kube.cluster import Manifest
from modelyard.order import Order
from modelyard.spec import Pipeline, digest
from modelyard.steps import STEPS, Reuse

DOMAIN = "modelyard.dev"
RUN, STEP, PIPELINE, ROLE, YARD, SCHEDULE = (f"{DOMAIN}/{word}" for word in ("run", "step", "pipeline", "role", "yard", "schedule"))
"""Labels. run: its id. role: `driver`, `step`, `reader`, `status`, `yard`. yard: the claim that a pod mounts. schedule: the CronJob's name."""
DIGEST, ORDER, TICK = (f"{DOMAIN}/{word}" for word in ("digest", "order", "tick"))
"""Annotations. digest: of what an object's name holds ten digits of. order: a step's order, in its pod. tick: of a Job that a person triggered."""
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""The annotation in which the CronJob controller says which tick a Job is for."""
DRIVER_ACCOUNT = "modelyard-driver"
"""The service account of driver pods: it may create Jobs in its namespace."""
JOB = "batch.kubernetes.io/job-name"
"""The label by which the Job controller marks its pods."""
SHOWN = 10
"""Hex digits of a digest that a name holds."""


def pipeline_digest(pipeline: Pipeline, image: str, tick: str = "") -> str:
    """What a run executes: the validated pipeline with its defaults, the image as written, and the tick of a schedule."""
    return digest({"pipeline": pipeline.to_dict(), "image": image, "tick": tick})


def run_name(pipeline: Pipeline, image: str, number: int, tick: str = "") -> str:
    """The run's id, which is the name of its driver Job and of the ConfigMap with its pipeline."""
    return f"{pipeline.name}-{pipeline_digest(pipeline, image, tick)[:SHOWN]}-r{number}"


def run_of(job: Manifest) -> str:
    """The run of a driver's Job; before its driver has named that, as of one that a chart or a schedule made, the Job's own name stands for it."""
    return str((job["metadata"].get("labels") or {}).get(RUN) or job["metadata"]["name"])


def status_name(run: str) -> str:
    """The ConfigMap that says how a run stands."""
    return f"{run}-status"


def step_digest(order: Order) -> str:
    """What a step's Job executes: the action and the resources that it asks for; in this run alone where its result is not to be found again."""
    once = order.forced or not order.key or STEPS[order.verb].reuse in (Reuse.OBSERVE, Reuse.EFFECT)
    own = {"run": order.run, "settings": order.settings, "inputs": order.inputs} if once else {}
    return digest({"verb": order.verb, "key": order.key, "resources": order.resources.model_dump(mode="json"), **own})


def step_name(pipeline: str, order: Order, number: int) -> str:
    """The step's Job; the first execution of it has no number."""
    return f"{pipeline}-{order.step}-{step_digest(order)[:SHOWN]}" + (f"-r{number}" if number > 1 else "")
