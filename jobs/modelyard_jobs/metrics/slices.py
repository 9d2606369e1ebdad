"""How the share of right rows differs between parts of the data: by length, and by the values of a column. Pure numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics.interval import Metric, wilson

PARTS = 4
"""Of a slice by length, about as many rows in each."""
VALUES = 20
"""Of a slice by a column at most; the rarest are taken together."""
OTHERS = "others"
_NAME = 80


@dataclass(frozen=True)
class SlicePart:
    """Some of the rows. score: share of them that are right."""

    name: str
    n: int
    score: Metric


@dataclass(frozen=True)
class Slice:
    """All rows, in parts. by: `length`, or a column."""

    by: str
    unit: str
    metric: str
    parts: tuple[SlicePart, ...]


def by_length(sizes: NDArray[np.int32], right: NDArray[np.bool_], *, unit: str) -> Slice:
    """Parts of rising length, cut at quartiles; fewer where many rows have one length."""
    ends = np.unique(np.quantile(sizes, np.arange(1, PARTS + 1) / PARTS, method="inverted_cdf"))
    of = np.searchsorted(ends, sizes)
    parts = []
    for place in range(len(ends)):
        found = sizes[of == place]
        first, last = int(found.min()), int(found.max())
        parts.append(_part(f"{first}" if first == last else f"{first} to {last}", right[of == place]))
    return Slice("length", unit, "right", tuple(parts))


def by_value(column: str, values: Sequence[Any], right: NDArray[np.bool_]) -> Slice:
    """A part for each value, the most frequent first."""
    names = [str(value) for value in values]
    counts = Counter(names).most_common()
    kept = {name: place for place, (name, _) in enumerate(counts if len(counts) <= VALUES else counts[: VALUES - 1])}
    of = np.array([kept.get(name, len(kept)) for name in names], dtype=np.int64)
    parts = [_part(name if len(name) <= _NAME else f"{name[:_NAME]} …", right[of == place]) for name, place in kept.items()]
    rest = of == len(kept)
    return Slice(column, "", "right", tuple([*parts, _part(OTHERS, right[rest])] if rest.any() else parts))


def _part(name: str, right: NDArray[np.bool_]) -> SlicePart:
    return SlicePart(name, len(right), wilson(int(right.sum()), len(right)))
