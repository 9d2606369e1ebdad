"""Room is counted as the scheduler counts it: what is asked, what is used, and who may go where."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from modelyard.kube import render, room
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.spec import Pipeline
from modelyard.steps import Finetune, Resources

H100, A100 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB"


def node(name: str, *, gpus: int = 0, model: str = H100, cpu: str = "32", memory: str = "256Gi", ready: bool = True, **spec: Any) -> Manifest:
    has = {"cpu": cpu, "memory": memory, "pods": "110"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    labels = {"kubernetes.io/hostname": name} | ({"nvidia.com/gpu.product": model} if gpus else {})
    conditions = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True" if ready else "Unknown"}]
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"capacity": has, "allocatable": has, "conditions": conditions},
    }


def pod(
    on: str = "", *, phase: str = "Running", name: str = "p", namespace: str = "others", labels: dict[str, str] | None = None, **asks: str
) -> Manifest:
    amounts = {name.replace("gpu", "nvidia.com/gpu"): text for name, text in asks.items()}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": amounts, "limits": amounts}}], **({"nodeName": on} if on else {})},
        "status": {"phase": phase},
    }


def step(**resources: Any) -> Manifest:
    pipeline = Pipeline("a", {"tuned": Finetune(model="hf://o/m", data="hf://datasets/o/d")}, resources=Resources(**resources))
    settings = {"hubs": {}, "jobs": 1, "force": []}
    return next(
        one for one in render.preview(pipeline, settings, Place(namespace="team", image="i:1", claim="y")) if "-tuned-" in one["metadata"]["name"]
    )


def found(nodes: Sequence[Manifest], pods: Sequence[Manifest] | None = ()) -> list[room.Space]:
    return room.spaces(nodes, pods)


def test_the_arithmetic_of_a_node_and_of_a_model() -> None:
    nodes = [node("node1", gpus=8), node("node2", gpus=8), node("cpu1")]
    pods = [pod("node1", gpu="6"), pod("node2", gpu="7"), pod("node2", gpu="1", phase="Succeeded"), pod(gpu="8", phase="Pending")]
    fit = room.fit(step(gpus=4), found(nodes, pods))
    assert (fit.verdict, fit.code) == ("not now", "busy")
    assert f"node1: 8 nvidia.com/gpu ({H100}), 6 in use, 2 free; 4 asked" in fit.lines
    assert f"node2: 8 nvidia.com/gpu ({H100}), 7 in use, 1 free; 4 asked" in fit.lines
    assert "cpu1: 0 nvidia.com/gpu; 4 asked" in fit.lines
    assert fit.lines[-1] == f"{H100}: 16 nvidia.com/gpu on 2 nodes, 13 in use, 3 free, 2 of them on one node; 4 asked on one node"
    assert room.fit(step(gpus=2), found(nodes, pods)).verdict == "now"
    never = room.fit(step(gpus=9), found(nodes, pods))
    assert (never.verdict, never.code) == ("never", "too-large")


@pytest.mark.parametrize(
    ("nodes", "resources", "verdict", "code"),
    [
        ([node("n", gpus=8)], {"gpus": 8}, "now", "fits"),
        ([node("n", gpus=8, unschedulable=True)], {"gpus": 8}, "not now", "cordoned"),
        ([node("n", gpus=8, ready=False)], {"gpus": 8}, "not now", "not-ready"),
        ([node("n", gpus=8, taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])], {"gpus": 1}, "never", "taint"),
        ([node("n", gpus=8, taints=[{"key": "k", "value": "v", "effect": "PreferNoSchedule"}])], {"gpus": 1}, "now", "fits"),
        ([node("n", gpus=8, taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])], {"gpus": 1}, "now", "fits"),
        ([node("n", gpus=8, taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])], {}, "never", "taint"),
        ([node("n", gpus=8), node("c")], {"gpus": 1, "gpu_model": A100}, "never", "gpu-model"),
        ([node("n", gpus=8), node("m", gpus=2, model=A100)], {"gpus": 1, "gpu_model": A100}, "now", "fits"),
        ([node("n", gpus=8), node("m", gpus=2, model=A100)], {"gpus": 4, "gpu_model": A100}, "never", "gpu-model"),
        ([node("n", gpus=8)], {"gpus": 1, "accelerator": "amd"}, "never", "too-large"),
        ([node("n", memory="8Gi")], {"memory": "16Gi"}, "never", "too-large"),
        ([node("n", cpu="500m")], {"cpu": 1}, "never", "too-large"),
        ([], {}, "not now", "no-nodes"),
        ([node("c"), node("n", gpus=8, unschedulable=True)], {"gpus": 1}, "not now", "cordoned"),
    ],
)
def test_verdicts(nodes: list[Manifest], resources: dict[str, Any], verdict: str, code: str) -> None:
    fit = room.fit(step(**resources), found(nodes))
    assert (fit.verdict, fit.code) == (verdict, code)
    assert fit.lines


def test_what_may_not_be_looked_at_is_unknown() -> None:
    assert room.fit(step(), None).verdict == "unknown"
    fit = room.fit(step(gpus=1), found([node("n", gpus=8)], None))
    assert (fit.verdict, fit.code) == ("unknown", "unknown")
    assert f"n: 8 nvidia.com/gpu ({H100}); 1 asked" in fit.lines
    assert room.fit(step(gpus=9), found([node("n", gpus=8)], None)).verdict == "never"  # that is known all the same


def test_a_node_takes_so_many_pods() -> None:
    full = node("n")
    full["status"]["allocatable"] = {**full["status"]["allocatable"], "pods": "1"}
    assert room.fit(step(), found([full])).verdict == "now"
    assert room.fit(step(), found([full], [pod("n")])).code == "busy"


def test_init_containers_sidecars_and_overhead_count() -> None:
    def container(cpu: str, **more: Any) -> Manifest:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec: Manifest = {"containers": [container("1"), container("500m")], "initContainers": [container("4")], "overhead": {"cpu": "250m"}}
    assert room.requests(spec) == {"cpu": 4250}
    spec["initContainers"] = [container("1", restartPolicy="Always"), container("1")]
    assert room.requests(spec) == {"cpu": 2750}
    assert room.requests({"containers": [{"resources": {"limits": {"memory": "1Gi"}}}]}) == {"memory": 2**30}
    assert room.requests({"containers": [{"resources": {"requests": {"memory": "1Gi"}}}]}, "limits") == {}


def job(**spec: Any) -> Manifest:
    made = copy.deepcopy(step())
    made["spec"]["template"]["spec"] |= spec
    return made


def affinity(*terms: Manifest) -> Manifest:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"nodeSelector": {"disk": "fast"}}, "fits"),
        ({"nodeSelector": {"disk": "slow"}}, "selector"),
        ({"nodeSelector": {"nvidia.com/gpu.product": A100}}, "gpu-model"),
        ({"affinity": affinity({"matchExpressions": [{"key": "rank", "operator": "Gt", "values": ["2"]}]})}, "fits"),
        ({"affinity": affinity({"matchExpressions": [{"key": "rank", "operator": "Lt", "values": ["3"]}]})}, "selector"),
        ({"affinity": affinity({"matchExpressions": [{"key": "disk", "operator": "Gt", "values": ["3"]}]})}, "selector"),
        ({"affinity": affinity({"matchExpressions": [{"key": "disk", "operator": "Exists"}]})}, "fits"),
        ({"affinity": affinity({"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]})}, "selector"),
        ({"affinity": affinity({"matchExpressions": [{"key": "absent", "operator": "NotIn", "values": ["x"]}]})}, "fits"),
        ({"affinity": affinity({"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["fast"]}]})}, "selector"),
        ({"affinity": affinity({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n"]}]})}, "selector"),
        ({"affinity": affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})}, "fits"),
        ({"affinity": affinity({})}, "selector"),  # a term that is empty matches nothing
        ({"affinity": affinity()}, "selector"),
        (
            {
                "affinity": affinity(
                    {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["slow"]}]},
                    {"matchExpressions": [{"key": "rank", "operator": "In", "values": ["3"]}]},
                )
            },
            "fits",
        ),
    ],
)
def test_who_may_go_where(spec: Manifest, code: str) -> None:
    one = node("n", gpus=1)
    one["metadata"]["labels"] |= {"disk": "fast", "rank": "3"}
    assert room.fit(job(**spec), found([one])).code == code


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], tolerated: bool) -> None:
    assert room.tolerated({"key": "k", "value": "v", "effect": "NoExecute"}, [toleration]) is tolerated
    tainted = node("n", taints=[{"key": "k", "value": "v", "effect": "NoExecute"}])
    fit = room.fit(job(tolerations=[toleration]), found([tainted]))
    assert fit.code == ("fits" if tolerated else "taint")
    assert tolerated or "taint k=v:NoExecute is not tolerated" in fit.lines[0]


def test_pods_of_a_volume_that_one_node_can_mount_stay_together() -> None:
    alone = Place(namespace="team", image="i:1", claim="y", access="ReadWriteOnce")
    pipeline = Pipeline("a", {"tuned": Finetune(model="hf://o/m", data="hf://datasets/o/d")})
    made = render.preview(pipeline, {"hubs": {}, "jobs": 1, "force": []}, alone)[-1]
    nodes = [node("a", cpu="2"), node("b")]
    assert room.fit(made, found(nodes)).verdict == "now"  # the first one may go anywhere
    neighbour = pod("a", namespace="team", labels={"modelyard.dev/yard": "y"}, cpu="1500m")
    fit = room.fit(made, found(nodes, [neighbour]))
    assert (fit.verdict, fit.code) == ("not now", "busy")
    assert any("b: the pod has to be where those with the same volume are: a" in line for line in fit.lines)
    elsewhere = pod("a", namespace="another", labels={"modelyard.dev/yard": "y"}, cpu="1500m")
    assert room.fit(made, found(nodes, [elsewhere])).verdict == "now"


def test_many_nodes_are_counted() -> None:
    fit = room.fit(step(gpus=16), found([node(f"n{index:02}", gpus=8) for index in range(40)]))
    assert len(fit.lines) == room.SHOWN + 2
    assert fit.lines[room.SHOWN] == "and 28 more nodes: 28 too-large"


def test_parts_of_gpus_have_a_resource_and_a_model_of_their_own() -> None:
    sliced = node("n", gpus=8)
    for part in ("capacity", "allocatable"):
        sliced["status"][part] = {**sliced["status"][part], "nvidia.com/mig-1g.10gb": "7"}
    sliced["metadata"]["labels"]["nvidia.com/mig-1g.10gb.product"] = f"{H100}-MIG-1g.10gb"
    fit = room.fit(step(gpus=1, accelerator="nvidia-mig:1g.10gb"), found([sliced]))
    assert fit.verdict == "now"
    assert f"n: 7 nvidia.com/mig-1g.10gb ({H100}-MIG-1g.10gb), 0 in use, 7 free; 1 asked" in fit.lines
    assert room.fit(step(gpus=1, accelerator="nvidia-mig:3g.40gb"), found([sliced])).code == "too-large"


@pytest.mark.parametrize(
    ("resource", "vendor"),
    [
        ("nvidia.com/gpu", "nvidia"),
        ("nvidia.com/gpu.shared", "nvidia"),
        ("nvidia.com/mig-1g.10gb", "nvidia"),
        ("amd.com/gpu", "amd"),
        ("gpu.intel.com/i915", "intel"),
        ("huawei.com/Ascend910", "ascend"),
        ("cpu", None),
        ("example.com/fpga", None),
        ("gpu.intel.com/xe_monitoring", None),
    ],
)
def test_which_resources_are_accelerators(resource: str, vendor: str | None) -> None:
    row = room.vendor_of_resource(resource)
    assert (row.name if row else None) == vendor
