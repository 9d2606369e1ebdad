"""A device without room: batches that are far too large are halved until they fit, in infer and in finetune, and the budget comes up again.

The process may use a gigabyte more than the model takes; a batch that asks for more is refused by CUDA itself. With `--device cpu` the refusal is
played, since a processor's memory is not refused but ends the process. Exit code 1: no batch was refused, an answer is missing or differs, or the
budget did not come up again.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import encoders, stepping
from benchmarks.gpu import machine, train
from modelyard.steps import Finetune, Infer
from modelyard.yard import Yard
from modelyard_jobs import engine, finetune, models, tasks
from modelyard_jobs.torch_runner import TorchRunner

ROOM = 1 << 30


class Playing(TorchRunner):
    """Refuses more than 256 padded tokens while `tight`."""

    tight = False

    def raws(self, items: Any) -> list[Any]:
        """As a device with little memory."""
        if self.tight and len(items) * max(item.size for item in items) > 256:
            raise engine.OutOfMemory("played")
        return super().raws(items)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when a claim does not hold."""
    options = machine.arguments("a device without room", argv, texts=4096)
    device, count = options.device, 200 if options.tiny else options.texts
    budget = 4096 if options.tiny else 1 << 19
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yard = Yard.open(folder / "yard")
        source = encoders.commit(yard, "model", encoders.save(folder / "model", "tiny" if options.tiny else "base"))
        task = tasks.of("text-classification", Infer(model="m", data="d"))
        runner = Playing(task, models.load(task, source, None, torch.float32), device)
        made = engine.Engine(runner, task, 256, budget)
        items = made.prepare([{"text": text} for text in encoders.texts(count)])
        roomy = engine.Engine(runner, task, 256, 4096).answer(items, lambda _: None)
        with tight(runner, device):
            found = made.answer(items, lambda _: None)
        refused, lowest = made.budget.refused, made.budget.lowest
        for _ in range(2000):  # a batch at least each time
            if made.budget.tokens < budget:
                made.answer(items[:2], lambda _: None)
        differ = float(np.abs(np.asarray(found.answers) - np.asarray(roomy.answers)).max())
        claims = {
            f"{refused} batches of up to {budget} tokens were refused, down to {lowest}": refused > 0,
            f"every row has its answer, which differs by {differ:.1e} at most": differ <= 1e-4 and not any(found.faults),
            f"with room again the budget is {made.budget.tokens}": made.budget.tokens == budget,
        }
        if device == "cuda":
            inputs = {"model": source, "data": train.data(yard, folder / "rows", train.labelled(2048))}
            settings = Finetune(model="m", data="d", epochs=1, batch_size=1024, max_steps=2)
            with tight(runner, device):
                ran = stepping.run(finetune.run, settings, inputs, yard, folder / "tuned", device=device)
            claims[f"finetune went on with {ran.decisions.get('rows_per_pass')} of 1024 rows in a pass"] = "rows_per_pass" in ran.decisions
    return machine.held(claims)


@contextlib.contextmanager
def tight(runner: Playing, device: str) -> Iterator[None]:
    """Inside, the process may use a gigabyte more of the device than it uses now."""
    if device == "cpu":
        runner.tight = True
    else:
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + ROOM) / total)
    yield
    runner.tight = False
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)


if __name__ == "__main__":
    sys.exit(main())
