"""evaluate: what a model is worth on labelled rows, and, where it is given another one, how far it is better or worse than that.

metrics.json (schema 1) holds
  schema, task, split           what was measured
  rows                          in the split; usable; evaluated; faults: why the others are not, with counts, also those of the other model alone;
                                seed of the sample. More than `max_error_rate` of them, of the split or of the sample, fail the step
  labels                        the model's, in the order of their ids; empty where the task has none
  main                          the metric that models are compared by
  metrics                       name -> value, low, high (95 %), n, interval; with `against` also `difference`: the value less that of the other
                                model, on the same rows, with a paired interval; same keys
  against                       null, or the other model: `digests` of both models; its `metrics`; `changed`: the rows that the two answer
                                differently, as fixed (only the model is right), broken (only the other is right), other (neither is)
  truncated                     rows cut at max_length tokens
  overlap                       evaluated rows whose content also stands in the train split of the same data; null where there is no such split
  slices                        the share of rows that are right, by length and by the values of `slice_by`
  errors                        wrong predictions as in predictions.jsonl, the surest first, each with its text, shortened, or its picture's path
and what the task has to say of its own (docs/tasks.md), such as classes and confusion.
predictions.jsonl holds each evaluated row: number in the split, what is true and what was predicted, and with `against` what the other model
predicted. `pictures/<row>.png` show the errors of a task that draws.
The two run one after the other, the second when the first is gone from memory; one that is compared with itself runs once.
Speeds are facts of one machine and day: they go to the action, not into files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data, engine, tasks
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.engine import Answered
from modelyard_jobs.infer import UNPAIRED, tolerate
from modelyard_jobs.metrics import slices
from modelyard_jobs.metrics.interval import Metric
from modelyard_jobs.tasks.columns import shown
from modelyard_jobs.tasks.task import Answers, Choosing, Illustrated, Measurable, Measured, Truths

SCHEMA = 1
_ERRORS = 25
_TEXT_SHOWN = 300
_SPANS_SHOWN = 3000
"""Of a text with spans: what is wrong with it may stand far behind its beginning."""


@dataclass(frozen=True)
class _Rows:
    """What is asked. columns: those that a model reads; numbers: of the rows in the split."""

    dataset: Any
    columns: Mapping[str, str]
    numbers: NDArray[np.int64]


def run(context: Context) -> Produced:
    """Answer for the rows of a split, all or a seeded sample, and count."""
    settings = context.settings
    task = tasks.chosen(context)
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split)
    columns = task.columns(dataset, truth=True)
    context.decide("columns", columns, "named, or found by name and type")
    if settings.slice_by is not None:
        tasks.columns.find(dataset, "slice_by", settings.slice_by, ())
    usable, faults = tasks.usable(task, dataset, columns)
    tolerate(faults, len(dataset), settings.max_error_rate, whole=True)
    rows = usable[data.sample(settings.rows, len(usable), settings.seed)]
    asked = _Rows(dataset, columns, rows)

    runner = engine.load(context, task, None)
    labels, max_length = runner.labels, runner.max_length
    truths = task.truths(dataset.select(rows), columns, labels)
    found = _answers(context, runner, asked)
    context.detail("speed", runner.speed())
    first = data.by_role(_arrow(asked, rows[: engine.TIMED]), columns)
    context.detail("latency", runner.latency(first))
    del runner  # the other model gets its memory
    other = _other(context, task, labels, asked, found)

    # Where the two do not fail on the same rows, they are compared on those that both have answered.
    late = Counter[str]()
    reasons = found.faults if other is None else np.where(found.faults == "", other.faults, found.faults)
    for why in filter(None, reasons.tolist()):
        tasks.count(late, why)
    tolerate(late, len(rows), settings.max_error_rate, whole=True)
    good = np.flatnonzero(reasons == "")
    if not len(good):
        raise BadData("no row can be evaluated", why="; ".join(late), remedy="mend the rows, or name the right column")
    truths, numbers = _at(truths, good), rows[good]
    answers = _at(found.answers, good)
    result = task.measure(truths, answers, labels)
    measured = {name: asdict(metric) for name, metric in result.metrics.items()}
    records = [{"row": row, **task.compared(truth, answer, labels)} for row, truth, answer in zip(numbers.tolist(), truths, answers, strict=True)]
    against = None
    if other is not None:
        against, theirs = _against(
            context, task, truths=truths, answers=answers, others=_at(other.answers, good), labels=labels, records=records, result=result
        )
        for name, difference in theirs.items():
            measured[name]["difference"] = asdict(difference)
    worst = result.worst[:_ERRORS]
    # A row that is asked once for each choice fills as many times its length.
    lengths = found.sizes[good] // (len(task.choices) if isinstance(task, Choosing) else 1)
    document = {
        "schema": SCHEMA,
        "task": task.name,
        "split": split,
        "rows": {
            "split": len(dataset),
            "usable": len(usable),
            "evaluated": len(good),
            "faults": dict(faults + late),
            "seed": settings.seed if len(rows) < len(usable) else None,
        },
        "labels": labels,
        "main": result.main,
        "metrics": measured,
        **result.document,
        "against": against,
        "truncated": {
            "rows": int(found.truncated[good].sum()),
            "share": float(found.truncated[good].mean()),
            "max_length": max_length,
        },
        "overlap": _overlap(splits, split, dataset.select(numbers), next(iter(columns.values()))),
        "slices": _slices(asked, numbers, lengths, result.right, column=settings.slice_by, encoder=task.encoder),
        "errors": list(_errors(context, task, asked, numbers[worst], worst, truths=truths, answers=answers, labels=labels, records=records)),
    }
    (context.out / "metrics.json").write_text(
        json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8", errors=UNPAIRED
    )
    with (context.out / "predictions.jsonl").open("w", encoding="utf-8", errors=UNPAIRED) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    main = {name: round(getattr(result.metrics[result.main], name), 4) for name in ("value", "low", "high")}
    context.log.info("evaluated", split=split, rows=len(good), **{result.main: main})
    if against:
        compared = {name: round(measured[result.main]["difference"][name], 4) for name in ("value", "low", "high")}
        context.log.info("compared with another model", against=against["digests"]["against"], **{result.main: compared}, changed=against["changed"])
    return Produced(kind="metrics")


def _at(values: Any, places: NDArray[np.int64]) -> Any:
    return [values[place] for place in places] if isinstance(values, list) else values[places]


def _answers(context: Context, runner: engine.Engine, asked: _Rows, which: str = "model") -> Answered:
    turns = 1 if _alone(context) else 2
    kept, turn = ("part", 1) if which == "model" else (which, 2)
    read = runner.task.columns(asked.dataset, truth=False)
    found = list(engine.parts(context, runner, asked.dataset, read, asked.numbers, kept=kept, turn=turn, turns=turns))
    faults = np.concatenate([part.faults for part in found])
    if broken := int((faults == engine.NO_NUMBER).sum()):
        what = f"the model gave no number for {broken} of {len(asked.numbers)} rows"
        raise BadData(what, where=context.inputs[which].digest, remedy="finetune it again")
    answers: Answers = np.concatenate([part.answers for part in found]) if runner.task.dense else [each for part in found for each in part.answers]
    return Answered(answers, np.concatenate([part.sizes for part in found]), np.concatenate([part.truncated for part in found]), faults)


def _alone(context: Context) -> bool:
    """Whether one model is all there is to run."""
    other = context.inputs.get("against")
    return other is None or other.digest == context.inputs["model"].digest


def _other(context: Context, task: Measurable, labels: Sequence[str], asked: _Rows, found: Answered) -> Answered | None:
    """What the other model says of the rows, in the order of `labels`; None where there is no other."""
    if _alone(context):
        return found if "against" in context.inputs else None
    runner = engine.load(context, task, None, "against")
    if sorted(runner.labels) != sorted(labels):
        raise BadData(
            "the two models have different labels",
            where=f"against: {context.inputs['against'].digest}",
            why=f"the model has {shown(labels)}; the other has {shown(runner.labels)}",
            remedy="compare it with a model that was trained for the same labels",
        )
    its = _answers(context, runner, asked, "against")
    if isinstance(its.answers, list):  # these name labels
        return its
    # By name, and those of one name in their order: ImageNet's labels have two cranes.
    places = np.empty(len(labels), dtype=np.int64)
    places[np.argsort(np.array(labels), kind="stable")] = np.argsort(np.array(runner.labels), kind="stable")
    return replace(its, answers=its.answers[:, places])


def _against(
    context: Context,
    task: Measurable,
    *,
    truths: Truths,
    answers: Answers,
    others: Answers,
    labels: Sequence[str],
    records: list[dict[str, Any]],
    result: Measured,
) -> tuple[dict[str, Any], dict[str, Metric]]:
    """What is to be said of the other model, and metric -> difference; each of `records` gets what it predicted."""
    differences = task.differences(truths, answers, others, labels)
    if _alone(context):  # of an artifact and itself nothing is left to chance
        differences = {name: replace(difference, low=0.0, high=0.0) for name, difference in differences.items()}
    its = task.measure(truths, others, labels)
    for record, truth, answer in zip(records, truths, others, strict=True):
        record["against"] = task.compared(truth, answer, labels)["predicted"]
    differ = np.array([record["against"] != record["predicted"] for record in records])
    right, was_right = result.right, its.right
    changed = {"fixed": right & ~was_right, "broken": was_right & ~right, "other": differ & ~right & ~was_right}
    told = {
        "digests": {name: context.inputs[name].digest for name in ("model", "against")},
        "metrics": {name: asdict(metric) for name, metric in its.metrics.items()},
        "changed": {name: int(rows.sum()) for name, rows in changed.items()},
    }
    return told, differences


def _overlap(splits: data.Splits, split: str, evaluated: Any, column: str) -> dict[str, Any] | None:
    train = splits.get("train") if split != "train" else None
    if train is None or column not in train.column_names:
        return None
    shared = data.overlap(train, evaluated, column)
    return {"split": "train", "rows": shared, "share": shared / len(evaluated)}


def _slices(
    asked: _Rows, numbers: NDArray[np.int64], sizes: NDArray[np.int32], right: NDArray[np.bool_], *, column: str | None, encoder: str
) -> list[dict[str, Any]]:
    found = [asdict(slices.by_length(sizes, right, unit="tokens" if encoder == "text" else "patches"))]
    if column is not None:
        values, names = list(data.values(asked.dataset.select(numbers), column)), getattr(asked.dataset.features[column], "names", None)
        if names is not None:  # a declared label is kept as its number, below 0 where it is missing
            values = [None if value is None or value < 0 else names[value] for value in values]
        found.append(asdict(slices.by_value(column, values, right)))
    return found


def _errors(
    context: Context,
    task: Measurable,
    asked: _Rows,
    numbers: NDArray[np.int64],
    places: NDArray[np.int64],
    *,
    truths: Truths,
    answers: Answers,
    labels: Sequence[str],
    records: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Of each wrong row its record, with what it was about."""
    if not len(numbers):
        return
    for number, place, row in zip(numbers.tolist(), places.tolist(), data.by_role(_arrow(asked, numbers), asked.columns), strict=True):
        # What is measured without labels is content from the first column to the last.
        content = next(iter(row.values())) if task.labelled else list(row.values())
        about: dict[str, Any] = {}
        if isinstance(task, Illustrated):
            about["picture"] = f"pictures/{number}.png"
            (context.out / "pictures").mkdir(exist_ok=True)
            (context.out / about["picture"]).write_bytes(task.picture(row, answers[place], truths[place], labels))
        else:
            sides = (records[place].get(side) for side in ("true", "predicted"))
            spanned = any(isinstance(span, Mapping) and "end" in span for side in sides if isinstance(side, list) for span in side)
            about["text"] = _shortened(_told(content), _SPANS_SHOWN if spanned else _TEXT_SHOWN)
        yield {**records[place], **about}


def _told(content: Any) -> str:
    """A text, words or a chat, as people read it."""
    if isinstance(content, list):
        return " ".join(map(_told, content))
    return f"{content['role']}: {content['content']}" if isinstance(content, Mapping) else str(content)


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 2] + " …"


def _arrow(asked: _Rows, numbers: NDArray[np.int64]) -> Any:
    return asked.dataset.select_columns(list(dict.fromkeys(asked.columns.values()))).with_format("arrow")[numbers]
