"""Which sizes of images a graph is for: any, where the model takes them and its graph answers alike; else that of the images as they are prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from modelyard.errors import BadData
from modelyard_jobs import data, exported
from modelyard_jobs.context import Context
from modelyard_jobs.export import graph, parity, shapes
from modelyard_jobs.export.shapes import Batch
from modelyard_jobs.onnx_runner import session
from modelyard_jobs.tasks.task import Item, Signature
from modelyard_jobs.torch_runner import TorchRunner


def write(context: Context, original: TorchRunner, items: Sequence[Item], max_length: int) -> tuple[onnx.ModelProto, Batch | None]:
    """Write the graph into `context.out`, also of a model that takes no images; (the graph, an image of another size where it takes any).

    Raises BadData: the task has no graph, or the model cannot be traced.
    """
    task, path = original.task, context.out / exported.GRAPH
    asked = task.signature(original.labels)
    if asked is None:
        raise BadData(f"there is no graph for {task.name.replace('-', ' ')}", remedy="use the model with the engine torch")
    collated = task.collate([items[0], items[-1]], original.encoder)
    if any(axis in shapes.SIZED for axes in asked.inputs.values() for axis in axes):
        signature = shapes.signature_of(asked, collated, sized=True)
        try:
            probe = shapes.other_sizes(signature.inputs, collated)
            original.run(probe)
            written = graph.write(original.model, signature, shapes.to_trace(signature.inputs, collated, max_length), path)
            _check(original, signature, path, [collated, probe])
        except Exception as error:  # noqa: BLE001  # a model that is made for one size says so in as many ways as there are models
            why = error.why if isinstance(error, BadData) else data.reason(error)
            path.unlink(missing_ok=True)
            size = "x".join(str(each) for each in collated["pixel_values"].shape[2:])
            context.decide("image_size", size, f"that of the images as they are prepared; of another size: {why[:200]}")
        else:
            context.decide("image_size", "any", "the model and its graph take it")
            return written, probe
    signature = shapes.signature_of(asked, collated, sized=False)
    return graph.write(original.model, signature, shapes.to_trace(signature.inputs, collated, max_length), path), None


def _check(original: TorchRunner, signature: Signature, path: Path, batches: Sequence[Batch]) -> None:
    """Raise BadData: a graph for images of any size answers otherwise than the model, as where the exporter kept one size's constants."""
    run, comparison = session(path, "cpu", 1).run, parity.of(original.task)
    for batch in batches:
        found = run(list(signature.outputs), {name: batch[name] for name in signature.inputs})
        comparison.add(original.run(batch), dict(zip(signature.outputs, found, strict=True)), None, counted=False)
    comparison.result(len(batches)).enforce()
