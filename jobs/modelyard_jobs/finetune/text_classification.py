"""Text classification as the loop's Objective: cross entropy to train, accuracy to choose by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from modelyard.errors import BadData
from modelyard_jobs import batching
from modelyard_jobs.finetune import one_label
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import Item, Measurable


class TextClassification:
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation accuracy"

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        self.task, self.encoder = task, loaded.encoder
        one_label.check_labels(train, loaded.labels)
        self.items, self.held_out = (encoded(task, loaded, part, max_length) for part in (train, validation))
        self.truths, self.truths_held_out = (np.asarray(part.truths, dtype=np.int64) for part in (train, validation))
        self.rows = train.rows
        self.lengths = np.fromiter((item.size for item in self.items), dtype=np.int64, count=len(self.items))
        self.truncated = {"train": sum(item.truncated for item in self.items), "validation": sum(item.truncated for item in self.held_out)}

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """`rows` padded to their longest, with `labels`; every row counts as one."""
        batch = tensors(self.task.collate([self.items[row] for row in rows], self.encoder))
        return {**batch, "labels": torch.from_numpy(self.truths[rows])}, float(len(rows))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross entropy, in float32, summed over rows."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return nn.functional.cross_entropy(model(**inputs).logits.float(), batch["labels"], reduction="sum")

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """Accuracy, macro F1 over the labels that occur or are predicted, and mean loss."""
        if not self.held_out:
            return None
        device = next(model.parameters()).device.type
        parts = batching.plan([item.size for item in self.held_out], tokens)
        measured = []
        for part in parts:
            pause()
            inputs = to_device(tensors(self.task.collate([self.held_out[row] for row in part], self.encoder)), device)
            measured.append(model(**inputs).logits.float())
        return one_label.score(torch.cat(measured), self.truths_held_out[np.concatenate(parts)])


def encoded(task: Measurable, loaded: Loaded, examples: Examples, max_length: int) -> Sequence[Item]:
    """The rows as Items. Raises BadData: a row that was seen to be usable turns out not to be."""
    found: list[Item] = []
    for number, item in zip(examples.rows, task.prepare(examples.values(), loaded.encoder, max_length), strict=True):
        if isinstance(item, str):
            raise BadData("a row cannot be used", where=f"row {number}, counted from 0", why=item, remedy="mend the row, or take it out")
        found.append(item)
    return found
