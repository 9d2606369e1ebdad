"""A model and its export side by side, on the CPU: the same rows and shapes go through both, batch by batch, and what they say is compared.

The whole way is compared, from row to answer: the model with its own tokenizer under torch, the export as `infer` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.errors import BadData
from modelyard_jobs import batching
from modelyard_jobs.context import Context
from modelyard_jobs.engine import CPU_BUDGET
from modelyard_jobs.export import parity
from modelyard_jobs.export.answers import Given
from modelyard_jobs.export.int8 import Trial
from modelyard_jobs.export.parity import Parity
from modelyard_jobs.export.sample import Sample, Window
from modelyard_jobs.export.shapes import Batch
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.tasks.task import Answers, Item, Measurable
from modelyard_jobs.torch_runner import TorchRunner


@dataclass(frozen=True)
class Pair:
    """max_length: tokens of a row at most."""

    task: Measurable
    original: TorchRunner
    runner: OnnxRunner
    max_length: int

    def compare(self, context: Context, sample: Sample, probes: Sequence[Batch], trial: Trial | None) -> tuple[Parity, Mapping[str, Answers]]:
        """(how far they agree, what each says of the rows). trial: 8-bit weights that answer beside them.

        Raises BadData: the export makes something else of a row than the model's own tokenizer, or an engine gave no number.
        """
        comparison = parity.of(self.task)
        given = {name: Given(self.task, self.original.labels, context.settings.threshold) for name in ("torch", "onnx")}
        for window in sample.windows():
            done = len(given["torch"])
            for batch, items, arrays in self._batches(window):
                places = [done + place for place in batch]
                outputs = {"torch": self.original.run(arrays), "onnx": self.runner.run(arrays)}
                comparison.add(outputs["torch"], outputs["onnx"], arrays.get("attention_mask"))
                for name, said in outputs.items():
                    given[name].add(places, items, said)
                given["torch"].compare(given["onnx"], places, comparison)
                if trial:
                    trial.add(places, items, arrays, outputs["onnx"], given["onnx"])
                context.progress(window.start + len(given["torch"]) - done, len(sample.rows), "rows")
        context.progress(len(sample.rows), len(sample.rows), "rows")
        for probe in probes:
            comparison.add(self.original.run(probe), self.runner.run(probe), probe.get("attention_mask"), counted=False)
        return comparison.result(len(given["torch"])), {name: each.answers() for name, each in given.items()}

    def _batches(self, window: Window) -> Iterator[tuple[list[int], list[Item], Batch]]:
        """(places in the window, items, arrays) batch by batch."""
        own, plain = self.original.encoder, self.runner.encoder
        others = [item for item in self.task.prepare(window.rows, plain, self.max_length) if not isinstance(item, str)]
        for planned in batching.plan([item.size for item in window.items], CPU_BUDGET):
            items, same = ([each[place] for place in planned if place < len(each)] for each in (window.items, others))
            arrays, its = self.task.collate(items, own), self.task.collate(same, plain)
            if len(window.items) != len(others) or not all(np.array_equal(arrays[name], its.get(name, ())) for name in arrays):
                remedy = "use the model with the engine torch"
                why = f"among rows {window.start} to {window.start + window.count - 1} of the sample"
                raise BadData("the exported tokenizer does not give the model's tokens", why=why, remedy=remedy)
            yield planned, items, arrays
