"""Files of words in lines, as CoNLL's shared tasks have them: one word a line with its tags beside it, and a blank line after each sentence.

Files are .conll, .bio, .iob and .iob2; and .tsv and .txt, if they begin so. Fields are parted by tabs where the first word's line has one, else by
blanks; the first is the word, the last its tag, what is between them is not read. Lines that begin with -DOCSTART- part documents, and are left out.
Rows are sentences, with columns `tokens` and `tags`. There are no comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelyard.errors import BadData

SUFFIXES = frozenset({".conll", ".bio", ".iob", ".iob2"})
MAYBE = frozenset({".tsv", ".txt"})
"""Suffixes of files that may be of this kind, and may be of another."""

_DOCUMENT = "-DOCSTART-"
_TAG = re.compile(r"O|[BIELSU]-\S+")
_LOOKED_AT = 1 << 14


def holds(path: Path) -> bool:
    """Whether a file is of this kind: by its name, else where all of its first lines end in a tag, with a blank one between them."""
    suffix = path.suffix.lower()
    if suffix not in MAYBE:
        return suffix in SUFFIXES
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT).decode("utf-8-sig", "replace")
    lines = start.split("\n") if len(start) < _LOOKED_AT else start.split("\n")[:-1]  # the last may be cut
    found = [_fields(line, "\t" in line) for line in lines if line.strip() and not line.startswith(_DOCUMENT)]
    parted = any(not line.strip() or line.startswith(_DOCUMENT) for line in lines[:-1])
    return parted and bool(found) and all(len(fields) > 1 and _TAG.fullmatch(fields[-1]) for fields in found)


def read(library: Any, path: Path, name: str, cache_dir: Path) -> Any:
    """The sentences of a file, memory-mapped. library: `datasets`; name: of the file, for messages. Raises BadData."""
    words = library.List(library.Value("string"))
    return library.Dataset.from_generator(
        sentences, features=library.Features({"tokens": words, "tags": words}), cache_dir=str(cache_dir), gen_kwargs={"path": path, "name": name}
    )


def sentences(path: Path, name: str) -> Iterator[dict[str, list[str]]]:
    """The rows of a file. Raises BadData: a line that is no UTF-8, that has no tag, or that has other fields than those before it."""
    tokens, tags = list[str](), list[str]()
    tabs, count, seen = False, 0, False
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = _text(raw, f"{name}:{number}")
            if not line.strip() or line.startswith(_DOCUMENT):
                if tokens:
                    yield {"tokens": tokens, "tags": tags}
                tokens, tags = [], []
                continue
            if not seen:
                tabs, seen = "\t" in line, True
            fields = _fields(line, tabs)
            count = count or len(fields)
            if len(fields) < 2 or not (fields[0].strip(" ") and fields[-1].strip(" ")):
                why = "it should be a word and, in the last of its fields, a tag"
                raise BadData(
                    "the line has no tag", where=f"{name}:{number}", why=why, remedy="put a blank line between sentences, and a tag beside each word"
                )
            if len(fields) != count:
                raise BadData(f"the line has {len(fields)} fields, and those before it have {count}", where=f"{name}:{number}")
            tokens.append(fields[0])
            tags.append(fields[-1])
    if tokens:
        yield {"tokens": tokens, "tags": tags}
    if not seen:
        raise BadData("the file has no rows", where=name)


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadData("the file cannot be read", where=where, why=f"byte 0x{raw[error.start]:02x} is not UTF-8") from error


def _fields(line: str, tabs: bool) -> list[str]:
    # Other white space than a blank, such as one that does not break, is part of a word.
    return line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))
