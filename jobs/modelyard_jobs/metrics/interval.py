"""A number with its 95 % interval. Pure numpy; knows no model and no file.

A proportion has the Wilson interval; what is no proportion has the percentile interval of a bootstrap, resampled by what was drawn together: rows,
documents, images; mirrored at the value where resamples lie to one side of it. Two models on the same rows are compared by the same resamples of
both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
DRAWS = 2000


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval; n: the rows that it is a statement about."""

    value: float
    low: float
    high: float
    n: int
    interval: Literal["wilson", "bootstrap", "agresti-min"]


@dataclass(frozen=True)
class Difference:
    """Of two proportions on the same rows, the second less the first, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Metric:
    """A proportion with Wilson's score interval; of no rows it is 0, and anything between 0 and 1.

    E. B. Wilson, JASA 22 (1927), 209.
    """
    if n == 0:
        return Metric(0.0, 0.0, 1.0, 0, "wilson")
    share = successes / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * float(np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)))
    # At 0 and n the bounds are exact; rounding would put them a hair inside.
    return Metric(share, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half, n, "wilson")


def paired_difference(gained: int, lost: int, n: int) -> Difference:
    """How much better the second of two classifiers is on the same n rows. gained: rows that it alone has right; lost: that the first alone has.

    Wald's interval with half a row added to each cell of the table: it does not shrink to a point where the two never differ, as a bootstrap does.
    A. Agresti, Y. Min, Statistics in Medicine 24 (2005), 729.
    """
    total = n + 2
    centre = (gained - lost) / total
    half = Z * float(np.sqrt((gained + lost + 1) - total * centre * centre)) / total
    # Of whole rows, not of two shares: a floor of -0.01 is met by 20 of 2000 less.
    return Difference((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half), n)


def bootstrap(statistic: Callable[[NDArray[np.int64]], float], n: int, seed: int, draws: int = DRAWS) -> Metric:
    """A statistic of n units (documents, images) with its percentile interval.

    statistic: of how often each unit was drawn, shape (n,); with ones it is the value itself.
    """
    ones = np.ones(n, dtype=np.int64)
    if n == 0:
        return Metric(0.0, 0.0, 1.0, 0, "bootstrap")
    rng = np.random.default_rng(seed)
    drawn = [statistic(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Metric(float(statistic(ones)), float(low), float(high), n, "bootstrap")


def mirrored(metric: Metric, least: float, most: float) -> Metric:
    """The metric with the interval of the basic bootstrap for that of its percentiles, inside of `least` and `most`.

    For a statistic that is too high, or too low, of a sample, and of a resample once more. A. C. Davison, D. V. Hinkley, Bootstrap Methods and their
    Application (Cambridge 1997), 5.2.
    """
    low, high = 2 * metric.value - metric.high, 2 * metric.value - metric.low
    return replace(metric, low=max(least, min(low, metric.value)), high=min(most, max(high, metric.value)))
