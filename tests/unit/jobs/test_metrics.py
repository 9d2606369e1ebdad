from __future__ import annotations

import numpy as np
import pytest

from modelyard_jobs.metrics import classification, interval


def random_rows(classes: int, n: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    return true, np.where(rng.random(n) < 0.7, true, rng.integers(0, classes, n))


def measured(true, predicted, classes: int, seed: int = 0):
    return classification.classification(
        classification.confusion(np.asarray(true), np.asarray(predicted), classes), [f"c{place}" for place in range(classes)], seed
    )


@pytest.mark.parametrize(("classes", "n"), [(2, 50), (3, 400), (7, 1000)])
def test_values_are_scikit_learns(classes, n):
    sklearn = pytest.importorskip("sklearn.metrics")
    true, predicted = random_rows(classes, n)
    result = measured(true, predicted, classes)
    assert result.metrics["accuracy"].value == pytest.approx(sklearn.accuracy_score(true, predicted))
    for average in ("macro", "weighted"):
        expected = sklearn.precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert result.metrics[f"{name}_{average}"].value == pytest.approx(value)
    by_class = sklearn.precision_recall_fscore_support(true, predicted, average=None, zero_division=0)
    for scores, precision, recall, f1, support in zip(result.classes, *by_class, strict=True):
        assert (scores.precision.value, scores.recall.value, scores.f1.value) == pytest.approx((precision, recall, f1))
        assert scores.support == support
    assert np.array_equal(result.confusion, sklearn.confusion_matrix(true, predicted))


def test_classes_that_occur_nowhere_do_not_count_in_averages():
    sklearn = pytest.importorskip("sklearn.metrics")
    true, predicted = [0, 0, 1, 1, 1], [0, 1, 1, 1, 3]
    result = measured(true, predicted, 6)
    assert result.metrics["f1_macro"].value == pytest.approx(sklearn.f1_score(true, predicted, average="macro", zero_division=0))
    assert result.classes[5].f1.value == 0
    assert result.classes[5].recall.n == 0
    assert (result.classes[5].recall.low, result.classes[5].recall.high) == (0, 1)


def test_wilson_known_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and 0 of 20.
    assert interval.wilson(81, 263).low == pytest.approx(0.2553, abs=5e-5)
    assert interval.wilson(81, 263).high == pytest.approx(0.3662, abs=5e-5)
    none = interval.wilson(0, 20)
    assert (none.low, none.high) == (0.0, pytest.approx(0.1611, abs=5e-5))
    assert interval.wilson(20, 20).high == 1.0


def test_the_bootstrap_agrees_with_resampled_rows():
    true, predicted = random_rows(3, 300)
    metric = measured(true, predicted, 3).metrics["f1_macro"]
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, 300, 300)
        counts = classification.confusion(true[rows], predicted[rows], 3)
        drawn.append(np.mean([2 * counts[c, c] / (counts[c].sum() + counts[:, c].sum()) for c in range(3)]))
    assert metric.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.01)
    assert metric.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.01)
    assert metric.low < metric.value < metric.high
    assert metric.n == 300


def test_a_draw_without_a_rare_class_is_no_draw_in_which_it_was_wrong():
    """Every class once, and all right: of 20 classes a draw holds about 13."""
    every = measured(range(20), range(20), 20).metrics
    assert {(metric.low, metric.high) for name, metric in every.items() if name != "accuracy"} == {(1, 1)}
    true = np.repeat(np.arange(20), [200, *([1] * 19)])
    predicted = np.where(np.arange(219) % 10 == 0, 0, true)
    for average in (measured(true, predicted, 20).metrics[name] for name in ("precision_macro", "recall_macro", "f1_macro")):
        assert average.low < average.value < average.high
    less = classification.differences(true, true, predicted, 20, seed=1)["f1_macro"]
    assert less.low < less.value < less.high


def test_of_a_class_that_occurs_nowhere_nothing_is_known():
    absent = measured([0, 1, 1], [0, 1, 0], 3).classes[2]
    assert [(metric.value, metric.low, metric.high, metric.n) for metric in (absent.precision, absent.recall, absent.f1)] == [(0, 0, 1, 0)] * 3


def test_a_thousand_classes_take_moments():
    true = np.random.default_rng(0).integers(0, 1000, 3000)
    result = measured(true, np.where(np.arange(3000) % 5 == 0, 0, true), 1000)
    assert result.metrics["f1_macro"].low <= result.metrics["f1_macro"].value < result.metrics["f1_macro"].high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = [metric.low <= 0.8 <= metric.high for metric in (interval.wilson(int(rng.binomial(200, 0.8)), 200) for _ in range(1000))]
    assert 0.93 <= np.mean(inside) <= 0.97


def test_the_seed_decides_and_nothing_else():
    true, predicted = random_rows(4, 200)
    assert measured(true, predicted, 4) == measured(true, predicted, 4)
    assert measured(true, predicted, 4).metrics["f1_macro"] != measured(true, predicted, 4, seed=1).metrics["f1_macro"]


def test_the_baseline_is_the_most_frequent_label():
    baseline = measured([1, 1, 1, 0], [0, 0, 0, 0], 2).baseline
    assert baseline["label"] == "c1"
    assert baseline["accuracy"].value == 0.75


def test_one_row():
    result = measured([0], [1], 2)
    assert result.metrics["accuracy"].value == 0
    assert result.metrics["f1_macro"].value == 0


def test_a_paired_difference():
    found = interval.paired_difference(gained=8, lost=20, n=400)
    assert (found.value, found.n) == (-0.03, 400)
    # By hand: (8.5 - 20.5) / 402 and the standard error of a difference of shares with half a row in each cell.
    centre, error = -12 / 402, np.sqrt(29 - 144 / 402) / 402
    assert (found.low, found.high) == pytest.approx((centre - interval.Z * error, centre + interval.Z * error))
    other = interval.paired_difference(gained=20, lost=8, n=400)
    assert (other.value, other.low, other.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_a_paired_difference_without_any_difference_is_as_sure_as_it_has_rows():
    lows = [interval.paired_difference(0, 0, n).low for n in (1, 10, 100, 1000)]
    assert lows == sorted(lows)
    assert lows[0] < -0.5
    assert -0.003 < lows[-1] < 0


def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    drawn = rng.multinomial(500, [0.015, 0.025, 0.96], size=2000)
    inside = [found.low <= -0.01 <= found.high for found in (interval.paired_difference(int(gained), int(lost), 500) for gained, lost, _ in drawn)]
    assert 0.93 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize(("classes", "n"), [(2, 500), (4, 300)])
def test_paired_differences_are_those_of_resampled_rows(classes, n):
    sklearn = pytest.importorskip("sklearn.metrics")
    true, first = random_rows(classes, n)
    second = np.where(np.random.default_rng(8).random(n) < 0.8, first, random_rows(classes, n, seed=9)[1])
    found = classification.differences(true, first, second, classes, seed=3)

    def scored(rows, predicted):
        averaged = {f"f1_{how}": sklearn.f1_score(true[rows], predicted[rows], average=how, zero_division=0) for how in ("macro", "weighted")}
        return {"accuracy": (true[rows] == predicted[rows]).mean(), **averaged}

    def less(rows):
        one, other = scored(rows, first), scored(rows, second)
        return {name: one[name] - other[name] for name in one}

    rng = np.random.default_rng(4)
    drawn = [less(rng.integers(0, n, n)) for _ in range(1000)]
    for name, value in less(np.arange(n)).items():
        low, high = np.quantile([each[name] for each in drawn], [0.025, 0.975])
        width = high - low
        assert found[name].value == pytest.approx(value, abs=1e-12)
        assert (found[name].low, found[name].high) == (pytest.approx(low, abs=0.065 * width), pytest.approx(high, abs=0.065 * width))
        assert (found[name].n, found[name].interval) == (n, "agresti-min" if name == "accuracy" else "bootstrap")
    assert set(found) == set(measured(true, first, classes).metrics)


def test_each_average_of_a_difference_runs_over_the_classes_that_occur_with_that_model():
    true, first = random_rows(2, 60)
    second = first.copy()
    second[:9] = 2  # a label that no row has, and that the first never gives
    less = classification.differences(true, first, second, 4, seed=1)
    one, other = (measured(true, predicted, 4).metrics for predicted in (first, second))
    assert {name: metric.value for name, metric in less.items()} == pytest.approx({name: one[name].value - other[name].value for name in one})


def test_a_paired_interval_is_narrower_than_that_of_two_models_apart():
    true, first = random_rows(2, 1000)
    second = first.copy()
    second[:30] = 1 - second[:30]
    less = classification.differences(true, first, second, 2, seed=1)["accuracy"]
    alone = measured(true, first, 2).metrics["accuracy"]
    assert less.high - less.low < (alone.high - alone.low) / 2


def test_a_model_differs_from_itself_by_nothing_and_the_seed_decides():
    true, first = random_rows(3, 200)
    accuracy, *others = classification.differences(true, first, first, 3, seed=1).values()
    for metric in others:
        assert (metric.value, metric.low, metric.high) == (0.0, 0.0, 0.0)
    assert (accuracy.value, -accuracy.low) == (0.0, accuracy.high)
    second = random_rows(3, 200, seed=7)[1]
    assert classification.differences(true, first, second, 3, seed=1) == classification.differences(true, first, second, 3, seed=1)
    assert classification.differences(true, first, second, 3, seed=1) != classification.differences(true, first, second, 3, seed=2)


def test_few_rows_on_which_two_never_differ_do_not_show_that_they_are_as_accurate():
    true = np.array([0, 1] * 10)
    less = classification.differences(true, true, true, 2, seed=1)["accuracy"]
    assert less.value == 0.0
    assert less.low < -0.05


def test_a_difference_of_accuracy_is_of_whole_rows():
    true = np.zeros(2000, dtype=np.int64)
    first, second = np.array([0] * 1600 + [1] * 400), np.array([0] * 1620 + [1] * 380)
    assert 0.80 - 0.81 < -0.01  # which a floor of -0.01 would refuse
    assert classification.differences(true, first, second, 2, seed=1)["accuracy"].value == -0.01
