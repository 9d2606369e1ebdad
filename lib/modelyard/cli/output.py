"""What commands print: data on stdout in the form that was asked for, everything else on stderr.

Commands hand over plain values and never print. JSON and YAML carry `apiVersion`; within a version, keys are added and never change their
meaning. A table is for people and may change.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO, get_args

from modelyard.errors import Failure

API_VERSION = "modelyard/v1"

Format = Literal["table", "json", "yaml", "name"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Output:
    """Where a command's results go. quiet: names only on stdout, nothing but errors on stderr."""

    format: Format = "table"
    quiet: bool = False

    def listing(self, kind: str, items: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, name: str) -> None:
        """Print several objects. columns: heading -> key of an item; name: the key of an item's name."""
        text = table([[item.get(key) for key in columns.values()] for item in items], list(columns)) if items else []
        self._print(f"{kind}List", {"items": [_public(item) for item in items]}, text, [str(item[name]) for item in items])

    def record(self, kind: str, value: Mapping[str, Any], text: Iterable[str], *, name: str | Sequence[str]) -> None:
        """Print one object. text: its lines for people; name: its name, or the names in it."""
        self._print(kind, _public(value), text, [name] if name and isinstance(name, str) else name)

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of data as they are."""
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def options(self) -> list[str]:
        """The options that ask another call for the same output."""
        return ["--output", self.format, *(["--quiet"] if self.quiet else [])]

    def note(self, text: str) -> None:
        """Tell the person something that is not the result."""
        if not self.quiet:
            print(printable(text, keep="\n"), file=sys.stderr, flush=True)

    def hint(self, command: str) -> None:
        """Name the next command."""
        self.note(f"next: {command}")

    def _print(self, kind: str, value: Mapping[str, Any], text: Iterable[str], names: Iterable[str]) -> None:
        document = {"apiVersion": API_VERSION, "kind": kind, **value}
        if self.quiet or self.format == "name":
            self.lines(names)
        elif self.format == "table":
            self.lines(map(printable, text))
        elif self.format == "json":
            self.lines([json.dumps(document, indent=2, ensure_ascii=False)])
        else:
            import yaml

            self.lines([yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False, allow_unicode=True, width=120).rstrip("\n")])


def table(rows: Sequence[Sequence[object]], headings: Sequence[str]) -> list[str]:
    """Lines of columns under their headings; None is shown as `-`."""
    cells = [list(headings), *(["-" if cell is None or cell == "" else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def short(digest: str | None) -> str | None:
    """The first letters of a digest, enough to name it."""
    return digest[:12] if digest else None


def complain(failure: Failure) -> None:
    """Print a failure: what and where, why, what to do; in colour where a person wants it (https://no-color.org)."""
    error = "\x1b[31merror:\x1b[0m" if terminal(sys.stderr) and not os.environ.get("NO_COLOR") else "error:"
    place = f"{failure.where}: " if failure.where else ""
    said = [f"{place}{failure.what}", failure.why and f"  why: {failure.why}", failure.remedy and f"  try: {failure.remedy}"]
    print(error, printable("\n".join(filter(None, said)), keep="\n"), file=sys.stderr)


def printable(text: str, keep: str = "") -> str:
    """The text without control characters, which a terminal would obey; much of what is shown comes from hubs, models and data."""
    return "".join(letter if letter.isprintable() or letter in keep else "\ufffd" for letter in text)


def terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _public(item: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that are for the table only; they start with an underscore."""
    return {key: value for key, value in item.items() if not key.startswith("_")}
