"""The images of some rows, decoded when their batch comes.

They are kept at the model's size while there is room for them, so that a small data set is decoded once.
One that turns out to be broken when its turn comes is counted; a tenth of them is too much.
"""

from __future__ import annotations

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.pixels import Pixels
from modelyard_jobs.tasks.task import Item, Task

KEPT = 1 << 28
"""Bytes of decoded images that stay in memory, of training and of validation each."""
BROKEN = 0.1
"""Share of the images that may be broken."""


class Images:
    """broken: places of those that could not be decoded so far."""

    def __init__(self, task: Task, encoder: Pixels, examples: Examples, max_length: int) -> None:
        self.task, self.encoder, self.examples, self.max_length = task, encoder, examples, max_length
        self.broken: set[int] = set()
        self._kept: dict[int, Item] = {}
        self._room = KEPT

    def at(self, places: Rows) -> dict[int, Item]:
        """Place -> image, without broken ones. Raises BadData: too many are broken."""
        wanted = [place for place in places.tolist() if place not in self.broken]
        new = [place for place in wanted if place not in self._kept]
        decoded: dict[int, Item] = {}
        prepared = self.task.prepare(self.examples.values(np.array(new, dtype=np.int64)), self.encoder, self.max_length)
        for place, item in zip(new, prepared, strict=True):
            if isinstance(item, str):
                self._count(place, item)
                continue
            decoded[place] = item
            self._room -= item.values.nbytes
            if self._room >= 0:
                self._kept[place] = item
        return {place: decoded.get(place) or self._kept[place] for place in wanted if place not in self.broken}

    def _count(self, place: int, why: str) -> None:
        self.broken.add(place)
        if len(self.broken) > BROKEN * len(self.examples):
            where = f"row {self.examples.rows[place]}, counted from 0"
            raise BadData(f"{len(self.broken)} of {len(self.examples)} images are broken", where=where, why=why, remedy="mend them, or take them out")
