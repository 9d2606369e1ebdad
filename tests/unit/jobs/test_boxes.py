from __future__ import annotations

import numpy as np
import pytest

from modelyard_jobs.metrics import boxes
from modelyard_jobs.metrics.boxes import OVERLAPS, RECALLS, Boxes

SQUARE = [10, 10, 20, 20]


def matched(truths, found, classes=1):
    return boxes.match([Boxes.of(*each) for each in truths], [Boxes.of(*each) for each in found], classes)


def measured(truths, found, classes=1, seed=0):
    return boxes.measure(matched(truths, found, classes), [f"c{place}" for place in range(classes)], seed)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def iou(one, other):
    width, height = (max(0.0, min(one[k] + one[k + 2], other[k] + other[k + 2]) - max(one[k], other[k])) for k in (0, 1))
    return width * height / (one[2] * one[3] + other[2] * other[3] - width * height)


def by_the_book(truths, found, label, overlap):
    """AP of one class: boxes of all images by falling score, each takes the free true box that it overlaps most; then the area under the hull."""
    sure = sorted(
        ((score, image, box) for image, each in enumerate(found) for box, its, score in zip(*each, strict=True) if its == label),
        key=lambda one: -one[0],
    )
    free = {image: [box for box, its in zip(*each, strict=True) if its == label] for image, each in enumerate(truths)}
    total, right, curve = sum(map(len, free.values())), 0, []
    for seen, (_, image, box) in enumerate(sure, 1):
        best = max(free[image], key=lambda true: iou(true, box), default=None)
        if best is not None and iou(best, box) >= overlap:
            free[image].remove(best)
            right += 1
        curve.append((right / total, right / seen))
    return np.mean([max((precision for recall, precision in curve if recall >= asked), default=0.0) for asked in RECALLS])


def random_scenes(images, classes, seed):
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = int(rng.integers(0, 6))
        true, labels = np.hstack([rng.uniform(0, 150, (count, 2)), rng.uniform(20, 60, (count, 2))]), rng.integers(0, classes, count)
        shaken = np.repeat(true, 2, axis=0) * rng.normal(1, 0.06, (2 * count, 4))
        noise = np.hstack([rng.uniform(0, 150, (4, 2)), rng.uniform(20, 60, (4, 2))])
        guessed = np.concatenate(
            [np.where(rng.random(2 * count) < 0.8, np.repeat(labels, 2), rng.integers(0, classes, 2 * count)), rng.integers(0, classes, 4)]
        )
        truths.append((true.tolist(), labels.tolist()))
        found.append((np.vstack([shaken, noise]).tolist(), guessed.tolist(), rng.random(2 * count + 4).tolist()))
    return truths, found


def test_perfect_boxes():
    result = measured([([SQUARE], [0])] * 3, [([SQUARE], [0], [0.9])] * 3)
    assert values(result) == pytest.approx({"map": 1, "ap50": 1, "ap75": 1})
    assert [(metric.low, metric.high, metric.n, metric.interval) for metric in result.metrics.values()] == [
        (pytest.approx(1), pytest.approx(1), 3, "bootstrap")
    ] * 3


def test_nothing_found_is_nought():
    assert values(measured([([SQUARE], [0])] * 2, [([], [], [])] * 2)) == {"map": 0, "ap50": 0, "ap75": 0}


def test_an_overlap_of_two_thirds_counts_up_to_that_threshold():
    # 20 x 20 moved by 4: 320 shared of 480.
    result = measured([([SQUARE], [0])], [([[14, 10, 20, 20]], [0], [0.9])])
    assert values(result) == pytest.approx({"map": 0.4, "ap50": 1, "ap75": 0})  # 0.5, 0.55, 0.6, 0.65 of ten


def test_one_of_two_found_after_a_false_box_by_hand():
    # Precision 1/2 at recall 1/2: reached by the recalls 0 … 0.50, which are 51 of 101.
    result = measured([([SQUARE, [60, 60, 20, 20]], [0, 0])], [([[100, 100, 20, 20], SQUARE], [0, 0], [0.9, 0.8])])
    assert values(result)["ap50"] == pytest.approx(0.5 * 51 / 101)
    curve = result.curves[0]
    assert curve.precision == (0.5,) * 51 + (0.0,) * 50
    assert (curve.scores[0], curve.scores[1], curve.scores[50], curve.scores[51]) == (0.9, 0.8, 0.8, 0.0)


def test_a_second_box_on_the_same_object_is_wrong():
    truths = [([SQUARE], [0]), ([SQUARE], [0])]
    found = [([SQUARE, [10, 10, 20, 21]], [0, 0], [0.9, 0.8]), ([SQUARE], [0], [0.7])]
    # Right, wrong, right: precision 1 up to recall 1/2, then 2/3.
    assert values(measured(truths, found))["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_the_wrong_class_is_wrong_and_absent_classes_do_not_count():
    result = measured([([SQUARE], [0])], [([SQUARE, SQUARE], [1, 0], [0.9, 0.8])], classes=3)
    assert values(result)["map"] == pytest.approx(1)
    assert [scores.label for scores in result.classes] == ["c0"]


def test_boxes_on_a_crowd_count_neither_way():
    crowd = ([SQUARE, [50, 50, 100, 100]], [0, 0], None, [False, True])
    within = [[60, 60, 20, 20], [90, 90, 30, 30]]
    result = measured([crowd], [([*within, SQUARE], [0, 0, 0], [0.9, 0.8, 0.7])])
    assert values(result)["map"] == pytest.approx(1)
    assert result.classes[0].boxes == 1
    assert (result.metrics["map"].low, result.metrics["map"].high) == (pytest.approx(1), pytest.approx(1))
    plain = measured([(crowd[0][:1], [0])], [([*within, SQUARE], [0, 0, 0], [0.9, 0.8, 0.7])])
    assert values(plain)["map"] == pytest.approx(1 / 3)


def test_of_an_image_and_class_the_best_hundred_count():
    far = [[200 + place, 200, 10, 10] for place in range(100)]
    found = lambda score: [([*far, SQUARE], [0] * 101, [0.5] * 100 + [score])]  # noqa: E731
    assert values(measured([([SQUARE], [0])], found(0.9)))["ap50"] == pytest.approx(1)
    assert values(measured([([SQUARE], [0])], found(0.1)))["ap50"] == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_are_those_of_the_book(seed):
    truths, found = random_scenes(40, 3, seed)
    result = measured(truths, found, 3)
    expected = np.array([[by_the_book(truths, found, label, overlap) for label in range(3)] for overlap in OVERLAPS])
    assert values(result) == pytest.approx({"map": expected.mean(), "ap50": expected[0].mean(), "ap75": expected[5].mean()})
    assert [(scores.ap.value, scores.ap50.value) for scores in result.classes] == [pytest.approx((column.mean(), column[0])) for column in expected.T]


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_copies_of_images(seed):
    truths, found = random_scenes(30, 3, seed)
    once = matched(truths, found, 3)
    assert boxes.average_precision(once, np.ones((1, 30), dtype=np.int64))[0] == pytest.approx(once.precision.mean(1))
    weights = np.random.default_rng(seed).multinomial(30, np.full(30, 1 / 30), size=3)
    for weight, got in zip(weights, boxes.average_precision(once, weights), strict=True):
        copied = [[each for each, times in zip(some, weight, strict=True) for _ in range(times)] for some in (truths, found)]
        assert got == pytest.approx(matched(*copied, 3).precision.mean(1))


def test_intervals_hold_the_value_and_come_from_the_seed():
    truths, found = random_scenes(60, 3, 5)
    result, again, other = (measured(truths, found, 3, seed) for seed in (1, 1, 2))
    for metric in (*result.metrics.values(), *(scores.ap for scores in result.classes)):
        assert 0 < metric.low < metric.value < metric.high < 1
    assert result == again
    assert result.metrics != other.metrics
    assert result.metrics["map"].n == 60
    assert result.classes[0].ap.n == result.classes[0].images < 60


def test_a_difference_is_paired():
    truths, found = random_scenes(30, 2, 7)
    worse = [(box, labels, scores) if place % 3 else ([], [], []) for place, (box, labels, scores) in enumerate(found)]
    first, second = matched(truths, found, 2), matched(truths, worse, 2)
    same = boxes.differences(first, first, 0)
    assert {(metric.value, metric.low, metric.high) for metric in same.values()} == {(0.0, 0.0, 0.0)}
    alone, other = (boxes.measure(each, ["a", "b"], 0).metrics for each in (first, second))
    better, less = boxes.differences(first, second, 0), boxes.differences(second, first, 0)
    for name, metric in better.items():
        assert metric.value == pytest.approx(alone[name].value - other[name].value)
        assert metric.low < metric.value < metric.high
        assert less[name].value == -metric.value
    assert better["ap50"].low > 0
    apart = sum(metrics["map"].high - metrics["map"].low for metrics in (alone, other))
    assert better["map"].high - better["map"].low < apart


def test_errors_of_each_image_at_a_threshold():
    truths = [([SQUARE, [60, 60, 20, 20]], [0, 1]), ([SQUARE], [0]), ([], []), ([SQUARE], [0], None, [True])]
    found = [
        ([SQUARE, [60, 60, 20, 20]], [0, 0], [0.9, 0.6]),  # one right, one of the wrong class, one missed
        ([SQUARE, SQUARE], [0, 1], [0.8, 0.3]),  # right; what is under the threshold does not count
        ([SQUARE], [1], [0.7]),
        ([SQUARE], [0], [0.9]),
    ]
    missed, false = boxes.errors(matched(truths, found, 2), 0.5)
    assert missed.tolist() == [1, 0, 0, 0]
    assert false == pytest.approx([0.6, 0, 0.7, 0])
    missed, _ = boxes.errors(matched(truths, found, 2), 0.95)
    assert missed.tolist() == [2, 1, 0, 0]


def test_images_without_any_box_in_a_draw():
    # AP of a draw is 1/2 with both images, 1 with the first alone; with the second alone the class does not occur.
    result = measured([([SQUARE], [0]), ([], [])], [([SQUARE], [0], [0.9]), ([SQUARE], [0], [0.95])])
    assert values(result)["ap50"] == pytest.approx(0.5)
    assert (result.metrics["ap50"].low, result.metrics["ap50"].high) == (pytest.approx(0), pytest.approx(0.5))
