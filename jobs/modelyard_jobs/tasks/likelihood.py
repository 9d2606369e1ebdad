"""What tasks share that are measured by how likely a model finds tokens that are there. Needs no torch.

An answer holds `tokens`, how many were measured, their `loss` in nats, `hits`, how many were the likeliest, and `cut`, a hash of the tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics import language
from modelyard_jobs.metrics.interval import Metric
from modelyard_jobs.tasks.task import Answers, Measured, Signature, Truths


class Likelihood:
    """Measuring; how a text becomes tokens to be measured is each task's own. names: of metrics/language.py's metrics -> the task's."""

    labelled = False
    dense = False
    outputs = ("logits",)
    main = language.MAIN
    names: Mapping[str, str] = MappingProxyType({name: name for name in language.METRICS})

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def signature(self, labels: Sequence[str]) -> Signature:
        """Of tokens: the logits of what each, or the one after it, may be."""
        axes = ("batch", "sequence")
        return Signature({"input_ids": axes, "attention_mask": axes}, {"logits": (*axes, "vocabulary")})

    def label_names(self, dataset: Any, columns: Mapping[str, str]) -> list[str]:
        """None."""
        return []

    def truths(self, dataset: Any, columns: Mapping[str, str], labels: Sequence[str]) -> Truths:
        """A row is its own truth; nothing stands here."""
        return [None] * len(dataset)

    def measure(self, truths: Truths, answers: Answers, labels: Sequence[str]) -> Measured:
        """Likelihood, perplexity and token accuracy, by a bootstrap of rows.

        A row is right where each of its tokens was the likeliest; the worst are the least likely.
        """
        documents = _documents(answers)
        right = documents.hits == documents.tokens
        wrong = np.flatnonzero(~right)
        worst = wrong[np.argsort(-(documents.loss / documents.tokens)[wrong], kind="stable")]
        found = language.measure(documents, self.settings.seed)
        return Measured(self.main, self._named(found), right, worst, {"tokens": int(documents.tokens.sum())})

    def differences(self, truths: Truths, first: Answers, second: Answers, labels: Sequence[str]) -> dict[str, Metric]:
        """By a paired bootstrap of rows. Raises BadData: the models have different tokenizers."""
        return self._named(language.differences(_documents(first), _documents(second), self.settings.seed))

    def _named(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        return {own: metrics[name] for name, own in self.names.items()}


def log_shares(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithm of the softmax of each row."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def hashed(tokens: NDArray[np.int64]) -> str:
    """A hash of tokens."""
    return hashlib.blake2b(tokens.tobytes(), digest_size=8).hexdigest()


def _documents(answers: Answers) -> language.Documents:
    return language.Documents(
        np.array([answer["tokens"] for answer in answers], dtype=np.int64),
        np.array([answer["loss"] for answer in answers], dtype=np.float64),
        np.array([answer["hits"] for answer in answers], dtype=np.int64),
        [answer["cut"] for answer in answers],
    )
