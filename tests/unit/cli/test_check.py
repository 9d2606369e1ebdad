"""`modelyard check` for a cluster, and `modelyard gpus`: verdicts as a table, as JSON, and as an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.cli import remote
from modelyard.errors import NoInput, Unavailable
from modelyard.run import check as looking
from tests.unit.cli.conftest import Call
from tests.unit.kube.fake import FakeCluster
from tests.unit.kube.test_check import good
from tests.unit.kube.test_room import H100, node, pod

ON = ("--on", "kubernetes", "--yard", "yard")
FILE = """
name: reviews
resources: {gpus: 1}
steps:
  tuned:
    finetune: {model: modelscope://o/m, data: modelscope://datasets/o/d}
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeCluster:
    made = good()
    monkeypatch.setattr(remote, "cluster", lambda _: made)
    monkeypatch.setenv("MODELYARD_HUBS_MODELSCOPE", "http://hub:8000")
    monkeypatch.setenv("MODELYARD_IMAGE", "registry/modelyard:1")
    (folder / "p.yaml").write_text(FILE)
    return made


def test_all_ok(call: Call, cluster: FakeCluster) -> None:
    done = call("check", "p.yaml", *ON)
    assert done.code == 0, done.out
    assert done.err == "next: modelyard run p.yaml --yard yard --on kubernetes\n"
    assert "fit of step tuned" in done.out
    assert "try:" not in done.out
    document = json.loads(call("check", "p.yaml", *ON, "-o", "json").out)
    assert {row["verdict"] for row in document["verdicts"]} == {"ok"}
    assert document["order"][-1] == "tuned"
    assert document["grants"] == []
    assert {"name": "yard", "value": "yard", "from": "--yard"} in document["settings"]
    assert call("check", "p.yaml", *ON, "-q").out == "reviews\n"


def test_the_first_no_is_the_exit_code_and_has_a_remedy(call: Call, cluster: FakeCluster) -> None:
    cluster.objects.pop(("PersistentVolumeClaim", "yard"))
    cluster.objects["Pod", "p"] = pod("n1", gpu="8")
    done = call("check", "p.yaml", *ON)
    assert done.code == 66
    assert "error: claim: there is no claim 'yard'" in done.err
    lines = done.out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("fit of step tuned"))
    assert lines[at].split()[4] == "no"
    assert any("8 in use, 0 free; 1 asked" in line for line in lines[at : at + 3])
    assert any(line.startswith("    try: ") for line in lines[at : at + 4])
    rows = {row["check"]: row for row in json.loads(call("check", "p.yaml", *ON, "-o", "json").out)["verdicts"]}
    assert rows["fit of step tuned"]["exit_code"] == 69
    assert rows["claim"]["category"] == "claim-missing"


def test_missing_rights_come_as_yaml_to_hand_on(call: Call, cluster: FakeCluster) -> None:
    cluster.objects.pop(("ServiceAccount", "modelyard-driver"))
    done = call("check", "p.yaml", *ON)
    assert done.code == 66
    assert "\n---\napiVersion: v1\nkind: ServiceAccount\n" in done.out
    assert "kind: Role\n" in done.out


def test_without_a_file(call: Call, cluster: FakeCluster) -> None:
    document = json.loads(call("check", *ON, "-o", "json").out)
    rows = {row["check"]: row["verdict"] for row in document["verdicts"]}
    assert rows["fit of reader"] == "ok"
    assert "pipeline" not in document


@pytest.mark.parametrize(
    ("failure", "code"), [(Unavailable("no answer", remedy="later"), 69), (NoInput("there is no kubeconfig", remedy="set it"), 66)]
)
def test_no_cluster(call: Call, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, failure: Unavailable | NoInput, code: int) -> None:
    def fail(_: object) -> None:
        raise failure

    monkeypatch.setattr(remote, "cluster", fail)
    done = call("check", "p.yaml", *ON)
    assert done.code == code
    assert "cluster  no       " in done.out
    assert failure.what in done.err
    assert "settings" in json.loads(call("check", "p.yaml", *ON, "-o", "json").out)


def test_a_file_that_is_wrong_is_told_as_ever(call: Call, cluster: FakeCluster, folder: Path) -> None:
    (folder / "p.yaml").write_text("name: a\nsteps: {b: {nonsense: {}}}\n")
    done = call("check", "p.yaml", *ON)
    assert (done.code, done.out) == (64, "")
    assert cluster.requests == 0


def test_hubs_that_no_step_speaks_with_are_not_asked(cluster: FakeCluster) -> None:
    from modelyard import config
    from modelyard.spec import load

    asked: list[str] = []
    in_force = config.load({"on": "kubernetes", "yard": "yard"})
    looking.look(in_force, load("p.yaml"), lambda: cluster, ask=lambda address: asked.append(address) or "")
    assert asked == []  # Hugging Face's is outside, and the pipeline's own is a Service
    looking.look(in_force, None, lambda: cluster, ask=lambda address: asked.append(address) or "")
    assert asked == ["https://huggingface.co"]


def test_gpus(call: Call, cluster: FakeCluster) -> None:
    cluster.objects["Node", "n2"] = node("n2", gpus=4, unschedulable=True)
    cluster.objects["Pod", "p"] = pod("n1", gpu="3")
    done = call("gpus")
    assert done.code == 0
    heading, row = done.out.splitlines()
    assert heading.split()[:2] == ["VENDOR", "MODEL"]
    assert row.split()[:8] == ["nvidia", H100, "nvidia.com/gpu", "2", "12", "3", "5", "5"]
    assert row.endswith("4 on n2: cordoned")
    assert call("gpus", "-o", "name").out == f"{H100}\n"
    item = json.loads(call("gpus", "-o", "json").out)["items"][0]
    assert item["unusable"] == [{"node": "n2", "count": 4, "why": "cordoned"}]


def test_gpus_of_a_cluster_without_any_and_without_rights(call: Call, cluster: FakeCluster) -> None:
    cluster.objects["Node", "n1"] = node("n1")
    done = call("gpus")
    assert (done.code, done.out) == (0, "")
    assert "no node of the cluster has an accelerator" in done.err
    cluster.forbidden = {("list", "Node")}
    done = call("gpus")
    assert (done.code, done.out) == (77, "")
    assert "capacity unknown" in done.err
