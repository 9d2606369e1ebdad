"""export by the command line: what is committed, under which exit code, and what runs it."""

from __future__ import annotations

import json

import pytest

from tests.steps.yardstick import Place, make_hub

EXPORT = """
  onnx: {export: {model: tuned, parity: rows, rows: 60, max_length: 64}}
  there: {infer: {model: onnx, data: rows, split: test, max_length: 64}}
  here: {infer: {model: tuned, data: rows, split: test, max_length: 64}}
"""
UNTRAINED = """name: untrained
resources: {cpu: 1}
steps:
  rows: {fetch: {dataset: modelscope://datasets/tiny/reviews}}
  onnx: {export: {model: modelscope://tiny/base, parity: rows}}
"""


@pytest.fixture
def place(tmp_path):
    return Place.make(tmp_path / "place", make_hub(tmp_path / "hub"))


def kinds(place):
    return sorted(
        json.loads((place.root / ".yard/artifacts" / digest / "manifest.json").read_text())["format"] or "data" for digest in place.artifacts()
    )


@pytest.mark.slow
def test_an_export_is_committed_used_by_its_format_and_reused(place):
    place.write("epochs: 2, batch_size: 16", EXPORT)
    place.modelyard("run", "reviews.yaml")
    assert set(place.states().values()) == {"done"}
    assert kinds(place).count("onnx") == 1
    shown = place.json("show")["steps"]
    labels = {}
    for name, engine in (("there", "onnx"), ("here", "torch")):
        folder = place.root / ".yard/artifacts" / shown[name]["artifact"] / "files/data"
        labels[name] = [json.loads(line)["label"] for path in sorted(folder.iterdir()) for line in path.open()]
        decided = [line for line in place.log(place.runs()[-1], name) if line["event"] == "decided" and line["name"] == "engine"]
        assert [line["value"] for line in decided] == [engine]
    assert labels["there"] == labels["here"]
    assert len(labels["there"]) == 100
    place.modelyard("run", "reviews.yaml")
    assert set(place.states().values()) == {"reused"}


@pytest.mark.slow
def test_an_export_that_fails_commits_nothing(place):
    (place.root / "untrained.yaml").write_text(UNTRAINED)
    _, errors = place.modelyard("run", "untrained.yaml", code=65)
    assert "no trained head" in errors
    assert kinds(place) == ["data", "safetensors"]
