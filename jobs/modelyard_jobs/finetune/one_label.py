"""What objectives share whose rows have one label of a list each: whether there is something to learn, and what a validation found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard.errors import BadData
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.loop import Score
from modelyard_jobs.metrics import classification


def check_labels(train: Examples, labels: Sequence[str]) -> None:
    """Raises BadData: all training rows have one label."""
    if len(np.unique(train.truths)) < 2:
        raise BadData(
            f"all {len(train)} training rows have the label {labels[train.truths[0]]}",
            where=f"column {train.columns['label']}",
            remedy="a classifier needs rows of two classes at least; raise train_rows, or mend the data",
        )


def score(logits: torch.Tensor, truths: NDArray[np.int64]) -> Score:
    """Accuracy, macro F1 over the labels that occur or are predicted, and mean loss. logits: (rows, labels)."""
    logits = logits.cpu()
    loss = nn.functional.cross_entropy(logits.double(), torch.from_numpy(truths)).item()
    counts = classification.confusion(truths, logits.argmax(dim=1).numpy(), logits.shape[1])
    accuracy = float(np.diag(counts).sum() / len(truths))
    macro = float(classification.scores(counts)["f1_macro"])
    return Score(accuracy, loss, {"accuracy": accuracy, "f1_macro": macro})
