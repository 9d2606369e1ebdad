"""How many rows per second `finetune` trains on, against transformers' Trainer, on a real encoder and real reviews.

Both get the same weights, rows, validation rows, epochs, rows per step, threads, learning rate with its warm-up, decay, clipping, seed and cut at
max_length; both validate after every epoch. Everything else of Trainer is its default (random order, DataCollatorWithPadding, fused AdamW), but that
it is spared what it would spend on checkpoints, progress bars and reading rows from files; ours checkpoints as it always does.

Three times per side: the whole job (encode texts, load the model, train, validate, write files; for ours also read and split the rows), its processor
time, which others on a busy machine cannot lengthen much, and training alone. Rounds are interleaved and change sides, so that a busy machine is busy
for both. Prints medians, ratios of medians, and the accuracy of both models on the test split with Wilson's 95 % interval. Exit code 1: the intervals
do not overlap, or the ratio of processor times is under the floor.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset

from benchmarks import stepping
from modelyard.steps import Finetune
from modelyard.yard import Artifact, Yard
from modelyard_jobs import batching, data, finetune, models
from modelyard_jobs.finetune.loop import tensors
from modelyard_jobs.finetune.step import VALIDATION
from modelyard_jobs.metrics import interval
from modelyard_jobs.tasks.text_classification import TextClassification

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DATA = "datasets/hutto/movie-reviews"
FLOOR = 1.3


@dataclass(frozen=True)
class Timed:
    """One run of one side, in seconds; model: folder of its files."""

    whole: float
    processor: float
    training: float
    model: Path


@dataclass(frozen=True)
class Rows:
    """What both train on: texts and label ids."""

    names: list[str]
    train: tuple[list[str], list[int]]
    validation: tuple[list[str], list[int]]
    test: tuple[list[str], list[int]]


def main() -> int:
    """Measure and print; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description="finetune against transformers.Trainer")
    parser.add_argument("--hub", type=Path, default=Path(".demo/hub"), help="folder that examples/demo_hub.py made")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yard = Yard.open(folder / "yard")
        inputs = {"model": _artifact(yard, "model", options.hub / MODEL), "data": _artifact(yard, "dataset", options.hub / DATA)}
        settings = Finetune(
            model="model", data="data", train_rows=options.rows, epochs=options.epochs, batch_size=options.batch_size, learning_rate=1e-4
        )
        rows = select(inputs["data"], settings, folder / "rows")
        sides: dict[str, Callable[[Path], Timed]] = {
            "finetune": lambda out: ours(settings, inputs, yard, out, options.threads),
            "Trainer": lambda out: peer(settings, inputs["model"], rows, out),
        }
        times: dict[str, list[Timed]] = {name: [] for name in sides}
        for number in range(options.rounds):
            for name in list(sides) if number % 2 == 0 else reversed(sides):
                gc.collect()
                times[name].append(sides[name](folder / f"{name}-{number}"))
        counts = f"{len(rows.train[0])} rows, {settings.epochs} epochs, {len(rows.validation[0])} validation rows"
        print(f"{counts}; {options.rounds} rounds, {options.threads} threads", flush=True)
        ratio = compare(times, len(rows.train[0]) * settings.epochs)
        found = {name: accuracy(yard, runs[-1].model, rows, settings.max_length) for name, runs in times.items()}
    for name, value in found.items():
        print(f"{name:10} accuracy {value.value:.4f} ({value.low:.4f} to {value.high:.4f}, n={value.n})")
    overlap = max(value.low for value in found.values()) <= min(value.high for value in found.values())
    print("the intervals overlap" if overlap else "the intervals do not overlap")
    return int(not overlap or ratio < FLOOR)


def select(artifact: Artifact, settings: Finetune, cache: Path) -> Rows:
    """The rows that finetune will choose by itself."""
    splits = data.read(artifact, cache)
    train, task = splits["train"], TextClassification(settings)
    columns = task.columns(train, truth=True)
    names = task.label_names(train, columns)
    rest, cut = data.cut(train, columns["text"], VALIDATION)
    chosen = rest[data.sample(settings.train_rows, len(rest), settings.seed)]
    cut = cut[data.sample(settings.train_rows, len(cut), settings.seed)]

    def pick(dataset: Any, rows: np.ndarray) -> tuple[list[str], list[int]]:
        return list(dataset.select(rows)[columns["text"]]), task.truths(dataset, columns, names)[rows].tolist()

    return Rows(names, pick(train, chosen), pick(train, cut), pick(splits["test"], np.arange(len(splits["test"]))))


def ours(settings: Finetune, inputs: dict[str, Artifact], yard: Yard, out: Path, threads: int) -> Timed:
    """The step as the frame runs it, in this process."""
    start = time.perf_counter(), time.process_time()
    ran = stepping.run(finetune.run, settings, inputs, yard, out, threads=threads)
    return Timed(time.perf_counter() - start[0], time.process_time() - start[1], ran.details["speed"]["train_seconds"], ran.files)


def peer(settings: Finetune, model: Artifact, rows: Rows, out: Path, **more: Any) -> Timed:
    """The usual recipe with Trainer, on the CPU. more: arguments of another one."""
    start = time.perf_counter(), time.process_time()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.path)

    def tokenize(batch: dict[str, list[str]]) -> Any:
        return tokenizer(batch["text"], truncation=True, max_length=settings.max_length)

    def encoded(texts: list[str], labels: list[int]) -> Dataset:
        return Dataset.from_dict({"text": texts, "labels": labels}).map(tokenize, batched=True, remove_columns="text")

    train, validation = encoded(*rows.train), encoded(*rows.validation)
    transformers.set_seed(settings.seed)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model.path, num_labels=len(rows.names), dtype=torch.float32)
    arguments = transformers.TrainingArguments(
        output_dir=str(out / "trainer"),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **(more or {"use_cpu": True}),
    )
    trainer = transformers.Trainer(
        model=network,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    began = time.perf_counter()
    trainer.train()
    training = time.perf_counter() - began - sum(entry.get("eval_runtime", 0.0) for entry in trainer.state.log_history)
    network.config.id2label = dict(enumerate(rows.names))
    network.config.label2id = {name: place for place, name in enumerate(rows.names)}
    trainer.save_model(str(out / "files"))
    return Timed(time.perf_counter() - start[0], time.process_time() - start[1], training, out / "files")


def compare(times: dict[str, list[Timed]], trained: int) -> float:
    """Print rows per second and ratios; gives that of processor time."""
    ratios = {}
    for what in ("whole", "processor", "training"):
        seconds = {name: [getattr(run, what) for run in runs] for name, runs in times.items()}
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratios[what] = medians["Trainer"] / medians["finetune"]
        for name, values in seconds.items():
            print(f"{name:10} {what:9} {trained / medians[name]:7.1f} rows/s  ({min(values):.1f} to {max(values):.1f} s)")
        print(f"{'':10} {what:9} {ratios[what]:7.2f} x")
    return ratios["processor"]


def accuracy(yard: Yard, folder: Path, rows: Rows, max_length: int) -> interval.Metric:
    """Of a model's files on the test split."""
    task = TextClassification(None)
    loaded = models.load(task, _artifact(yard, "model", folder), None, torch.float32)
    texts, labels = rows.test
    items = [item for item in task.prepare([{"text": text} for text in texts], loaded.encoder, max_length) if not isinstance(item, str)]
    right = 0
    for batch in batching.plan([item.size for item in items], 1024):
        with torch.inference_mode():
            predicted = loaded.model(**tensors(task.collate([items[row] for row in batch], loaded.encoder))).logits.argmax(1)
        right += int((predicted.numpy() == np.array(labels)[batch]).sum())
    return interval.wilson(right, len(labels))


def _artifact(yard: Yard, kind: Any, folder: Path) -> Artifact:
    with yard.staging("bench-r1.make.1") as staging:
        shutil.copytree(folder, staging.files, dirs_exist_ok=True)
        return yard.artifacts.commit(staging, kind=kind)


if __name__ == "__main__":
    sys.exit(main())
