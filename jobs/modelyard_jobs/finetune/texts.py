"""The texts of some rows, as token ids, before anything trains.

A row that the model's encoder makes nothing of is left out and counted, as one is that is at fault without it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs import tasks
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import Item, Measurable

_SHOWN = 5


class Texts:
    """What objectives of texts share. items: of `train`; held_out: of `validation`; both without the rows that were left out."""

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        """Raises BadData: no training row is left."""
        self.task, self.encoder = task, loaded.encoder
        left_out = Counter[str]()
        self.train, self.items = self._usable(train, max_length, left_out)
        self.validation, self.held_out = self._usable(validation, max_length, left_out)
        if not self.items:
            why = "; ".join(f"{why}: {count} rows" for why, count in left_out.most_common(_SHOWN))
            raise BadData("no row can be trained on", why=why, remedy="raise max_length, or mend the rows")
        self.rows = self.train.rows
        self.lengths = np.fromiter((item.size for item in self.items), dtype=np.int64, count=len(self.items))
        self.truncated: dict[str, Any] = {
            "train": sum(item.truncated for item in self.items),
            "validation": sum(item.truncated for item in self.held_out),
            "left_out": dict(left_out),
        }

    def _usable(self, examples: Examples, max_length: int, left_out: Counter[str]) -> tuple[Examples, list[Item]]:
        items, kept = list[Item](), list[int]()
        for place, item in enumerate(self.task.prepare(examples.values(), self.encoder, max_length)):
            if isinstance(item, str):
                tasks.count(left_out, item)
            else:
                items.append(item)
                kept.append(place)
        return examples.at(kept), items
