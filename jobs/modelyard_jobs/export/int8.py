"""8-bit weights for an exported model, and whether they may stay.

Dynamic quantization: weights are stored in 8 bits, activations are rounded while the model runs. It is smaller and, where the processor has the
instructions, faster, and it is another model: it stays only when the task's own metric is shown not to be worse on the same rows, when its labels, of
a task that gives labels, agree with float32's, and when it saves room at all: what is nearly all convolutions keeps its size.
It answers while float32 is compared, so that no row is prepared for it alone.
The activations of a batch are rounded by one scale, so that a row's logits depend a little on the rows beside it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from modelyard.errors import BadData
from modelyard_jobs import data, exported
from modelyard_jobs.context import Context
from modelyard_jobs.export import graph, parity
from modelyard_jobs.export.answers import Given
from modelyard_jobs.export.parity import Parity
from modelyard_jobs.export.shapes import Batch
from modelyard_jobs.exported import Description
from modelyard_jobs.metrics.interval import Z
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Measurable, Truths

AGREEMENT = 0.98
"""Lowest share of labels that are float32's."""
MARGIN = 0.01
"""Of the metric that may be lost: the lower end of the paired difference's 95 % interval has to stay above that."""
SMALLER = 0.9
"""Of float32's size at most."""


class Trial:
    """8-bit weights that answer the sample beside float32's, and are judged at the end. Whatever fails refuses them, and not the export."""

    def __init__(self, context: Context, task: Measurable, description: Description) -> None:
        """Quantize the graph in `context.out`."""
        self._context, self._task, self._why = context, task, ""
        self._runner: OnnxRunner | None = None
        self._comparison, self._given = parity.of(task), Given(task, description.labels, context.settings.threshold)
        self._others = set(context.out.iterdir())
        with self._refusing():
            write(context.out / exported.GRAPH, context.out / exported.INT8, context.scratch)
            self._runner = OnnxRunner(task, context.out, description, exported.INT8, device="cpu", threads=context.threads)

    def add(self, places: Sequence[int], items: Sequence[Item], arrays: Batch, reference: Arrays, answers: Given) -> None:
        """One batch of the sample. reference: what float32 says of it; answers: that too, as answers."""
        if self._runner:
            with self._refusing():
                outputs = self._runner.run(arrays)
                self._comparison.add(reference, outputs, arrays.get("attention_mask"))
                self._given.add(places, items, outputs)
                answers.compare(self._given, places, self._comparison)

    def end(self, truths: Truths, answers: Mapping[str, Answers], labels: Sequence[str]) -> OnnxRunner | None:
        """Judge, say so, and take the files away where they may not stay. The runner, for its speed, of weights that answered all rows."""
        runner, verdict = self._runner, dict[str, Any]()
        if runner:
            with self._refusing():
                sizes = (graph.size(self._context.out / exported.GRAPH), graph.size(self._context.out / exported.INT8))
                all_answers = {**answers, "int8": self._given.answers()}
                agreed = self._comparison.result(len(self._given))
                verdict = judge(self._task, truths, all_answers, labels, parity=agreed, sizes=sizes)
        verdict = verdict or {"kept": False, "why": self._why}
        self._context.detail("int8", verdict)
        self._context.decide("int8", "kept" if verdict["kept"] else "refused", verdict["why"])
        if not verdict["kept"]:
            for path in set(self._context.out.iterdir()) - self._others:  # the quantizer's own leftovers among them
                path.unlink()
        return runner

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except BadData as error:
            self._why, self._runner = str(error), None
        except Exception as error:  # noqa: BLE001  # a graph that the quantizer cannot read is still a good export
            self._why, self._runner = f"it cannot be quantized: {data.reason(error)}", None


def write(source: Path, target: Path, scratch: Path) -> None:
    """Quantize the graph in `source` into `target`; scratch: a folder for files in between."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises a preparation that changes nothing here
    external = source.with_name(f"{source.name}.data").exists()
    rough = scratch / target.name
    quantize_dynamic(
        source,
        rough,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=external,
    )
    graph.save(onnx.load(rough, load_external_data=False), target)
    if external:  # moved, not renamed: the yard is another file system
        shutil.move(rough.with_name(f"{rough.name}.data"), target.with_name(f"{target.name}.data"))


def judge(
    task: Measurable, truths: Truths, answers: Mapping[str, Answers], labels: Sequence[str], *, parity: Parity, sizes: tuple[int, int]
) -> dict[str, Any]:
    """Whether 8 bits may stay: kept, why, agreement, the metric, its scores of each engine, and int8's less float32's.

    answers: of the engines torch, onnx and int8 to the same rows. parity: of int8 with onnx. sizes: bytes of the graph in float32 and in 8 bits.
    """
    measured = {name: task.measure(truths, each, labels) for name, each in answers.items()}
    metric = measured["onnx"].main
    difference = task.differences(truths, answers["int8"], answers["onnx"], labels)[metric]
    # A bootstrap of few rows that all stay as they are is a point: it proves no more than the interval of a proportion of as many rows does.
    low = difference.low if difference.interval != "bootstrap" else min(difference.low, difference.value - Z / (difference.n + 2))
    spaced, labelled = metric.replace("_", " "), parity.unit == "label"
    same = round(parity.agreement * parity.answers)
    share = all(0 <= each.metrics[metric].value <= 1 for each in measured.values())
    fallen = f"{max(0.0, -low):.2%}" if share else f"{max(0.0, -low):.4f}"
    agreed = f"{same} of {parity.answers} labels are float32's" if labelled else f"{sizes[1] / sizes[0]:.0%} of float32's size"
    if labelled and parity.agreement < AGREEMENT:
        kept, why = False, f"{agreed}; {AGREEMENT:.0%} are asked for"
    elif sizes[1] > SMALLER * sizes[0]:
        kept, why = False, f"it saves nothing: {sizes[1] / sizes[0]:.0%} of float32's size, since its weights are not those of matrix products"
    elif low < -MARGIN:
        lost = f"{spaced} may have fallen by {fallen}, by 95 % over {difference.n} rows"
        kept, why = False, f"{lost}; {f'{MARGIN:.0%}' if share else MARGIN} is allowed (more rows make it narrower)"
    else:
        kept, why = True, f"{agreed}, and {spaced} fell by no more than {fallen}, by 95 %"
    return {
        "kept": kept,
        "why": why,
        "agreement": parity.agreement,
        "metric": metric,
        "scores": {name: asdict(each.metrics[metric]) for name, each in measured.items()},
        "difference": asdict(difference),
        "size": sizes[1],
    }
