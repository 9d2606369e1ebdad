"""The tutorial's examples as they stand, on the cluster, in the project's images: small models under the real names, from a hub there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import ROOT, Site, fill, site
from tests.steps.tutorial import MAKERS

EXAMPLES = ("ner", "zero-shot", "generation", "fill-mask", "image-classification", "detection", "chat-lora")
MEASURED = {
    "ner": "f1",
    "zero-shot": "accuracy",
    "generation": "log_likelihood",
    "fill-mask": "token_accuracy",
    "image-classification": "accuracy",
    "detection": "map",
    "chat-lora": "log_likelihood",
}
"""Example -> the metric that its evaluation has."""


@pytest.fixture(scope="module")
def made(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hub = tmp_path_factory.mktemp("tutorial")
    for make in MAKERS:
        make(hub)
    with site(local_cluster, tmp_path_factory.mktemp("home")) as there:
        fill(there.hub, hub)
        yield there


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs_there_as_it_stands(made: Site, name: str) -> None:
    shown = made.json("run", str(ROOT / "examples" / f"{name}.yaml"))
    assert {step["state"] for step in shown["steps"].values()} <= {"done", "reused"}  # two of them fetch the same
    assert MEASURED[name] in shown["metrics"]["score"]
    page = made.home / f"{name}.html"
    made.modelyard("report", shown["run"], "--out", str(page))
    assert page.read_text().lower().startswith("<!doctype html>")
