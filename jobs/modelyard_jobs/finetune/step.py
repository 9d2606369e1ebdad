"""The step: from a model, a data set and settings to a model's files.

Equal inputs and settings give equal files on a CPU where locked versions and threads agree; on an accelerator the order of rows is the same and
sums may round differently. The rows that choose the epoch are never trained on, and the test split is not looked at.
"""

from __future__ import annotations

import json
import platform
import random
import resource
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from modelyard.errors import BadData
from modelyard.yard import Artifact
from modelyard_jobs import data, dispatch, models, tasks
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.finetune import adapters, export, precision, preview
from modelyard_jobs.finetune.checkpoint import Progress
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import UNLIMITED, Loop, Objective
from modelyard_jobs.finetune.order import WINDOW, Order
from modelyard_jobs.tasks.task import Measurable

VALIDATION = 0.1
"""Share of train that is cut for validation where no split is shipped."""


def run(context: Context) -> Produced:
    """Train, and leave the best epoch's model in `context.out`."""
    settings = context.settings
    task = tasks.of(settings.task, settings)
    train, validation, names = _rows(context, task)
    # Right before the model is made: its new head, then dropout, draw the same numbers in every attempt.
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    place = dispatch.place(context, context.decide, method=settings.method)
    loaded = models.load(task, context.inputs["model"], names, torch.float32, place)
    loaded.to(context.device)
    lora = adapters.attach(loaded.model, settings.lora_rank, loaded.new) if settings.method == "lora" else None
    if lora:
        context.decide("adapters", {"rank": settings.lora_rank, "layers": lora.targets, "trained": lora.trained}, lora.reason)
    if settings.activation_checkpointing:
        _compute_again(context, loaded.model)
    longest = min(settings.max_length, loaded.encoder.limit)
    objective = _objective(task)(task, loaded, train, validation, longest)
    context.detail("truncated", {**objective.truncated, "max_length": longest})
    if left_out := objective.truncated.get("left_out"):
        context.log.warning("rows that the model cannot take were left out", reasons=left_out)
    order = Order(objective.lengths, settings.batch_size * settings.accumulate, settings.seed, context.inputs["data"].digest)
    computed = precision.decide(settings.dtype, context.device)
    inputs = {name: artifact.digest for name, artifact in context.inputs.items()}
    same = {**settings.result_settings(), **inputs, "device": context.device, "computed": computed.name}
    loop = Loop(context, loaded.model, objective, order=order, precision=computed, run=same)
    _decide(context, loop)
    progress = loop.train()
    _report(context, progress, objective)
    if lora:
        base = context.inputs["model"].digest
        adapters.merge(loaded.model, lora, base, context.out)
        context.detail("adapter", {"base": base, "folder": adapters.FOLDER})
    export.write(loaded.model, loaded.tokenizer, context.inputs["model"], context.out)
    return Produced(kind="model", format="safetensors")


def _compute_again(context: Context, model: Any) -> None:
    """Keep only what goes in and out of each block in the forward pass. Raises BadData: the model's class has no blocks that can."""
    if not model.supports_gradient_checkpointing:
        why, remedy = f"{type(model).__name__} of transformers does not offer it", "activation_checkpointing: false, with a smaller batch_size"
        raise BadData("the model cannot compute its activations again", where=context.inputs["model"].digest, why=why, remedy=remedy)
    # The older kind, reentrant, gives weights no gradient below adapters, where nothing that goes into a block needs one.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # its name in older versions
    enable({"use_reentrant": False})
    context.decide("activation_checkpointing", value=True, reason="as set: the backward pass computes the activations of each block again")


def _objective(task: Measurable) -> Any:
    """The class of finetune/<task>.py: an Objective made with (task, loaded, train, validation, max_length)."""
    return getattr(import_module(f"modelyard_jobs.finetune.{task.name.replace('-', '_')}"), type(task).__name__)


def _rows(context: Context, task: Measurable) -> tuple[Examples, Examples, list[str]]:
    """(train, validation, label names). Rows that cannot be used are left out and counted."""
    settings = context.settings
    splits = data.read(context.inputs["data"], context.scratch / "rows")
    _, dataset = data.pick(splits, "train")
    columns = task.columns(dataset, truth=True)
    content = next(iter(columns.values()))
    context.decide("columns", columns, "named, or found by name and type")
    names, order = task.label_names(dataset, columns), "of their ids"
    if (own := _own_labels(context.inputs["model"])) != names and sorted(own) == sorted(names):
        names, order = own, "that the model's head has them in"
    if names:
        context.decide("labels", names, f"those of the train split, in the order {order}")
    usable, faults = tasks.usable(task, dataset, columns)
    shipped = splits.get("validation")
    if shipped is not None:
        kept, reason = usable, "the validation split that the data have"
        of, held_out_columns = shipped, task.columns(shipped, truth=True)
        held_out, _ = tasks.usable(task, shipped, held_out_columns)
    else:
        # By the content alone: equal texts with different labels must not stand on both sides.
        of, held_out_columns = dataset, columns
        rest, cut = data.cut(dataset, content, VALIDATION)
        kept, held_out = np.intersect1d(usable, rest), np.intersect1d(usable, cut)
        reason = f"cut from train, about {VALIDATION:.0%}, by a hash of the {next(iter(columns))}: no row changes sides when the data grow"
        if len(kept) == 0 or len(held_out) == 0:
            kept, held_out, reason = usable, usable[:0], "too few rows to cut any; the last epoch is kept"
    if settings.train_rows is not None and len(held_out) > settings.train_rows:
        held_out = held_out[data.sample(settings.train_rows, len(held_out), settings.seed)]
        reason += "; of it a seeded sample, no larger than train_rows"
    rows = kept[data.sample(settings.train_rows, len(kept), settings.seed)]
    train = Examples(dataset, columns, rows, task.truths(dataset.select(rows), columns, names))
    validation = Examples(of, held_out_columns, held_out, task.truths(of.select(held_out), held_out_columns, names) if len(held_out) else [])
    context.decide("validation", {"rows": len(held_out), "split": "train" if shipped is None else "validation"}, reason)
    its = next(iter(held_out_columns.values()))
    shared = data.overlap(dataset.select(rows), of.select(held_out), content, its) if len(held_out) else 0
    counts = {"split": len(dataset), "train": len(rows), "validation": len(held_out), "faults": faults, "overlap": shared}
    context.detail("rows", counts)
    context.log.info("rows", **counts)
    preview.tell(context, train, names)
    return train, validation, names


def _own_labels(model: Artifact) -> list[str]:
    """The labels that the model says it has, in the order of their ids; none where it says nothing that can be read, as loading it will tell."""
    with suppress(OSError, ValueError, RecursionError):
        config = json.loads((model.path / "config.json").read_bytes())
        known = config.get("id2label") if isinstance(config, dict) else None
        if isinstance(known, dict):
            return [str(known.get(str(place))) for place in range(len(known))]
    return []


def _decide(context: Context, loop: Loop) -> None:
    settings, device = context.settings, context.device
    context.decide("dtype", loop.precision.name, loop.precision.reason)
    context.decide("steps", loop.total, "max_steps" if loop.total == settings.max_steps else f"{settings.epochs} epochs of {loop.order.steps}")
    context.decide(
        "batching",
        {"rows_per_step": loop.order.batch, "rows_per_pass": settings.batch_size, "window": WINDOW * loop.order.batch},
        "as set; rows of like length together, in random order"
        + ("" if loop.most_tokens == UNLIMITED else f"; passes of at most {loop.most_tokens} tokens, so that a request to stop is seen in seconds"),
    )
    context.decide("optimizer", "AdamW", "one fused kernel for all weights; biases and norms are not decayed; linear warm-up and decay")
    context.decide("threads", torch.get_num_threads() if device == "cpu" else context.threads, "what the process may use")


def _report(context: Context, progress: Progress, objective: Objective) -> None:
    if progress.best_epoch:
        reason = f"best {objective.chosen_by} of {progress.epoch} epochs, {progress.best_value:.4f}; ties by loss"
        context.decide("best_epoch", progress.best_epoch, reason)
    else:
        context.decide("best_epoch", progress.epoch, "the last: there were no validation rows")
    if progress.micro < context.settings.batch_size:
        context.decide("rows_per_pass", progress.micro, "halved when the device's memory ran out; the rows of an optimizer step are as set")
    broken: dict[str, int] = getattr(objective, "broken", {})  # only what is decoded while it trains can turn out to be broken
    if any(broken.values()):
        context.detail("broken", broken)
        context.log.warning("images could not be decoded and were left out", **broken)
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
