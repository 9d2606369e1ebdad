"""infer: a model over rows, a data set of predictions.

`data/<split>-00000-of-00003.jsonl`, one object a row in the order of the input: `row` (its number in the split, from 0), `label`, `score` (the
label's probability, 6 digits), `truncated` (tokens were cut off at max_length), `error`. A row that cannot be classified has no label and an error
with the category and words of the table of failures; it never fails the step. The same input gives the same bytes, resumed or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs import data, engine
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.engine import Part
from modelyard_jobs.tasks import text_classification as task


def run(context: Context) -> Produced:
    """Classify the rows of a split; what is done is kept every 4096 rows."""
    settings = context.settings
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split or (next(iter(splits)) if len(splits) == 1 else "test"))
    column = task.text_column(dataset, settings.text)
    runner = engine.load(context, settings.token_budget)
    rows = data.sample(settings.rows, len(dataset), settings.seed)
    context.decide("columns", {"text": column}, "named" if settings.text else "found by name and type")
    files = -(-len(rows) // engine.WINDOW)
    (context.out / "data").mkdir()
    failed = truncated = 0
    for number, part in enumerate(engine.parts(context, runner, dataset, column, rows)):
        failed += int(np.count_nonzero(part.faults))
        truncated += int(part.truncated.sum())
        with (context.out / "data" / f"{split}-{number:05d}-of-{files:05d}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in _records(part, runner.labels))
    context.detail("rows", {"split": split, "rows": len(rows), "failed": failed, "truncated": truncated})
    context.detail("speed", runner.speed())
    return Produced(kind="dataset")


def _records(part: Part, labels: list[str]) -> Iterator[dict[str, Any]]:
    best = part.probabilities.argmax(1)
    scores = part.probabilities.max(1).astype(float).round(6)
    for row, place, score, cut, why in zip(part.rows, best, scores, part.truncated, part.faults, strict=True):
        error = {"category": BadData.category, "what": str(why)} if why else None
        label = None if why else labels[place]
        yield {"row": int(row), "label": label, "score": None if why else float(score), "truncated": bool(cut), "error": error}
