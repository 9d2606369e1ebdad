"""What the API server says of a manifest, in the words of the file that it was made from."""

from __future__ import annotations

import pytest

from modelyard.kube import fields, render
from modelyard.kube.cluster import Manifest
from modelyard.spec import Pipeline
from modelyard.steps import Resources, Search
from tests.unit.kube.manifests import PLACE, SETTINGS, order

OVERLAY = {
    "metadata": {"labels": {"team": "a b"}},
    "spec": {
        "nodeSelector": {"zone": 7},
        "containers": [
            {"name": "other", "image": "x"},
            {"name": "step", "env": [{"name": "A", "value": 1}], "resources": {"limits": {"memory": "?"}}},
        ],
        "dnsConfig": {"searches": [1]},
    },
}


def job(**asked: object) -> Manifest:
    whole = {"gpus": 2, "gpu_model": "A100", "shm": "1Gi", "tolerations": [{"key": "a b"}], "priority": "none", **asked}
    place = PLACE.model_copy(update={"queue": "night", "pull_secret": "registry"})
    return render.step_job(order(resources=Resources.model_validate(whole), verb="preflight", settings={}), place, pipeline="reviews")


@pytest.mark.parametrize(
    ("field", "ours"),
    [
        ("spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]", "steps.tuned.resources.gpus"),
        ("spec.template.spec.containers[0].resources.limits.nvidia.com/gpu", "steps.tuned.resources.gpus"),
        ("spec.template.spec.containers[0].resources.requests[memory]", "steps.tuned.resources.memory"),
        ("spec.template.spec.containers[0].resources.requests.cpu", "steps.tuned.resources.cpu"),
        (
            "spec.template.spec.containers[0].resources.limits[ephemeral-storage]",
            "spec.template.spec.containers[0].resources.limits[ephemeral-storage]",
        ),
        ("spec.template.spec.containers[0].image", "image"),
        ("spec.template.spec.containers[0].env[1].valueFrom.secretKeyRef.name", "secret"),
        ("spec.template.spec.imagePullSecrets[0].name", "pull_secret"),
        ("spec.template.spec.volumes[0].persistentVolumeClaim.claimName", "yard"),
        ("spec.template.spec.volumes[4].emptyDir.sizeLimit", "steps.tuned.resources.shm"),
        ("spec.template.spec.volumes[1].emptyDir.sizeLimit", "spec.template.spec.volumes[1].emptyDir.sizeLimit"),
        ("spec.template.spec.priorityClassName", "steps.tuned.resources.priority"),
        ("spec.template.spec.tolerations[1].key", "steps.tuned.resources.tolerations[0].key"),
        ("spec.template.spec.tolerations[0].key", "spec.template.spec.tolerations[0].key"),
        (
            "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values",
            "steps.tuned.resources.gpu_model",
        ),
        ("spec.activeDeadlineSeconds", "steps.tuned.resources.time_limit"),
        ("metadata.labels[kueue.x-k8s.io/queue-name]", "queue"),
        ("metadata.labels", "metadata.labels"),
        ("metadata.name", "name"),
        ("metadata.namespace", "namespace"),
        ("spec.backoffLimit", "spec.backoffLimit"),
        ("", ""),
        ("spec.template.spec.volumes[99].emptyDir", "spec.template.spec.volumes[99].emptyDir"),
        ("[[..]", "[[..]"),
    ],
)
def test_fields_of_a_step(field: str, ours: str) -> None:
    assert fields.ours(field, job()) == ours


def test_a_queue_of_the_steps_own_is_named_so() -> None:
    assert fields.ours("metadata.labels[kueue.x-k8s.io/queue-name]", job(queue="day")) == "steps.tuned.resources.queue"


@pytest.mark.parametrize(
    ("field", "ours"),
    [
        ("spec.template.spec.nodeSelector.zone", "overlay.spec.nodeSelector.zone"),
        ("spec.template.metadata.labels", "overlay.metadata.labels"),
        ("spec.template.spec.containers[0].image", "overlay.spec.containers[0].image"),
        ("spec.template.spec.containers[1].resources.limits[memory]", "overlay.spec.containers[1].resources.limits.memory"),
        ("spec.template.spec.containers[1].env[0].value", "overlay.spec.containers[1].env[0].value"),
        ("spec.template.spec.dnsConfig.searches[0]", "overlay.spec.dnsConfig.searches[0]"),
        ("spec.template.spec.containers[1].resources.limits[cpu]", "cpu"),
        ("spec.template.spec.priorityClassName", "priority"),
    ],
)
def test_what_an_overlay_said_is_told_as_the_overlays(field: str, ours: str) -> None:
    made = job(overlay=OVERLAY)
    assert [item["name"] for item in made["spec"]["template"]["spec"]["containers"]] == ["other", "step"]
    assert fields.ours(field, made) == f"steps.tuned.resources.{ours}"


def test_fields_of_a_driver() -> None:
    config, driver = render.driver(Pipeline("look", {"encoders": Search()}), SETTINGS, PLACE)
    assert fields.ours("spec.template.spec.containers[0].image", driver) == "image"
    assert fields.ours("spec.template.spec.containers[0].resources.limits[memory]", driver).startswith("spec.template")
    assert fields.ours("metadata.name", config) == "name"
    assert fields.ours("data", config) == "data"
