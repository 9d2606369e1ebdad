"""What answers of one label of a list are worth, beside what metrics/classification.py counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from modelyard.errors import BadData
from modelyard_jobs.tasks.one_label import OneLabel

LABELS = [f"label {place}" for place in range(9)]


@pytest.fixture
def task() -> OneLabel:
    return OneLabel(SimpleNamespace(seed=7))


@pytest.fixture
def said() -> tuple[np.ndarray, np.ndarray]:
    """True labels, and probabilities that lean towards them."""
    chance = np.random.default_rng(0)
    true = chance.integers(0, len(LABELS), 400)
    logits = chance.normal(size=(400, len(LABELS))) + np.eye(len(LABELS))[true]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return true, shares.astype(np.float32)


def test_the_true_label_among_the_five_likeliest_counts_as_nearly_right(task, said) -> None:
    true, shares = said
    found = task.measure(true, shares, LABELS).metrics["accuracy_top5"]
    assert found.value == pytest.approx(top_k_accuracy_score(true, shares, k=5, labels=range(len(LABELS))))
    assert found.low < found.value < found.high
    assert found.n == 400


def test_of_equally_likely_labels_the_first_go_before(task) -> None:
    shares = np.full((9, 9), 1 / 9, dtype=np.float32)
    assert task.measure(np.arange(9), shares, LABELS).metrics["accuracy_top5"].value == 5 / 9


def test_five_labels_or_fewer_have_no_top_five(task) -> None:
    shares = np.eye(5, dtype=np.float32)
    assert "accuracy_top5" not in task.measure(np.arange(5), shares, LABELS[:5]).metrics
    assert "accuracy_top5" not in task.differences(np.arange(5), shares, shares, LABELS[:5])


def test_the_surest_errors_come_first_and_every_answer_is_in_a_bin(task, said) -> None:
    true, shares = said
    found = task.measure(true, shares, LABELS)
    sure = shares.max(1)[found.worst]
    assert not found.right[found.worst].any()
    assert len(found.worst) == (~found.right).sum()
    assert (np.diff(sure) <= 0).all()
    assert sum(each["n"] for each in found.document["calibration"]["bins"]) == 400


def test_two_models_are_compared_row_by_row(task, said) -> None:
    true, shares = said
    worse = np.random.default_rng(1).permuted(shares, axis=1)
    found = task.differences(true, shares, worse, LABELS)["accuracy_top5"]
    both = [top_k_accuracy_score(true, each, k=5, labels=range(len(LABELS))) for each in (shares, worse)]
    assert found.value == pytest.approx(both[0] - both[1])
    assert 0 < found.low < found.value < found.high
    assert task.differences(true, shares, shares, LABELS)["accuracy_top5"].value == 0


@pytest.mark.parametrize("given", [8, 10])
def test_scores_that_are_not_as_many_as_the_labels(task, given) -> None:
    with pytest.raises(BadData, match=f"{given} scores for 9 labels"):
        task.answers([np.zeros(given, dtype=np.float32)], [], LABELS)
