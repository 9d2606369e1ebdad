"""examples/retrain.yaml as it stands, after examples/quickstart.yaml, against a folder hub that has a small model and rows under the real names."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard import hubs, refs
from modelyard.yard import Yard
from tests.steps.tiny import tiny_model
from tests.steps.yardstick import Place, rows

EXAMPLES = Path(__file__).parents[2] / "examples"
CHAMPION = "yard://models/movie-sentiment@champion"
LABELS = ["negative", "positive"]


def write_model(folder: Path) -> None:
    """A small BERT that has already seen such reviews: the real one learns from 1000 rows because it knows the language."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder.mkdir(parents=True)
    tiny_model(folder, LABELS, spread=0.02)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).train(), AutoTokenizer.from_pretrained(folder)
    read = list(csv.DictReader(io.StringIO(rows(256, 9))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for start in range(0, 40 * 32, 32):
        chosen = [read[place % len(read)] for place in range(start, start + 32)]
        batch = tokenizer([row["text"] for row in chosen], padding=True, truncation=True, max_length=64, return_tensors="pt")
        model(**batch, labels=torch.tensor([LABELS.index(row["label"]) for row in chosen])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\nA small one.\n")


class Nightly(Place):
    """A place where the quickstart has promoted the first champion."""

    def champion(self) -> str:
        return Yard.open(self.root / ".yard").refs.get(CHAMPION).digest

    def metrics(self, digest: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        folder = self.root / ".yard/artifacts" / digest / "files"
        return json.loads((folder / "metrics.json").read_text()), [json.loads(line) for line in (folder / "predictions.jsonl").open()]

    def retrain(self, code: int = 0, path: Path = EXAMPLES / "retrain.yaml") -> dict[str, Any]:
        """The run as `show` has it."""
        self.modelyard("run", str(path), code=code)
        shown: dict[str, Any] = json.loads(self.modelyard("show", "-o", "json")[0])
        return shown


def published(hub: Path) -> tuple[str, str]:
    """(revision, card) of what the hub has."""
    opened = hubs.open_hub("modelscope", {"modelscope": str(hub)})
    listing = opened.resolve(refs.parse("modelscope://demo/movie-sentiment"))
    card = next(file for file in listing.files if file.path == "README.md")
    return listing.revision, b"".join(opened.read(listing, card)).decode()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub = tmp_path_factory.mktemp("hub")
    write_model(hub / "sentence-transformers" / "all-MiniLM-L6-v2")
    data = hub / "datasets" / "hutto" / "movie-reviews"
    data.mkdir(parents=True)
    (data / "train.csv").write_text(rows(400, 1))
    (data / "test.csv").write_text(rows(200, 2))
    return hub


@pytest.fixture(scope="module")
def place(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Nightly:
    place = Nightly(Place.make(tmp_path_factory.mktemp("place"), hub).root)
    place.modelyard("run", str(EXAMPLES / "quickstart.yaml"))
    return place


@pytest.mark.timeout(600)
@pytest.mark.slow  # half a dozen whole pipelines
def test_the_champion_is_replaced_by_what_is_no_worse_and_by_nothing_else(place: Nightly, hub: Path) -> None:
    first = place.champion()

    shown = place.retrain()
    steps = shown["steps"]
    second = place.champion()
    assert {step["state"] for step in steps.values()} == {"done", "reused"}
    assert second == steps["candidate"]["artifact"] != first
    assert (shown["results"]["champion"]["digest"], shown["results"]["champion"]["previous"]) == (second, first)
    assert [line["difference"] for line in shown["results"]["champion"]["gate"]["lines"]] == [False, True]
    document, predictions = place.metrics(steps["score"]["artifact"])
    assert document["against"]["digests"] == {"model": second, "against": first}
    right, was_right = (np.array([record[name] == record["true"] for record in predictions], dtype=int) for name in ("predicted", "against"))
    assert document["metrics"]["accuracy"]["difference"]["value"] == pytest.approx((right - was_right).mean(), abs=1e-12)
    assert shown["metrics"]["score"]["accuracy"]["difference"]["n"] == 200
    listing, card = published(hub)
    assert f"`{second}`" in card
    assert CHAMPION in card
    assert "licence, as its `README.md` says, is `apache-2.0`" in card
    assert listing == shown["results"]["release"]["revision"]

    out, _ = place.modelyard("promote", "--to", CHAMPION, "--rollback")
    assert place.champion() == first
    assert first[:12] in out

    again = place.retrain()  # what the name stands for has been learned from before
    assert {again["steps"][name]["state"] for name in ("reviews", "candidate", "score", "onnx")} == {"reused"}
    assert place.champion() == second
    assert again["results"]["release"]["unchanged"] is True

    third = place.retrain()  # from the new champion: other work
    assert third["steps"]["candidate"]["state"] == third["steps"]["score"]["state"] == "done"
    assert third["steps"]["candidate"]["artifact"] not in (first, second)
    assert place.champion() == third["steps"]["candidate"]["artifact"]

    before = (place.root / ".yard/refs/models/movie-sentiment@champion.json").read_bytes()
    sent = published(hub)
    train = hub / "datasets/hutto/movie-reviews/train.csv"
    swapped = train.read_text().replace(",negative", ",was").replace(",positive", ",negative").replace(",was", ",positive")
    train.write_text(swapped)
    worse, text = place.root / "worse.yaml", (EXAMPLES / "retrain.yaml").read_text()
    assert "learning_rate: 5e-5" in text
    worse.write_text(text.replace("learning_rate: 5e-5", "learning_rate: 3e-3").replace("epochs: 1", "epochs: 3"))
    refused = place.retrain(code=81, path=worse)
    assert refused["steps"]["candidate"]["state"] == "done"
    assert refused["metrics"]["score"]["accuracy"]["difference"]["high"] < -0.01
    assert refused["metrics"]["score"]["accuracy"]["difference"]["value"] < -0.3
    assert refused["results"]["champion"]["gate"]["passed"] is False
    assert (place.root / ".yard/refs/models/movie-sentiment@champion.json").read_bytes() == before
    assert published(hub) == sent

    place.modelyard("report", "--out", str(place.root / "report.html"), code=0)
    page = (place.root / "report.html").read_text()
    assert "Worse than the other model" in page
    assert "broken" in page


@pytest.mark.slow
def test_without_a_champion_there_is_nothing_to_learn_on_from(hub: Path, tmp_path: Path) -> None:
    place = Place.make(tmp_path, hub)
    _, errors = place.modelyard("run", str(EXAMPLES / "retrain.yaml"), code=66)
    assert "models/movie-sentiment@champion" in errors
