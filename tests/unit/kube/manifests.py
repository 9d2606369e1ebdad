"""The manifests that are held fixed: every example, every vendor in every mode, and what overlays make of a pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard import spec
from modelyard.kube import render
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.order import Order
from modelyard.spec import Pipeline
from modelyard.steps import Evaluate, Finetune, Resources

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("golden")
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PLACE = Place(namespace="research", image="registry.example/modelyard:1.2.3", claim="modelyard", secret="modelyard-tokens")
HUBS = {"modelscope": "https://modelscope.cn", "huggingface": "https://huggingface.co"}
SETTINGS = {"hubs": HUBS, "jobs": 1, "force": []}
VENDORS = ("nvidia", "nvidia-mig:1g.10gb", "amd", "intel", "ascend", "none")
MODELS = {"nvidia": "NVIDIA-H100-80GB-HBM3", "nvidia-mig:1g.10gb": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "amd": "AMD_Instinct_MI300X_OAM"}
MODES = ("there", "here", "rwo", "queue")
"""A step as its driver creates it; a lone step; the same where one node has the yard; with everything that a step can ask for."""
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "reviews-0123456789-r1", "uid": "6c2f8a0e-0000-4000-8000-000000000000"}}


def example(path: Path) -> list[Manifest]:
    """What `render --steps` prints of an example."""
    pipeline = spec.load(path)
    return [*render.driver(pipeline, SETTINGS, PLACE), *render.preview(pipeline, SETTINGS, PLACE)]


def order(**update: Any) -> Order:
    """The order of a training step."""
    step = Finetune(model="base", data="reviews")
    inputs = {"model": "b" * 64, "data": "d" * 64}
    told = {"run": OWNER["metadata"]["name"], "step": "tuned", "verb": "finetune", "settings": step.settings(), "inputs": inputs, "key": "0" * 64}
    return Order.model_validate({**told, "resources": Resources(), "hubs": HUBS, **update})


def vendor(accelerator: str, mode: str) -> Manifest:
    """The Job of a step that asks for an accelerator."""
    asked: dict[str, Any] = {"gpus": 1, "accelerator": accelerator}
    if mode == "here":
        step = Evaluate(model="hf://me/model", data="hf://datasets/me/rows")
        return render.lone_step(Pipeline("score", {"score": step}, Resources(**asked)), SETTINGS, PLACE)
    place, avoid = PLACE, []
    if mode == "rwo":
        place = PLACE.model_copy(update={"access": "ReadWriteOnce"})
    if mode == "queue":
        place, avoid = PLACE.model_copy(update={"queue": "night", "pull_secret": "registry"}), ["gpu-7", "gpu-3"]
        asked |= {"gpus": 2, "gpu_model": MODELS.get(accelerator, "Some-Model_1"), "memory": "64Gi", "cpu": 8, "shm": "8Gi", "priority": "low"}
        asked |= {"time_limit": "2h", "pending_limit": "30m", "tolerations": [{"key": "team", "operator": "Equal", "value": "vision"}]}
    if accelerator == "none":
        asked["gpus"] = 0  # as Pipeline.resources_of has it
    resources = Resources.model_validate(asked)
    return render.step_job(order(resources=resources), place, pipeline="reviews", number=2 if avoid else 1, avoid=avoid, owner=OWNER)


OVERLAYS: Mapping[str, Manifest] = {
    "a map is merged": {"spec": {"nodeSelector": {"zone": "a"}, "securityContext": {"runAsUser": 4711}}},
    "null removes": {"spec": {"enableServiceLinks": None, "securityContext": {"fsGroupChangePolicy": None}}},
    "a container is found by its name": {"spec": {"containers": [{"name": "step", "env": [{"name": "HOME", "value": "/tmp"}]}]}},
    "new items go in front": {"spec": {"containers": [{"name": "step", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}},
    "in between": {"spec": {"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "more", "emptyDir": {}}]}},
    "against the order": {"spec": {"volumes": [{"name": "order", "downwardAPI": {"defaultMode": 256}}, {"name": "home", "emptyDir": {}}]}},
    "another container": {"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}},
    "an init container": {"spec": {"initContainers": [{"name": "wait", "image": "busybox"}]}},
    "an item is deleted": {"spec": {"containers": [{"name": "step", "volumeMounts": [{"mountPath": "/tmp", "$patch": "delete"}]}]}},
    "an item that is not there is deleted": {"spec": {"volumes": [{"name": "nothing", "$patch": "delete"}]}},
    "a list is replaced": {"spec": {"containers": [{"name": "step", "env": [{"$patch": "replace"}, {"name": "ONLY", "value": "1"}]}]}},
    "a map is replaced": {"spec": {"affinity": {"$patch": "replace", "podAntiAffinity": {}}}},
    "a map is deleted": {"spec": {"affinity": {"$patch": "delete"}}},
    "tolerations are replaced": {"spec": {"tolerations": [{"key": "other", "operator": "Exists"}]}},
    "a volume's source is another": {"spec": {"volumes": [{"name": "tmp", "$retainKeys": ["name", "ephemeral"], "ephemeral": {}}]}},
    "groups are replaced": {"spec": {"securityContext": {"supplementalGroups": [7]}}},
    "pull secrets are merged": {"spec": {"imagePullSecrets": [{"name": "mine"}]}},
    "metadata": {"metadata": {"labels": {"team": "vision"}, "annotations": {"note": "line\nline"}}},
    "limits": {"spec": {"containers": [{"name": "step", "resources": {"limits": {"gpu.intel.com/xe": None, "gpu.intel.com/i915": "1"}}}]}},
    "nothing": {},
}
"""What a step's overlay may say; kubectl says the same of each (tests/cluster/test_render.py)."""


def pod() -> Manifest:
    """The pod of a step to which overlays are applied: of an Intel GPU on a yard of one node."""
    resources = Resources(gpus=1, accelerator="intel", gpu_model="Max_1550", tolerations=({"key": "team", "operator": "Exists"},))
    place = PLACE.model_copy(update={"access": "ReadWriteOnce", "pull_secret": "registry"})
    template: Manifest = render.step_job(order(resources=resources), place, pipeline="reviews")["spec"]["template"]
    return template


def goldens() -> Mapping[str, Sequence[Manifest]]:
    """File -> its documents."""
    made: dict[str, Sequence[Manifest]] = {f"example-{path.stem}": example(path) for path in EXAMPLES}
    for accelerator in VENDORS:
        for mode in MODES:
            made[f"{accelerator.partition(':')[0]}-{mode}"] = [vendor(accelerator, mode)]
    made["reader"] = [render.reader_pod(PLACE, "modelyard-reader-0123456789", write=write, seconds=600) for write in (False, True)]
    return made
