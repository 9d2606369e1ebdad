"""What a language model is worth on texts that are given: how likely it finds their tokens, and how often the likeliest token is the right one.

log_likelihood   mean natural logarithm of the probability of a token, in nats; larger is better, and differences of it add up
perplexity       exp of its negative; smaller is better
token_accuracy   share of tokens that were the likeliest

Tokens of one document are not independent, so every interval is that of a bootstrap by documents, each with all of its tokens. Numbers per token
are comparable between models that cut texts into the same tokens, and only between those: `differences` refuses others. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs.metrics.interval import Metric, bootstrap

MAIN = "log_likelihood"
_MOST = 700.0
"""Nats beyond which a perplexity has no number of 64 bits: it stays at that, 1e304."""


@dataclass(frozen=True)
class Documents:
    """What a model said of some documents, each an entry of every array.

    tokens: how many were measured. loss: the sum of their negative log probabilities, in nats. hits: how many were the likeliest.
    cuts: a hash of the tokens themselves.
    """

    tokens: NDArray[np.int64]
    loss: NDArray[np.float64]
    hits: NDArray[np.int64]
    cuts: Sequence[str]


def measure(documents: Documents, seed: int) -> dict[str, Metric]:
    """The three metrics; n: documents."""
    return {name: bootstrap(_of(documents, name), len(documents.tokens), seed) for name in _VALUES}


def differences(first: Documents, second: Documents, seed: int) -> dict[str, Metric]:
    """Metric -> how much more of it the first model has than the second, by the same resamples of both; n: documents.

    Raises BadData: the two cut a document into different tokens.
    """
    other = [place for place, (one, two) in enumerate(zip(first.cuts, second.cuts, strict=True)) if one != two]
    if other:
        raise BadData(
            "the two models cut the texts into different tokens",
            why=f"{len(other)} of {len(first.cuts)} documents, the first of them number {other[0]}; likelihoods per token say nothing then",
            remedy="compare it with a model that has the same tokenizer and template",
        )

    def paired(name: str) -> Callable[[NDArray[np.int64]], float]:
        one, two = _of(first, name), _of(second, name)
        return lambda drawn: one(drawn) - two(drawn)

    return {name: bootstrap(paired(name), len(first.tokens), seed) for name in _VALUES}


def _of(documents: Documents, name: str) -> Callable[[NDArray[np.int64]], float]:
    """The metric as a function of how often each document was drawn."""

    def value(drawn: NDArray[np.int64]) -> float:
        tokens = float(drawn @ documents.tokens)
        return _VALUES[name](float(drawn @ documents.loss) / tokens, float(drawn @ documents.hits) / tokens)

    return value


_VALUES: dict[str, Callable[[float, float], float]] = {
    "log_likelihood": lambda loss, _: -loss,
    "perplexity": lambda loss, _: float(np.exp(min(loss, _MOST))),
    "token_accuracy": lambda _, hits: hits,
}
"""Metric -> its value of mean loss and share of hits."""

METRICS = tuple(_VALUES)
