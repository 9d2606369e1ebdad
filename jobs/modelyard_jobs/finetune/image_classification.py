"""Image classification as the loop's Objective: cross entropy to train, accuracy to choose by.

Images are decoded when their batch comes, and kept at the model's size while there is room for them, so that a small data set is decoded once.
They are not altered: what an augmentation is worth depends on the images (a mirrored 6 is none), and a step has to be able to repeat itself.
An image that turns out to be broken when its turn comes stands blank in its batch, without a label, and is counted; a tenth of them is too much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard.errors import BadData
from modelyard_jobs.finetune import one_label
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.models import Loaded
from modelyard_jobs.pixels import Pixels, patches
from modelyard_jobs.tasks.task import Item, Measurable

KEPT = 1 << 28
"""Bytes of decoded images that stay in memory, of training and of validation each."""
BROKEN = 0.1
"""Share of the images that may be broken."""

_NO_LABEL = -100  # what cross entropy passes over


class ImageClassification:
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation accuracy"

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        one_label.check_labels(train, loaded.labels)
        self.task, self.encoder = task, cast(Pixels, loaded.encoder)
        self.train, self.held_out = (_Images(task, self.encoder, part, max_length) for part in (train, validation))
        self.rows = train.rows
        self.lengths = np.full(len(train), self.train.size, dtype=np.int64)
        self.truncated = {"train": 0, "validation": 0}
        self._norms = [module for module in loaded.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    @property
    def broken(self) -> dict[str, int]:
        """Split -> images that could not be decoded so far."""
        return {"train": len(self.train.broken), "validation": len(self.held_out.broken)}

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """pixel_values and `labels`; every row that has an image counts as one."""
        items, truths = self.train.at(rows)
        batch = tensors(self.task.collate(items, self.encoder))
        return {**batch, "labels": torch.from_numpy(truths)}, float((truths != _NO_LABEL).sum())

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross entropy, in float32, summed over rows."""
        # One row has no statistics of its own: what is left over of an epoch is normalised as in use.
        alone = [norm for norm in self._norms if norm.training] if len(batch["labels"]) == 1 else []
        for norm in alone:
            norm.eval()
        logits = model(pixel_values=batch["pixel_values"]).logits.float()
        for norm in alone:
            norm.train()
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="sum", ignore_index=_NO_LABEL)

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """Accuracy, macro F1 over the labels that occur or are predicted, and mean loss; broken images are left out."""
        device = next(model.parameters()).device.type
        logits, truths = [], []
        at_once = max(1, tokens // self.train.size)
        for start in range(0, len(self.held_out.examples), at_once):
            pause()
            items, right = self.held_out.at(np.arange(start, min(start + at_once, len(self.held_out.examples))))
            inputs = to_device(tensors(self.task.collate(items, self.encoder)), device)
            there = right != _NO_LABEL
            logits.append(model(**inputs).logits.float()[torch.from_numpy(there)])
            truths.append(right[there])
        return one_label.score(torch.cat(logits), np.concatenate(truths)) if sum(map(len, truths)) else None


class _Images:
    """The images of some rows, decoded when they are asked for. size: patches of each."""

    def __init__(self, task: Measurable, encoder: Pixels, examples: Examples, max_length: int) -> None:
        self.task, self.encoder, self.examples, self.max_length = task, encoder, examples, max_length
        task.prepare([], encoder, max_length)  # raises where images would have no one size
        height, width = encoder.shape or (0, 0)
        self.size = patches(height, width)
        self.broken: set[int] = set()
        self._blank = Item(self.size, np.zeros((encoder.channels, height, width), dtype=np.uint8))
        self._truths = np.asarray(examples.truths, dtype=np.int64)
        self._kept: dict[int, Item] = {}
        self._room = KEPT

    def at(self, places: Rows) -> tuple[list[Item], NDArray[np.int64]]:
        """(the image of each, its label); of a broken one a blank, and no label. Raises BadData: too many are broken."""
        wanted = [int(place) for place in places]
        found = {place: self._kept[place] for place in wanted if place in self._kept}
        new = [place for place in wanted if place not in found]
        prepared = self.task.prepare(self.examples.values(np.array(new, dtype=np.int64)), self.encoder, self.max_length)
        for place, item in zip(new, prepared, strict=True):
            if isinstance(item, str):
                self.broken.add(place)
                self._check(place, item)
            found[place] = image = self._blank if isinstance(item, str) else item
            self._room -= image.values.nbytes
            if self._room >= 0:
                self._kept[place] = image
        truths = self._truths[places]
        truths[[place in self.broken for place in wanted]] = _NO_LABEL
        return [found[place] for place in wanted], truths

    def _check(self, place: int, why: str) -> None:
        if len(self.broken) > BROKEN * len(self.examples):
            where = f"row {self.examples.rows[place]}, counted from 0"
            raise BadData(f"{len(self.broken)} of {len(self.examples)} images are broken", where=where, why=why, remedy="mend them, or take them out")
