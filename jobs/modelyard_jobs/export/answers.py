"""What one engine answers to the sample, collected batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard_jobs.export.parity import Comparison, same_boxes
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Measurable


class Given:
    """Answers by the places of their rows."""

    def __init__(self, task: Measurable, labels: Sequence[str], threshold: float) -> None:
        """labels: the model's own. threshold: the lowest score of a box."""
        self._task, self._labels, self._threshold = task, labels, threshold
        self._found: dict[int, Any] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)

    def add(self, places: Sequence[int], items: Sequence[Item], outputs: Arrays) -> None:
        """Those of one batch."""
        said = self._task.answers(self._task.raws(outputs, items), items, self._labels)
        self._found.update(zip(places, said, strict=True))

    def compare(self, other: Given, places: Sequence[int], comparison: Comparison) -> None:
        """Count which boxes of some rows the other has as well; answers that are no boxes are counted with their values."""
        if comparison.unit == "box":
            for place in places:
                comparison.count(*same_boxes(self._found[place], other._found[place], self._threshold))

    def answers(self) -> Answers:
        """All of them, in the order of the rows."""
        found = [self._found[place] for place in sorted(self._found)]
        return np.stack(found) if self._task.dense else found
