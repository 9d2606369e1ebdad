"""What is told of the rows before anything is trained on them: the first of them, shortened, and how often each label occurs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from modelyard.steps import Finetune
from modelyard.yard import Yard
from modelyard_jobs import finetune
from modelyard_jobs.finetune import preview
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.metrics.boxes import Boxes
from modelyard_jobs.tasks.tags import Tagged
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import tiny_model


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """told(values, truths, labels) -> (the rows that are shown, the counts that are kept); every other row is trained on."""

    def tell(values: Sequence[Any], truths: Sequence[Any], labels: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, int] | None]:
        context = FakeContext(Finetune(model="m", data="d"), {}, Yard.open(tmp_path / "yard"), tmp_path / "work")
        rows = datasets.Dataset.from_dict({"what": [value for value in values for _ in range(2)]})
        preview.tell(context, Examples(rows, {"text": "what"}, np.arange(1, len(rows), 2), truths), labels)
        shown = [message for message in context.said if message.get("event") == "training row"]
        return [{name: message[name] for name in ("row", "text")} for message in shown], context.details.get("label_counts")

    return tell


def test_the_first_rows_are_shown_and_all_labels_are_counted(told: Any) -> None:
    shown, counts = told(["a", "b" * 500, "c", "d"], np.array([1, 1, 0, 1]), ["bad", "good", "never"])
    assert shown == [{"row": 1, "text": "a"}, {"row": 3, "text": "b" * preview.LETTERS + "…"}, {"row": 5, "text": "c"}]
    assert counts == {"bad": 1, "good": 3, "never": 0}


def test_of_words_and_of_boxes_each_one_counts(told: Any) -> None:
    tagged = [Tagged(np.array([0, 1, 1]), ((0, 1), (2, 3), (4, 5))), Tagged(np.array([-1, 0]), ((0, 1), (2, 3)))]
    shown, counts = told([["x", "y", "z"], ["u", "v"]], tagged, ["O", "B-PER"])
    assert shown[0]["text"] == "x y z"
    assert counts == {"O": 2, "B-PER": 2}, "a word that no label is known of counts for none"
    boxes = [Boxes.of([[0, 0, 1, 1], [1, 1, 2, 2]], [1, 1]), Boxes.of([], [])]
    assert told(["a.png", "b.png"], boxes, ["cat", "dog"])[1] == {"cat": 0, "dog": 2}
    assert told(["a.png"], [Boxes.of([], [])], ["cat", "dog"])[1] == {"cat": 0, "dog": 0}


def test_what_has_no_labels_has_no_counts_and_an_image_no_bytes(told: Any) -> None:
    shown, counts = told([{"bytes": b"\x89PNG", "path": "cat/1.png"}, {"bytes": b"\x89PNG", "path": None}], [None, None], [])
    assert [row["text"] for row in shown] == ["cat/1.png", "an image"]
    assert counts is None


def test_it_is_told_before_the_first_step(tmp_path: Path) -> None:
    yard = Yard.open(tmp_path / "yard")
    rows = "".join(json.dumps({"text": f"a {word} film {number}", "label": word}) + "\n" for number in range(20) for word in ("bad", "good"))
    inputs = {"model": artifact(yard, "model", tiny_model(tmp_path / "base", spread=0.1)), "data": artifact(yard, "dataset", {"train.jsonl": rows})}
    context = FakeContext(Finetune(model="m", data="d", max_steps=1, max_length=16), inputs, yard, tmp_path / "work")
    finetune.run(context)
    kinds = [message.get("event") or message["type"] for message in context.said]
    assert kinds.index("training row") < kinds.index("labels") < kinds.index("progress")
    counts = context.details["label_counts"]
    assert set(counts) == {"bad", "good"}
    assert sum(counts.values()) == context.details["rows"]["train"]
