"""Image classification as the loop's Objective: cross entropy to train, accuracy to choose by.

Images (images.py) are not altered: what an augmentation is worth depends on them (a mirrored 6 is none), and a step has to be able to repeat itself.
A broken one stands blank in its batch, without a label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard_jobs.finetune import one_label
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.images import Images
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.models import Loaded
from modelyard_jobs.pixels import Pixels, patches
from modelyard_jobs.tasks.task import Item, Measurable

_NO_LABEL = -100  # what cross entropy passes over


class ImageClassification:
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation accuracy"

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        one_label.check_labels(train, loaded.labels)
        self.task, self.encoder = task, cast(Pixels, loaded.encoder)
        self.train, self.held_out = (_Labelled(task, self.encoder, part, max_length) for part in (train, validation))
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
        items, truths = self.train.labelled(rows)
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
            items, right = self.held_out.labelled(np.arange(start, min(start + at_once, len(self.held_out.examples))))
            inputs = to_device(tensors(self.task.collate(items, self.encoder)), device)
            there = right != _NO_LABEL
            logits.append(model(**inputs).logits.float()[torch.from_numpy(there)])
            truths.append(right[there])
        return one_label.score(torch.cat(logits), np.concatenate(truths)) if sum(map(len, truths)) else None


class _Labelled(Images):
    """Images with their labels. size: patches of each."""

    def __init__(self, task: Measurable, encoder: Pixels, examples: Examples, max_length: int) -> None:
        super().__init__(task, encoder, examples, max_length)
        task.prepare([], encoder, max_length)  # raises where images would have no one size
        height, width = encoder.shape or (0, 0)
        self.size = patches(height, width)
        self._blank = Item(self.size, np.zeros((encoder.channels, height, width), dtype=np.uint8))
        self._truths = np.asarray(examples.truths, dtype=np.int64)

    def labelled(self, places: Rows) -> tuple[list[Item], NDArray[np.int64]]:
        """(the image of each, its label); of a broken one a blank, and no label. Raises BadData: too many are broken."""
        found, wanted, truths = self.at(places), places.tolist(), self._truths[places]
        truths[[place not in found for place in wanted]] = _NO_LABEL
        return [found.get(place, self._blank) for place in wanted], truths
