"""What is about to be trained on, before anything is: the first rows, and how often each label occurs in them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard_jobs.context import Context
from modelyard_jobs.finetune.examples import Examples

ROWS = 3
LETTERS = 120
"""Of a row's content at most."""


def tell(context: Context, train: Examples, labels: Sequence[str]) -> None:
    """Log the first rows, and keep the counts of labels: of rows, words or boxes, whichever has them; none where the task has no labels."""
    for number, row in zip(train.rows[:ROWS].tolist(), train.values(np.arange(min(ROWS, len(train)))), strict=True):
        context.log.info("training row", row=number, **{role: _shown(value) for role, value in row.items()})
    if labels:
        ids = np.concatenate([np.atleast_1d(_ids(truth)) for truth in train.truths])
        counts = np.bincount(ids[ids >= 0], minlength=len(labels))
        found = dict(zip(labels, counts.tolist(), strict=True))
        context.detail("label_counts", found)
        context.log.info("labels", counts=found)


def _ids(truth: Any) -> Any:
    """Places in the labels: of a row, of its words (Tagged), of its boxes (Boxes)."""
    return getattr(truth, "ids", getattr(truth, "labels", truth))


def _shown(value: Any) -> str:
    if isinstance(value, dict):  # an image: its bytes say nothing to a reader
        return str(value.get("path") or value.get("file") or "an image")[:LETTERS]
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"
