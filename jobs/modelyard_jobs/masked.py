"""A masked language model in torch, of whose answers only those at the gaps leave the device: all of them are a number for each token and word."""

from __future__ import annotations

import torch

from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.fill_mask import Vocabulary
from modelyard_jobs.tasks.task import Task
from modelyard_jobs.torch_runner import TorchRunner


class MaskedRunner(TorchRunner):
    """One forward pass for each batch; the logits are (gaps of all rows, vocabulary), row after row."""

    def __init__(self, task: Task, loaded: Loaded, device: str) -> None:
        super().__init__(task, loaded, device)
        self._mask = Vocabulary.of(loaded.encoder).mask

    def outputs(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What is said at the gaps."""
        return {"logits": self.model(**tensors).logits[tensors["input_ids"] == self._mask]}
