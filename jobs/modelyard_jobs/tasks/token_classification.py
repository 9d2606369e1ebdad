"""Token classification: words in, a label of a fixed list for each out, and the spans that the labels tell.

A row is a list of words, or a text (words.py). A word's label is predicted on its first sub-word. Words that are cut off at max_length get no label:
they are in no span, and where the truth has one there, it is missed.
Not covered: labels of sub-words, spans inside spans, several labels per word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics import calibration, spans
from modelyard_jobs.metrics.interval import Metric
from modelyard_jobs.metrics.spans import NONE, OUTSIDE, Scheme
from modelyard_jobs.tasks import columns, tags, text, words
from modelyard_jobs.tasks.one_label import probabilities
from modelyard_jobs.tasks.tags import Tagged
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Measured, Row, Signature, TextEncoder, Truths
from modelyard_jobs.tasks.words import Places, Words

MAIN = "f1"


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a row the model sees. tokens: the place of the first sub-word of each word that it sees; of: which words these are, ascending."""

    row: Words
    tokens: NDArray[np.int64]
    of: NDArray[np.int64]


class TokenClassification:
    """The task. An answer holds, of each word, `labels` (None: cut off) and `scores`, and its `spans`; a truth is a Tagged."""

    name = "token-classification"
    auto = "AutoModelForTokenClassification"
    encoder: Literal["text", "image"] = "text"
    labelled = True
    dense = False
    window = 4096
    outputs = ("logits",)

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """`tokens` or `text`, and `tags`."""
        found = words.column(dataset, self.settings.text)
        return {**found, "tags": tags.column(dataset, self.settings.label)} if truth else found

    def unfit(self, config: Any) -> str | None:
        """Two labels at least."""
        return None if config.num_labels >= 2 else "it has one label only"

    def fault(self, row: Row) -> str | None:
        """No words; or tags that are not those of its words."""
        return words.fault(row) or (tags.fault(row) if "tags" in row else None)

    def prepare(self, rows: Sequence[Row], encoder: TextEncoder, max_length: int) -> list[Item | str]:
        """Token ids, and where in them words begin."""
        found: list[Item | str | None] = [words.fault(row) for row in rows]
        good = [place for place, why in enumerate(found) if why is None]
        cut = [words.of(rows[place]) for place in good]
        for place, row, ids, of, truncated in zip(good, cut, *encoder.words([_spaced(each) for each in cut], max_length), strict=True):
            numbers, tokens = np.unique(np.array([NONE if word is None else word for word in of], dtype=np.int64), return_index=True)
            seen = numbers != NONE
            item = Item(len(ids), ids, truncated, Seen(row, tokens[seen], numbers[seen]))
            found[place] = item if seen.any() else "the model's tokenizer finds nothing in its words"
        return [each for each in found if each is not None]

    def collate(self, items: Sequence[Item], encoder: TextEncoder) -> dict[str, NDArray[np.int64]]:
        """input_ids and attention_mask, (rows, longest)."""
        return text.pad_ids([item.values for item in items], encoder.pad)

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[NDArray[np.float32]]:
        """The logits of the words that the model saw, (words, labels)."""
        return [logits[item.about.tokens] for logits, item in zip(outputs["logits"], items, strict=True)]

    def answers(self, raws: Sequence[NDArray[np.float32]], items: Sequence[Item], labels: Sequence[str]) -> list[dict[str, Any] | None]:
        """Of each word the likeliest label with its probability, 6 digits; of each span the mean probability of its words.

        Raises BadData: the scores are not as many as the labels.
        """
        columns.check_scores(raws[0].shape[1], labels)
        shares = [probabilities(raw) for raw in raws]
        ids, scores = [], []
        for share, item in zip(shares, items, strict=True):
            ids.append(np.full(len(item.about.row.words), NONE, dtype=np.int64))
            scores.append(np.zeros(len(ids[-1])))
            ids[-1][item.about.of], scores[-1][item.about.of] = share.argmax(1), share.max(1)
        scheme = Scheme.of(labels)
        return [
            {
                "labels": [labels[place] if place != NONE else None for place in row_ids.tolist()],
                "scores": row_scores.round(6).tolist(),
                "spans": [_span(scheme, span, item.about.row, row_scores) for span in found],
            }
            if np.isfinite(share).all()
            else None
            for share, item, row_ids, row_scores, found in zip(shares, items, ids, scores, scheme.each(ids), strict=True)
        ]

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """`spans`: label, start and end in letters, the same in words, text, score."""
        return {"spans": answer["spans"]}

    def empty(self) -> dict[str, Any]:
        """No spans."""
        return {"spans": None}

    def signature(self, labels: Sequence[str]) -> Signature:
        """Of tokens: logits of each label for each token."""
        axes = ("batch", "sequence")
        return Signature({"input_ids": axes, "attention_mask": axes}, {"logits": (*axes, len(labels))})

    def label_names(self, dataset: Any, columns: Mapping[str, str]) -> list[str]:
        """The labels of the tags."""
        return tags.label_names(dataset, columns["tags"])

    def truths(self, dataset: Any, columns: Mapping[str, str], labels: Sequence[str]) -> list[Tagged]:
        """Of each row its words' labels."""
        return tags.truths(dataset, columns, labels)

    def measure(self, truths: Truths, answers: Answers, labels: Sequence[str]) -> Measured:
        """F1 of spans first; precision, recall, F1 of each type, labels of words, words by true and predicted type, calibration of words' labels.

        A row is right where all of its spans, and no others, are found; sure of an error by the word of which it is surest and wrong.
        """
        true, given = _ids(truths, answers, labels)
        found = spans.spanned(labels, true, given, self.settings.seed)
        lengths = [len(each) for each in true]
        rows, right = np.repeat(np.arange(len(true)), lengths), _flat(true) == _flat(given)
        scores = np.concatenate([np.zeros(0), *(answer["scores"] for answer in answers)])
        answered = _flat(given) != NONE
        sureness = np.zeros(len(true))
        np.maximum.at(sureness, rows[~right], scores[~right])
        wrong = np.flatnonzero(~found.right)
        calibrated = calibration.calibration(scores[answered], right[answered], self.settings.seed, groups=rows[answered])
        document = {
            "classes": [asdict(each) for each in found.types],
            "words": {
                "evaluated": len(rows),
                "cut_off": int((~answered).sum()),
                "types": [*Scheme.of(labels).types, OUTSIDE],
                "confusion": found.confusion.tolist(),
            },
            "calibration": asdict(calibrated),
        }
        return Measured(MAIN, found.metrics, found.right, wrong[np.argsort(-sureness[wrong], kind="stable")], document)

    def differences(self, truths: Truths, first: Answers, second: Answers, labels: Sequence[str]) -> dict[str, Metric]:
        """By the same resamples of rows."""
        true, given = _ids(truths, first, labels)
        return spans.differences(labels, true, given, _ids(truths, second, labels)[1], self.settings.seed)

    def compared(self, truth: Any, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """True and predicted spans: label, start and end in letters, the same in words."""
        scheme = Scheme.of(labels)
        asked = [_placed(scheme, span, truth.places) for span in scheme.spans(truth.ids)]
        return {"true": asked, "predicted": [{name: span[name] for name in ("label", "start", "end", "words")} for span in answer["spans"]]}


def _spaced(row: Words) -> list[str]:
    """The words with a blank before them where the text has one: tokenizers of bytes know `of` after a blank, and `of` in `sofa`, as two tokens."""
    return [f" {word}" if start and row.text[start - 1].isspace() else word for word, (start, _) in zip(row.words, row.places, strict=True)]


def _placed(scheme: Scheme, span: spans.Span, places: Places) -> dict[str, Any]:
    kind, first, after = span
    return {"label": scheme.types[kind], "start": places[first][0], "end": places[after - 1][1], "words": [first, after]}


def _span(scheme: Scheme, span: spans.Span, row: Words, scores: NDArray[np.float64]) -> dict[str, Any]:
    placed = _placed(scheme, span, row.places)
    score = round(float(scores[span[1] : span[2]].mean()), 6)
    return {**placed, "text": row.text[placed["start"] : placed["end"]], "score": score}


def _ids(truths: Truths, answers: Answers, labels: Sequence[str]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Of each row the true and the predicted labels of its words, as places in `labels`."""
    places: dict[str | None, int] = {None: NONE, **{name: place for place, name in enumerate(labels)}}
    return [truth.ids for truth in truths], [np.array([places[name] for name in answer["labels"]], dtype=np.int64) for answer in answers]


def _flat(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *rows])
