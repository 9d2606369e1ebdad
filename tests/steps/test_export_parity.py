"""What makes two engines' answers equal, in each task's own terms."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from modelyard.errors import BadData
from modelyard_jobs.export.parity import Comparison, same_boxes

RNG = np.random.default_rng(0)


def compared(unit: str, reference: dict[str, Any], found: dict[str, Any], mask: Any = None) -> Any:
    comparison = Comparison(unit)
    comparison.add(reference, found, mask)
    return comparison.result(len(next(iter(reference.values()))))


def test_tokens_are_answers_and_padding_is_none() -> None:
    logits = RNG.normal(size=(2, 4, 5)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    wild = logits.copy()
    wild[1, 2:] = 1e9
    found = compared("token", {"logits": logits}, {"logits": wild}, mask)
    assert (found.rows, found.answers, found.agreement, found.max_abs) == (2, 6, 1.0, 0.0)
    wild[1, 1] = -wild[1, 1]
    found = compared("token", {"logits": logits}, {"logits": wild}, mask)
    assert found.agreement == pytest.approx(5 / 6)
    with pytest.raises(BadData, match="83.3% of the tokens are equal"):
        found.enforce()


def test_batches_add_up() -> None:
    logits = RNG.normal(size=(6, 3)).astype(np.float32)
    other = logits + np.float32(1e-5)
    whole, parts = Comparison("label"), Comparison("label")
    whole.add({"logits": logits}, {"logits": other}, None)
    for start in (0, 2, 4):
        parts.add({"logits": logits[start : start + 2]}, {"logits": other[start : start + 2]}, None)
    assert whole.result(6) == parts.result(6)
    parts.add({"logits": logits * 100}, {"logits": logits * 100}, None, counted=False)
    assert parts.result(6).answers == 6
    assert parts.result(6).scale > 50, "shapes widen the scale, and are no answers"


def test_answers_over_a_large_vocabulary_are_compared_without_copies_of_them() -> None:
    logits = RNG.normal(size=(1, 256, 60_000)).astype(np.float32)
    other, mask = logits.copy(), np.ones((1, 256), dtype=np.int64)
    other[0, 7, 3] += 50
    other[0, 255, 59_999] -= 70
    comparison = Comparison("token")
    tracemalloc.start()
    comparison.add({"logits": logits}, {"logits": other}, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * logits.nbytes, "both without padding, and what is compared at once"
    found = comparison.result(1)
    assert (found.max_abs, found.answers, found.agreement) == (pytest.approx(70), 256, 255 / 256)
    assert found.scale == np.abs(logits).max()


def queries(images: int = 2, count: int = 8) -> dict[str, Any]:
    return {"logits": RNG.normal(size=(images, count, 3)).astype(np.float32), "pred_boxes": RNG.random((images, count, 4)).astype(np.float32)}


def test_queries_may_come_in_another_order() -> None:
    one = queries()
    shuffled = {name: values[:, ::-1].copy() for name, values in one.items()}
    found = compared("box", one, shuffled)
    assert found.max_abs == 0.0
    assert found.holds


@pytest.mark.parametrize(("name", "by"), [("logits", 0.01), ("pred_boxes", 0.01)])
def test_a_query_that_says_something_else_is_found(name: str, by: float) -> None:
    one = queries()
    other = {key: values.copy() for key, values in one.items()}
    surest = one["logits"][0].max(-1).argmax()
    other[name][0, surest] += by
    found = compared("box", one, other)
    assert found.output == name
    with pytest.raises(BadData, match=f"{name} differ by"):
        found.enforce()


def answer(*boxes: tuple[float, ...]) -> dict[str, Any]:
    """Boxes as (x, y, width, height, label, score)."""
    return {"boxes": [box[:4] for box in boxes], "labels": [box[4] for box in boxes], "scores": [box[5] for box in boxes]}


BOX = (10, 10, 40, 40, 1, 0.9)


@pytest.mark.parametrize(
    ("found", "counted"),
    [
        (answer(BOX), (1, 1)),
        (answer((10.4, 10, 40, 40, 1, 0.9)), (1, 1)),
        (answer((11.2, 10, 40, 40, 1, 0.9)), (2, 0)),  # IoU 0.94
        (answer((10, 10, 40, 40, 2, 0.9)), (2, 0)),
        (answer((10, 10, 40, 40, 1, 0.49)), (1, 0)),
        (answer(BOX, BOX), (2, 1)),
        (answer(), (1, 0)),
    ],
)
def test_boxes_are_equal_by_label_and_place(found: dict[str, Any], counted: tuple[int, int]) -> None:
    assert same_boxes(answer(BOX, (0, 0, 5, 5, 0, 0.1)), found, 0.5) == counted
    assert same_boxes(found, answer(BOX, (0, 0, 5, 5, 0, 0.1)), 0.5) == counted


def test_a_box_right_at_the_threshold_may_be_under_it_by_what_engines_differ_in() -> None:
    over, under, lower = (answer(BOX, (60, 60, 40, 40, 2, score)) for score in (0.500001, 0.499999, 0.4998))
    assert same_boxes(over, under, 0.5) == same_boxes(under, over, 0.5) == same_boxes(over, over, 0.5) == (2, 2)
    assert same_boxes(under, under, 0.5) == (1, 1)
    assert same_boxes(over, lower, 0.5) == same_boxes(lower, over, 0.5) == (2, 1)
    assert same_boxes(over, answer(BOX), 0.5) == same_boxes(answer(BOX), over, 0.5) == (2, 1)


def test_one_box_that_is_missing_is_no_parity() -> None:
    one = queries()
    comparison = Comparison("box")
    comparison.add(one, one, None)
    comparison.count(5, 5)
    assert comparison.result(2).holds
    comparison.count(3, 2)
    with pytest.raises(BadData, match="87.5% of the boxes are equal"):
        comparison.result(2).enforce()


def test_images_without_a_box_over_the_threshold_are_equal() -> None:
    assert same_boxes(answer(), answer(), 0.5) == (0, 0)
    found = compared("box", queries(), queries())
    assert not found.holds
    one = queries()
    assert compared("box", one, one).agreement == 1.0
