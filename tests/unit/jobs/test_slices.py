from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from modelyard_jobs.metrics import slices
from modelyard_jobs.metrics.interval import wilson


def test_by_length_every_row_is_in_one_part_of_about_equal_size():
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(3, 1, 1000).astype(np.int32) + 1
    right = rng.random(1000) < 0.7
    found = slices.by_length(sizes, right, unit="tokens")
    assert (found.by, found.unit, found.metric) == ("length", "tokens", "right")
    assert len(found.parts) == 4
    assert sum(part.n for part in found.parts) == 1000
    assert all(200 < part.n < 300 for part in found.parts)
    bounds = [tuple(map(int, part.name.split(" to "))) for part in found.parts]
    assert bounds[0][0] == sizes.min()
    assert bounds[-1][1] == sizes.max()
    assert all(before[1] < after[0] for before, after in pairwise(bounds))
    low, high = bounds[1]
    inside = (sizes >= low) & (sizes <= high)
    assert found.parts[1].score == wilson(int(right[inside].sum()), int(inside.sum()))


@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        ([7], ["7"]),
        ([7] * 50, ["7"]),
        ([1, 2], ["1", "2"]),
        ([7] * 50 + [9], ["7", "9"]),
        ([5] * 30 + [6] * 30, ["5", "6"]),
        ([1, 2, 3, 4], ["1", "2", "3", "4"]),
    ],
)
def test_rows_of_one_length_stay_together(sizes, names):
    found = slices.by_length(np.array(sizes, dtype=np.int32), np.ones(len(sizes), dtype=bool), unit="tokens")
    assert sum(part.n for part in found.parts) == len(sizes)
    assert [part.name for part in found.parts] == names


def test_by_value_the_most_frequent_first():
    values = ["shop"] * 5 + [None] * 3 + [1, True, 0.5] + [["a"]]
    right = np.array([True] * 5 + [False] * 7)
    found = slices.by_value("source", values, right)
    assert [(part.name, part.n) for part in found.parts][:2] == [("shop", 5), ("None", 3)]
    assert sum(part.n for part in found.parts) == 12
    assert (found.parts[0].score.value, found.parts[1].score.value) == (1, 0)
    assert found.by == "source"


def test_there_are_never_many_parts_nor_long_names():
    values = [f"value {number}" for number in range(500)] + ["often"] * 9 + ["x" * 1000000] * 2
    found = slices.by_value("id", values, np.ones(len(values), dtype=bool))
    assert len(found.parts) == slices.VALUES
    assert (found.parts[0].name, found.parts[-1].name) == ("often", slices.OTHERS)
    assert sum(part.n for part in found.parts) == len(values)
    assert max(len(part.name) for part in found.parts) < 100
