"""The column of objects: of each image the boxes of what is on it, and their categories. Needs no torch.

A box without an extent, or outside of its image, is the fault of its row: data sets that people drew have a few. Categories that are missing or not
known are a fault of the data.
A row's value is an object of lists, or a list of objects, with `bbox` (x, y, width and height in pixels of the image, as COCO has it) and `category`
(a name, a number, or a declared label), and with `iscrowd` where there are crowds. Other formats of boxes are not told apart from this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.errors import BadData
from modelyard_jobs import data
from modelyard_jobs.metrics.boxes import Boxes
from modelyard_jobs.tasks.columns import shown, unknown

HAIR = 1.0
"""Pixels that a box may reach out of its image, as rounding does."""
NO_BOX = "a box is not four numbers"
_FAR = 1 << 53
"""Pixels beyond which numbers of 64 bits no longer tell one from the next."""
_FIELDS = {
    "bbox": ("bbox", "bboxes", "box", "boxes"),
    "category": ("category", "categories", "label", "labels", "class", "category_id"),
    "iscrowd": ("iscrowd", "is_crowd"),
}
_SHOWN = 5


def label_names(dataset: Any, column: str) -> list[str]:
    """The categories in the order of their ids: as the data set declares them, else sorted. BadData where there are none."""
    declared = _declared(dataset, column)
    found = declared or [
        str(value) for value in sorted({value for _, value in _categories(dataset, column)}, key=lambda value: (str(type(value)), value))
    ]
    if not found:
        raise BadData(f"column {column} has no box on any image", remedy="name the column of the objects")
    return found


def truths(dataset: Any, column: str, labels: Sequence[str]) -> list[Boxes]:
    """The boxes of each row, in ids of `labels`. BadData: a row without the field, a box or a category that is none, or none that the model knows.

    Categories match by name. A model with the names LABEL_0, LABEL_1 … takes numbers, and the declared order, as its ids.
    """
    declared = _declared(dataset, column)
    seen = {value for _, value in _categories(dataset, column)}
    names = {value: str(value) if declared is None else declared[value] for value in seen}
    places = {name: place for place, name in enumerate(labels)}
    if list(labels) == [f"LABEL_{place}" for place in range(len(labels))] and all(
        isinstance(value, int) and 0 <= value < len(labels) for value in seen
    ):
        ids = {value: value for value in seen}
    elif all(name in places for name in names.values()):
        ids = {value: places[name] for value, name in names.items()}
    else:
        raise unknown(list(names.values()), labels, column)
    found, wrong = [], []
    for row, value in enumerate(data.values(dataset, column)):
        boxes, categories, crowd = _fields(value, row, column)
        kept = [clipped(box, math.inf, math.inf) for box in boxes]
        wrong += [f"row {row}, box {box}: {fault}" for box, fault in zip(boxes, kept, strict=True) if isinstance(fault, str)]
        if not wrong:
            found.append(Boxes.of(kept, [ids[category] for category in categories], crowd=crowd))
    if wrong:
        what, remedy = f"{len(wrong)} boxes cannot be used", "mend them, or take them out; rows are counted from 0"
        raise BadData(what, where=f"column {column}", why="; ".join(wrong[:_SHOWN]) + (" …" if len(wrong) > _SHOWN else ""), remedy=remedy)
    return found


def clipped(box: Any, width: float, height: float) -> list[float] | str:
    """A box inside of an image of that size, cut where it reaches out by a hair; or what is wrong with it."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(side, int | float) and abs(side) < _FAR for side in box):
        return NO_BOX
    x, y, wide, high = map(float, box)
    if wide <= 0 or high <= 0:
        return "a box has no extent"
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + wide, width), min(y + high, height)
    inside = x >= -HAIR and y >= -HAIR and x + wide <= width + HAIR and y + high <= height + HAIR and left < right and top < bottom
    return [left, top, right - left, bottom - top] if inside else "a box reaches out of its image"


def fault(value: Any, width: float, height: float) -> str | None:
    """What is wrong with a box of a row's value, of an image of that size; None where nothing is, or there are no boxes to look at."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in _FIELDS["bbox"] if name in value), None)
    elif isinstance(value, list):
        value = [next((each[name] for name in _FIELDS["bbox"] if name in each), None) if isinstance(each, Mapping) else None for each in value]
    if value is not None and not isinstance(value, list):
        return NO_BOX
    found = (clipped(box, width, height) for box in value or ())
    return next((each for each in found if isinstance(each, str)), None)


def _declared(dataset: Any, column: str) -> list[str] | None:
    """The names that the data set declares for its categories, if it does."""
    feature = dataset.features[column]
    inside = _inner(feature)
    if not isinstance(inside, Mapping):
        remedy = "objects have bbox and category; label: COLUMN names their column"
        raise BadData(f"column {column} holds no objects", why=f"its values are of type {feature}"[:300], remedy=remedy)
    names = getattr(_inner(inside.get(_name(inside, "category", column))), "names", None)
    return None if names is None else list(names)


def _inner(feature: Any) -> Any:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature


def _name(fields: Mapping[str, Any], what: str, column: str) -> str:
    found = next((name for name in _FIELDS[what] if name in fields), None)
    if found is None:
        raise BadData(
            f"the objects of column {column} have no {what}", why=f"they have {', '.join(map(str, fields))}", remedy=f"call the field {what}"
        )
    return found


def _categories(dataset: Any, column: str) -> Iterator[tuple[int, Any]]:
    """(row, category) of every object. BadData: one that is missing or neither a number nor a string."""
    names = _declared(dataset, column)
    for row, value in enumerate(data.values(dataset, column)):
        for category in _fields(value, row, column)[1]:
            if not isinstance(category, int | str) or (names is not None and isinstance(category, int) and not 0 <= category < len(names)):
                why = f"{category!r} is no category" + (f" of {shown(names)}" if names else "")
                raise BadData("an object has no category", where=f"column {column}, row {row}, counted from 0", why=why)
            yield row, category


def _fields(value: Any, row: int, column: str) -> tuple[list[Any], list[Any], list[bool]]:
    """(boxes, categories, crowd) of a row, each as long as it has objects."""
    where = f"column {column}, row {row}, counted from 0"
    if value is None:
        raise BadData("a row has no objects", where=where, why="the value is missing", remedy="an image without objects has an empty list")
    if isinstance(value, list):
        if not value:
            return [], [], []
        if not all(isinstance(each, Mapping) for each in value):
            raise BadData("an object is missing", where=where, why="one is no object with bbox and category", remedy="take it out of the list")
        value = {name: [each.get(name) for each in value] for name in dict.fromkeys(name for each in value for name in each)}
    if not isinstance(value, Mapping):
        raise BadData(
            "a row has no objects", where=where, why=f"the value is of type {type(value).__name__}", remedy="objects have bbox and category"
        )
    boxes, categories = (value[_name(value, what, column)] or [] for what in ("bbox", "category"))
    crowd = value[_name(value, "iscrowd", column)] if any(name in value for name in _FIELDS["iscrowd"]) else None
    for what, given in {"bbox": boxes, "category": categories, "iscrowd": crowd or []}.items():
        if not isinstance(given, list):
            raise BadData(f"the {what} of a row's objects is no list", where=where, why=f"it is of type {type(given).__name__}")
    if not len(boxes) == len(categories) == len(crowd or categories):
        raise BadData("an image's boxes and categories differ in number", where=where, why=f"{len(boxes)} boxes, {len(categories)} categories")
    return list(boxes), list(categories), list(map(bool, crowd or [False] * len(boxes)))
