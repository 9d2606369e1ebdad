"""What is true of a row's words: tags in a data set, as places in a list of labels. Needs no torch.

Tags are one name per word; or one number per word, where the column declares their names; or spans of a text, {start, end, label}, in letters. A span
that begins or ends inside a word takes all of it. Not covered: spans that overlap, and numbers without names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data
from modelyard_jobs.metrics.spans import NONE, OUTSIDE, Scheme
from modelyard_jobs.tasks import columns, words
from modelyard_jobs.tasks.task import Row
from modelyard_jobs.tasks.words import Places

NAMES = ("ner_tags", "tags", "labels", "label", "entities", "spans", "ner")
KINDS = ("label", "type")
"""What a span's label may be called."""
REMEDY = "tags are a name for each word, a number for each whose name the data set declares, or spans of a text with start, end and label"


@dataclass(frozen=True, slots=True)
class Tagged:
    """What is true of a row's words: of each the place of its label, NONE where the labels have none for it, and where it stands."""

    ids: NDArray[np.int64]
    places: Places


def column(dataset: Any, named: str | None) -> str:
    """The column of tags, named or found by a usual name. BadData: it is of another type."""
    found = columns.find(dataset, "label", named, NAMES)
    feature = dataset.features[found]
    of_each = getattr(feature, "feature", None)
    if words.is_string(of_each) or hasattr(of_each, "names") or _is_spans(of_each):
        return found
    raise BadData(f"column {found} holds no tags of words", why=f"its values are of type {words.shown(feature)}", remedy=REMEDY)


def fault(row: Row) -> str | None:
    """Why the tags of a row, whose words have no fault, cannot be used; None when they can."""
    tags = row["tags"]
    if tags is None:
        return "the tags are missing"
    if any(isinstance(tag, Mapping) for tag in tags):
        return _spans_fault(tags, row) if "text" in row else "the tags are spans, and the words a list"
    if "text" in row and not tags:
        return None  # a text without a span
    if any(_is_missing(tag) for tag in tags):
        return "a word has no tag"
    return None if len(tags) == len(words.of(row).words) else "it has not as many tags as words"


def label_names(dataset: Any, column: str) -> list[str]:
    """The labels of the data: as declared; of spans O, B-TYPE and I-TYPE; else those that occur, sorted, each type with all prefixes that occur.

    BadData: fewer than two.
    """
    feature = dataset.features[column].feature
    found = {name for value in data.values(dataset, column) for name in _names(value or (), feature)}
    if hasattr(feature, "names"):
        names = list(feature.names)
    elif _is_spans(feature):
        names = [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(found) for prefix in "BI")]
    else:
        names = _completed(found)
    if len(names) < 2:
        remedy = "words need two labels at least, such as O and that of a span"
        raise BadData(f"column {column} has too few labels: {columns.shown(names) or 'none'}", remedy=remedy)
    return names


def truths(dataset: Any, columns_: Mapping[str, str], labels: Sequence[str]) -> list[Tagged]:
    """What is true of each row, in places of `labels`; the rows are without fault.

    Tags match labels by name. Where some do not, and for spans, the spans are written as `labels` write spans of their types. BadData: a type or a
    tag that `labels` do not have, and labels of which it is not known what they stand for.
    """
    if list(labels) == [f"LABEL_{place}" for place in range(len(labels))]:
        what, remedy = "the labels of the model have no names", "finetune the model, or name its labels in config.json"
        raise BadData(what, where=f"column {columns_['tags']}", why="which of them stands for no span is not known", remedy=remedy)
    feature = dataset.features[columns_["tags"]].feature
    rows = [(words.of(row).places, row["tags"]) for row in data.rows(dataset, columns_)]
    places = {name: place for place, name in enumerate(labels)}
    if _is_spans(feature):
        spans = [_of_words(tags, cut, feature) for cut, tags in rows]
    else:
        named = [_names(tags, feature) or [OUTSIDE] * len(cut) for cut, tags in rows]
        found = list(dict.fromkeys(name for each in named for name in each))
        if places.keys() >= set(found):
            return [Tagged(np.array([places[name] for name in each], dtype=np.int64), cut) for each, (cut, _) in zip(named, rows, strict=True)]
        source, numbers = Scheme.of(found), {name: place for place, name in enumerate(found)}
        spans = [[(source.types[kind], start, end) for kind, start, end in source.spans([numbers[name] for name in each])] for each in named]
    return _written(spans, [cut for cut, _ in rows], labels, columns_["tags"])


def _names(tags: Iterable[Any], feature: Any) -> list[str]:
    """The names of a row's tags, or the types of its spans."""
    if _is_spans(feature):
        kind = _kind(feature)
        named = _names([tag[kind] for tag in tags if tag is not None], feature[kind])
        return [str(name) for name in named]  # a type may be called 5
    known = [tag for tag in tags if not _is_missing(tag)]
    declared = getattr(feature, "names", None)
    if declared is None:
        return known
    if known and max(known) >= len(declared):
        remedy = "declare a name for each number that occurs"
        raise BadData(f"a tag is the number {max(known)}, and the data set declares {len(declared)} names, from 0", remedy=remedy)
    return [declared[tag] for tag in known]


def _is_missing(tag: Any) -> bool:
    """Also as a declared label says it, which is below 0."""
    return tag is None or tag == "" or (isinstance(tag, int) and tag < 0)


def _is_spans(feature: Any) -> bool:
    return isinstance(feature, Mapping) and {"start", "end"} <= feature.keys() and any(kind in feature for kind in KINDS)


def _kind(span: Mapping[str, Any]) -> str:
    return next(kind for kind in KINDS if kind in span)


def _completed(found: set[str]) -> list[str]:
    """A rare type may have no inside in some rows, and have one in others: with B or I among the prefixes, each type gets all that occur."""
    parts = {(name[0], name[2:]) for name in found if name[1:2] == "-" and name[0] in "BIMELSU"}
    prefixes = {prefix for prefix, _ in parts}
    if not prefixes & {"B", "I"}:
        return sorted(found)
    return sorted(found | {f"{prefix}-{kind}" for prefix in prefixes for _, kind in parts})


def _spans_fault(spans: Sequence[Mapping[str, Any] | None], row: Row) -> str | None:
    taken = np.zeros(len(row["text"]), dtype=np.bool_)
    places = words.of(row).places
    for span in spans:
        if span is None:
            return "a span is missing"
        start, end = span["start"], span["end"]
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(row["text"])):
            return "a span is not inside the text"
        if _is_missing(span[_kind(span)]):
            return "a span has no label"
        inside = [place for place in places if place[0] < end and place[1] > start]
        if not inside:
            return "a span holds no word"
        if taken[inside[0][0] : inside[-1][1]].any():
            return "two spans share a word"
        taken[inside[0][0] : inside[-1][1]] = True
    return None


def _of_words(spans: Sequence[Mapping[str, Any]], places: Places, feature: Any) -> list[tuple[str, int, int]]:
    """Spans of letters as (type, first word, word after the last)."""
    ends = np.array([end for _, end in places])
    starts = np.array([start for start, _ in places])
    return [
        (kind, int(np.searchsorted(ends, span["start"], side="right")), int(np.searchsorted(starts, span["end"], side="left")))
        for kind, span in zip(_names(spans, feature), spans, strict=True)
    ]


def _written(spans: Sequence[Sequence[tuple[str, int, int]]], places: Sequence[Places], labels: Sequence[str], column: str) -> list[Tagged]:
    scheme = Scheme.of(labels)
    types = {kind: place for place, kind in enumerate(scheme.types)}
    outside = list(labels).index(OUTSIDE) if OUTSIDE in labels else NONE
    unknown = set[str]()
    found = []
    for row, cut in zip(spans, places, strict=True):
        ids = np.full(len(cut), outside, dtype=np.int64)
        for kind, start, end in row:
            for place in range(end - start):
                label = scheme.label(types[kind], place, end - start) if kind in types else None
                if label is None:
                    unknown.add(kind)
                else:
                    ids[start + place] = label
        found.append(Tagged(ids, cut))
    if unknown:
        raise columns.unknown(sorted(unknown), labels, column)
    return found
