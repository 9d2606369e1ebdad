"""evaluate: what a model is worth on labelled rows.

metrics.json (schema 1) holds
  schema, task, split           what was measured
  rows                          in the split; usable (with a text); evaluated; faults: why the others are not usable, with counts; seed of the sample
  labels                        the model's, in the order of their ids: the order of `classes` and of both axes of `confusion`
  metrics                       name -> value, low, high (95 %), n, interval (wilson or bootstrap); names as in metrics.py
  classes, confusion, baseline  per label; rows true, columns predicted; the share of the most frequent label, which any model must beat
  truncated                     rows cut at max_length tokens
  overlap                       evaluated rows whose text also stands in the train split of the same data; null where there is no such split
  errors                        wrong predictions as in predictions.jsonl, the surest first, each with its text, shortened
predictions.jsonl holds each evaluated row: number in the split, true and predicted label, probabilities in the order of `labels` (6 digits).
Speeds are facts of one machine and day: they go to the action, not into files.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs import data, engine, metrics
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.tasks import text_classification as task

SCHEMA = 1
_ERRORS = 25
_TEXT_SHOWN = 300


def run(context: Context) -> Produced:
    """Classify the rows of a split, all or a seeded sample, and count."""
    settings = context.settings
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split)
    columns = task.columns(dataset, settings.text, settings.label)
    context.decide("columns", {"text": columns.text, "label": columns.label}, "named, or found by name and type")
    usable, faults = task.usable_rows(dataset, columns.text)
    rows = usable[data.sample(settings.rows, len(usable), settings.seed)]
    runner = engine.load(context, None)
    labels = runner.labels
    true = task.label_ids(dataset, columns.label, labels)[rows]

    found = list(engine.parts(context, runner, dataset, columns.text, rows))
    if broken := sum(np.count_nonzero(part.faults) for part in found):
        raise BadData(f"the model gave no number for {broken} of {len(rows)} rows", where=context.inputs["model"].digest, remedy="finetune it again")
    probabilities = np.concatenate([part.probabilities for part in found])
    predicted = probabilities.argmax(1)
    truncated = int(sum(part.truncated.sum() for part in found))
    result = metrics.classification(metrics.confusion(true, predicted, len(labels)), labels, settings.seed)
    evaluated = dataset.select(rows)
    predictions = [
        {"row": row, "true": labels[right], "predicted": labels[guess], "probabilities": shares}
        for row, right, guess, shares in zip(rows.tolist(), true, predicted, probabilities.astype(float).round(6).tolist(), strict=True)
    ]
    seed = settings.seed if len(rows) < len(usable) else None
    wrong = np.flatnonzero(predicted != true)
    worst = wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")][:_ERRORS]
    document = {
        "schema": SCHEMA,
        "task": "text-classification",
        "split": split,
        "rows": {"split": len(dataset), "usable": len(usable), "evaluated": len(rows), "faults": faults, "seed": seed},
        "labels": labels,
        **asdict(result),
        "truncated": {"rows": truncated, "share": truncated / len(rows), "max_length": runner.max_length},
        "overlap": _overlap(splits, split, evaluated, columns.text),
        "errors": [{**predictions[place], "text": evaluated[int(place)][columns.text][:_TEXT_SHOWN]} for place in worst],
    }
    (context.out / "metrics.json").write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with (context.out / "predictions.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in predictions)
    accuracy = {name: round(getattr(result.metrics["accuracy"], name), 4) for name in ("value", "low", "high")}
    context.log.info("evaluated", split=split, rows=len(rows), accuracy=accuracy)
    context.detail("speed", runner.speed())
    context.detail("latency", runner.latency(evaluated[: engine.TIMED][columns.text]))
    return Produced(kind="metrics")


def _overlap(splits: data.Splits, split: str, evaluated: Any, column: str) -> dict[str, Any] | None:
    train = splits.get("train") if split != "train" else None
    if train is None or column not in train.column_names:
        return None
    shared = data.overlap(train, evaluated, column)
    return {"split": "train", "rows": shared, "share": shared / len(evaluated)}
