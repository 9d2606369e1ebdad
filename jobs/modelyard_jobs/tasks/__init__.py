"""One module per task: which columns it needs, how rows become what a model takes, what its output says, what that is worth.

task.py is what the steps know of a task; columns.py, text.py, one_label.py, likelihood.py are what tasks share. Nothing in here needs torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard.yard import Artifact
from modelyard_jobs import data, exported
from modelyard_jobs.architectures import task_of
from modelyard_jobs.context import Context
from modelyard_jobs.tasks.task import Measurable, Task

_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "text-classification": "TextClassification",
        "token-classification": "TokenClassification",
        "zero-shot-classification": "ZeroShotClassification",
        "fill-mask": "FillMask",
        "text-generation": "TextGeneration",
        "image-classification": "ImageClassification",
        "object-detection": "ObjectDetection",
    }
)

OTHER = "other reasons"
_REASONS = 100
"""Faults that are counted apart: one may name what only its row has, and rows may be millions."""


def of(name: str, settings: Any) -> Measurable:
    """The task of that name for a step with these settings."""
    module = import_module(f"modelyard_jobs.tasks.{name.replace('-', '_')}")
    return cast(Measurable, getattr(module, _CLASSES[name])(settings))


def chosen(context: Context, which: str = "model") -> Measurable:
    """The task that the step's settings name, else that its model is made for, with the choice written down."""
    settings, artifact = context.settings, context.inputs[which]
    if settings.task is not None:
        name, reason = settings.task, "as set"
    else:
        name, reason = found(artifact)
    context.decide("task", name, reason)
    return of(name, settings)


def found(artifact: Artifact) -> tuple[str, str]:
    """(the task that a model is made for, why): as its export says, else by the architecture in its config.json. BadData where neither tells."""
    if artifact.format == "onnx":
        return exported.read(artifact).task, "the export says so"
    try:
        config = json.loads((artifact.path / "config.json").read_bytes())
        architectures = [str(each) for each in config.get("architectures") or []]
    except FileNotFoundError as error:
        raise BadData("the model has no config.json", where=artifact.digest, remedy="a model is a folder with config.json and safetensors") from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BadData("the model's config.json cannot be read", where=artifact.digest, why=data.reason(error)) from error
    if known := task_of(architectures):
        return known[0], f"its architecture is {known[1]}"
    why = f"its architecture is {', '.join(architectures) or 'not named'}"
    remedy = f"finetune it first, and give the result; or name the task of its head: {', '.join(_CLASSES)}"
    raise BadData("the model has no trained head that says what it is for", where=artifact.digest, why=why, remedy=remedy)


def usable(task: Task, dataset: Any, columns: Mapping[str, str]) -> tuple[NDArray[np.int64], Counter[str]]:
    """(numbers of the rows that can be used, fault -> count of those that cannot); BadData when none can."""
    faults = Counter[str]()
    good = []
    for number, row in enumerate(data.rows(dataset, columns)):
        why = task.fault(row)
        if why is None:
            good.append(number)
        else:
            count(faults, why)
    if not good:
        why = "; ".join(f"{why}: {rows} rows" for why, rows in faults.most_common(5)) or "it has no rows"
        role, column = next(iter(columns.items()))
        raise BadData(f"no row of column {column} can be used", why=why, remedy=f"{role}: name the column that the model reads")
    return np.array(good, dtype=np.int64), faults


def count(faults: Counter[str], why: str) -> None:
    """Add one fault to those that were counted, under OTHER where they are too many to be told apart."""
    faults[why if why in faults or len(faults) < _REASONS else OTHER] += 1
