"""Text classification as the loop's Objective: cross entropy to train, accuracy to choose by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard_jobs import batching, metrics
from modelyard_jobs.finetune.loop import Batch, Score, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.tasks import text_classifier as classifier


@dataclass(frozen=True)
class Examples:
    """Encoded rows. ids: token ids of each, unpadded; labels: one id each; rows: the number of each in its split."""

    ids: Sequence[Sequence[int]]
    labels: NDArray[np.int64]
    rows: Rows


class Classification:
    """Train on some rows, validate on others, which may be none."""

    def __init__(self, tokenizer: Any, train: Examples, validation: Examples) -> None:
        self.tokenizer, self.train, self.validation = tokenizer, train, validation
        self.rows = train.rows
        self.lengths = np.fromiter(map(len, train.ids), dtype=np.int64, count=len(train.ids))

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """`rows` padded to their longest, with `labels`; every row counts as one."""
        batch = classifier.collate(self.tokenizer, [self.train.ids[row] for row in rows])
        return {**batch, "labels": torch.from_numpy(self.train.labels[rows])}, float(len(rows))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross entropy, in float32, summed over rows."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return nn.functional.cross_entropy(model(**inputs).logits.float(), batch["labels"], reduction="sum")

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """Accuracy, macro F1 over the labels that occur or are predicted, and mean loss."""
        if not self.validation.ids:
            return None
        device = next(model.parameters()).device.type
        parts = batching.plan([len(row) for row in self.validation.ids], tokens)
        measured = []
        for part in parts:
            pause()
            inputs = to_device(classifier.collate(self.tokenizer, [self.validation.ids[row] for row in part]), device)
            measured.append(model(**inputs).logits.float())
        truth = self.validation.labels[np.concatenate(parts)]
        logits = torch.cat(measured).cpu()
        loss = nn.functional.cross_entropy(logits.double(), torch.from_numpy(truth)).item()
        counts = metrics.confusion(truth, logits.argmax(dim=1).numpy(), logits.shape[1])
        accuracy = float(np.diag(counts).sum() / len(truth))
        macro = float(metrics.scores(counts, counts.sum(0) + counts.sum(1) > 0)["f1_macro"])
        return Score(accuracy, loss, {"accuracy": accuracy, "f1_macro": macro})
