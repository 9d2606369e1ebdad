"""Rows as words: a list of words as it is, or a text cut into words, with the place of each. Needs no torch.

A text is cut into runs of letters, with their accents and vowel signs, and digits; every other mark, and every ideograph, is a word of its own. So
BERT's own pre-tokenizer cuts it, and so it is cut whichever tokenizer and engine a model has. Places are counted in letters of the text, or of the
words joined by spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any
from unicodedata import category

from modelyard.errors import BadData
from modelyard_jobs.tasks import columns, text
from modelyard_jobs.tasks.task import Row

WORD_NAMES = ("tokens", "words")

_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINERS = "\u200c\u200d"

Places = Sequence[tuple[int, int]]
"""Of each word its first letter, and the one after its last."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a row. text: what places count letters of."""

    words: Sequence[str]
    text: str
    places: Places


def of(row: Row) -> Words:
    """The words of a row that has no fault."""
    if "text" in row:
        places = [match.span() for match in _word().finditer(row["text"])]
        return Words([row["text"][start:end] for start, end in places], row["text"], places)
    words = row["tokens"]
    starts = accumulate((len(word) + 1 for word in words[:-1]), initial=0)
    return Words(words, " ".join(words), [(start, start + len(word)) for start, word in zip(starts, words, strict=True)])


def column(dataset: Any, named: str | None) -> dict[str, str]:
    """`tokens`, a column of lists of strings, or `text`, one of strings: named, or found by a usual name. BadData: of another type."""
    known = {name.lower(): name for name in dataset.column_names}
    usual = next((known[name] for name in (*WORD_NAMES, *columns.TEXT_NAMES) if name in known), None)
    found = columns.find(dataset, "text", named, ()) if named else usual or columns.text(dataset, None)
    feature = dataset.features[found]
    of_each = getattr(feature, "feature", None)
    # What has another type in some rows is kept as JSON: those rows are at fault, not the column.
    if is_string(of_each) or is_mixed(of_each) or (is_mixed(feature) and found.lower() in WORD_NAMES):
        return {"tokens": found}
    if is_string(feature) or is_mixed(feature):
        return {"text": found}
    remedy = "words are a list of strings in each row, or one string"
    raise BadData(f"column {found} holds no words", why=f"its values are of type {shown(feature)}", remedy=remedy)


def fault(row: Row) -> str | None:
    """Why a row's words cannot be used, None when they can."""
    if "text" in row:
        return text.fault(row["text"])
    words = row["tokens"]
    if words is None:
        return "the words are missing"
    if not isinstance(words, list):
        return f"the words are of type {type(words).__name__}, not a list"
    for word in words:
        if not isinstance(word, str):
            return "a word is missing" if word is None else f"a word is of type {type(word).__name__}, not a string"
    return None if any(word.strip() for word in words) else "it has no words"


def is_string(feature: Any) -> bool:
    """Whether a feature of `datasets` is that of strings."""
    return getattr(feature, "dtype", None) in {"string", "large_string"} and not hasattr(feature, "names")


def shown(feature: Any) -> str:
    """A feature's type, for a message."""
    kind = str(feature)
    return "mixed" if is_mixed(feature) or is_mixed(getattr(feature, "feature", None)) else kind if len(kind) <= 120 else f"{kind[:120]} …"


def is_mixed(feature: Any) -> bool:
    """Whether a feature of `datasets` is that of values of several types, which are kept as JSON."""
    return type(feature).__name__ == "Json"


@cache
def _word() -> re.Pattern[str]:
    # Python's \w has no combining marks, without which Hindi, and accents apart from their letters, would be cut to pieces.
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if category(chr(code)).startswith("M"))
    letter = rf"[^\W{_IDEOGRAPHS}_]"
    return re.compile(rf"{letter}(?:{letter}|[{marks}{_JOINERS}])*|\S")
