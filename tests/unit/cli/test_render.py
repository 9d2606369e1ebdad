"""`modelyard render`: what is printed in each form, without a cluster and without its client; what an API server says comes back in our words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.cli import remote
from modelyard.kube import client, names
from modelyard.kube.cluster import Answer, Cause, Manifest
from tests.unit.cli.conftest import Call

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart.yaml"
LONE = "name: look\nsteps:\n  score:\n    evaluate: {model: 'hf://me/base', data: 'hf://datasets/me/rows'}\n"
LOADED = """
import sys
from modelyard.cli import main
main(sys.argv[1:])
print([module for module in sys.modules if module.partition(".")[0] in ("kubernetes", "torch", "modelscope")], file=sys.stderr)
"""


@dataclass
class Server:
    """An API server that only answers dry runs."""

    namespace: str = "mine"
    answers: dict[str, Answer] = field(default_factory=dict)
    """Step (or `driver`) -> answer; others are accepted."""
    asked: list[Manifest] = field(default_factory=list)

    def dry_run(self, manifest: Manifest) -> Answer:
        self.asked.append(manifest)
        return self.answers.get(manifest["metadata"]["labels"].get(names.STEP, "driver"), Answer())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()

    def connect(context: str, namespace: str, *, patience: float) -> Server:
        assert patience == remote.PATIENCE
        assert (context, namespace) == ("there", "")
        return found

    monkeypatch.setattr(client, "connect", connect)
    return found


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def kinds(made: Sequence[dict[str, Any]]) -> list[str]:
    return [item["kind"] for item in made]


def test_a_driver_is_printed_as_two_documents(call: Call) -> None:
    done = call("render", str(QUICKSTART))
    assert done.code == 0, done.err
    made = documents(done.out)
    assert kinds(made) == ["ConfigMap", "Job"]
    assert {item["metadata"]["namespace"] for item in made} == {"default"}
    assert json.loads(made[0]["data"]["run.json"])["run"] == made[1]["metadata"]["name"]
    assert done.out.startswith("---\n")
    assert "run.json: |" in done.out, "a text of many lines is readable"


def test_steps_are_previewed(call: Call) -> None:
    done = call("render", str(QUICKSTART), "--steps", "-n", "mine", "--yard", "shared", "--jobs", "2")
    assert done.code == 0, done.err
    made = documents(done.out)
    assert kinds(made) == ["ConfigMap", *["Job"] * 11]
    assert {item["metadata"]["namespace"] for item in made} == {"mine"}
    assert {item["metadata"]["labels"][names.YARD] for item in made} == {"shared"}
    assert json.loads(made[0]["data"]["run.json"])["settings"]["jobs"] == 2
    assert "preview" in done.err


def test_json_is_one_list_and_names_are_names(call: Call) -> None:
    made = json.loads(call("render", str(QUICKSTART), "-o", "json").out)
    assert (made["apiVersion"], made["kind"], kinds(made["items"])) == ("v1", "List", ["ConfigMap", "Job"])
    listed = call("render", str(QUICKSTART), "-o", "name").out.split()
    assert listed == [f"{item['kind'].lower()}/{item['metadata']['name']}" for item in made["items"]]


def test_a_lone_step_is_its_own_job(call: Call, folder: Path) -> None:
    (folder / "lone.yaml").write_text(LONE)
    (made,) = documents(call("render", "lone.yaml", "--driver", "here").out)
    assert made["metadata"]["labels"][names.ROLE] == "step"
    refused = call("render", str(QUICKSTART), "--driver", "here")
    assert (refused.code, "more than one step" in refused.err) == (64, True)
    both = call("render", "lone.yaml", "--driver", "here", "--steps")
    assert both.code == 64


def test_smoke_and_force_are_of_the_run(call: Call) -> None:
    made = documents(call("render", str(QUICKSTART), "--smoke", "--force", "tuned").out)
    run = json.loads(made[0]["data"]["run.json"])
    assert run["settings"]["force"] == ["tuned"]
    assert json.loads(made[0]["data"]["pipeline.yaml"])["steps"]["tuned"]["finetune"]["max_steps"] == 2
    assert "release" not in json.loads(made[0]["data"]["pipeline.yaml"])["steps"]
    assert call("render", str(QUICKSTART), "--force", "nothing").code == 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [("[hubs]\nmodelscope = './hub'\n", "modelyard hub serve"), ("yard = './.yard'\n", "no claim"), ("queue = 'a b'\n", "label")],
)
def test_settings_that_mean_this_machine_are_refused(call: Call, folder: Path, settings: str, said: str) -> None:
    (folder / "modelyard.toml").write_text(settings)
    done = call("render", str(QUICKSTART), "--steps")
    assert (done.code, done.out) == (64, "")
    assert said in done.err


def test_a_claim_of_one_node_keeps_its_pods_together(call: Call) -> None:
    made = documents(call("render", str(QUICKSTART), "--steps", "--access-mode", "ReadWriteOnce").out)
    assert json.loads(made[0]["data"]["run.json"])["place"]["access"] == "ReadWriteOnce"
    assert all("podAffinity" in job["spec"]["template"]["spec"]["affinity"] for job in made[1:])
    assert call("render", str(QUICKSTART), "--access-mode", "ReadWriteOncePod").code == 64


def test_a_path_in_the_file_is_refused(call: Call, folder: Path) -> None:
    (folder / "rows.csv").write_text("text,label\na,1\n")
    (folder / "local.yaml").write_text("name: local\nsteps:\n  rows:\n    fetch: {dataset: ./rows.csv}\n")
    done = call("render", "local.yaml")
    assert (done.code, done.out) == (64, "")
    assert "yard put" in done.err


def test_no_client_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, "render", str(QUICKSTART), "--steps"], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_server_that_takes_everything(call: Call, server: Server) -> None:
    server.answers["score"] = Answer(warnings=["would violate PodSecurity"])
    done = call("render", str(QUICKSTART), "--steps", "--dry-run=server", "--context", "there")
    assert done.code == 0, done.err
    assert len(server.asked) == 12
    assert {manifest["metadata"]["namespace"] for manifest in server.asked} == {"mine"}
    assert "would violate PodSecurity" in done.err
    assert done.out.count("accepted") == 12


def test_what_a_server_refuses_is_told_by_our_fields(call: Call, server: Server) -> None:
    limit, image = "spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]", "spec.template.spec.containers[0].image"
    server.answers["tuned"] = Answer(causes=[Cause(limit, "must be whole"), Cause("spec.other", "unknown")])
    server.answers["driver"] = Answer(causes=[Cause(image, "required")])
    done = call("render", str(QUICKSTART), "--steps", "--dry-run=server", "--context", "there")
    assert done.code == 64
    for where in ("steps.tuned.resources.gpus: must be whole", "spec.other: unknown", "image: required"):
        assert where in done.err
    rows = json.loads(call("render", str(QUICKSTART), "--steps", "--dry-run=server", "--context", "there", "-o", "json").out)["items"]
    (refused,) = [row for row in rows if "-tuned-" in row["name"]]
    assert refused["causes"][0] == {"field": "steps.tuned.resources.gpus", "kubernetes": limit, "message": "must be whole"}
