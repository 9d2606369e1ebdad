"""The comparison in docs/explain.md: a row for each situation, with the words of `kubectl describe` that say most, and modelyard's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.explain import registry

PAGE = Path(__file__).parents[3] / "docs" / "explain.md"
BEGIN, END = "<!-- situations -->\n", "<!-- /situations -->"
HEAD = (
    "Each of these is provoked on a real cluster by a test, which holds both answers. The second column has the words that help most in\n"
    "`kubectl describe` of the Job and its pods; what a step or a driver says of itself at its end is there too (`what`). NAMESPACE, RUN and\n"
    "REGISTRY stand for names that are different each time.\n\n"
    "| situation | in `kubectl describe` | category | what modelyard says to do |\n| --- | --- | --- | --- |\n"
)
LONGEST = 160
"""Letters of kubectl's words that are shown."""


def row(title: str, described: str, category: str, remedy: str, names: Mapping[str, str]) -> str:
    """A row, with NAMESPACE, RUN and so on in place of what is different each time. names: such a name -> what stands for it."""
    said = described
    for name, word in sorted(names.items(), key=lambda item: -len(item[0])):
        said, remedy = said.replace(name, word), remedy.replace(name, word)
    said, remedy = (text.replace(registry.ADDRESS, "REGISTRY") for text in (said, remedy))
    if len(said) > LONGEST:
        half = LONGEST // 2
        said = f"{said[:half].rstrip()} … {said[-half:].lstrip()}"
    return f"| {title} | {_code(said)} | `{category}` | {_code(remedy)} |\n"


def rows() -> dict[str, str]:
    """Title -> row, as the page has them."""
    lines = re.findall(r"^\| .*\|\n", _part(), re.MULTILINE)[2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def write(found: Mapping[str, str]) -> None:
    """Put rows into the page, in their order."""
    PAGE.write_text(PAGE.read_text().replace(BEGIN + _part() + END, BEGIN + HEAD + "".join(found.values()) + END))


def _part() -> str:
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def _code(text: str) -> str:
    """As code in a cell of a table."""
    shown = " ".join(text.split()).replace("|", "\\|")
    return f"`{shown}`"
