"""What steps without an artifact found or did (search, preflight, promote, publish), and how people see it: tables and lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from modelyard.cli.output import short, table
from modelyard.quantities import format_bytes

Result = Mapping[str, Any]


def text(verb: str, result: Result, *, whole: bool = True) -> Iterator[str]:
    """A result for people. whole: also what is as it should be."""
    return _preflight(result, whole=whole) if verb == "preflight" else _FORMS[verb](result)


def unanswered(result: Result) -> list[str]:
    """A line for each hub that gave a search no answer."""
    return [f"{item['hub']} gave no answer: {item['what']}" for item in result.get("unanswered", [])]


def _search(result: Result) -> Iterator[str]:
    rows = [
        [
            item["ref"],
            item["task"],
            None if item["size"] is None else format_bytes(item["size"]),
            item["licence"],
            None if item["downloads"] is None else f"{item['downloads']:,}",
            (item["updated"] or "")[:10],
            ", ".join(word for word in ("gated", "private") if item[word]),
        ]
        for item in result["found"]
    ]
    yield from table(rows, ["REF", "TASK", "SIZE", "LICENCE", "DOWNLOADS", "UPDATED", "ACCESS"]) if rows else ["nothing was found"]
    yield from unanswered(result)


def _preflight(result: Result, *, whole: bool) -> Iterator[str]:
    rows = [row for row in result["rows"] if whole or row["verdict"] != "ok"]
    if rows:
        heading, *lines = table(
            [[row["verdict"], row["check"], row["found"], row["needed"]] for row in rows], ["VERDICT", "CHECK", "FOUND", "NEEDED"]
        )
        yield heading
        for row, line in zip(rows, lines, strict=True):
            yield line
            if row["reason"]:
                yield f"           why: {row['reason']}"
            if row["remedy"] and row["verdict"] != "ok":
                yield f"           try: {row['remedy']}"
    counts = Counter(row["verdict"] for row in result["rows"])
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("failed", "warning") if counts[verdict])
    yield f"{counts.total()} checks: {told or 'all ok'}"


def _promote(result: Result) -> Iterator[str]:
    if "digest" in result and "previous" in result:
        before = f", before it {short(result['previous'])}" if result["previous"] and result["previous"] != result["digest"] else ""
        yield f"{result['to']} {'stood for' if result['unchanged'] else 'stands for'} {short(result['digest'])}{before} {_already(result)}".rstrip()
    else:
        yield f"{result['to']} was not moved"
    yield from _gate(result)


def _publish(result: Result) -> Iterator[str]:
    if "revision" in result:
        size = format_bytes(sum(file["size"] for file in result["files"]))
        yield f"{result['to']}@{result['tag']}: {len(result['files'])} files, {size}, {result['visibility']} {_already(result)}".rstrip()
        yield f"revision {result['revision']}"
    else:
        yield f"nothing was published to {result['to']}"
    yield from _gate(result)


def _already(result: Result) -> str:
    return "already: nothing was changed" if result["unchanged"] else ""


def _gate(result: Result) -> Iterator[str]:
    """A line for each of the gate's; none where there is no gate."""
    from modelyard.gate import Line

    for line in (result["gate"] or {}).get("lines", []):
        yield f"gate {'passed' if line['passed'] else 'refused'}: {Line(**line)}"


_FORMS: Mapping[str, Callable[[Result], Iterator[str]]] = MappingProxyType({"search": _search, "promote": _promote, "publish": _publish})
"""Verb -> how its result is shown."""
