"""A model in torch as a graph in ONNX: named inputs with axes of any size, float32, the same bytes for the same weights.

The exporter writes down where each node came from, stack traces with paths of this machine included. Nothing of that is part of the computation,
and all of it is taken out. Names of values and weights stay: they are the model's own.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data
from modelyard_jobs.tasks.task import Signature

OPSET = 20
"""Of the graphs that we write; ONNX Runtime reads it since 1.17."""
LARGEST = int(1.5 * 2**30)
"""Bytes of weights inside model.onnx, beyond which they go into a file of their own, as torch has it too: protobuf ends at 2 GiB."""

Axes = tuple[str | int, ...]


class _Named(torch.nn.Module):
    """A model with inputs and outputs in order instead of by name."""

    def __init__(self, model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, tuple(inputs), tuple(outputs)

    def run(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(found, name) for name in self.outputs)


class _One(_Named):
    def forward(self, first: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.run(first)


class _Two(_Named):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.run(first, second)


class _Three(_Named):
    def forward(self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.run(first, second, third)


_OF = {1: _One, 2: _Two, 3: _Three}
"""Number of inputs -> wrapper: torch 2.9 cannot trace any number of them behind one name."""


def write(model: Any, signature: Signature, arrays: Mapping[str, NDArray[Any]], path: Path) -> onnx.ModelProto:
    """Trace a model in eval mode into `path`; the graph, without weights that lie outside of it.

    arrays: what it takes, by name, each axis of any size at least 2 long, or the exporter takes it for a fixed one.
    Raises BadData: the model cannot be traced, or only for one size of what its signature names.
    """
    program = _trace(model, signature, arrays)
    program.save(path, external_data=is_large(model))
    graph = onnx.load(path, load_external_data=False)
    found = {value.name: axes(value) for value in [*graph.graph.input, *graph.graph.output]}
    free = {axis for each in signature.inputs.values() for axis in each if isinstance(axis, str)}
    wanted = {**signature.inputs, **signature.outputs}
    if found.keys() != wanted.keys() or not all(_fits(found[name], wanted[name], free) for name in wanted):
        why = f"the graph has {found} where {wanted} was asked for"
        what = f"the model cannot be exported for any size of {' and '.join(sorted(free))}"
        raise BadData(what, why=why, remedy="use it with the engine torch")
    save(graph, path)
    return graph


def save(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph without notes on its origin, the same bytes for the same graph."""
    _strip(graph)
    graph.graph.ClearField("value_info")
    graph.producer_version = graph.producer_version.partition("+")[0]
    path.write_bytes(graph.SerializeToString(deterministic=True))


def axes(value: Any) -> Axes:
    """The axes of an input or output: a name for one of any size."""
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def inputs(graph: onnx.ModelProto) -> dict[str, Axes]:
    """What a graph takes: name -> its axes."""
    return {value.name: axes(value) for value in graph.graph.input}


def opset(graph: onnx.ModelProto) -> int:
    """The version of ONNX's own operators, which the exporter may have left lower than it was asked for."""
    return int(next(each.version for each in graph.opset_import if each.domain in {"", "ai.onnx"}))


def size(path: Path) -> int:
    """Bytes of a graph with the file of its weights, where it has one."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def is_large(model: Any) -> bool:
    """Whether the weights need a file of their own."""
    return bool(sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())) > LARGEST)


def _fits(found: Axes, wanted: Axes, free: set[str]) -> bool:
    """Whether axes are those that were asked for; a name that no input has stands for a number that only the model knows, such as its words."""
    return len(found) == len(wanted) and all(
        one == other or (isinstance(other, str) and other not in free and isinstance(one, int)) for one, other in zip(found, wanted, strict=True)
    )


def _trace(model: Any, signature: Signature, arrays: Mapping[str, NDArray[Any]]) -> Any:
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in inputs)
    moving = tuple({place: axis for place, axis in enumerate(signature.inputs[name]) if isinstance(axis, str)} for name in inputs)
    cache = getattr(model.config, "use_cache", None)
    if cache:
        model.config.use_cache = False  # what a decoder keeps for its next token is no output of the graph
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators that are not asked for
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                _OF[len(inputs)](model, inputs, outputs).eval(),
                tensors,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=moving,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever a model's own code raises while it is traced
        kind = type(model).__name__
        remedy = "use it with the engine torch, or take a model of another kind"
        raise BadData(f"the exporter cannot trace {kind}", why=data.reason(error), remedy=remedy) from error
    finally:
        if cache:
            model.config.use_cache = cache


def _strip(message: Any) -> None:
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)
