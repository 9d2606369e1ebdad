"""What the steps write is what the report reads: the shapes against the very values, where those need no torch."""

from __future__ import annotations

from dataclasses import asdict, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard import gate
from modelyard.hubs import Found
from modelyard.refs import HubRef
from modelyard.report import shapes
from modelyard.steps import Gate
from modelyard_jobs import promote, search
from modelyard_jobs.metrics import boxes, calibration, classification, interval, slices, spans
from modelyard_jobs.preflight.row import Row


def read(shape: type[shapes.AnyShape], value: Any) -> shapes.AnyShape:
    missing: list[str] = []
    found = shapes.read(shape, value, "here", missing)
    assert missing == []
    assert found is not None
    return found


def test_metrics() -> None:
    made = asdict(classification.classification(np.array([[8, 2], [1, 9]]), ["a", "b"], seed=1))
    found = read(shapes.Evaluation, made)
    assert found.metrics["accuracy"].value == 0.85
    assert found.confusion == ((8, 2), (1, 9))
    assert [scores.label for scores in found.classes] == ["a", "b"]
    assert found.baseline
    assert (found.baseline.label, found.baseline.accuracy.n) == ("a", 20)


@pytest.mark.parametrize("floor", [0.5, 0.9])
def test_a_gate(floor: float) -> None:
    asked = Gate(metrics="score", at_least={"accuracy": floor}, not_worse_than_champion=0.01, sure=True)
    less = asdict(interval.Metric(0.02, -0.005, 0.04, 100, "bootstrap"))
    verdict = gate.judge({"accuracy": {**asdict(interval.wilson(80, 100)), "difference": less}}, asked, main="accuracy")
    found = read(shapes.Release, {"to": "hf://me/m", "gate": verdict.record()})
    assert found.gate
    assert found.gate.passed is (floor == 0.5)
    assert (found.gate.lines[0].at_least, found.gate.lines[0].n, found.gate.lines[0].sure) == (floor, 100, True)
    assert [(line.difference, line.passed) for line in found.gate.lines] == [(False, floor == 0.5), (True, True)]


def test_a_promotion() -> None:
    made = promote._result("yard://models/a@champion", SimpleNamespace(digest="d" * 64), None, unchanged=False, gate=None)  # type: ignore[arg-type]
    found = read(shapes.Release, made)
    assert (found.digest, found.previous, found.gate) == ("d" * 64, None, None)


def test_preflight() -> None:
    found = read(shapes.Preflight, {"verdict": "ok", "rows": [Row("python", "3.11", ">= 3.11", "new enough").record()]})
    assert found.rows[0].found == "3.11"


def test_search() -> None:
    row = search._row(Found(HubRef("hf", "model", "me", "m"), size=5, downloads=None, updated="2024-05-01", gated=True))
    assert {field.name for field in fields(Found)} == set(row)
    found = read(shapes.Search, {"query": {"query": "m", "task": None}, "found": [row], "unanswered": [{"hub": "modelscope", "what": "silent"}]})
    assert (found.found[0].ref, found.found[0].gated, found.unanswered[0].hub) == ("hf://me/m", True, "modelscope")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None, "0.5.", {}])
def test_no_number_is_no_value(wrong: object) -> None:
    missing: list[str] = []
    assert shapes.read(shapes.Interval, {"value": wrong, "low": 0, "high": 1}, "here", missing) is None
    assert missing
    assert missing[0].startswith("here: not in a form that this report reads (value: ")


def test_calibration_and_slices() -> None:
    found = calibration.calibration(np.array([0.9, 0.8, 0.6, 0.55]), np.array([True, True, False, True]), seed=1)
    read_back = read(shapes.Calibration, asdict(found))
    assert [(each.low, each.n) for each in read_back.bins] == [(each.low, each.n) for each in found.bins]
    assert read_back.ece.value == found.ece.value
    by_length = slices.by_length(np.array([3, 4, 9, 9]), np.array([True, False, True, True]), unit="tokens")
    by_value = slices.by_value("shop", ["a", "b", "b", None], np.array([True, False, True, True]))
    for made in (by_length, by_value):
        assert [(part.name, part.n) for part in read(shapes.Slice, asdict(made)).parts] == [(part.name, part.n) for part in made.parts]


def test_spans() -> None:
    ids = [np.array([0, 1, 2, 0]), np.array([1, 2, 0, 0])]
    made = spans.spanned(["O", "B-PER", "I-PER"], ids, [ids[0], np.array([1, 0, 0, 0])], 1)
    (scores,) = read(shapes.Evaluation, {"metrics": {}, "classes": [asdict(each) for each in made.types]}).classes
    assert isinstance(scores, shapes.ClassScores)
    assert (scores.label, scores.support, scores.recall.value) == ("PER", 2, 0.5)


def test_boxes() -> None:
    one = boxes.Boxes.of([[0, 0, 10, 10]], [0])
    made = boxes.measure(boxes.match([one, one], [boxes.Boxes.of([[0, 0, 10, 10]], [0], [0.9]), boxes.Boxes.of([], [])], 1), ["bag"], 1)
    document = {"metrics": {name: asdict(each) for name, each in made.metrics.items()}, "classes": [asdict(each) for each in made.classes]}
    found = read(shapes.Evaluation, {**document, "curves": [asdict(each) for each in made.curves]})
    (scores,) = found.classes
    assert isinstance(scores, shapes.Detected)
    assert (scores.label, scores.boxes, scores.images) == ("bag", 2, 2)
    assert found.curves[0].precision[0] == 1.0
    assert found.curves[0].precision[-1] == 0.0


@pytest.mark.parametrize(
    ("compared", "kind"),
    [
        ({"true": "a", "predicted": "b", "probabilities": [0.1, 0.9]}, str),
        ({"true": ["cat"], "predicted": ["dog"], "loss": 2.5}, tuple),
        ({"true": [], "predicted": [{"label": "PER", "start": 0, "end": 3, "words": [0, 1]}]}, shapes.Span),
        ({"true": [], "predicted": [{"category": "bag", "score": 0.9, "bbox": [0, 0, 5, 5]}]}, shapes.Box),
        ({"tokens": 12, "predicted": {"loss": 2.5, "token_accuracy": 0.25}}, shapes.Followed),
    ],
)
def test_rows_of_every_task(compared: dict[str, Any], kind: type) -> None:
    case = read(shapes.Case, {"row": 3, "text": "said", **compared})
    found = case.predicted
    assert case.loss == compared.get("loss")
    assert isinstance(found[0] if isinstance(found, tuple) and kind is not tuple else found, kind)
