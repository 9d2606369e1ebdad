"""From rows to a hub by the command line: trained, measured, exported, promoted, published; and what was published loads without us."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from modelyard import hubs, refs
from modelyard.hubs import Hub, Listing
from tests.steps.yardstick import GOOD, Place, make_hub

TO = refs.parse("modelscope://me/reviews")
MORE = """
  score: {{evaluate: {{model: tuned, data: rows, max_length: 64}}}}
  onnx: {{export: {{model: tuned, parity: rows, rows: 64, max_length: 64}}}}
  champion: {{promote: {{model: tuned, to: yard://models/reviews@champion, gate: {{metrics: score, at_least: {{accuracy: {floor}}}}}}}}}
  release: {{publish: {{model: {model}, to: modelscope://me/reviews, gate: {{metrics: score, at_least: {{accuracy: {floor}}}}}}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("place"), make_hub(tmp_path_factory.mktemp("hub")))


@pytest.fixture(scope="module")
def released(place: Place) -> dict[str, Any]:
    """The result of the step, after it was first refused."""
    path = place.write(more=MORE.format(floor=1.01, model="onnx"))
    _, errors = place.modelyard("run", str(path), code=81)
    assert "accuracy" in errors
    assert "at least 1.01" in errors
    assert not hub_folder(place).joinpath(".modelyard").exists()
    assert not hub_folder(place).joinpath("me").exists()
    assert not list(place.root.glob(".yard/refs/**/*.json"))
    gated = [
        json.loads(path.read_text())["result"]["gate"]
        for path in place.root.glob(".yard/runs/*/steps/*/1/outcome.json")
        if "gate" in path.read_text()
    ]
    assert gated
    assert all(each["passed"] is False and each["lines"][0]["at_least"] == 1.01 for each in gated)

    place.modelyard("run", str(place.write(more=MORE.format(floor=0.75, model="onnx"))))
    return result(place, "release")


def hub_folder(place: Place) -> Path:
    return Path(re.search(r'modelscope = "(.+)"', (place.root / "modelyard.toml").read_text())[1])


def opened(place: Place) -> tuple[Hub, Listing]:
    hub = hubs.open_hub("modelscope", {"modelscope": str(hub_folder(place))})
    return hub, hub.resolve(TO)


def result(place: Place, step: str) -> dict[str, Any]:
    folder = place.root / ".yard/runs" / place.runs()[-1] / "steps" / step / "1"
    return json.loads((folder / "outcome.json").read_text())["result"]


@pytest.fixture(scope="module")
def folder(place: Place, released: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was published, downloaded."""
    folder = tmp_path_factory.mktemp("download")
    hub, listing = opened(place)
    for file in listing.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(hub.read(listing, file)))
    return folder


def test_the_model_is_published_with_its_export_and_promoted(place: Place, released: dict[str, Any]) -> None:
    _, listing = opened(place)
    paths = {file.path for file in listing.files}
    assert {"README.md", "configuration.json", "config.json", "model.safetensors", "tokenizer.json", "onnx/model.onnx", "onnx/export.json"} <= paths
    assert {file["path"]: file["sha256"] for file in released["files"]} == {file.path: file.sha256 for file in listing.files}
    assert released["gate"]["lines"][0]["value"] > 0.75
    assert released["revision"] == listing.revision
    status = json.loads((place.root / ".yard/runs" / place.runs()[-1] / "status.json").read_text())
    champion = json.loads((place.root / ".yard/refs/models/reviews@champion.json").read_text())
    assert champion["digest"] == status["steps"]["tuned"]["artifact"] == result(place, "champion")["digest"]
    assert champion["source"] == f"run {place.runs()[-1]}, step champion"


def test_a_second_run_finds_it_unchanged(place: Place, released: dict[str, Any]) -> None:
    place.modelyard("run", str(place.root / "reviews.yaml"))
    assert result(place, "release") == {**released, "unchanged": True, "visibility": "as it was"}
    assert result(place, "champion")["unchanged"] is True


def test_what_was_published_gives_the_labels_that_were_measured(place: Place, folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    status = json.loads((place.root / ".yard/runs" / place.runs()[-1] / "status.json").read_text())
    metrics = place.root / ".yard/artifacts" / status["steps"]["score"]["artifact"] / "files"
    measured = [json.loads(line)["predicted"] for line in (metrics / "predictions.jsonl").read_text().splitlines()]
    rows = [line.split(",")[0] for line in (hub_folder(place) / "datasets/tiny/reviews/test.csv").read_text().splitlines()[1:]]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    logits = model(**tokenizer(rows, padding=True, truncation=True, max_length=64, return_tensors="pt")).logits
    assert [model.config.id2label[number] for number in logits.argmax(-1).tolist()] == measured


def test_what_the_card_says_to_type_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    hub = types.ModuleType("modelscope")
    hub.snapshot_download = lambda name: asked.append(name) or str(folder)
    monkeypatch.setitem(sys.modules, "modelscope", hub)
    blocks = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    said = []
    for block in blocks:
        typed = block.replace('"a text"', f'"{GOOD[0]} film"').replace('"another one"', '"dull dull bad"')
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(typed, "README.md", "exec"), {})
        said.append(output.getvalue().strip())
    assert said == ["['positive', 'negative']"] * 2
    assert asked == ["me/reviews"] * 2


def test_the_card_names_its_sources_and_no_place(place: Place, folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for part in (
        "modelscope://tiny/base",
        "modelscope://datasets/tiny/reviews",
        "| `accuracy` |",
        "| `learning_rate` | `0.003` |",
        "licence is not known",
    ):
        assert part in text, part
    for path in [*folder.rglob("*.json"), folder / "README.md", folder / "onnx/model.onnx"]:
        for place_name in (place.root, hub_folder(place), os.uname().nodename if len(os.uname().nodename) > 6 else place.root):
            assert str(place_name).encode() not in path.read_bytes(), path


def test_metrics_of_another_model_do_not_publish(place: Place, released: dict[str, Any]) -> None:
    before = opened(place)[1]
    _, errors = place.modelyard("run", str(place.write(more=MORE.format(floor=0.1, model="modelscope://tiny/base"))), code=81)
    assert "another model" in errors
    assert opened(place)[1] == before
