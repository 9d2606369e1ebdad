"""The rows that are trained on, or validated with, and what is right for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelyard_jobs import data
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.tasks.task import Truths


@dataclass(frozen=True)
class Examples:
    """Rows of one split. columns: role -> column. rows: their numbers in the split. truths: one for each of `rows`, as the task has it."""

    dataset: Any
    columns: Mapping[str, str]
    rows: Rows
    truths: Truths

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, places: Sequence[int]) -> Examples:
        """Those at some places."""
        return replace(self, rows=self.rows[np.array(places, dtype=np.int64)], truths=[self.truths[place] for place in places])

    def values(self, places: Rows | None = None) -> list[dict[str, Any]]:
        """The rows by role, all or those at some places."""
        chosen = self.rows if places is None else self.rows[places]
        if not len(chosen):
            return []
        return data.by_role(self.dataset.select_columns(list(dict.fromkeys(self.columns.values()))).with_format("arrow")[chosen], self.columns)
