"""The same pipeline in two pods and on this machine: the same model, the same metrics; and the same run whichever way it was submitted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cluster.site import PORT, ROOT, Site

PIPELINE = """
name: small
resources: {cpu: 1, memory: 3Gi}
steps:
  reviews: {fetch: {dataset: modelscope://datasets/hutto/movie-reviews}}
  tuned:
    finetune:
      model: modelscope://sentence-transformers/all-MiniLM-L6-v2
      data: reviews
      epochs: 1
      max_length: 32
      learning_rate: 1e-4
      train_rows: 96
  score: {evaluate: {model: tuned, data: reviews, split: test, rows: 200, max_length: 32}}
"""


@pytest.fixture(scope="module")
def made(demo_site: Site) -> Site:
    return demo_site


@pytest.fixture(scope="module")
def first(made: Site) -> dict[str, Any]:
    return dict(made.json("run", made.write("small.yaml", PIPELINE)))


def test_two_pods_make_the_same_model(made: Site, first: dict[str, Any]) -> None:
    again = made.json("run", made.write("small.yaml", PIPELINE), "--force=tuned")
    assert again["run"] != first["run"]
    assert again["steps"]["tuned"]["state"] == "done"
    assert again["steps"]["tuned"]["artifact"] == first["steps"]["tuned"]["artifact"]
    assert again["steps"]["score"]["state"] == "reused"


def test_this_machine_measures_the_same(made: Site, first: dict[str, Any]) -> None:
    address = made.cluster.get("service", "hub", namespace=made.namespace)["spec"]["clusterIP"]
    here = {"MODELYARD_ON": "local", "MODELYARD_YARD": str(made.home / "yard"), "MODELYARD_HUBS_MODELSCOPE": f"http://{address}:{PORT}"}
    local = made.json("run", made.write("small.yaml", PIPELINE), **here)
    mine, theirs = local["metrics"]["score"], first["metrics"]["score"]
    assert mine.keys() == theirs.keys()
    for name, metric in mine.items():
        for value in ("value", "low", "high"):
            assert metric[value] == pytest.approx(theirs[name][value], abs=1e-6), (name, value)
    assert local["steps"]["reviews"]["artifact"] == first["steps"]["reviews"]["artifact"]


def test_what_render_prints_runs_by_kubectl(made: Site, first: dict[str, Any]) -> None:
    text = PIPELINE.replace("name: small", "name: by-kubectl")
    manifests = made.modelyard("render", made.write("by-kubectl.yaml", text)).stdout
    made.kubectl("apply", "-f", "-", stdin=manifests)
    run = next(job["metadata"]["name"] for job in made.jobs("driver") if job["metadata"]["name"].startswith("by-kubectl-"))
    made.modelyard("wait", run)
    shown = made.json("show", run)
    assert shown["metrics"] == first["metrics"]
    # Keys do not hold the pipeline's name: all of it was known.
    assert {step["state"] for step in shown["steps"].values()} == {"reused"}


def test_a_lone_step_needs_no_driver(made: Site, first: dict[str, Any]) -> None:
    """The frame fetches both refs, and finds that what it would make is known."""
    lone = yaml.safe_load(PIPELINE)
    step = lone["steps"]["tuned"]["finetune"]
    lone |= {"name": "lone", "steps": {"tuned": {"finetune": step | {"data": "modelscope://datasets/hutto/movie-reviews"}}}}
    manifest = made.modelyard("render", made.write("lone.yaml", yaml.safe_dump(lone)), "--driver", "here").stdout
    assert "serviceAccountName" not in manifest
    made.kubectl("apply", "-f", "-", stdin=manifest)
    name = next(job["metadata"]["name"] for job in made.jobs() if job["metadata"]["name"].startswith("lone-"))
    job = made.cluster.wait("the Job ends", lambda: _ended(made, name), within=180)
    assert job["status"].get("succeeded") == 1
    (pod,) = made.cluster.items("pods", namespace=made.namespace, selector=f"job-name={name}")
    message = json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    assert (message["artifact"], message["reused"]) == (first["steps"]["tuned"]["artifact"], True)


def test_a_run_driven_from_here_needs_no_role(made: Site, first: dict[str, Any]) -> None:
    made.kubectl("delete", "rolebinding", "--all")
    try:
        here = made.json("run", made.write("here.yaml", PIPELINE.replace("name: small", "name: here")), "--driver", "here")
    finally:
        made.kubectl("apply", "-f", str(ROOT / "examples" / "cluster" / "access.yaml"))
    assert {name: step["artifact"] for name, step in here["steps"].items()} == {name: step["artifact"] for name, step in first["steps"].items()}
    assert len([job for job in made.jobs("driver") if job["metadata"]["name"].startswith("here-")]) == 0


def _ended(made: Site, name: str) -> dict[str, Any] | None:
    job = made.cluster.get("job", name, namespace=made.namespace)
    return job if any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions", [])) else None
