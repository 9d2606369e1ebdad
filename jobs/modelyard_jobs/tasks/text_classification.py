"""Text classification: one text in, one label of a fixed list out.

Not covered: several labels per row, regression, pairs of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.tasks import columns, text
from modelyard_jobs.tasks.one_label import OneLabel
from modelyard_jobs.tasks.task import Item, Row, Signature, TextEncoder


class TextClassification(OneLabel):
    """The task."""

    name = "text-classification"
    auto = "AutoModelForSequenceClassification"
    encoder: Literal["text", "image"] = "text"
    window = 4096

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """`text`, and `label`."""
        found = {"text": columns.text(dataset, self.settings.text)}
        return {**found, "label": columns.label(dataset, self.settings.label)} if truth else found

    def unfit(self, config: Any) -> str | None:
        """One label per text, of two at least."""
        single = config.problem_type in {None, "single_label_classification"} and config.num_labels >= 2
        return None if single else f"{config.problem_type}, {config.num_labels} labels: it is no classifier with one label per text"

    def fault(self, row: Row) -> str | None:
        """A text that is missing, empty or no string."""
        return text.fault(row["text"])

    def prepare(self, rows: Sequence[Row], encoder: TextEncoder, max_length: int) -> list[Item | str]:
        """Token ids."""
        return text.prepare([row["text"] for row in rows], encoder, max_length)

    def collate(self, items: Sequence[Item], encoder: TextEncoder) -> dict[str, NDArray[np.int64]]:
        """input_ids and attention_mask, (rows, longest)."""
        return text.pad_ids([item.values for item in items], encoder.pad)

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The best label, and its probability, 6 digits."""
        best = int(np.argmax(answer))
        return {"label": labels[best], "score": round(float(answer[best]), 6)}

    def empty(self) -> dict[str, Any]:
        """No label, no score."""
        return {"label": None, "score": None}

    def signature(self, labels: Sequence[str]) -> Signature:
        """Of tokens: logits of each label."""
        axes = ("batch", "sequence")
        return Signature({"input_ids": axes, "attention_mask": axes}, {"logits": ("batch", len(labels))})
