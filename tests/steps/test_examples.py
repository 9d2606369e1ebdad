"""The tutorial's examples as they stand, against a served hub that has models of a few kilobytes and a few rows under the real names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelyard.steps import MEASURED
from tests.hubs.serving import TOKEN, serving
from tests.steps import tutorial
from tests.steps.tutorial import ANSWER, LEAVES, NEWS
from tests.steps.yardstick import Place

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = ("imdb-distilbert", "quickstart", "retrain")
"""Those that have tests of their own."""


class Ran(Place):
    """An example that has run to its end."""

    def shown(self) -> Any:
        return self.json("show")

    def files(self, step: str) -> Path:
        return self.root / ".yard/artifacts" / self.shown()["steps"][step]["artifact"] / "files"

    def rows(self, step: str) -> list[dict[str, Any]]:
        return [json.loads(line) for path in sorted((self.files(step) / "data").glob("*.jsonl")) for line in path.read_text().splitlines()]

    def metrics(self, step: str = "score") -> Any:
        return json.loads((self.files(step) / "metrics.json").read_text())


def ner_found(ran: Ran) -> None:
    metrics = ran.metrics()
    assert metrics["task"] == "token-classification"
    assert metrics["rows"]["evaluated"] == 60
    rows = ran.rows("entities")
    assert len(rows) == 60
    assert any(row["spans"] for row in rows)
    assert all(row["error"] is None for row in rows)


def zero_shot_found(ran: Ran) -> None:
    assert ran.metrics()["labels"] == list(NEWS)
    rows = ran.rows("sorted")
    assert {row["label"] for row in rows} <= set(NEWS)
    assert len({row["label"] for row in rows}) > 1
    assert all(set(row["scores"]) == set(NEWS) for row in rows)


def generation_found(ran: Ran) -> None:
    assert ran.metrics()["metrics"]["token_accuracy"]["value"] > 0.9
    answers = [row["answer"] for row in ran.rows("answers")]
    assert len(answers) == 26
    assert answers.count(ANSWER) > 13  # it was not taught for long


def fill_mask_found(ran: Ran) -> None:
    assert set(ran.metrics()["metrics"]) == {"token_accuracy", "pseudo_log_likelihood", "pseudo_perplexity"}
    rows = ran.rows("filled")
    assert len(rows) == 12
    assert all([len(mask) for mask in row["masks"]] == [5, 5] and "[MASK]" not in row["filled"] for row in rows)


def leaves_found(ran: Ran) -> None:
    assert ran.metrics()["metrics"]["accuracy"]["value"] >= 0.9
    rows = ran.rows("answers")
    assert len(rows) == 30
    assert all(row["label"] in LEAVES for row in rows)
    assert ran.shown()["results"]["champion"]["to"] == "yard://models/bean-leaves@champion"


def clothing_found(ran: Ran) -> None:
    assert ran.metrics()["task"] == "object-detection"
    assert len(ran.rows("found")) == 8
    pictures = sorted((ran.files("found") / "pictures").iterdir())
    assert len(pictures) == 8
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def chat_found(ran: Ran) -> None:
    assert ran.metrics()["metrics"]["token_accuracy"]["difference"]["value"] > -0.05
    answers = [row["answer"] for row in ran.rows("answers")]
    assert len(answers) == 26
    assert answers.count(ANSWER) > 13  # it was not taught for long
    assert (ran.files("tuned") / "adapter").is_dir()


RUN: Mapping[str, tuple[Callable[[Path], None], Callable[[Ran], None]]] = {
    "ner": (tutorial.ner, ner_found),
    "zero-shot": (tutorial.zero_shot, zero_shot_found),
    "generation": (tutorial.chats, generation_found),
    "fill-mask": (tutorial.fill_mask, fill_mask_found),
    "image-classification": (tutorial.leaves, leaves_found),
    "detection": (tutorial.clothing, clothing_found),
    "chat-lora": (tutorial.chats, chat_found),
}
"""Example -> what makes its hub, and what has to come of it."""
LONG = ("zero-shot", "fill-mask", "image-classification", "detection", "chat-lora")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in RUN])
def test_the_example_runs_as_it_stands(tmp_path: Path, name: str) -> None:
    make, look = RUN[name]
    make(tmp_path / "hub")
    ran = Ran(tmp_path / "here")
    ran.root.mkdir()
    with serving(tmp_path / "hub", tmp_path / "served") as hub:
        environ = {"MODELYARD_HUBS_MODELSCOPE": hub.url, "MODELYARD_HUBS_HUGGINGFACE": hub.url, "MODELSCOPE_API_TOKEN": TOKEN, "HF_TOKEN": TOKEN}
        ran.modelyard("run", str(EXAMPLES / f"{name}.yaml"), **environ)
    assert set(ran.states().values()) == {"done"}
    metrics = ran.metrics()
    names = MEASURED[metrics["task"]]
    assert (metrics["main"], metrics["metrics"].keys() - set(names)) == (names[0], set())
    look(ran)


def test_every_example_is_run_somewhere() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*RUN, *HERE}
