"""evaluate: what a model is worth on labelled rows, and, where it is given another one, how far it is better or worse than that.

metrics.json (schema 1) holds
  schema, task, split           what was measured
  rows                          in the split; usable (with a text); evaluated; faults: why the others are not usable, with counts; seed of the sample
  labels                        the model's, in the order of their ids: the order of `classes` and of both axes of `confusion`
  metrics                       name -> value, low, high (95 %), n, interval (wilson or bootstrap); names as in metrics.py. With `against` also
                                `difference`: the value less that of the other model, on the same rows, with a paired interval (agresti-min for
                                accuracy, else bootstrap); same keys
  against                       null, or the other model: `digests` of both models; its `metrics`; `changed`: the rows that the two answer
                                differently, as fixed (only the model is right), broken (only the other is right), other (neither is)
  classes, confusion, baseline  per label; rows true, columns predicted; the share of the most frequent label, which any model must beat
  truncated                     rows cut at max_length tokens
  overlap                       evaluated rows whose text also stands in the train split of the same data; null where there is no such split
  errors                        wrong predictions as in predictions.jsonl, the surest first, each with its text, shortened
predictions.jsonl holds each evaluated row: number in the split, true and predicted label, probabilities in the order of `labels` (6 digits), and
with `against` what the other model predicted.
The two run one after the other, the second when the first is gone from memory; one that is compared with itself runs once.
Speeds are facts of one machine and day: they go to the action, not into files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data, engine, metrics
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.tasks import text_classification as task

SCHEMA = 1
_ERRORS = 25
_TEXT_SHOWN = 300


@dataclass(frozen=True)
class _Rows:
    """What is asked. column: of the text; numbers: of the rows in the split."""

    dataset: Any
    column: str
    numbers: NDArray[np.int64]


@dataclass(frozen=True)
class _Answers:
    """What a model says of the rows."""

    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    truncated: int


def run(context: Context) -> Produced:
    """Classify the rows of a split, all or a seeded sample, and count."""
    settings = context.settings
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split)
    columns = task.columns(dataset, settings.text, settings.label)
    context.decide("columns", {"text": columns.text, "label": columns.label}, "named, or found by name and type")
    usable, faults = task.usable_rows(dataset, columns.text)
    rows = usable[data.sample(settings.rows, len(usable), settings.seed)]
    asked, evaluated = _Rows(dataset, columns.text, rows), dataset.select(rows)

    runner = engine.load(context, None)
    labels, max_length = runner.labels, runner.max_length
    true = task.label_ids(dataset, columns.label, labels)[rows]
    found = _answers(context, runner, asked)
    context.detail("speed", runner.speed())
    context.detail("latency", runner.latency(evaluated[: engine.TIMED][columns.text]))
    del runner  # the other model gets its memory
    other = _other(context, found, labels, asked)

    result = metrics.classification(metrics.confusion(true, found.predicted, len(labels)), labels, settings.seed)
    predictions = [
        {"row": row, "true": labels[right], "predicted": labels[guess], "probabilities": shares}
        for row, right, guess, shares in zip(rows.tolist(), true, found.predicted, found.probabilities.astype(float).round(6).tolist(), strict=True)
    ]
    against, differences = None, dict[str, metrics.Metric]()
    if other is not None:
        differences = metrics.differences(true, found.predicted, other, len(labels), settings.seed)
        if _alone(context):  # of an artifact and itself nothing is left to chance
            differences = {name: replace(difference, low=0.0, high=0.0) for name, difference in differences.items()}
        against = _against(context, true, found.predicted, other, labels)
        predictions = [{**record, "against": labels[guess]} for record, guess in zip(predictions, other, strict=True)]
    seed = settings.seed if len(rows) < len(usable) else None
    wrong = np.flatnonzero(found.predicted != true)
    worst = wrong[np.argsort(-found.probabilities.max(1)[wrong], kind="stable")][:_ERRORS]
    counted = asdict(result)
    for name, difference in differences.items():
        counted["metrics"][name]["difference"] = asdict(difference)
    document = {
        "schema": SCHEMA,
        "task": "text-classification",
        "split": split,
        "rows": {"split": len(dataset), "usable": len(usable), "evaluated": len(rows), "faults": faults, "seed": seed},
        "labels": labels,
        **counted,
        "against": against,
        "truncated": {"rows": found.truncated, "share": found.truncated / len(rows), "max_length": max_length},
        "overlap": _overlap(splits, split, evaluated, columns.text),
        "errors": [{**predictions[place], "text": evaluated[int(place)][columns.text][:_TEXT_SHOWN]} for place in worst],
    }
    (context.out / "metrics.json").write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with (context.out / "predictions.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in predictions)
    accuracy = {name: round(getattr(result.metrics["accuracy"], name), 4) for name in ("value", "low", "high")}
    context.log.info("evaluated", split=split, rows=len(rows), accuracy=accuracy)
    if against:
        compared = {name: round(getattr(differences["accuracy"], name), 4) for name in ("value", "low", "high")}
        context.log.info("compared with another model", against=against["digests"]["against"], accuracy=compared, changed=against["changed"])
    return Produced(kind="metrics")


def _answers(context: Context, runner: engine.Engine, asked: _Rows, which: str = "model") -> _Answers:
    turns = 1 if _alone(context) else 2
    kept, turn = ("part", 1) if which == "model" else (which, 2)
    found = list(engine.parts(context, runner, asked.dataset, asked.column, asked.numbers, kept=kept, turn=turn, turns=turns))
    if broken := sum(np.count_nonzero(part.faults) for part in found):
        what = f"the model gave no number for {broken} of {len(asked.numbers)} rows"
        raise BadData(what, where=context.inputs[which].digest, remedy="finetune it again")
    probabilities = np.concatenate([part.probabilities for part in found])
    return _Answers(probabilities.argmax(1), probabilities, int(sum(part.truncated.sum() for part in found)))


def _alone(context: Context) -> bool:
    """Whether one model is all there is to run."""
    other = context.inputs.get("against")
    return other is None or other.digest == context.inputs["model"].digest


def _other(context: Context, found: _Answers, labels: Sequence[str], asked: _Rows) -> NDArray[np.int64] | None:
    """What the other model says of the rows, as places in `labels`; None where there is no other."""
    if _alone(context):
        return found.predicted if "against" in context.inputs else None
    runner = engine.load(context, None, "against")
    if sorted(runner.labels) != sorted(labels):
        raise BadData(
            "the two models have different labels",
            where=f"against: {context.inputs['against'].digest}",
            why=f"the model has {task.shown(labels)}; the other has {task.shown(runner.labels)}",
            remedy="compare it with a model that was trained for the same labels",
        )
    places = np.array([list(labels).index(name) for name in runner.labels], dtype=np.int64)
    return places[_answers(context, runner, asked, "against").predicted]


def _against(
    context: Context, true: NDArray[np.int64], predicted: NDArray[np.int64], other: NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Any]:
    its = metrics.classification(metrics.confusion(true, other, len(labels)), labels, context.settings.seed).metrics
    right, was_right = predicted == true, other == true
    changed = {"fixed": right & ~was_right, "broken": was_right & ~right, "other": (predicted != other) & ~right & ~was_right}
    return {
        "digests": {name: context.inputs[name].digest for name in ("model", "against")},
        "metrics": {name: asdict(metric) for name, metric in its.items()},
        "changed": {name: int(rows.sum()) for name, rows in changed.items()},
    }


def _overlap(splits: data.Splits, split: str, evaluated: Any, column: str) -> dict[str, Any] | None:
    train = splits.get("train") if split != "train" else None
    if train is None or column not in train.column_names:
        return None
    shared = data.overlap(train, evaluated, column)
    return {"split": "train", "rows": shared, "share": shared / len(evaluated)}
