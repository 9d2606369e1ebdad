"""Manifests against a real API server, in a namespace that enforces `restricted`; overlays against the real kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from modelyard.cli import main
from modelyard.cli.render import documents
from modelyard.kube import overlay
from modelyard.kube.client import Client, connect
from modelyard.kube.cluster import Manifest
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.namespaces import own_namespace
from tests.unit.kube import manifests

GOLDENS = sorted(path for path in manifests.GOLDEN.glob("*.yaml") if path.stem != "overlays")
PRIORITY = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": -1}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """One for all: almost nothing is made in it."""
    with own_namespace(cluster) as name:
        yield name


@pytest.fixture
def client(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    return connect("", namespace)


def placed(made: Manifest, namespace: str) -> Manifest:
    """The manifest in another namespace, without what a golden names and no cluster has."""
    metadata = {name: value for name, value in made["metadata"].items() if name != "ownerReferences"}
    return {**made, "metadata": {**metadata, "namespace": namespace}}


def refused(client: Client, made: Sequence[Manifest]) -> list[object]:
    """What the API server says against the manifests."""
    answers = [(item["metadata"]["name"], client.dry_run(placed(item, client.namespace))) for item in made]
    return [(name, answer.causes, answer.warnings) for name, answer in answers if answer.causes or answer.warnings]


def test_every_golden_is_accepted_without_a_warning(cluster: Cluster, client: Client) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(PRIORITY))
    try:
        assert GOLDENS
        assert {path.stem: said for path in GOLDENS if (said := refused(client, list(yaml.safe_load_all(path.read_text()))))} == {}
    finally:
        cluster.kubectl("delete", "priorityclass", "low")


def test_a_dry_run_sees_what_is_wrong(client: Client) -> None:
    """The test above could not fail if nothing were ever refused."""
    made = manifests.vendor("nvidia", "there")
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["resources"]["limits"]["nvidia.com/gpu"] = "1500m"
    container["securityContext"]["allowPrivilegeEscalation"] = True
    made["spec"]["unknown"] = 1
    ((_, causes, _),) = refused(client, [made])
    assert "unknown" in str(causes)
    del made["spec"]["unknown"]
    ((_, causes, _),) = refused(client, [made])
    assert "nvidia.com/gpu" in str(causes)
    container["resources"] = {}
    ((_, causes, warnings),) = refused(client, [made])
    assert (causes, "allowPrivilegeEscalation" in str(warnings)) == ((), True)


@pytest.mark.parametrize("mode", ["there", "rwo"])
@pytest.mark.parametrize("accelerator", manifests.VENDORS)
def test_pods_themselves_are_admitted(client: Client, accelerator: str, mode: str) -> None:
    """Of a Job, `restricted` only warns; a pod that does not keep to it is refused."""
    template = manifests.vendor(accelerator, mode)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "step"}, "spec": template["spec"]}
    assert refused(client, [pod]) == []


def test_kubectl_reads_what_is_printed(cluster: Cluster, namespace: str) -> None:
    made = [placed(item, namespace) for item in manifests.example(manifests.EXAMPLES[0])]
    said = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", "-o", "name", stdin=documents(made))
    assert len(said.split()) == len(made)


def test_the_command_tells_what_the_server_says(
    cluster: Cluster, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, asked = tmp_path / "look.yaml", ["render", "look.yaml", "--steps", "--dry-run=server", "-n", client.namespace]
    overlay_of = {"spec": {"nodeSelector": {"zone": "a b"}, "containers": [{"name": "step", "securityContext": {"privileged": True}}]}}
    file.write_text(json.dumps({"name": "look", "steps": {"encoders": {"search": {}}}}))
    assert main(asked) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("accepted") == 3
    resources = {"priority": "NOT A NAME", "overlay": overlay_of, "tolerations": [{"key": "a b"}]}
    file.write_text(json.dumps({"name": "look", "steps": {"encoders": {"search": {}, "resources": resources}}}))
    assert main(asked) == 64
    said = capsys.readouterr().err
    for field in ("priority", "tolerations[0]", "overlay.spec.nodeSelector"):
        assert f"steps.encoders.resources.{field}" in said
    file.write_text(json.dumps({"name": "look", "steps": {"encoders": {"search": {}, "resources": {"overlay": {"spec": {"hostNetwork": True}}}}}}))
    assert main(asked) == 0
    assert "hostNetwork" in capsys.readouterr().err


@pytest.mark.parametrize("case", manifests.OVERLAYS)
def test_overlays_are_what_kubectl_makes_of_them(cluster: Cluster, case: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **manifests.pod()}
    pod["metadata"] = {"name": "step", **pod["metadata"]}
    patch = manifests.OVERLAYS[case]
    command = ["patch", "--local", "-f", "-", "--type=strategic", "-p", json.dumps(patch), "--dry-run=client", "-o", "json"]
    assert json.loads(cluster.kubectl(*command, stdin=json.dumps(pod))) == overlay.merge(pod, patch)
