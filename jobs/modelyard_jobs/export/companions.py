"""The files beside a graph: what it is, the model's configuration, its tokenizer or how images are prepared, and its licence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from modelyard.errors import BadData
from modelyard_jobs import exported
from modelyard_jobs.context import Context
from modelyard_jobs.export import graph, shapes
from modelyard_jobs.export.shapes import Batch
from modelyard_jobs.exported import Description, Text
from modelyard_jobs.finetune import export as files
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import Task

_MOST_TOKENS = 131072


def write(context: Context, task: Task, loaded: Loaded, written: onnx.ModelProto, probes: Sequence[Batch]) -> Description:
    """Write them into `context.out`, where the graph is; what export.json says. Raises BadData: the tokenizer runs with transformers alone.

    written: the graph. probes: what it will be compared on beside the rows.
    """
    out, tokenizer, text = context.out, loaded.tokenizer, None
    inputs = graph.inputs(written)
    loaded.model.config._name_or_path = ""
    loaded.model.config.save_pretrained(out)
    files.accompany(tokenizer, context.inputs["model"], out)
    if tokenizer is not None:
        _write_tokenizer(tokenizer, out / exported.TOKENIZER)
        text = Text(
            max_length=min(loaded.encoder.limit, _MOST_TOKENS),
            pad=tokenizer.pad_token_id or 0,
            truncation_side=tokenizer.truncation_side,
            split_special_tokens=bool(tokenizer.split_special_tokens),
        )
    description = Description(
        task=task.name,
        model=type(loaded.model).__name__,
        opset=graph.opset(written),
        ir=written.ir_version,
        inputs=inputs,
        outputs={value.name: graph.axes(value) for value in written.graph.output},
        labels=tuple(loaded.labels),
        tried=tuple(shapes.sizes(inputs, probe) for probe in probes),
        text=text,
    )
    (out / exported.NAME).write_text(description.json_text(), encoding="utf-8")
    return description


def _write_tokenizer(tokenizer: Any, path: Path) -> None:
    """The tokenizer as it is used, not as it was found: transformers may have changed it while loading."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        why = f"{type(tokenizer).__name__} has no form that runs without transformers"
        raise BadData("the model's tokenizer cannot be exported", why=why, remedy="use the model with the engine torch")
    own = type(backend).from_str(backend.to_str())
    own.no_padding()
    own.no_truncation()
    path.write_text(own.to_str(pretty=True) + "\n", encoding="utf-8")
