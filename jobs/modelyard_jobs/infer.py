"""infer: a model over rows, a data set of predictions.

`data/<split>-00000-of-00003.jsonl`, one object a row in the order of the input: `row` (its number in the split, from 0), what the task records of an
answer (docs/tasks.md), `truncated` (something was cut off at max_length), `error`. A row that cannot be used has nothing of an answer and an error
with the category and words of the table of failures; it does not fail the step, unless more than `max_error_rate` of the rows are like it.
The same input gives the same bytes, resumed or not. `pictures/<row>.png` are those that the task draws, of the first rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs import data, engine, tasks
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.engine import Part
from modelyard_jobs.tasks.task import Illustrated, Task

UNPAIRED = "backslashreplace"
"""How half a character is written, such as a label may hold: as JSON's own escape of it."""


def run(context: Context) -> Produced:
    """Answer for the rows of a split; what is done is kept window by window."""
    settings = context.settings
    task = tasks.chosen(context)
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split or (next(iter(splits)) if len(splits) == 1 else "test"))
    columns = task.columns(dataset, truth=False)
    context.decide("columns", columns, "named, or found by name and type")
    runner = engine.load(context, task, settings.token_budget)
    # A range: numbers of all rows would take memory that grows with the input.
    rows = range(len(dataset)) if settings.rows is None else data.sample(settings.rows, len(dataset), settings.seed)
    files = -(-len(rows) // task.window)
    (context.out / "data").mkdir()
    faults = Counter[str]()
    truncated = drawn = 0
    for number, part in enumerate(engine.parts(context, runner, dataset, columns, rows)):
        for why in filter(None, part.faults.tolist()):
            tasks.count(faults, why)
        tolerate(faults, len(rows), settings.max_error_rate, whole=False)
        truncated += int(part.truncated.sum())
        with (context.out / "data" / shard(split, number, files)).open("w", encoding="utf-8", errors=UNPAIRED) as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in _records(task, part, runner.labels))
        if isinstance(task, Illustrated) and drawn < settings.pictures:
            drawn += _draw(context, task, part, dataset, columns, labels=runner.labels, most=settings.pictures - drawn)
    tolerate(faults, len(rows), settings.max_error_rate, whole=True)
    context.detail("rows", {"split": split, "rows": len(rows), "failed": faults.total(), "truncated": truncated, "faults": dict(faults)})
    context.detail("speed", runner.speed())
    return Produced(kind="dataset")


def shard(split: str, number: int, files: int) -> str:
    """Name of a file of rows; names are sorted as texts."""
    digits = max(5, len(str(files)))
    return f"{split}-{number:0{digits}}-of-{files:0{digits}}.jsonl"


def tolerate(faults: Counter[str], rows: int, rate: float, *, whole: bool) -> None:
    """BadData when more rows than `rate` of all are unusable. whole: all rows were seen; until then a rate of rows so far says nothing."""
    # The share, as it is written in decimals: 0.29 of 100 rows is a hair less than 29.
    if faults and faults.total() / rows > rate:
        seen = "" if whole else " so far"
        why = "; ".join(f"{why}: {count}" for why, count in faults.most_common(5))
        what = f"{faults.total()} of {rows} rows cannot be used{seen}, more than max_error_rate {rate:g} allows"
        raise BadData(what, why=why, remedy="mend the rows, name the right column, or raise max_error_rate")


def _records(task: Task, part: Part, labels: list[str]) -> Iterator[dict[str, Any]]:
    for row, answer, cut, why in zip(part.rows.tolist(), part.answers, part.truncated.tolist(), part.faults.tolist(), strict=True):
        found = task.empty() if why else task.record(answer, labels)
        error = {"category": BadData.category, "what": why} if why else None
        yield {"row": row, **found, "truncated": cut, "error": error}


def _draw(context: Context, task: Illustrated, part: Part, dataset: Any, columns: dict[str, str], *, labels: list[str], most: int) -> int:
    """Pictures of the first rows of a part that have an answer; how many there are."""
    good = np.flatnonzero(part.faults == "")[:most]
    if not len(good):
        return 0
    folder = context.out / "pictures"
    folder.mkdir(exist_ok=True)
    chosen = dataset.select_columns(list(dict.fromkeys(columns.values()))).with_format("arrow")[part.rows[good]]
    for place, row in zip(good, data.by_role(chosen, columns), strict=True):
        (folder / f"{int(part.rows[place])}.png").write_bytes(task.picture(row, part.answers[place], None, labels))
    return len(good)
