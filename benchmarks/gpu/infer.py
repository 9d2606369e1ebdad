"""Texts per second of the engine on an accelerator, against one call per text, transformers' pipeline and a loop by hand, all in bfloat16.

The sides, texts and rounds are those of benchmarks/infer.py; a BERT of base size with random weights. Ratios are of the time that passed: a device
works while the processor waits. Exit code 1 when our engine is not 5 times as fast as one call per text, or not as fast as the others.
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
from modelyard_jobs import engine, models, tasks
from modelyard_jobs.torch_runner import TorchRunner

TARGETS = (("torch", sides.ONE, 5.0), ("torch", sides.PIPELINE, 1.0), ("torch", sides.HAND, 0.95))
BUDGETS = (4096, 8192, 16384, 32768, 65536)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a target is missed."""
    options = machine.arguments("infer's engine on an accelerator", argv, texts=4096, rounds=5)
    device, texts = options.device, encoders.texts(32 if options.tiny else options.texts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = encoders.commit(Yard.open(folder / "yard"), "model", encoders.save(folder / "model", "tiny" if options.tiny else "base"))
        runner = TorchRunner(
            task := tasks.of("text-classification", Infer(model="m", data="d")), models.load(task, source, None, torch.bfloat16), device
        )
        by_hand = sides.ByHand(runner.model, runner.tokenizer, device, BUDGETS)
        print(f"token budget: {engine.DEVICE_BUDGET} ours, {by_hand.tune(texts, 'wall')} by hand, the fastest of {BUDGETS}", flush=True)
        compared = {
            "torch": sides.engine_of(runner, engine.DEVICE_BUDGET),
            sides.ONE: sides.one_by_one(runner.model, runner.tokenizer, device),
            sides.PIPELINE: sides.pipeline(runner.model, runner.tokenizer, device),
            sides.HAND: by_hand,
        }
        for budget in BUDGETS:  # to choose DEVICE_BUDGET by
            compared[f"{budget}"] = sides.engine_of(runner, budget)
        times, answers = sides.rounds(compared, texts, 1 if options.tiny else options.rounds)
    fast = sides.report(times, len(texts), TARGETS, "wall")
    same = sides.agree(answers, exact=set())
    return machine.held({"our engine is as fast as it has to be": fast, "labels are the same where they have to be": same}, judged=not options.tiny)


if __name__ == "__main__":
    sys.exit(main())
