"""Text classification: one text in, one label of a fixed list out.

What the steps share of rows: columns, texts, labels. The model is text_classifier.py; nothing here needs torch.
Not covered: several labels per row, regression, pairs of texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, NoInput, suggest
from modelyard_jobs import data

TEXT_NAMES = ("text", "sentence", "review", "content", "comment", "tweet", "document", "body", "snippet", "utterance", "message")
LABEL_NAMES = ("label", "labels", "sentiment", "class", "category", "target", "intent", "topic")
_SHOWN = 8


@dataclass(frozen=True)
class Columns:
    """The columns of a data set that the task reads."""

    text: str
    label: str


def columns(dataset: Any, text: str | None, label: str | None) -> Columns:
    """The columns named, or found by name and type; NoInput where one is not there."""
    return Columns(text_column(dataset, text), _column(dataset, "label", label, LABEL_NAMES))


def text_column(dataset: Any, text: str | None) -> str:
    """The text column named, or found: by a usual name, else the only one that holds strings."""
    strings = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in {"string", "large_string"}]
    return strings[0] if text is None and len(strings) == 1 else _column(dataset, "text", text, TEXT_NAMES)


def label_names(dataset: Any, column: str) -> list[str]:
    """The labels of the data in the order of their ids: as the data set declares them, else sorted (numbers by value, strings by code point)."""
    values, _ = _classes(dataset, column)
    feature = dataset.features[column]
    found = list(feature.names) if hasattr(feature, "names") else [str(value) for value in sorted(values)]
    if len(found) < 2:
        raise BadData(f"column {column} has one label only: {shown(found)}", remedy="a classifier needs rows of two classes at least")
    return found


def label_ids(dataset: Any, column: str, names: Sequence[str]) -> NDArray[np.int64]:
    """One id per row: the place of its label in `names`.

    Labels match by name. A model with the names LABEL_0, LABEL_1 … says nothing about them: numbers from 0, and the declared order of a data set
    with as many labels, are taken as its ids. Anything else is BadData with both lists.
    """
    feature = dataset.features[column]
    values, codes = _classes(dataset, column)
    found = [feature.names[value] if hasattr(feature, "names") else str(value) for value in values]
    places = {name: place for place, name in enumerate(names)}
    generic = list(names) == [f"LABEL_{place}" for place in range(len(names))]
    declared = hasattr(feature, "names") and len(feature.names) == len(names)
    if all(name in places for name in found):
        mapped = [places[name] for name in found]
    elif generic and (declared or all(isinstance(value, int) and 0 <= value < len(names) for value in values)):
        mapped = values
    else:
        why = f"the data have {shown(sorted(found))}; the model knows {shown(names)}"
        remedy = "finetune the model on data with these labels, or name the labels of the data as the model does"
        raise BadData("the labels of the data are not the model's", where=f"column {column}", why=why, remedy=remedy)
    return np.array(mapped, dtype=np.int64)[codes]


def fault(text: object) -> str | None:
    """Why a row's text cannot be classified, None when it can."""
    if text is None:
        return "the text is missing"
    if not isinstance(text, str):
        return f"the text is of type {type(text).__name__}, not a string"
    return None if text.strip() else "the text is empty"


def usable_rows(dataset: Any, column: str) -> tuple[NDArray[np.int64], dict[str, int]]:
    """(numbers of the rows whose text can be classified, fault -> count of those whose cannot); BadData when none can."""
    whys = [fault(text) for text in data.values(dataset, column)]
    faults = Counter(why for why in whys if why)
    if len(whys) == faults.total():
        why = "; ".join(f"{why}: {count} rows" for why, count in faults.items())
        raise BadData(f"column {column} holds no text", why=why, remedy="text: name the column that the model reads")
    return np.flatnonzero([why is None for why in whys]), dict(faults)


def shown(names: Sequence[str]) -> str:
    """The first of them, and how many there are."""
    return ", ".join(names[:_SHOWN]) + (f" … ({len(names)})" if len(names) > _SHOWN else "")


def _column(dataset: Any, what: str, named: str | None, usual: Sequence[str]) -> str:
    columns: list[str] = dataset.column_names
    why = f"the data set has {', '.join(columns)}"
    if named and named not in columns:
        raise NoInput(f"the data set has no column {named!r}", why=why, remedy=suggest(named, columns))
    known = {column.lower(): column for column in columns}
    found = named or next((known[name] for name in usual if name in known), None)
    if found is None:
        raise NoInput(f"no column is clearly the {what}", why=why, remedy=f"{what}: COLUMN names it")
    return found


def _classes(dataset: Any, column: str) -> tuple[list[Any], NDArray[np.int64]]:
    """(distinct values, per row the place of its value in them); BadData for rows without a label and for values that are no labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = dataset.select_columns([column]).with_format("arrow")[:][column].combine_chunks()
    if hasattr(dataset.features[column], "names"):
        values = pc.if_else(pc.less(values, 0), None, values)  # how a declared label says that it is missing
    absent = np.flatnonzero(pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False))
    if len(absent):
        why = f"rows {shown(list(map(str, absent)))}, counted from 0"
        remedy = "take a split with labels, or remove these rows"
        raise BadData(f"{len(absent)} of {len(values)} rows have no label", where=f"column {column}", why=why, remedy=remedy)
    if pa.types.is_floating(values.type):
        with suppress(pa.ArrowInvalid):  # 1.0 is the label 1; 0.5 is none
            values = values.cast(pa.int64())
    if not re.fullmatch(r"(large_)?string|bool|u?int\d+", str(values.type)):
        remedy = "labels are strings, whole numbers or booleans, one per row"
        raise BadData(f"column {column} holds no labels", why=f"its values are of type {values.type}", remedy=remedy)
    encoded = values.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
