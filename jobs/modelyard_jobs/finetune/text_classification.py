"""Text classification as the loop's Objective: cross entropy to train, accuracy to choose by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from modelyard_jobs import batching
from modelyard_jobs.finetune import one_label
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.finetune.texts import Texts
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import Measurable


class TextClassification(Texts):
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation accuracy"

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        super().__init__(task, loaded, train, validation, max_length)
        one_label.check_labels(self.train, loaded.labels)
        self.truths, self.truths_held_out = (np.asarray(part.truths, dtype=np.int64) for part in (self.train, self.validation))

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
