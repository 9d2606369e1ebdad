"""Token classification as the loop's Objective: cross entropy on the first sub-word of each word, F1 of spans to choose by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from modelyard.errors import BadData
from modelyard_jobs import batching
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.finetune.texts import Texts
from modelyard_jobs.metrics import spans
from modelyard_jobs.metrics.spans import NONE
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import Measurable


class TokenClassification(Texts):
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation F1 of spans"

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        super().__init__(task, loaded, train, validation, max_length)
        self.labels = loaded.labels
        self.truths, self.truths_held_out = list(self.train.truths), list(self.validation.truths)
        if not any(spans.Scheme.of(self.labels).each([truth.ids for truth in self.truths])):
            remedy = "raise train_rows, or name the column of the tags"
            raise BadData(f"none of the {len(self.train)} training rows has a span", where=f"column {train.columns['tags']}", remedy=remedy)

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """`rows` padded to their longest, with `labels` of that shape: NONE but on the first sub-words of labelled words, each of which counts."""
        batch = tensors(self.task.collate([self.items[row] for row in rows], self.encoder))
        labels = np.full(batch["input_ids"].shape, NONE, dtype=np.int64)
        for place, row in enumerate(rows):
            seen = self.items[row].about
            labels[place, seen.tokens] = self.truths[row].ids[seen.of]
        return {**batch, "labels": torch.from_numpy(labels)}, float((labels != NONE).sum())

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross entropy, in float32, summed over words."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits.float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=NONE, reduction="sum")

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """F1, precision and recall of spans, words with the right label, and the mean loss of a word; words cut off are in no span."""
        if not self.held_out:
            return None
        device = next(model.parameters()).device.type
        answers = [np.full(len(truth.ids), NONE, dtype=np.int64) for truth in self.truths_held_out]
        losses, words = 0.0, 0
        for part in batching.plan([item.size for item in self.held_out], tokens):
            pause()
            items = [self.held_out[row] for row in part]
            inputs = to_device(tensors(self.task.collate(items, self.encoder)), device)
            outputs = {"logits": model(**inputs).logits.float().cpu().numpy()}
            for row, raw in zip(part, self.task.raws(outputs, items), strict=True):
                seen = self.held_out[row].about
                answers[row][seen.of] = raw.argmax(1)
                truth = torch.from_numpy(self.truths_held_out[row].ids[seen.of])
                losses += nn.functional.cross_entropy(torch.from_numpy(raw).double(), truth, ignore_index=NONE, reduction="sum").item()
                words += int((truth != NONE).sum())
        found = spans.values(self.labels, [truth.ids for truth in self.truths_held_out], answers)
        return Score(found["f1"], losses / max(words, 1), {name: found[name] for name in ("f1", "precision", "recall", "token_accuracy")})
