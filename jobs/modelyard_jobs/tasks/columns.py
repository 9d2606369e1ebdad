"""The columns of a data set: found by name or type, and the labels in one. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, NoInput, suggest

TEXT_NAMES = ("text", "sentence", "review", "content", "comment", "tweet", "document", "body", "snippet", "utterance", "message")
LABEL_NAMES = ("label", "labels", "sentiment", "class", "category", "target", "intent", "topic")
_SHOWN = 8


def find(dataset: Any, what: str, named: str | None, usual: Sequence[str]) -> str:
    """The column named, else the first with a usual name; NoInput where it is not there. what: the setting that names it."""
    columns: list[str] = dataset.column_names
    why = f"the data set has {', '.join(columns)}"
    if named and named not in columns:
        raise NoInput(f"the data set has no column {named!r}", why=why, remedy=suggest(named, columns))
    known = {column.lower(): column for column in columns}
    found = named or next((known[name] for name in usual if name in known), None)
    if found is None:
        raise NoInput(f"no column is clearly the {what}", why=why, remedy=f"{what}: COLUMN names it")
    return found


def text(dataset: Any, named: str | None) -> str:
    """The text column named, or found: by a usual name, else the only one that holds strings."""
    strings = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in {"string", "large_string"}]
    return strings[0] if named is None and len(strings) == 1 else find(dataset, "text", named, TEXT_NAMES)


def label(dataset: Any, named: str | None) -> str:
    """The label column named, or found by a usual name."""
    return find(dataset, "label", named, LABEL_NAMES)


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
        raise unknown(found, names, column)
    return np.array(mapped, dtype=np.int64)[codes]


def check_scores(given: int, labels: Sequence[str]) -> None:
    """BadData where a model gives another number of scores than it has labels."""
    if given != len(labels):
        remedy = "its configuration names other labels than it has; take another model"
        raise BadData(f"the model gives {given} scores for {len(labels)} labels", why=f"its labels are {shown(labels)}", remedy=remedy)


def unknown(found: Sequence[str], names: Sequence[str], column: str) -> BadData:
    """The failure of labels in the data that the model does not know."""
    why = f"the data have {shown(sorted(found))}; the model knows {shown(names)}"
    remedy = "finetune the model on data with these labels, or name the labels of the data as the model does"
    return BadData("the labels of the data are not the model's", where=f"column {column}", why=why, remedy=remedy)


def shown(names: Sequence[str]) -> str:
    """The first of them, and how many there are."""
    return ", ".join(names[:_SHOWN]) + (f" … ({len(names)})" if len(names) > _SHOWN else "")


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
