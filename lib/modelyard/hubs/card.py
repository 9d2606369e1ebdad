"""What a repository's own card says of it: the front matter of README.md, and configuration.json.

Both hubs' spellings are read. What is not there, too large or not of the expected form says nothing: a card is a description, nothing depends on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FILES = ("README.md", "configuration.json")

LARGEST = 64 << 10
"""Bytes of the largest card that is read."""

_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
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
    matter = _FRONT.match(text)
    front = _front(matter[1]) if matter else {}
    about = _json(content(FILES[1]) or b"")
    lines = (text[matter.end() :] if matter else text).splitlines()
    first = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    task = next((found for where in (front, about) for key in _TASKS if (found := _word(where.get(key)))), None)
    licence = _word(front.get("license"))
    if licence == "other":  # both hubs' word for one that is not on their list
        licence = _word(front.get("license_name")) or licence
    spoken = front.get("language")
    languages = [word for one in (spoken if isinstance(spoken, list) else [spoken])[:100] if (word := _word(one))]
    return Card(licence, task, first[:300], tuple(languages))


def _front(text: str) -> dict[str, Any]:
    import yaml  # late: only a hub that is searched reads cards

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: Any) -> str | None:
    """A word, or the first of several."""
    first = value[0] if isinstance(value, list) and value else value
    return first.strip().lower()[:100] or None if isinstance(first, str) else None
