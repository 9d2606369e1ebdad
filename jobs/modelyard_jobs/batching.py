"""Which rows go through the model together. Pure: takes lengths, gives row numbers."""

from __future__ import annotations

from collections.abc import Sequence

_WASTE = 8


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of rows of like length, longest first, of at most `budget` tokens with padding; a longer row goes alone.

    A batch is closed early rather than filled with padding of more than an eighth of the budget: where rows are few, their lengths lie apart.
    Longest first, so that a device too small says so at once. A function of its arguments alone: equal windows are computed in equal batches.
    """
    batches: list[list[int]] = []
    longest = padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        padding += longest - lengths[row]
        if not batches or (len(batches[-1]) + 1) * longest > budget or padding * _WASTE > budget:
            batches.append([])
            longest, padding = lengths[row], 0
        batches[-1].append(row)
    return batches
