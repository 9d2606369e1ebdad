"""8-bit weights for an exported model, and whether they may stay.

Dynamic quantization: weights are stored in 8 bits, activations are rounded while the model runs. It is smaller and, where the processor has the
instructions, faster, and it is another model: it stays only when its labels agree with float32's and its accuracy is shown not to be worse.
The activations of a batch are rounded by one scale, so that a row's logits depend a little on the rows beside it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from modelyard_jobs import metrics
from modelyard_jobs.export import graph

AGREEMENT = 0.98
"""Lowest share of rows with float32's label."""
MARGIN = 0.01
"""Accuracy that may be lost: the lower end of the paired difference's 95 % interval has to stay above that."""

Labels = NDArray[np.int64]


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


def judge(true: Labels, original: Labels, exported: Labels, quantized: Labels) -> dict[str, Any]:
    """Whether 8 bits may stay, by the labels of the same rows: kept, why, agreement, accuracy of each, and int8's less float32's."""
    n = len(true)
    same = int((quantized == exported).sum())
    agreement, agreed = same / n, f"{same} of {n} labels are float32's"
    right, better = exported == true, quantized == true
    gained, lost = int((better & ~right).sum()), int((right & ~better).sum())
    difference = metrics.paired_difference(gained, lost, n)
    if agreement < AGREEMENT:
        why = f"{agreed}; {AGREEMENT:.0%} are asked for"
    elif difference.low < -MARGIN:
        why = f"accuracy may have fallen by {-difference.low:.2%}, by 95 % over {n} rows; {MARGIN:.0%} is allowed (more rows make it narrower)"
    else:
        why = f"{agreed}, and accuracy fell by no more than {max(0.0, -difference.low):.2%}, by 95 %"
    accuracy = {"torch": original, "onnx": exported, "int8": quantized}
    return {
        "kept": agreement >= AGREEMENT and difference.low >= -MARGIN,
        "why": why,
        "agreement": agreement,
        "accuracy": {name: asdict(metrics.wilson(int((labels == true).sum()), n)) for name, labels in accuracy.items()},
        "difference": asdict(difference),
    }
