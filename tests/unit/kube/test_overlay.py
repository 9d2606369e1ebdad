"""Overlays: what they merge, and what they may not take away. That kubectl does the same is looked at in tests/cluster."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from modelyard.errors import Usage
from modelyard.kube import overlay
from modelyard.kube.cluster import Manifest
from tests.unit.kube import manifests


def names_of(items: list[Manifest], key: str = "name") -> list[str]:
    return [item[key] for item in items]


def patched(patch: Manifest) -> Manifest:
    return overlay.apply(manifests.pod(), patch)["spec"]  # type: ignore[no-any-return]


def test_maps_are_merged_and_null_removes() -> None:
    spec = patched({"spec": {"nodeSelector": {"zone": "a"}, "securityContext": {"runAsUser": 7, "fsGroup": None}}})
    assert spec["nodeSelector"] == {"zone": "a"}
    assert spec["securityContext"]["runAsUser"] == 7
    assert "fsGroup" not in spec["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_items_are_found_by_their_key() -> None:
    spec = patched({"spec": {"containers": [{"name": "step", "env": [{"name": "HOME", "value": "/tmp"}, {"name": "NEW", "value": "1"}]}]}})
    (container,) = spec["containers"]
    assert {item["name"]: item["value"] for item in container["env"]} == {"HOME": "/tmp", "NEW": "1"}
    assert container["image"] == manifests.pod()["spec"]["containers"][0]["image"]


def test_a_further_container_leaves_the_step() -> None:
    spec = patched({"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}})
    assert sorted(names_of(spec["containers"])) == ["proxy", "step"]


def test_delete_and_replace() -> None:
    spec = patched({"spec": {"volumes": [{"name": "tmp", "$patch": "delete"}], "affinity": {"$patch": "replace", "nodeAffinity": {}}}})
    assert "tmp" not in names_of(spec["volumes"])
    assert spec["affinity"] == {"nodeAffinity": {}}


def test_tolerations_are_one_value() -> None:
    assert patched({"spec": {"tolerations": []}})["tolerations"] == []


def test_neither_the_pod_nor_the_overlay_is_changed() -> None:
    pod, patch = (
        manifests.pod(),
        {"spec": {"containers": [{"name": "step", "env": [{"name": "A", "value": "1"}]}], "hostAliases": [{"ip": "1.2.3.4"}]}},
    )
    before, said = copy.deepcopy(pod), copy.deepcopy(patch)
    made = overlay.apply(pod, patch)
    made["spec"]["hostAliases"][0]["ip"] = "changed"
    made["spec"]["containers"][0]["env"].clear()
    assert (pod, patch) == (before, said)


@pytest.mark.parametrize(
    ("patch", "where"),
    [
        ({"spec": {"containers": [{"name": "step", "$patch": "delete"}]}}, "resources.overlay.spec.containers"),
        ({"spec": {"containers": [{"$patch": "replace"}, {"name": "other", "image": "other:1"}]}}, "resources.overlay.spec.containers"),
        ({"spec": {"containers": None}}, "resources.overlay.spec.containers"),
        ({"spec": None}, "resources.overlay.spec.containers"),
        ({"spec": {"containers": "step"}}, "resources.overlay.spec.containers"),
        ({"spec": {"containers": ["step"]}}, "resources.overlay.spec.containers[0]"),
        ({"spec": {"containers": [{"name": "step", "command": ["sh"]}]}}, "resources.overlay.spec.containers"),
        ({"spec": {"containers": [{"name": "step", "args": ["more"]}]}}, "resources.overlay.spec.containers"),
        (
            {"spec": {"containers": [{"name": "step", "volumeMounts": [{"$patch": "replace"}]}]}},
            "resources.overlay.spec.volumes",
        ),
        ({"spec": {"volumes": [{"name": "order", "$patch": "delete"}]}}, "resources.overlay.spec.volumes"),
        ({"spec": {"volumes": [{"name": "yard", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}}, "resources.overlay.spec.volumes"),
        ({"spec": {"restartPolicy": "OnFailure"}}, "resources.overlay.spec.restartPolicy"),
        ({"metadata": {"annotations": {"modelyard.dev/order": "{}"}}}, "resources.overlay.metadata.annotations"),
        ({"metadata": {"annotations": None}}, "resources.overlay.metadata.annotations"),
        ({"metadata": {"labels": {"modelyard.dev/run": None}}}, "resources.overlay.metadata.labels"),
        ({"metadata": None}, "resources.overlay.metadata.labels"),
        ({"spec": []}, "resources.overlay.spec"),
        ({"metadata": {"labels": "none"}}, "resources.overlay.metadata.labels"),
        ({"template": {"spec": {}}}, "resources.overlay.template"),
        ({"spec": {"$setElementOrder/containers": []}}, "resources.overlay.spec"),
        ({"spec": {"$patch": "remove"}}, "resources.overlay.spec"),
        ({"spec": {"containers": [{"image": "nameless:1"}]}}, "resources.overlay.spec.containers[0]"),
    ],
)
def test_what_would_be_no_step_any_more_is_refused(patch: Any, where: str) -> None:
    with pytest.raises(Usage) as refused:
        overlay.apply(manifests.pod(), patch)
    assert refused.value.where == where
    assert refused.value.remedy
