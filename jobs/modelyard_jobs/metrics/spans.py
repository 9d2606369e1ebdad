"""What labels of words are worth as spans: precision, recall and F1 of whole spans, and the share of words that are right. Pure numpy.

A span counts where its type, its first and its last word are all right. Labels are O, for no span, and PREFIX-TYPE with B (first word), I or M
(inside), E or L (last word), S or U (the only word), or a TYPE alone, whose words side by side are one span. How a sequence is read does not depend
on which prefixes a data set uses, so IOB1, BIO, BIOES, BMES, BILOU and IO need no name: a span begins at B, at S, after a last word, after O, and
where the type changes. This is conlleval's reading (E. Tjong Kim Sang, S. Buchholz, CoNLL 2000), and seqeval's, which knows no M, unless it is asked
to be strict.

Words of one document are not independent, and nor are its spans: every interval is that of a bootstrap by documents. It shrinks to a point where no
document has an error. A quotient without a denominator is 0, anything between 0 and 1; averages run over the types that occur, as true or as
predicted, in a draw as in the data, and have an interval mirrored at the value, as those over classes do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics.classification import ClassScores, confusion
from modelyard_jobs.metrics.interval import DRAWS, Metric, mirrored

Ids = Sequence[int] | NDArray[np.int64]
"""Of each word of a document the place of its label in the list of labels; -1 for a word without one, which is in no span."""
Span = tuple[int, int, int]
"""Type (its place in Scheme.types), first word, and the word after the last."""

OUTSIDE = "O"
NONE = -1

_PREFIXED = re.compile(r"([BIMELSU])(?:-(.*))?", re.DOTALL)
_ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
_BARE = "span"  # the type of a label that is a prefix alone
_OF_TYPES = ("precision of types", "recall of types", "f1 of types")
_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Scheme:
    """How a list of labels is read as spans."""

    labels: tuple[str, ...]

    @staticmethod
    def of(labels: Sequence[str]) -> Scheme:
        """The scheme of these labels. Prefixes are prefixes only where B or I is among them: in the types E-mail and S-Bahn they are letters."""
        return _scheme(tuple(labels))

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The types of spans, in the order of their first label."""
        return tuple(dict.fromkeys(kind for role, kind in self._parts if role != OUTSIDE))

    def label(self, kind: int, place: int, length: int) -> int | None:
        """The label of word `place` of a span of `length` words, as this scheme writes it; None where it has no such type."""
        wanted = ("S", "B", "I") if length == 1 else ("B", "I") if place == 0 else ("E", "I") if place == length - 1 else ("I",)
        return next((found for role in wanted if (found := self._places.get((role, self.types[kind]))) is not None), None)

    def spans(self, ids: Ids) -> list[Span]:
        """The spans of one document, in order."""
        return self.each([ids])[0]

    def each(self, documents: Sequence[Ids]) -> list[list[Span]]:
        """The spans of each document, in order."""
        found, spans = self.all_spans(documents), list[list[Span]]([] for _ in documents)
        for document, *span in zip(*(each.tolist() for each in vars(found).values()), strict=True):
            spans[document].append(tuple(span))
        return spans

    def all_spans(self, documents: Sequence[Ids]) -> Spans:
        """The spans of many documents, in order."""
        lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
        # A word in no span behind each document: no span reaches into the next.
        flat = np.concatenate([np.append(np.asarray(ids, dtype=np.int64), NONE) for ids in documents] or [_NOTHING])
        roles, types = self._roles[flat], self._types[flat]
        before, type_before = np.append("O", roles[:-1]), np.append(NONE, types[:-1])
        inside = roles != OUTSIDE
        begins = inside & (np.isin(roles, ("B", "S")) | np.isin(before, ("O", "E", "S")) | (types != type_before))
        starts = np.flatnonzero(begins)
        ends = np.flatnonzero(inside & ~np.append((inside & ~begins)[1:], False)) + 1
        documents_of = np.repeat(np.arange(len(lengths)), lengths + 1)[starts]
        firsts = (np.cumsum(lengths + 1) - lengths - 1)[documents_of]
        return Spans(documents_of, types[starts], starts - firsts, ends - firsts)

    def word_types(self, ids: Ids) -> NDArray[np.int64]:
        """Of each word the type of its label, NONE in no span."""
        return self._types[np.asarray(ids, dtype=np.int64)]

    @cached_property
    def _parts(self) -> list[tuple[str, str]]:
        """Of each label (role, type)."""
        found = [_PREFIXED.fullmatch(label) for label in self.labels]
        prefixed = any(match and match[1] in "BI" for match in found)
        return [
            (OUTSIDE, "") if label == OUTSIDE else (_ROLES[match[1]], match[2] or _BARE) if match and prefixed else ("I", label)
            for label, match in zip(self.labels, found, strict=True)
        ]

    @cached_property
    def _places(self) -> Mapping[tuple[str, str], int]:
        return {part: place for place, part in reversed(list(enumerate(self._parts)))}

    @cached_property
    def _roles(self) -> NDArray[np.str_]:
        return np.array([role for role, _ in self._parts] + [OUTSIDE])  # the last: of -1

    @cached_property
    def _types(self) -> NDArray[np.int64]:
        numbers = {kind: number for number, kind in enumerate(self.types)}
        return np.array([numbers.get(kind, NONE) if role != OUTSIDE else NONE for role, kind in self._parts] + [NONE], dtype=np.int64)


@dataclass(frozen=True)
class Spans:
    """Spans of many documents, each array (spans,): document, type, first word, and the word after the last."""

    documents: NDArray[np.int64]
    types: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def among(self, others: Spans) -> NDArray[np.bool_]:
        """Of each span whether `others`, of the same documents, has it."""
        keys = [np.stack([each.documents, each.types, each.starts, each.ends], axis=1) for each in (self, others)]
        _, numbers = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
        numbers = numbers.reshape(-1)
        return np.isin(numbers[: len(keys[0])], numbers[len(keys[0]) :])


@dataclass(frozen=True)
class Spanned:
    """All there is to say about predicted against true spans.

    metrics: precision, recall and f1 of all spans, their means over types (…_macro), token_accuracy. types: support and predicted count spans.
    right: of each document whether all of its spans, and no others, were found. confusion: words by true and by predicted type, the last for none.
    """

    metrics: dict[str, Metric]
    types: tuple[ClassScores, ...]
    right: NDArray[np.bool_]
    confusion: NDArray[np.int64]


def values(labels: Sequence[str], truths: Sequence[Ids], answers: Sequence[Ids]) -> dict[str, float]:
    """The values of the metrics alone, as `spanned` has them."""
    sums = _tally(Scheme.of(labels), truths, answers).sums()
    return {name: float(np.nan_to_num(value)) for name, value in _scores(sums).items() if name not in _OF_TYPES}


def spanned(labels: Sequence[str], truths: Sequence[Ids], answers: Sequence[Ids], seed: int) -> Spanned:
    """Measure answers of documents, each as long as its truth, in places of `labels`."""
    scheme = Scheme.of(labels)
    tally = _tally(scheme, truths, answers)
    whole = tally.sums()
    point, drawn = _scores(whole), _scores(tally.drawn(seed))
    bounds = {name: np.quantile(np.nan_to_num(values), [0.025, 0.975], axis=0) for name, values in drawn.items()}

    def metric(name: str, place: Any = ()) -> Metric:
        if np.isnan(point[name][place]):
            return Metric(0.0, 0.0, 1.0, tally.n, "bootstrap")
        low, high = bounds[name]
        found = Metric(float(point[name][place]), float(low[place]), float(high[place]), tally.n, "bootstrap")
        return mirrored(found, 0, 1) if name.endswith("_macro") else found

    support, predicted, _ = whole[:-2].reshape(3, -1).astype(int).tolist()
    types = tuple(
        ClassScores(name, support[place], predicted[place], *(metric(each, place) for each in _OF_TYPES)) for place, name in enumerate(scheme.types)
    )
    size = len(scheme.types) + 1
    true, found = (np.concatenate([scheme.word_types(ids) for ids in each] or [_NOTHING]) % size for each in (truths, answers))
    return Spanned({name: metric(name) for name in point if name not in _OF_TYPES}, types, tally.right, confusion(true, found, size))


def differences(labels: Sequence[str], truths: Sequence[Ids], first: Sequence[Ids], second: Sequence[Ids], seed: int) -> dict[str, Metric]:
    """Metric -> how much more of it the first answers have than the second; the interval is of the same resamples of both."""
    scheme = Scheme.of(labels)
    point, drawn = [], []
    for answers in (first, second):
        tally = _tally(scheme, truths, answers)
        point.append(_scores(tally.sums()))
        drawn.append(_scores(tally.drawn(seed)))  # one seed and as many documents: the same draws
    found = {}
    for name in [name for name in point[0] if name not in _OF_TYPES]:
        less, many = (np.nan_to_num(one[name]) - np.nan_to_num(other[name]) for one, other in (point, drawn))
        low, high = np.quantile(many, [0.025, 0.975])
        found[name] = Metric(float(less), float(low), float(high), len(truths), "bootstrap")
    return found


@dataclass(frozen=True)
class _Tally:
    """What can be counted in each of n documents: `amounts` of `columns`, each entry of one document.

    Columns, for T types: true spans of each, predicted, predicted that are true; then words, and words with the right label.
    """

    n: int
    width: int
    documents: NDArray[np.int64]
    columns: NDArray[np.int64]
    amounts: NDArray[np.int64]
    right: NDArray[np.bool_]

    def sums(self, times: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Of each column the sum over documents, each of them as often as `times` says; None: once."""
        amounts = self.amounts if times is None else self.amounts * times[self.documents]
        return np.bincount(self.columns, amounts, self.width).astype(np.float64)

    def drawn(self, seed: int) -> NDArray[np.float64]:
        """The sums of resamples, (draws, columns)."""
        rng, n = np.random.default_rng(seed), self.n
        return np.stack([self.sums(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(DRAWS if n else 1)])


@lru_cache(maxsize=8)
def _scheme(labels: tuple[str, ...]) -> Scheme:
    return Scheme(labels)


def _tally(scheme: Scheme, truths: Sequence[Ids], answers: Sequence[Ids]) -> _Tally:
    types, n = len(scheme.types), len(truths)
    true, predicted = scheme.all_spans(truths), scheme.all_spans(answers)
    common = predicted.among(true)
    words = np.array([len(ids) for ids in truths], dtype=np.int64)
    right = np.array([np.count_nonzero(np.asarray(one) == np.asarray(other)) for one, other in zip(truths, answers, strict=True)], dtype=np.int64)
    every, once = np.arange(n), np.ones(1, dtype=np.int64)
    entries = [
        (true.documents, true.types, once),
        (predicted.documents, predicted.types + types, once),
        (predicted.documents[common], predicted.types[common] + 2 * types, once),
        (every, np.full(n, 3 * types), words),
        (every, np.full(n, 3 * types + 1), right),
    ]
    documents, columns, amounts = (np.concatenate(each) for each in zip(*(np.broadcast_arrays(*entry) for entry in entries), strict=True))
    asked, given, both = (np.bincount(each, minlength=n) for each in (true.documents, predicted.documents, predicted.documents[common]))
    return _Tally(n, 3 * types + 2, documents, columns, amounts, (asked == both) & (given == both))


def _scores(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Metric -> value, and those of _OF_TYPES -> (types,), of a tally's columns, or of many draws of them; NaN for what has no denominator.

    An average runs over the types that occur, in a draw as in the data: a type that a draw lacks is none of which nothing was found.
    """
    spans = sums[..., :-2].reshape(*sums.shape[:-1], 3, -1)
    all_spans, of_types = _quotients(spans.sum(-1)), _quotients(np.moveaxis(spans, -2, -1))
    occurs = spans[..., :2, :].sum(-2) > 0
    with np.errstate(invalid="ignore"):
        macro = {f"{name}_macro": np.nan_to_num(values).sum(-1) / occurs.sum(-1) for name, values in of_types.items()}
        accuracy = sums[..., -1] / sums[..., -2]
    return {**all_spans, **macro, "token_accuracy": accuracy, **dict(zip(_OF_TYPES, of_types.values(), strict=True))}


def _quotients(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Of (…, 3) counts: true, predicted, both."""
    true, predicted, both = (counts[..., place] for place in range(3))
    with np.errstate(invalid="ignore"):
        return {"precision": both / predicted, "recall": both / true, "f1": 2 * both / (true + predicted)}
