"""Batches of other shapes: what a graph is traced with, and what proves that its named axes are of any size. Pure numpy.

They are made from real ones: a longer text is a text over and over, a smaller or larger image is one cut off or continued. What they say is of no
interest, only that two engines say the same of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.tasks.task import Item, Signature, Task

SIZES = (1, 2, 5, 32)
"""Rows of the batches that are made without regard to length."""
PROBED = 2048
"""Tokens or patches of such a batch: texts are cut to keep to it, and of images there are fewer, but three where they are to be as many."""
MOVING = ("batch", "sequence", "height", "width")
"""Names of axes that may be of any size; others, such as queries, are the model's own."""
SIZED = ("height", "width")
_STRIDE = 32
"""Of the sizes of images: what models make smaller five times by half has no remainder then."""
_TOKENS = 16
_LONG = 512

Batch = dict[str, NDArray[Any]]
Named = Mapping[str, tuple[str | int, ...]]


def signature_of(asked: Signature, batch: Mapping[str, NDArray[Any]], *, sized: bool) -> Signature:
    """The task's signature as far as this batch has its inputs, with numbers for what cannot move. sized: whether images have a size of any kind."""
    moving = MOVING if sized else [name for name in MOVING if name not in SIZED]

    def written(axes: tuple[str | int, ...], found: Sequence[int]) -> tuple[str | int, ...]:
        return tuple(axis if axis in moving else size for axis, size in zip(axes, found, strict=True))

    return replace(asked, inputs={name: written(axes, batch[name].shape) for name, axes in asked.inputs.items() if name in batch})


def sizes(inputs: Named, batch: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """The size of each axis that has a name."""
    return {axis: size for name, axes in inputs.items() for axis, size in zip(axes, batch[name].shape, strict=True) if isinstance(axis, str)}


def resized(inputs: Named, batch: Mapping[str, NDArray[Any]], wanted: Mapping[str, int]) -> Batch:
    """The batch with axes of other sizes: cut off, or repeated from the beginning."""
    made = {}
    for name, axes in inputs.items():
        array = batch[name]
        for place, axis in enumerate(axes):
            if axis in wanted:
                array = np.take(array, np.arange(wanted[str(axis)]) % array.shape[place], axis=place)
        made[name] = np.ascontiguousarray(array)
    return made


def to_trace(inputs: Named, batch: Mapping[str, NDArray[Any]], limit: int) -> Batch:
    """Two rows of few tokens, with padding at the end of the second. limit: tokens that the model has positions for."""
    made = resized(inputs, batch, {"batch": 2, "sequence": min(_TOKENS, limit)})
    if "attention_mask" in made:
        made["attention_mask"] = np.ones_like(made["attention_mask"])
        made["attention_mask"][-1, -1] = 0
    return made


def probes(inputs: Named, task: Task, encoder: Any, items: Sequence[Item], max_length: int) -> list[Batch]:
    """The first rows in batches of each size in turn, and one row as long as rows may be. inputs: of the graph."""
    texts = any("sequence" in axes for axes in inputs.values())
    start, made = 0, []
    for size in SIZES:
        chosen = [items[(start + place) % len(items)] for place in range(size)]  # few rows come again: the axis is proven all the same
        start += size
        most = PROBED // max(item.size for item in chosen)
        batch = task.collate(chosen if texts else chosen[: max(3, most)], encoder)
        batch = {name: array for name, array in batch.items() if name in inputs}
        made.append(resized(inputs, batch, {"sequence": PROBED // size}) if texts and most < size else batch)
    if texts:
        tokens = min(max_length, max(_LONG, *(item.size for item in items)))
        made.append(resized(inputs, made[0], {"batch": 1, "sequence": tokens}))
    return made


def other_sizes(inputs: Named, batch: Mapping[str, NDArray[Any]]) -> Batch:
    """The first row with an image of another size."""
    found = sizes(inputs, batch)
    return resized(inputs, batch, {"batch": 1, "height": found["height"] + 2 * _STRIDE, "width": found["width"] + _STRIDE})
