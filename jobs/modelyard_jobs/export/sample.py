"""The rows on which a model and its export are compared: read, chosen by a seed, and prepared once, a window at a time.

Images wait as bytes, so that no more than a window of them, and those that the graph is traced with, is in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs import data, tasks
from modelyard_jobs.context import Context
from modelyard_jobs.engine import Engine
from modelyard_jobs.tasks.task import Item, Measurable, Row, Truths

WINDOW = 64
"""Rows that are prepared at once."""


@dataclass(frozen=True)
class Window:
    """The rows among `count` of the sample, those from `start` on, that can be used, beside what the model takes of each."""

    start: int
    count: int
    rows: list[Row]
    items: list[Item]


class Sample:
    """Rows of one split. `good` are the places of those that can be used, as far as they have been prepared."""

    def __init__(self, context: Context, task: Measurable, engine: Engine) -> None:
        """engine: of the model itself. Raises NoInput, BadData: there is no such split or column, or no row of it can be used."""
        settings, self._engine = context.settings, engine
        splits = data.read(context.inputs["parity"], context.scratch / "rows")
        self.split, dataset = data.pick(splits, settings.split)
        # What is true matters to int8 alone: rows without it prove parity too.
        columns = task.columns(dataset, truth=settings.int8)
        context.decide("columns", columns, "named, or found by name and type")
        usable, self._faults = tasks.usable(task, dataset, columns)
        self._usable = len(usable)
        chosen = dataset.select(usable[data.sample(settings.rows, len(usable), settings.seed)])
        self._truths: Truths = task.truths(chosen, columns, engine.labels) if settings.int8 else []
        self.rows: list[Row] = list(data.rows(chosen, columns))
        self.good: list[int] = []
        self._late = Counter[str]()
        self._ready: list[Window] = []
        self._coming = self._prepared()

    def first(self, count: int) -> list[Item]:
        """So many rows as the model takes them, fewer where there are no more. Raises BadData: there is none."""
        items: list[Item] = []
        while len(items) < count and (window := next(self._coming, None)):
            self._ready.append(window)
            items += window.items
        if not items:
            why = "; ".join(f"{why}: {count} rows" for why, count in self._late.items())
            raise BadData("no row of the sample can be used", where=f"split {self.split}", why=why, remedy="mend the rows")
        return items[:count]

    def windows(self) -> Iterator[Window]:
        """All rows that can be used. Once: they are gone when they have been given."""
        while self._ready:
            yield self._ready.pop(0)
        yield from self._coming

    def truths(self) -> Truths:
        """What is true of the rows in `good`; none where nothing asks for it."""
        if isinstance(self._truths, np.ndarray):
            kept: Truths = self._truths[np.array(self.good)]
            return kept
        return [self._truths[place] for place in self.good if self._truths]

    def told(self) -> dict[str, Any]:
        """What the step says of its rows."""
        return {"split": self.split, "rows": len(self.good), "usable": self._usable, "faults": dict(Counter(self._faults) + self._late)}

    def _prepared(self) -> Iterator[Window]:
        # Some faults are seen only as a row is prepared, such as that an image is cut short.
        for start in range(0, len(self.rows), WINDOW):
            rows = self.rows[start : start + WINDOW]
            found = self._engine.prepare(rows)
            places = [place for place, item in enumerate(found) if not isinstance(item, str)]
            self._late.update(item for item in found if isinstance(item, str))
            self.good += [start + place for place in places]
            yield Window(start, len(rows), [rows[place] for place in places], [item for item in found if not isinstance(item, str)])
