"""The step: from a model, a data set and settings to a model's files.

Equal inputs and settings give equal files on a CPU where locked versions and threads agree; on an accelerator the order of rows is the same and
sums may round differently. The rows that choose the epoch are never trained on, and the test split is not looked at.
"""

from __future__ import annotations

import platform
import random
import resource
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.finetune import export, precision
from modelyard_jobs.finetune.checkpoint import Progress
from modelyard_jobs.finetune.classification import Classification, Examples
from modelyard_jobs.finetune.loop import Loop
from modelyard_jobs.finetune.order import WINDOW, Order, Rows
from modelyard_jobs.tasks import text_classification as task
from modelyard_jobs.tasks import text_classifier as classifier

VALIDATION = 0.1
"""Share of train that is cut for validation where no split is shipped."""


@dataclass(frozen=True)
class _Split:
    """Rows of one split, by number in it."""

    dataset: Any
    rows: Rows
    labels: NDArray[np.int64]


def run(context: Context) -> Produced:
    """Train, and leave the best epoch's model in `context.out`."""
    settings = context.settings
    train, validation, names, columns = _rows(context)
    # Right before the model is made: its new head, then dropout, draw the same numbers in every attempt.
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    model, tokenizer = classifier.load(context.inputs["model"], names, torch.float32)
    model.to(context.device)
    longest = classifier.length_limit(model, tokenizer, settings.max_length)
    truncated: dict[str, int] = {}

    def encoded(name: str, split: _Split) -> Examples:
        ids, cut = classifier.encode(tokenizer, list(data.values(split.dataset.select(split.rows), columns.text)), longest)
        truncated[name] = sum(cut)
        return Examples(ids, split.labels, split.rows)

    objective = Classification(tokenizer, encoded("train", train), encoded("validation", validation))
    context.detail("truncated", {**truncated, "max_length": longest})
    order = Order(objective.lengths, settings.batch_size * settings.accumulate, settings.seed, context.inputs["data"].digest)
    computed = precision.decide(settings.dtype, context.device)
    inputs = {name: artifact.digest for name, artifact in context.inputs.items()}
    same = {**settings.result_settings(), **inputs, "device": context.device, "computed": computed.name}
    loop = Loop(context, model, objective, order=order, precision=computed, run=same)
    _decide(context, loop)
    progress = loop.train()
    _report(context, progress)
    export.write(model, tokenizer, context.inputs["model"], context.out)
    return Produced(kind="model", format="safetensors")


def _rows(context: Context) -> tuple[_Split, _Split, list[str], task.Columns]:
    """(train, validation, label names, columns). Rows without a text are left out and counted."""
    settings = context.settings
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    _, dataset = data.pick(splits, "train")
    columns = task.columns(dataset, settings.text, settings.label)
    context.decide("columns", {"text": columns.text, "label": columns.label}, "named, or found by name and type")
    names = task.label_names(dataset, columns.label)
    context.decide("labels", names, "those of the train split, in the order of their ids")
    labels = task.label_ids(dataset, columns.label, names)
    usable, faults = task.usable_rows(dataset, columns.text)
    shipped = splits.get("validation")
    if shipped is not None:
        kept, reason = usable, "the validation split that the data have"
        task.columns(shipped, columns.text, columns.label)
        other, _ = task.usable_rows(shipped, columns.text)
        validation = _Split(shipped, other, task.label_ids(shipped, columns.label, names)[other])
    else:
        # By the text alone: equal texts with different labels must not stand on both sides.
        rest, cut = data.cut(dataset, columns.text, VALIDATION)
        kept, held_out = np.intersect1d(usable, rest), np.intersect1d(usable, cut)
        reason = f"cut from train, about {VALIDATION:.0%}, by a hash of the text: no row changes sides when the data grow"
        if len(kept) == 0 or len(held_out) == 0:
            kept, held_out, reason = usable, usable[:0], "too few rows to cut any; the last epoch is kept"
        validation = _Split(dataset, held_out, labels[held_out])
    if settings.train_rows is not None and len(validation.rows) > settings.train_rows:
        chosen = data.sample(settings.train_rows, len(validation.rows), settings.seed)
        validation = _Split(validation.dataset, validation.rows[chosen], validation.labels[chosen])
        reason += "; of it a seeded sample, no larger than train_rows"
    rows = kept[data.sample(settings.train_rows, len(kept), settings.seed)]
    train = _Split(dataset, rows, labels[rows])
    context.decide("validation", {"rows": len(validation.rows), "split": "train" if shipped is None else "validation"}, reason)
    if len(np.unique(train.labels)) < 2:
        raise BadData(
            f"all {len(rows)} training rows have the label {names[train.labels[0]]}",
            where=f"column {columns.label}",
            why=f"{len(dataset)} rows in train, {len(kept)} after the validation split",
            remedy="a classifier needs rows of two classes at least; raise train_rows, or mend the data",
        )
    shared = data.overlap(dataset.select(rows), validation.dataset.select(validation.rows), columns.text)
    counts = {"split": len(dataset), "train": len(rows), "validation": len(validation.rows), "faults": faults, "overlap": shared}
    context.detail("rows", counts)
    context.log.info("rows", **counts)
    return train, validation, names, columns


def _decide(context: Context, loop: Loop) -> None:
    settings, device = context.settings, context.device
    context.decide("dtype", loop.precision.name, loop.precision.reason)
    context.decide("steps", loop.total, "max_steps" if loop.total == settings.max_steps else f"{settings.epochs} epochs of {loop.order.steps}")
    context.decide(
        "batching",
        {"rows_per_step": loop.order.batch, "rows_per_pass": settings.batch_size, "window": WINDOW * loop.order.batch},
        "as set; rows of like length together, in random order"
        + (f"; passes of at most {loop.most_tokens} tokens, so that a request to stop is seen within seconds" if device == "cpu" else ""),
    )
    context.decide("optimizer", "AdamW", "one fused kernel for all weights; biases and norms are not decayed; linear warm-up and decay")
    context.decide("threads", torch.get_num_threads() if device == "cpu" else context.threads, "what the process may use")


def _report(context: Context, progress: Progress) -> None:
    if progress.best_epoch:
        reason = f"highest validation accuracy of {progress.epoch} epochs, {progress.best_value:.4f}; ties by loss"
        context.decide("best_epoch", progress.best_epoch, reason)
    else:
        context.decide("best_epoch", progress.epoch, "the last: there were no validation rows")
    if progress.micro < context.settings.batch_size:
        context.decide("rows_per_pass", progress.micro, "halved when the device's memory ran out; the rows of an optimizer step are as set")
    context.detail("history", {"train": progress.curve, "validation": progress.epochs, "resumed": progress.resumed})
    seconds = progress.seconds or 1.0
    speed = {
        "steps": progress.step,
        "rows_per_second": round(progress.trained / seconds, 2),
        "tokens_per_second": round(progress.tokens / seconds, 1),
        "padding": round(1 - progress.tokens / progress.padded, 4),
        "data_wait": round(progress.waited / seconds, 4),
        "train_seconds": round(progress.seconds, 3),
        "validation_seconds": round(progress.validated, 3),
    }
    context.detail("speed", speed)
    memory = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if context.device == "cuda":
        memory["device"] = torch.cuda.max_memory_allocated()
    context.detail("peak_memory", memory)
    hardware = torch.cuda.get_device_name() if context.device == "cuda" else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    libraries = {name: version(name) for name in ("torch", "transformers", "datasets", "numpy")}
    context.detail("environment", {"device": hardware, "threads": torch.get_num_threads(), "python": platform.python_version(), **libraries})
    context.log.info("trained", best_epoch=progress.best_epoch or progress.epoch, **speed)
