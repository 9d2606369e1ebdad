"""What a cluster has is counted by vendor and model, and what is of no use is counted apart with the reason."""

from __future__ import annotations

import pytest

from modelyard.errors import NoPermission
from modelyard.kube import room
from modelyard.kube.capacity import Stock, stocks
from modelyard.run.capacity import look
from tests.unit.kube.fake import FakeCluster
from tests.unit.kube.test_room import A100, H100, node, pod


def the(found: list[Stock], name: str) -> Stock:
    return next(one for one in found if one.name == name)


def test_by_model() -> None:
    nodes = [node("a", gpus=8), node("b", gpus=8), node("c", gpus=4, model=A100), node("cpu")]
    found = stocks(room.spaces(nodes, [pod("a", gpu="3"), pod("b", gpu="6"), pod("c", gpu="4", phase="Failed")]))
    assert [one.model for one in found] == [A100, H100]
    one = the(found, H100)
    assert (one.vendor, one.resource, one.nodes, one.allocatable, one.used, one.free, one.block) == ("nvidia", "nvidia.com/gpu", 2, 16, 9, 7, 5)
    assert (the(found, A100).used, the(found, A100).block) == (0, 4)
    assert one.unusable == ()


def test_what_is_of_no_use_and_why() -> None:
    dedicated = {"key": "team", "value": "x", "effect": "NoSchedule"}
    custom = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}  # which our steps tolerate
    by_itself = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    nodes = [
        node("good", gpus=8, taints=[custom]),
        node("tainted", gpus=8, taints=[dedicated]),
        node("cordoned", gpus=4, unschedulable=True, taints=[by_itself]),
        node("silent", gpus=2, ready=False),
        node("ill", gpus=8),
    ]
    nodes[-1]["status"]["allocatable"] = {**nodes[-1]["status"]["allocatable"], "nvidia.com/gpu": "6"}
    (one,) = stocks(room.spaces(nodes, [pod("tainted", gpu="1")]))
    assert {(it.node, it.count, it.why) for it in one.unusable} == {
        ("tainted", 8, "taint team=x:NoSchedule"),
        ("cordoned", 4, "cordoned"),
        ("silent", 2, "not ready"),
        ("ill", 2, "unhealthy"),
    }
    assert (one.allocatable, one.used, one.free, one.block) == (28, 1, 14, 8)
    assert one.described()["unusable"][0]["node"] == "tainted"


def test_all_of_a_nodes_devices_ill() -> None:
    broken = node("n", gpus=8)
    broken["status"]["allocatable"] = {**broken["status"]["allocatable"], "nvidia.com/gpu": "0"}
    (one,) = stocks(room.spaces([broken], []))
    assert (one.allocatable, one.free, [it.why for it in one.unusable]) == (0, 0, ["unhealthy"])


def test_a_model_that_no_label_says() -> None:
    unnamed = node("n", gpus=1)
    unnamed["metadata"]["labels"] = {}
    (one,) = stocks(room.spaces([unnamed], []))
    assert (one.model, one.name) == ("", "nvidia.com/gpu")


def test_without_the_right_to_list_pods_the_use_is_unknown() -> None:
    cluster = FakeCluster()
    cluster.objects["Node", "n"] = node("n", gpus=8)
    cluster.forbidden = {("list", "Pod")}
    (one,), why = look(cluster)
    assert (one.allocatable, one.used, one.free, one.block) == (8, None, None, None)
    assert "clusterrole" in why


def test_without_the_right_to_list_nodes_the_capacity_is_unknown() -> None:
    cluster = FakeCluster()
    cluster.forbidden = {("list", "Node")}
    with pytest.raises(NoPermission) as told:
        look(cluster)
    assert "capacity unknown" in told.value.what
    assert "kubectl create clusterrole modelyard-nodes" in told.value.remedy
    assert "nodeReader: true" in told.value.remedy
