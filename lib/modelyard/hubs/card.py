"""What a repository's own card says of it: the front matter of README.md, and configuration.json.

Both hubs' spellings are read. What is not there, too large or not of the expected form says nothing: a card is a description, nothing depends on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from modelyard.errors import Usage

FILES = ("README.md", "configuration.json")

LARGEST = 64 << 10
"""Bytes of the largest card that is read."""

_FRONT = re.compile(r"\A---[ \t\r]*\n(.*?)\n---[ \t\r]*(?:\n|\Z)", re.DOTALL)  # no \s, which takes line ends too: time would grow by the square
_TASKS = ("pipeline_tag", "tasks", "task_categories", "task")


@dataclass(frozen=True)
class Card:
    """licence, task, languages: lower-case words; description: the first line of text."""

    licence: str | None = None
    task: str | None = None
    description: str = ""
    languages: tuple[str, ...] = ()


def read(content: Callable[[str], bytes | None]) -> Card:
    """The card of a repository. content: the bytes of one of its files, None where it is not there."""
    text = (content(FILES[0]) or b"").decode("utf-8", "replace")
    front: dict[str, Any] = {}
    with suppress(Usage):
        front = front_matter(text) or {}
    about = _json(content(FILES[1]) or b"")
    lines = _FRONT.sub("", text).splitlines()
    first = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    task = next((found for where in (front, about) for key in _TASKS if (found := _word(where.get(key)))), None)
    licence = _word(front.get("license"))
    if licence == "other":  # both hubs' word for one that is not on their list
        licence = _word(front.get("license_name")) or licence
    spoken = front.get("language")
    languages = [word for one in (spoken if isinstance(spoken, list) else [spoken])[:100] if (word := _word(one))]
    return Card(licence, task, first[:300], tuple(languages))


def front_matter(text: str) -> dict[str, Any] | None:
    """What stands between the `---` at the top of a README.md, None where nothing does. Raises Usage: it cannot be read, or is no mapping."""
    from modelyard import document  # late: only a hub that is searched reads cards

    matter = _FRONT.match(text)
    if matter is None:
        return None
    if len(matter[1]) > LARGEST:
        raise Usage("the front matter is too large", where=FILES[0], why=f"over {LARGEST} characters", remedy="shorten it")
    found = document.parse(matter[1], FILES[0]).value
    if not isinstance(found, dict):
        raise Usage("the front matter is no mapping", where=FILES[0], remedy="write lines of `key: value`")
    return found


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: Any) -> str | None:
    """A word, or the first of several."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        return None
    return (
        first.strip().lower()[:100].encode("utf-8", "replace").decode() or None
    )  # JSON and YAML can write half a surrogate, which no answer can hold
