"""Zero-shot classification: one text in, one of the labels that the step names out, by a model that was never trained for them.

A classifier of natural language inference says of two texts whether the second follows from the first. Each candidate, put into the hypothesis, is
the second text once; the softmax of what the model says for "it follows" over the candidates is the answer, as
transformers.pipeline("zero-shot-classification") has it (W. Yin, J. Hay, D. Roth, EMNLP 2019, https://arxiv.org/abs/1909.00161).
Not covered: several labels per text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, Usage
from modelyard_jobs.tasks import columns, text
from modelyard_jobs.tasks.one_label import OneLabel, probabilities
from modelyard_jobs.tasks.task import Arrays, Item, Row, Signature, TextEncoder

_PAIRS = 4096
"""Texts with a candidate that wait for their batch."""
_SPECIAL = 3
"""Tokens that a pair has more than its second text alone, at most, and one for the first."""


class ZeroShotClassification(OneLabel):
    """The task. choices: the candidates, which are the labels of its answers."""

    name = "zero-shot-classification"
    auto = "AutoModelForSequenceClassification"
    encoder: Literal["text", "image"] = "text"

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.choices: tuple[str, ...] = tuple(settings.candidates)
        self.window = max(1, _PAIRS // max(1, len(self.choices)))

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """`text`, and `label`."""
        found = {"text": columns.text(dataset, self.settings.text)}
        return {**found, "label": columns.label(dataset, self.settings.label)} if truth else found

    def unfit(self, config: Any) -> str | None:
        """One of its labels means that a text follows from the other."""
        labels = [str(label) for label in config.id2label.values()]
        return None if _entailment(labels) is not None else f"none of its labels is entailment: {columns.shown(labels)}"

    def fault(self, row: Row) -> str | None:
        """A text that is missing, empty or no string."""
        return text.fault(row["text"])

    def prepare(self, rows: Sequence[Row], encoder: TextEncoder, max_length: int) -> list[Item | str]:
        """Token ids of the text with each candidate. Raises Usage: a hypothesis leaves no room for a text."""
        hypotheses = [self.settings.hypothesis.replace("{}", choice) for choice in self.choices]
        self._check_room(hypotheses, encoder, max_length)
        found: list[Item | str | None] = [self.fault(row) for row in rows]
        good = [place for place, why in enumerate(found) if why is None]
        texts = [rows[place]["text"] for place in good for _ in hypotheses]
        ids, types, cut = encoder.pairs(texts, hypotheses * len(good), max_length)
        step = len(hypotheses)
        for number, place in enumerate(good):
            own = slice(number * step, (number + 1) * step)
            # In a batch each candidate is a row of its own.
            size = step * max(map(len, ids[own]))
            found[place] = Item(size, (ids[own], types[own]), any(cut[own]))
        return [each for each in found if each is not None]

    def collate(self, items: Sequence[Item], encoder: TextEncoder) -> dict[str, NDArray[np.int64]]:
        """input_ids and attention_mask, (rows x candidates, longest), and token_type_ids for a model that takes them."""
        padded = text.pad_ids([row for item in items for row in item.values[0]], encoder.pad)
        types = [row for item in items for row in item.values[1]]
        return {**padded, "token_type_ids": text.pad_ids(types, 0)["input_ids"]} if types else padded

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[NDArray[np.float32]]:
        """The logits of each item, (candidates, the model's labels)."""
        return list(outputs["logits"].reshape(len(items), len(self.choices), -1))

    def answers(self, raws: Sequence[NDArray[np.float32]], items: Sequence[Item], labels: Sequence[str]) -> NDArray[np.float32]:
        """Shares of the candidates, (items, candidates). labels: the model's own.

        Raises BadData: none of them is entailment, or the scores are not as many.
        """
        place = _entailment(labels)
        if place is None:
            remedy = "take a model of natural language inference, with a label that begins with entail"
            raise BadData("the model is not one for zero shot classification", why=f"its labels are {columns.shown(labels)}", remedy=remedy)
        logits = np.stack(raws)
        columns.check_scores(logits.shape[2], labels)
        return probabilities(logits[:, :, place])

    def truths(self, dataset: Any, columns_: Mapping[str, str], labels: Sequence[str]) -> NDArray[np.int64]:
        """Ids of the labels, which have to be among the candidates."""
        return columns.label_ids(dataset, columns_["label"], self.choices)

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The best candidate and its share, and the share of each, 6 digits."""
        best = int(np.argmax(answer))
        shares = np.asarray(answer, dtype=float).round(6).tolist()
        return {"label": self.choices[best], "score": shares[best], "scores": dict(zip(self.choices, shares, strict=True))}

    def empty(self) -> dict[str, Any]:
        """No label, no score."""
        return {"label": None, "score": None, "scores": None}

    def signature(self, labels: Sequence[str]) -> Signature:
        """Of pairs of texts: logits of each of the model's labels."""
        axes = ("batch", "sequence")
        inputs = ("input_ids", "attention_mask", "token_type_ids")
        return Signature(dict.fromkeys(inputs, axes), {"logits": ("batch", len(labels))})

    def _check_room(self, hypotheses: Sequence[str], encoder: TextEncoder, max_length: int) -> None:
        lengths = [len(ids) for ids in encoder.texts(hypotheses, encoder.limit)[0]]
        longest = int(np.argmax(lengths))
        if lengths[longest] + _SPECIAL >= max_length:
            why = f"that of {self.choices[longest]!r} takes {lengths[longest]} tokens, of {max_length}"
            raise Usage("a hypothesis leaves no room for the text", where="candidates", why=why, remedy="shorter candidates, or a larger max_length")


def _entailment(labels: Sequence[str]) -> int | None:
    """The place of the label that means "it follows": the first that begins with entail, as transformers' pipeline finds it."""
    return next((place for place, label in enumerate(labels) if label.lower().startswith("entail")), None)
