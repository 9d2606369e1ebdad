"""A classifier in torch, as finetune leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.yard import Artifact
from modelyard_jobs.engine import OutOfMemory
from modelyard_jobs.tasks import text_classifier as classifier

_UNLIMITED = 1 << 30


class TorchRunner:
    """Float32 on one device."""

    name = "torch"

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.model, self.tokenizer, self.device = model.to(device), tokenizer, device
        self.labels = classifier.model_labels(model)
        self.limit = classifier.length_limit(model, tokenizer, _UNLIMITED)

    @classmethod
    def load(cls, artifact: Artifact, device: str) -> TorchRunner:
        """The artifact's model and tokenizer; BadData where it has no trained head."""
        return cls(*classifier.load(artifact, None, torch.float32), device)

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        """(token ids of each text, whether tokens were cut off)."""
        return classifier.encode(self.tokenizer, texts, max_length)

    def logits(self, encodings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(rows, labels)."""
        try:
            with torch.inference_mode():
                tensors = {name: tensor.to(self.device) for name, tensor in classifier.collate(self.tokenizer, encodings).items()}
                found: NDArray[np.float32] = self.model(**tensors).logits.cpu().float().numpy()
            return found
        except torch.OutOfMemoryError as error:
            why = str(error).splitlines()[0]
        # Outside of the handler: the exception's traceback holds the tensors that are to be freed.
        torch.cuda.empty_cache()
        raise OutOfMemory(why)
