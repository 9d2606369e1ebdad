"""ONNX Runtime on an accelerator: the CUDA provider is what the session runs on, its answers are torch's, and how fast it is beside torch.

Both in float32, on a BERT of base size with random weights, under the same budget. Needs onnxruntime-gpu in place of onnxruntime. Exit code 1: the
session runs elsewhere, or answers differ.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import encoders
from benchmarks import infer as sides
from benchmarks.gpu import machine
from modelyard.steps import Infer
from modelyard.yard import Yard
from modelyard_jobs import engine, exported, models, tasks
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.torch_runner import TorchRunner

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a claim does not hold."""
    options = machine.arguments("ONNX Runtime on an accelerator", argv, texts=2048, rounds=3)
    device, texts = options.device, encoders.texts(32 if options.tiny else options.texts)
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 is to be float32 for both
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yard = Yard.open(folder / "yard")
        source = encoders.commit(yard, "model", encoders.save(folder / "model", "tiny" if options.tiny else "base"))
        task = tasks.of("text-classification", Infer(model="m", data="d"))
        made = encoders.commit(yard, "model", sides.export_of(yard, source, folder), format="onnx")
        runner = TorchRunner(task, models.load(task, source, None, torch.float32), device)
        other = OnnxRunner.load(task, made, exported.GRAPH, device=device, threads=1)
        compared = {
            "torch": sides.engine_of(runner, engine.DEVICE_BUDGET),
            "onnx": sides.engine_of(other, engine.DEVICE_BUDGET),
            sides.ONE: sides.one_by_one(runner.model, runner.tokenizer, device),
        }
        times, answers = sides.rounds(compared, texts, 1 if options.tiny else options.rounds)
    sides.report(times, len(texts), targets=())
    print(f"onnx is {sides.median_ratio(times['torch'], times['onnx'], 'wall'):.2f} x torch")
    same = sides.agree(answers, exact=set())
    running = other.session.get_providers()[0]
    return machine.held({f"the session runs on {running}": running == PROVIDERS[device], "its labels are torch's where they have to be": same})


if __name__ == "__main__":
    sys.exit(main())
