from __future__ import annotations

import numpy as np
import pytest

from modelyard_jobs.metrics import calibration


def drawn(n, seed=0, over=0.0):
    """Answers of a model that says `over` more than how often it is right."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.5, 1, n)
    return confidences, rng.random(n) < confidences - over


def test_by_hand():
    confidences = np.array([0.95, 0.95, 0.95, 0.65, 0.61])
    found = calibration.calibration(confidences, np.array([True, True, False, True, True]), seed=0)
    assert [(each.low, each.high, each.n) for each in found.bins] == [(0.6, 0.7, 2), (0.9, 1.0, 3)]
    assert [each.confidence for each in found.bins] == pytest.approx([0.63, 0.95])
    assert [each.accuracy.value for each in found.bins] == pytest.approx([1, 2 / 3])
    assert found.ece.value == pytest.approx((2 * 0.37 + 3 * (0.95 - 2 / 3)) / 5)
    assert (found.n, found.ece.n) == (5, 5)


def test_ends_of_bins():
    found = calibration.calibration(np.array([0.0, 0.1, 0.1000001, 1.0]), np.zeros(4, dtype=bool), seed=0)
    assert [(each.low, each.n) for each in found.bins] == [(0.0, 2), (0.1, 1), (0.9, 1)]


def test_who_is_as_often_right_as_it_says_has_little_error():
    good, bad = (calibration.calibration(*drawn(20000, over=over), seed=0).ece for over in (0.0, 0.2))
    assert good.high < 0.02
    assert bad.value == pytest.approx(0.2, abs=0.01)
    assert bad.low < 0.2 < bad.high
    assert bad.interval == "bootstrap"


def test_the_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(calibration.bootstrap, "__defaults__", (300,))
    inside = 0
    for seed in range(100):
        ece = calibration.calibration(*drawn(400, seed, over=0.15), seed=seed).ece
        inside += ece.low <= 0.15 <= ece.high
    assert 0.88 <= inside / 100 <= 1


def test_who_is_as_often_right_as_it_says_is_not_blamed_for_few_answers(monkeypatch):
    monkeypatch.setattr(calibration.bootstrap, "__defaults__", (300,))
    errors = [calibration.calibration(*drawn(100, seed), seed=seed).ece for seed in range(40)]
    assert sum(ece.low == 0 for ece in errors) >= 28
    assert sum(ece.low > 0.05 for ece in errors) <= 2
    assert all(ece.low <= ece.value <= ece.high for ece in errors)


def test_words_of_one_document_are_drawn_together():
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(40) < 0.7, 50)  # all words of a document are right, or none
    confidences = np.full(len(right), 0.9)
    alone = calibration.calibration(confidences, right, seed=0).ece
    together = calibration.calibration(confidences, right, seed=0, groups=np.repeat(np.arange(40), 50)).ece
    assert together.value == pytest.approx(alone.value)
    assert together.n == 40
    assert together.high - together.low > 4 * (alone.high - alone.low)


def test_none_and_one():
    none = calibration.calibration(np.zeros(0), np.zeros(0, dtype=bool), seed=0)
    assert (none.ece.value, none.ece.low, none.ece.high, none.n, none.bins) == (0.0, 0.0, 1.0, 0, ())
    one = calibration.calibration(np.array([1.0]), np.array([True]), seed=0)
    assert (one.ece.value, one.bins[0].accuracy.value) == (0, 1)


def test_the_seed_decides_and_nothing_else():
    one, again, other = (calibration.calibration(*drawn(200), seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.ece.low != other.ece.low
