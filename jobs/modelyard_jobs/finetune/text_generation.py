"""Text generation as the loop's Objective: the cross entropy of the tokens that count, which in a chat are the assistant's.

What counts is a token, not a row: a gradient is that of the mean over the tokens that count in all rows of an optimizer step, however they are
divided for the device. A model of experts whose configuration asks for the loss that balances its router gets it with each forward pass, which is
why its gradient alone depends on how rows are divided.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from modelyard_jobs import batching
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.finetune.texts import Texts
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import Item, Measurable

_IGNORED = -100


class TextGeneration(Texts):
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation log likelihood"

    def __init__(self, task: Measurable, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        super().__init__(task, loaded, train, validation, max_length)
        parts = {"train": self.items, "validation": self.held_out}
        self.truncated["lost_tokens"] = {name: sum(item.values.lost for item in items) for name, items in parts.items()}

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """`rows` padded to their longest, with `labels`; the items are the tokens that count.

        kept: the places whose next token counts in some row, (n,); labels: that token, (rows, n), -100 where it does not count.
        """
        return self._collate([self.items[row] for row in rows])

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross entropy, in float32, summed over the tokens that count; the router's loss is added to each of them."""
        found = _run(model, batch)
        loss = nn.functional.cross_entropy(found.logits.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=_IGNORED, reduction="sum")
        balance = getattr(found, "aux_loss", None)
        if balance is not None:
            loss = loss + model.config.router_aux_loss_coef * balance * (batch["labels"] != _IGNORED).sum()
        return loss

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """Mean loss of the tokens that count, without the router's; perplexity, and the share of tokens that were the likeliest."""
        if not self.held_out:
            return None
        device = next(model.parameters()).device.type
        loss = torch.zeros((), dtype=torch.float64, device=device)
        hits, count = torch.zeros((), dtype=torch.int64, device=device), 0.0
        for part in batching.plan([item.size for item in self.held_out], tokens):
            pause()
            batch, items = self._collate([self.held_out[row] for row in part])
            batch = to_device(batch, device)
            logits, labels = _run(model, batch).logits.float(), batch["labels"]
            loss += nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="sum").double()
            hits += (logits.argmax(2) == labels).sum()
            count += items
        mean = loss.item() / count
        return Score(-mean, mean, {"perplexity": math.exp(min(mean, 700.0)), "token_accuracy": hits.item() / count})

    def _collate(self, items: Sequence[Item]) -> tuple[Batch, float]:
        batch = tensors(self.task.collate(items, self.encoder))
        labels = torch.full_like(batch["input_ids"], _IGNORED)
        for row, item in enumerate(items):
            following = torch.from_numpy(item.values.said[1:])
            labels[row, : len(following)][following] = torch.from_numpy(item.values.ids[1:])[following]
        kept = (labels != _IGNORED).any(0).nonzero()[:, 0]
        return {**batch, "labels": labels[:, kept].contiguous(), "kept": kept}, float((labels != _IGNORED).sum())


def _run(model: nn.Module, batch: Batch) -> Any:
    """The model's output with logits of the kept places alone: of a prompt none are needed, and the vocabulary is large."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in {"labels", "kept"}}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(**inputs, use_cache=False, logits_to_keep=batch["kept"])
    found = model(**inputs, use_cache=False)
    found.logits = found.logits[:, batch["kept"]]
    return found
