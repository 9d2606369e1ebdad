"""finetune on an accelerator: fp16 and bf16 against fp32, and rows per second and model FLOPs use against a default Trainer.

A BERT of base size with random weights, texts of lognormal length, labels by a telling word. The three dtypes train on the same rows in the same
order: their losses, step by step, have to differ by no more than the noise of those differences. Trainer has its defaults, bf16 and the same rows per
step. Model FLOPs are 6 per weight of the body and token without padding, and 12 x layers x width x length² for attention; their use is a share of
what a plain product of two matrices reaches on the device. Exit code 1: losses differ, or finetune is not 1.5 times as fast as Trainer.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import encoders, stepping, train
from benchmarks.gpu import machine
from modelyard.steps import Finetune
from modelyard.yard import Artifact, Yard
from modelyard_jobs import finetune

FLOOR = 1.5
DTYPES = ("float32", "float16", "bfloat16")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a claim does not hold."""
    options = machine.arguments("finetune on an accelerator", argv, rows=16384, batch=32, rounds=3)
    size, count = ("tiny", 96) if options.tiny else ("base", options.rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yard, rows = Yard.open(folder / "yard"), labelled(count)
        inputs = {"model": encoders.commit(yard, "model", encoders.save(folder / "model", size)), "data": data(yard, folder / "rows", rows)}
        usual = {"model": "m", "data": "d", "epochs": 1, "batch_size": options.batch, "learning_rate": 3e-5}
        losses, ours, theirs = {}, [], []
        for number in range(1 if options.tiny else options.rounds):
            for dtype in DTYPES if number == 0 else ("bfloat16",):
                ran = stepping.run(finetune.run, Finetune(**usual, dtype=dtype), inputs, yard, folder / f"{dtype}-{number}", device=options.device)
                losses.setdefault(dtype, np.array([point["loss"] for point in ran.details["history"]["train"]]))
                print(f"{dtype} runs in {ran.decisions['dtype']}: {count / ran.details['speed']['train_seconds']:.0f} rows per second", flush=True)
                if dtype == "bfloat16":
                    ours.append(ran.details["speed"]["train_seconds"])
            more: dict[str, Any] = {"bf16": True, "use_cpu": options.device == "cpu"}
            theirs.append(train.peer(Finetune(**usual), inputs["model"], rows, folder / f"peer-{number}", **more).training)
    lengths = np.array([min(len(text.split()) + 2, 256) for text in rows.train[0]])
    work, best = _flops(lengths, size), machine.peak(options.device, torch.bfloat16, 64 if options.tiny else 8192)
    for name, seconds in {"finetune": ours, "Trainer": theirs}.items():
        middle = statistics.median(seconds)
        print(f"{name:10} {count / middle:9.1f} rows per second, {work / middle / best:.1%} of {best / 1e12:.0f} TFLOP/s")
    ratio = statistics.median(slow / fast for slow, fast in zip(theirs, ours, strict=True))
    claims = {f"finetune is {ratio:.2f} x Trainer, at least {FLOOR}": ratio >= FLOOR}
    return machine.held({**claims, **alike(losses)}, judged=not options.tiny)


def labelled(count: int) -> train.Rows:
    """Texts with one of four telling words, and the label that it tells; a hundredth of them to validate on."""

    def some(number: int, seed: int) -> tuple[list[str], list[int]]:
        labels = np.random.default_rng(seed).integers(0, len(encoders.LABELS), number).tolist()
        return [f"w{100 + label} {text}" for label, text in zip(labels, encoders.texts(number, seed), strict=True)], labels

    validation = some(max(8, count // 100), 1)
    return train.Rows(list(encoders.LABELS), some(count, 0), validation, validation)


def data(yard: Yard, folder: Path, rows: train.Rows) -> Artifact:
    """Rows as a data set of files."""
    folder.mkdir()
    for split, (texts, labels) in {"train": rows.train, "validation": rows.validation}.items():
        lines = (json.dumps({"text": text, "label": rows.names[label]}) for text, label in zip(texts, labels, strict=True))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return encoders.commit(yard, "dataset", folder)


def alike(losses: dict[str, np.ndarray]) -> dict[str, bool]:
    """Whether the losses of each dtype are those of float32 but for noise: the mean difference is under three standard errors, or under 0.01."""
    claims = {}
    for dtype, found in losses.items():
        difference = found - losses["float32"]
        mean, error = float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
        claim = f"{dtype}: losses from {found[0]:.3f} to {found[-8:].mean():.3f}, {mean:+.4f} from float32's (standard error {error:.4f})"
        claims[claim] = bool(np.isfinite(found).all()) and abs(mean) <= max(3 * error, 0.01)
    return claims


def _flops(lengths: np.ndarray, size: str) -> float:
    shape = encoders.SIZES[size]
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    weights = layers * (4 * width**2 + 2 * width * shape["intermediate_size"])
    return float(6 * weights * lengths.sum() + 12 * layers * width * (lengths.astype(float) ** 2).sum())


if __name__ == "__main__":
    sys.exit(main())
