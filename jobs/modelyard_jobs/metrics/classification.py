"""What answers with one label of a fixed list are worth. Pure numpy; knows no model and no file.

Accuracy and a class's precision and recall are proportions; F1 and averages over classes have a bootstrap by rows. Resampling rows with replacement
and counting them is one multinomial draw over the cells of the confusion matrix that have rows, so the rows themselves are not needed.
A quotient without a denominator is 0, anything between 0 and 1, and averages run over the classes that occur, as true or as predicted: scikit-learn's
conventions. So do they in a draw: a class that it lacks is none without a right row. The mean over classes (_macro) of many that have a few rows each
is too low, and that of a draw once more, so its interval is mirrored at the value: simulated with 300 rows of 20 classes, and 1000 of 50, by Zipf's
law, plain percentiles held the true F1 in 87 and 78 of 100 cases, mirrored ones in 93.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics.interval import DRAWS, Metric, mirrored, paired_difference, wilson

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScores:
    """One class. support: rows that have the label; predicted: rows that got it."""

    label: str
    support: int
    predicted: int
    precision: Metric
    recall: Metric
    f1: Metric


@dataclass(frozen=True)
class Classification:
    """All there is to say about predicted against true labels. confusion[i][j]: rows of true label i that got label j."""

    metrics: dict[str, Metric]
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    baseline: dict[str, Any]


def confusion(true: Counts, predicted: Counts, classes: int) -> Counts:
    """Counts of shape (classes, classes), rows true, columns predicted."""
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def classification(counts: Counts, labels: Sequence[str], seed: int) -> Classification:
    """Metrics of a confusion matrix: accuracy, precision, recall and F1 of each class, macro and weighted, and the majority class as baseline."""
    n = int(counts.sum())
    right, support, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    # A cell without rows is never drawn, and of a thousand classes nearly all cells have none.
    cells = np.flatnonzero(counts)
    point, rng = scores(counts), np.random.default_rng(seed)
    drawn = [_scores(*np.divmod(cells, len(labels)), rng.multinomial(n, counts.flat[cells] / n), len(labels)) for _ in range(DRAWS)]
    bounds = {name: np.quantile([each[name] for each in drawn], [0.025, 0.975], axis=0) for name in point}

    def bootstrapped(name: str, place: Any = ()) -> Metric:
        low, high = bounds[name]
        found = Metric(float(point[name][place]), float(low[place]), float(high[place]), n, "bootstrap")
        return mirrored(found, 0, 1) if name.endswith("_macro") else found

    metrics = {"accuracy": wilson(int(right.sum()), n)} | {name: bootstrapped(name) for name in point if name != "f1"}
    classes = tuple(
        ClassScores(
            label,
            int(support[place]),
            int(predicted[place]),
            precision=wilson(int(right[place]), int(predicted[place])),
            recall=wilson(int(right[place]), int(support[place])),
            f1=bootstrapped("f1", place) if support[place] + predicted[place] else Metric(0.0, 0.0, 1.0, 0, "bootstrap"),
        )
        for place, label in enumerate(labels)
    )
    majority = int(support.argmax())
    baseline = {"label": labels[majority], "accuracy": wilson(int(support[majority]), n)}
    return Classification(metrics, classes, tuple(tuple(map(int, row)) for row in counts), baseline)


def differences(true: Counts, first: Counts, second: Counts, classes: int, seed: int) -> dict[str, Metric]:
    """Metric -> how much more of it the first of two predictions has than the second, on the same rows.

    Accuracy has the interval of a paired difference, the others that of a paired bootstrap: each draw resamples rows, and takes both predictions of a
    row along. As with one prediction, it is a multinomial draw over the cells that occur, here of (true, first, second).
    """
    cells, counts = np.unique(np.stack([true, first, second]), axis=1, return_counts=True)
    n = len(true)
    right, was_right = cells[1] == cells[0], cells[2] == cells[0]
    accuracy = paired_difference(int(counts[right & ~was_right].sum()), int(counts[was_right & ~right].sum()), n)

    def less(rows: Counts) -> dict[str, float]:
        one, other = (_scores(cells[0], predicted, rows, classes) for predicted in cells[1:])
        return {name: float(one[name] - other[name]) for name in one if name != "f1"}

    point, rng = less(counts), np.random.default_rng(seed)
    drawn = [less(rng.multinomial(n, counts / n)) for _ in range(DRAWS)]
    bounds = {name: np.quantile([each[name] for each in drawn], [0.025, 0.975]) for name in point}
    found = {name: Metric(point[name], float(bounds[name][0]), float(bounds[name][1]), n, "bootstrap") for name in point}
    return {"accuracy": Metric(**vars(accuracy), interval="agresti-min"), **found}


def scores(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Metric -> value of a confusion matrix: the averages over the classes that occur, and `f1` with one value per class."""
    cells = np.flatnonzero(counts)
    return _scores(*np.divmod(cells, len(counts)), counts.flat[cells], len(counts))


def _scores(true: Counts, predicted: Counts, rows: Counts, classes: int) -> dict[str, NDArray[np.float64]]:
    """The same of cells, each a true and a predicted label and how many rows have both."""
    right, support, given = (
        np.bincount(label, times, classes).astype(np.float64)
        for label, times in ((true, rows * (true == predicted)), (true, rows), (predicted, rows))
    )
    occurs = (support + given) > 0
    found = {"precision": _ratio(right, given), "recall": _ratio(right, support), "f1": _ratio(2 * right, support + given)}
    averages: dict[str, Any] = {}
    for name, values in found.items():
        averages |= {f"{name}_macro": values[occurs].mean(), f"{name}_weighted": (values * support).sum() / support.sum()}
    return {**averages, "f1": found["f1"]}


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
