"""8-bit weights for an exported model, and whether they may stay.

Dynamic quantization: weights are stored in 8 bits, activations are rounded while the model runs. It is smaller and, where the processor has the
instructions, faster, and it is another model: it stays only when the task's own metric is shown not to be worse on the same rows, when its labels, of
a task that gives labels, agree with float32's, and when it saves room at all: what is nearly all convolutions keeps its size.
The activations of a batch are rounded by one scale, so that a row's logits depend a little on the rows beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from modelyard_jobs.export import graph
from modelyard_jobs.export.parity import Parity
from modelyard_jobs.metrics.interval import Z
from modelyard_jobs.tasks.task import Answers, Measurable, Truths

AGREEMENT = 0.98
"""Lowest share of labels that are float32's."""
MARGIN = 0.01
"""Of the metric that may be lost: the lower end of the paired difference's 95 % interval has to stay above that."""
SMALLER = 0.9
"""Of float32's size at most."""


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
    if external:
        rough.with_name(f"{rough.name}.data").replace(target.with_name(f"{target.name}.data"))


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
    agreed = f"{same} of {parity.answers} labels are float32's" if labelled else f"{sizes[1] / sizes[0]:.0%} of float32's size"
    if labelled and parity.agreement < AGREEMENT:
        kept, why = False, f"{agreed}; {AGREEMENT:.0%} are asked for"
    elif sizes[1] > SMALLER * sizes[0]:
        kept, why = False, f"it saves nothing: {sizes[1] / sizes[0]:.0%} of float32's size, since its weights are not those of matrix products"
    elif low < -MARGIN:
        of = f"{difference.n} rows"
        lost = f"{spaced} may have fallen by {-low:.2%}" if _is_share(measured) else f"{spaced} may have fallen by {-low:.4f}"
        kept, why = False, f"{lost}, by 95 % over {of}; {MARGIN:.0%} is allowed (more rows make it narrower)"
    else:
        kept, why = True, f"{agreed}, and {spaced} fell by no more than {max(0.0, -low):.2%}, by 95 %"
    return {
        "kept": kept,
        "why": why,
        "agreement": parity.agreement,
        "metric": metric,
        "scores": {name: asdict(each.metrics[metric]) for name, each in measured.items()},
        "difference": asdict(difference),
        "size": sizes[1],
    }


def _is_share(measured: Mapping[str, Any]) -> bool:
    return all(0 <= each.metrics[each.main].value <= 1 for each in measured.values())
