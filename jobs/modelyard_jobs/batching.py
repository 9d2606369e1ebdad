"""Which rows go through the model together, and how many. Pure: takes lengths, gives row numbers."""

from __future__ import annotations

from collections.abc import Sequence

_WASTE = 8


class Budget:
    """Padded tokens that a batch may have, on a device that has less room at times: others may use it too.

    Halved when a batch was refused; doubled again, up to `most`, after 32 batches that ran. Where what was raised is refused again, the next raising
    takes twice as many batches, so that a device that is too small for good is not asked again and again.
    """

    def __init__(self, most: int) -> None:
        """Begin with `most`."""
        self.most = self.tokens = self.lowest = most
        self.refused = 0
        self._patience, self._ran, self._raised = 32, 0, False

    def ran(self) -> None:
        """A batch ran."""
        self._ran += self.tokens < self.most
        if self._ran >= self._patience:
            self.tokens, self._ran, self._raised = min(2 * self.tokens, self.most), 0, True

    def refuse(self, slots: int) -> None:
        """A batch of so many padded tokens had no room."""
        if self._raised:
            self._patience, self._raised = 2 * self._patience, False
        self.tokens = max(1, min(self.tokens, slots) // 2)
        self.lowest, self.refused, self._ran = min(self.lowest, self.tokens), self.refused + 1, 0


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of rows of like length, longest first, of at most `budget` tokens with padding; a longer row goes alone.

    A batch is closed early rather than filled with padding of more than an eighth of the budget: where rows are few, their lengths lie apart.
    Longest first, so that a device too small says so at once. A function of its arguments alone: equal windows are computed in equal batches.
    """
    rows, batches = order(lengths), list[list[int]]()
    while rows:
        count = first(rows, lengths, budget)
        batches.append(rows[:count])
        rows = rows[count:]
    return batches


def order(lengths: Sequence[int]) -> list[int]:
    """All rows, the longest first, those of one length as they came."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def first(rows: Sequence[int], lengths: Sequence[int], budget: int) -> int:
    """How many of the rows, which are in order, make the next batch of a plan; there is one at least."""
    longest, padding = lengths[rows[0]], 0
    for count, row in enumerate(rows):
        padding += longest - lengths[row]
        if count and ((count + 1) * longest > budget or padding * _WASTE > budget):
            return count
    return len(rows)
