"""A classifier in torch as a graph in ONNX: two inputs with axes of any size, float32, the same bytes for the same weights.

The exporter writes down where each node came from, stack traces with paths of this machine included. Nothing of that is part of the computation,
and all of it is taken out. Names of values and weights stay: they are the model's own.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from modelyard.errors import BadData
from modelyard_jobs import data

OPSET = 20
"""Of the graphs that we write; ONNX Runtime reads it since 1.17."""
LARGEST = int(1.9 * 2**30)
"""Bytes of weights inside model.onnx, beyond which they go into a file of their own: protobuf ends at 2 GiB."""
AXES = ("batch", "sequence")
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"

_ROWS, _TOKENS = 2, 16  # at least 2 of each, or the exporter takes the axis for a fixed one


class _Logits(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def write(model: Any, limit: int, path: Path) -> onnx.ModelProto:
    """Trace a classifier in eval mode into `path`; the graph, without weights that lie outside of it.

    limit: tokens that it has positions for. Raises BadData: the model cannot be traced, or only for one size of batch or text.
    """
    program = _trace(model, min(_TOKENS, limit))
    program.save(path, external_data=is_large(model))
    graph = onnx.load(path, load_external_data=False)
    found = {value.name: axes(value) for value in [*graph.graph.input, *graph.graph.output]}
    wanted: dict[str, tuple[str | int, ...]] = {**dict.fromkeys(INPUTS, AXES), OUTPUT: (AXES[0], model.config.num_labels)}
    if found != wanted:
        why = f"the graph has {found} where {wanted} was asked for"
        raise BadData("the model cannot be exported for batches and texts of any size", why=why, remedy="use it with the engine torch")
    save(graph, path)
    return graph


def save(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph without notes on its origin, the same bytes for the same graph."""
    _strip(graph)
    graph.graph.ClearField("value_info")
    graph.producer_version = graph.producer_version.partition("+")[0]
    path.write_bytes(graph.SerializeToString(deterministic=True))


def axes(value: Any) -> tuple[str | int, ...]:
    """The axes of an input or output: a name for one of any size."""
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def is_large(model: Any) -> bool:
    """Whether the weights need a file of their own."""
    return bool(sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())) > LARGEST)


def _trace(model: Any, tokens: int) -> Any:
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(_ROWS * tokens).reshape(_ROWS, tokens) % vocabulary
    mask = torch.ones_like(ids)
    mask[-1, -1] = 0
    cache = getattr(model.config, "use_cache", None)
    if cache:
        model.config.use_cache = False  # what a decoder keeps for its next token is no output of a classifier
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators that are not asked for
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                _Logits(model).eval(),
                (ids, mask),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes={name: dict(enumerate(AXES)) for name in INPUTS},
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
