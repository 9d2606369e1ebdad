"""Manifests of a run: its driver, its steps, and what reads a yard from afar. Pure: plain values in, plain dicts out.

The same arguments give the same manifest, whoever asks. What cannot work on a cluster is refused here, before anything is created.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from modelyard import refs
from modelyard.errors import Usage
from modelyard.kube import names, overlay, pods, policy
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.order import Order
from modelyard.spec import Pipeline, canonical
from modelyard.steps import Fetch, Step

KEPT = 7 * 24 * 3600
"""Seconds for which a Job that has ended can still be looked at."""
LONGEST_WAIT = 24 * 3600
"""Seconds for which a step with a time limit may wait for its place, unless pending_limit says less or more."""
LONGEST_STEP = 30 * 24 * 3600
"""Seconds from a step's Job to its end, whatever happens."""
LARGEST_ORDER = 64 * 1024
LARGEST_RUN = 900 * 1024
"""Bytes of a pipeline in its ConfigMap, which etcd limits to one MiB with everything around it."""
LONGEST_NAME = 57
"""Letters of a Job's name, so that the names of its pods stay labels and host names (63)."""
MOST_EXECUTIONS = 999
"""The largest number of an execution for which names were checked."""
YARD = pods.YARD
"""Where pods have the yard."""
RUN_DIR, RUN_FILE, PIPELINE_FILE = "/etc/modelyard", "run.json", "pipeline.yaml"
"""Where a driver's pod has its run's ConfigMap. run.json: id (empty: the driver finds it), settings, place. pipeline.yaml: the pipeline, as somebody
wrote it or with its defaults."""
OWN_JOB = "MODELYARD_JOB"
"""The variable in which a driver's pod has the name of its Job."""
QUEUE = "kueue.x-k8s.io/queue-name"
PREVIEW = f"{names.DOMAIN}/preview"
"""Annotation: what a preview of a step's Job does not know yet."""

_TOKENS = frozenset({"search", "fetch", "preflight", "promote", "publish"})
"""Steps that speak with hubs."""
_HERE = ("localhost", "0.0.0.0", "::1")  # noqa: S104  # names of it, nothing is bound


def step_job(
    order: Order, place: Place, *, pipeline: str, number: int = 1, avoid: Sequence[str] = (), owner: Manifest | None = None, note: str = ""
) -> Manifest:
    """The Job of a step.

    pipeline: its name. number: of the execution. avoid: nodes where it may not go. owner: the driver's Job as the API server has it, with which it
    goes. note: what a preview does not know.
    Raises Usage: an order that is too large, an overlay that makes it something else, a name or a label that cannot be.
    """
    name = _checked_name(names.step_name(pipeline, order, number))
    resources = order.resources
    labels = pods.labels("step", place, run=order.run, pipeline=pipeline, step=order.step)
    text = canonical(order.model_dump(mode="json")).decode()
    if (size := len(text.encode())) > LARGEST_ORDER:
        why, remedy = f"it has {size} bytes, {LARGEST_ORDER} travel with a Job", "shorten its settings, or fetch from a repository of fewer files"
        raise Usage("the order of the step is too large", where=f"steps.{order.step}", why=why, remedy=remedy)
    order_file = f"{pods.ORDER_DIR}/{pods.ORDER_FILE}"
    command = ["python", "-m", "modelyard_jobs", order.verb, "--order", order_file, "--yard", YARD]
    spec = pods.pod_spec("step", place, command, tokens=order.verb in _TOKENS or bool(order.refs))
    item = {"path": pods.ORDER_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{names.ORDER}']"}}
    pods.mount(spec, "order", pods.ORDER_DIR, {"downwardAPI": {"items": [item]}}, read_only=True)
    try:
        pods.equip(spec, order.verb, resources, place, avoid)
        pod: Manifest = {"metadata": {"labels": labels, "annotations": {names.ORDER: text}}, "spec": spec}
        if resources.overlay:
            pod = overlay.apply(pod, resources.overlay)
    except Usage as error:
        error.where = f"steps.{order.step}.{error.where}"
        raise
    queue, where = (resources.queue, f"steps.{order.step}.resources.queue") if resources.queue else (place.queue, "queue")
    metadata: Manifest = {
        "name": name,
        "namespace": place.namespace,
        "labels": labels | ({QUEUE: pods.label_value(queue, where)} if queue else {}),
        "annotations": {names.DIGEST: names.step_digest(order), **({PREVIEW: note} if note else {})},
    }
    if owner is not None:
        metadata["ownerReferences"] = [reference_to(owner)]
    job = _job_spec(pod, policy.step_policy("step"), policy.STEP_RETRIES, _deadline(order))
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def driver(pipeline: Pipeline, settings: Mapping[str, Any], place: Place, *, number: int = 1) -> list[Manifest]:
    """The ConfigMap with a pipeline, and the Job of its driver.

    settings: `hubs` (name -> address), `jobs` (steps side by side), `force` (names of steps). Raises Usage: what cannot work on a cluster.
    """
    check(pipeline, settings, place)
    run = names.run_name(pipeline, place.image, number)
    labels = pods.labels("driver", place, run=run, pipeline=pipeline.name)
    annotations = {names.DIGEST: names.pipeline_digest(pipeline, place.image)}

    def metadata() -> Manifest:
        return {"name": run, "namespace": place.namespace, "labels": dict(labels), "annotations": dict(annotations)}

    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(), "immutable": True, "data": run_data(pipeline, settings, place, run)},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(), "spec": driver_spec(place, run, labels)},
    ]


def run_data(pipeline: Pipeline, settings: Mapping[str, Any], place: Place, run: str) -> dict[str, str]:
    """What a driver is told, as a ConfigMap holds it. run: its id; empty where the driver finds it. Raises Usage: it is too large."""
    told = {"hubs": dict(settings["hubs"]), "jobs": settings["jobs"], "force": sorted(settings["force"])}
    data = {
        RUN_FILE: _text({"run": run, "settings": told, "place": place.model_dump(mode="json")}),
        PIPELINE_FILE: _text(pipeline.to_dict()),  # JSON is YAML
    }
    if (size := sum(len(text.encode()) for text in data.values())) > LARGEST_RUN:
        why = f"it has {size} bytes, {LARGEST_RUN} fit into a ConfigMap"
        raise Usage("the pipeline is too large", where=pipeline.name, why=why, remedy="cut it into several")
    return data


def driver_spec(place: Place, config: str, labels: Mapping[str, str]) -> Manifest:
    """The spec of a driver's Job. config: the ConfigMap that tells it what to run. labels: of its pods."""
    command = ["python", "-m", "modelyard.run.driver", f"{RUN_DIR}/{RUN_FILE}", "--yard", YARD]
    spec = pods.pod_spec("driver", place, command, tokens=True)
    spec |= {"automountServiceAccountToken": True, "serviceAccountName": names.DRIVER_ACCOUNT}
    for amounts in spec["containers"][0]["resources"].values():
        amounts["memory"] = place.driver_memory
    own = {"fieldRef": {"fieldPath": f"metadata.labels['{names.JOB}']"}}
    spec["containers"][0]["env"].append({"name": OWN_JOB, "valueFrom": own})
    pods.mount(spec, "run", RUN_DIR, {"configMap": {"name": config}}, read_only=True)
    return _job_spec({"metadata": {"labels": dict(labels)}, "spec": spec}, policy.driver_policy("driver"), policy.DRIVER_RETRIES, None)


def reference_to(job: Manifest) -> Manifest:
    """The owner reference by which something goes when the Job, as the API server has it, goes."""
    at = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {**at, "controller": False, "blockOwnerDeletion": False}


def lone_step(pipeline: Pipeline, settings: Mapping[str, Any], place: Place) -> Manifest:
    """The Job of a pipeline of one step, for which nobody has to drive: its frame fetches what its refs stand for, and writes the run down.

    Raises Usage: there are several steps, or one of the fetches is more than a ref; what cannot work on a cluster.
    """
    check(pipeline, settings, place)
    fetches = {name: step for name, step in pipeline.steps.items() if isinstance(step, Fetch)}
    others = [name for name in pipeline.steps if name not in fetches]
    name = others[0] if len(others) == 1 else next(iter(fetches), "") if len(fetches) == 1 and not others else ""
    inputs = pipeline.inputs(name) if name else {}
    spare = sorted(set(pipeline.steps) - {name, *inputs.values()})
    if not name or spare:
        why = f"it has the steps {', '.join(pipeline.steps)}"
        raise Usage("the pipeline has more than one step", where=pipeline.name, why=why, remedy="render it with its driver: --driver there")
    for source in inputs.values():
        if fetches[source].trust or fetches[source].fresh:
            remedy = "render it with its driver: --driver there"
            raise Usage("`trust` and `fresh` need a step of their own", where=f"steps.{source}.fetch", remedy=remedy)
    asked = {field: fetches[source].ref for field, source in inputs.items()}
    run = names.run_name(pipeline, place.image, 1)
    return step_job(_order(pipeline, name, settings, run, refs=asked, pipeline=pipeline.to_dict()), place, pipeline=pipeline.name)


def preview(pipeline: Pipeline, settings: Mapping[str, Any], place: Place) -> list[Manifest]:
    """The Jobs of all steps, as far as they can be known before the run; an annotation of each says what is missing. Raises Usage, as `driver`."""
    check(pipeline, settings, place)
    return _previews(pipeline, settings, place)


def _previews(pipeline: Pipeline, settings: Mapping[str, Any], place: Place) -> list[Manifest]:
    jobs, run = [], names.run_name(pipeline, place.image, 1)
    for name in pipeline.order():
        missing = [f"{field} comes from {source}" for field, source in pipeline.inputs(name).items()]
        missing += ["the listing of its ref"] if isinstance(pipeline.steps[name], Fetch) else []
        note = "the driver fills in: " + "; ".join([*missing, "the digest in the name"])
        jobs.append(step_job(_order(pipeline, name, settings, run), place, pipeline=pipeline.name, note=note))
    return jobs


def reader_pod(place: Place, name: str, *, write: bool, seconds: int) -> Manifest:
    """A pod that has the yard and waits to be told what to do there, for so many seconds. write: whether it may write to the yard."""
    command = ["python", "-c", f"import time; time.sleep({int(seconds)})"]
    spec = pods.pod_spec("reader", place, command, write=write)
    spec |= {"activeDeadlineSeconds": seconds, "terminationGracePeriodSeconds": 1}
    pods.mount(spec, "scratch", pods.SCRATCH, {"emptyDir": {}})
    metadata = {"name": _checked_name(name), "namespace": place.namespace, "labels": pods.labels("reader", place)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def check(pipeline: Pipeline, settings: Mapping[str, Any], place: Place) -> None:
    """Refuse what could not work on a cluster: paths and addresses of this machine, steps of which no Job can be made."""
    for name, step in pipeline.steps.items():
        if len(_longest_name(pipeline.name, name)) > LONGEST_NAME:
            why = f"{_longest_name(pipeline.name, name)!r} would be one, and {LONGEST_NAME} letters are allowed"
            raise Usage("the name of a Job would be too long", where=f"steps.{name}", why=why, remedy="shorten the pipeline's name or the step's")
        if isinstance(step, Fetch) and isinstance(refs.parse(step.ref), refs.PathRef):
            put = f"modelyard yard put {shlex.quote(step.ref)} {step.makes()}s/NAME --on kubernetes"
            remedy = f"bring it into the yard first: {put}, and write the ref that it prints"
            raise Usage(f"{step.ref!r} is a path of this machine", where=f"steps.{name}.{step.verb}", why="pods do not see it", remedy=remedy)
    for hub, address in settings["hubs"].items():
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            remedy = "serve it where pods can reach it: modelyard hub serve DIR"
            raise Usage(f"{address!r} is a folder of this machine", where=f"hubs.{hub}", why="pods do not see it", remedy=remedy)
        if parts.hostname in _HERE or parts.hostname.startswith("127."):
            remedy = "write the address under which pods reach it, such as http://NAME.NAMESPACE:PORT"
            raise Usage(f"{address!r} is another machine for a pod: itself", where=f"hubs.{hub}", remedy=remedy)
    unknown = sorted(set(settings["force"]) - set(pipeline.steps))
    if unknown:
        raise Usage(f"there is no step {unknown[0]!r} to force", why=f"the steps are {', '.join(pipeline.steps)}", remedy="correct --force")
    _previews(pipeline, settings, place)  # raises for a step of which no Job can be made


def _order(whole: Pipeline, name: str, settings: Mapping[str, Any], run: str, **more: Any) -> Order:
    """The order of a step without what only a run can know."""
    step: Step = whole.steps[name]
    return Order(
        run=run,
        step=name,
        verb=step.verb,
        settings=step.settings(),
        resources=whole.resources_of(name),
        forced=name in settings["force"],
        hubs=dict(settings["hubs"]),
        **more,
    )


def _job_spec(pod: Manifest, failure_policy: Manifest, retries: int, deadline: int | None) -> Manifest:
    return {
        "backoffLimit": retries,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": failure_policy,
        "ttlSecondsAfterFinished": KEPT,
        **({} if deadline is None else {"activeDeadlineSeconds": deadline}),
        "template": pod,
    }


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)


def _deadline(order: Order) -> int:
    """Seconds after which the API server ends a Job of which nobody takes care any more; the frame's own limit comes long before."""
    limit = order.resources.time_limit
    return LONGEST_STEP if limit is None else 2 * limit + (order.resources.pending_limit or LONGEST_WAIT)


def _longest_name(pipeline: str, step: str) -> str:
    return f"{pipeline}-{step}-{'0' * names.SHOWN}-r{MOST_EXECUTIONS}"


def _checked_name(name: str) -> str:
    if len(name) > LONGEST_NAME:
        why = f"it has {len(name)} letters, and {LONGEST_NAME} are allowed"
        raise Usage(f"{name!r} cannot be a name on a cluster", why=why, remedy="shorten the pipeline's name or the step's")
    return name
