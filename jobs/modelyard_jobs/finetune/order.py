"""The order in which rows are trained on: a function of seed, epoch and the rows, never of what happened before.

An epoch is shuffled, sorted by length within windows, cut into batches, and the batches are shuffled: rows of one batch have nearly the same length,
so that little is spent on padding, and which rows meet still differs from epoch to epoch. A batch here is what one optimizer step consumes. How it is
divided for the device (`split`) changes neither the order nor, but for rounding, the gradient.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

WINDOW = 50
"""Batches in a window: enough for rows of equal length to find each other, few enough for chance to decide most."""


@dataclass(frozen=True)
class Order:
    """The batches of every epoch.

    lengths: tokens of each row. batch: rows of one optimizer step. digest: what identifies the rows.
    """

    lengths: NDArray[np.int64]
    batch: int
    seed: int
    digest: str

    @property
    def steps(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.lengths) // self.batch)

    def epoch(self, number: int) -> list[Rows]:
        """The batches of epoch `number` (from 0): together a permutation of all rows; one of them may be short."""
        state = hashlib.sha256(f"{self.seed}/{number}/{self.digest}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(state, "big"))
        shuffled = random.permutation(len(self.lengths))
        batches: list[Rows] = []
        for start in range(0, len(shuffled), WINDOW * self.batch):
            window = shuffled[start : start + WINDOW * self.batch]
            window = window[np.argsort(self.lengths[window], kind="stable")]
            batches += [window[cut : cut + self.batch] for cut in range(0, len(window), self.batch)]
        return [batches[place] for place in random.permutation(len(batches))]


def split(rows: Rows, lengths: NDArray[np.int64], most_rows: int, most_tokens: int) -> list[Rows]:
    """`rows` in parts of at most `most_rows`, and of at most `most_tokens` padded tokens where one row does not exceed that by itself."""
    by_length = rows[np.argsort(lengths[rows], kind="stable")]
    parts: list[Rows] = []
    start = 0
    while start < len(by_length):
        end = start + 1
        while end < len(by_length) and end - start < most_rows and (end - start + 1) * lengths[by_length[end]] <= most_tokens:
            end += 1
        parts.append(by_length[start:end])
        start = end
    return parts
