"""YAML 1.2 documents whose every value knows the line that it was written on.

PyYAML reads YAML 1.1, where `on` is true and `1e-4` is a string; the resolvers here are YAML 1.2's core schema. Keys are strings and may not
come twice; `<<` is a key like any other. Size, depth and number of values are bounded, so that a small file cannot become a large one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelyard.errors import NoInput, Usage

Location = tuple[str | int, ...]
"""Where a value stands: keys and indices from the root."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_DIGITS = 100


@dataclass(frozen=True)
class Document:
    """A value and where its parts stand. name: for messages, usually the path as the user wrote it."""

    name: str
    value: Any
    lines: dict[Location, int]

    def at(self, location: Location) -> str:
        """`file:line: field.path` of the value there, or of its nearest parent that has a line."""
        line = next((self.lines[location[:end]] for end in range(len(location), -1, -1) if location[:end] in self.lines), None)
        place = self.name if line is None else f"{self.name}:{line}"
        path = field_path(location)
        return f"{place}: {path}" if path else place


def field_path(location: Location) -> str:
    """`steps.tuned.trust[0]` for a location."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: Path, name: str | None = None) -> Document:
    """The document in a file. Raises NoInput: no such file; Usage: it cannot be read as a document."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NoInput("no such file", where=name, remedy="check the path") from error
    except OSError as error:
        raise NoInput("the file cannot be read", where=name, why=error.strerror or str(error), remedy="check the path and its permissions") from error
    if len(data) > MAX_BYTES:
        raise Usage("the file is too large for a pipeline", where=name, why=f"over {MAX_BYTES} bytes", remedy="give a pipeline file")
    return parse(data, name)


def parse(data: bytes | str, name: str) -> Document:
    """The document in `data`. Raises Usage with the line of what is wrong."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise Usage("the file is not UTF-8", where=name, why=f"byte {error.start}", remedy="save it as UTF-8") from error
    except RecursionError as error:
        raise Usage("the file is nested too deeply", where=name, remedy=f"at most {MAX_DEPTH} levels") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        remedy = "indent with blanks, not with tabs" if r"'\t'" in problem else "correct the line"
        raise Usage("this is not YAML", where=f"{name}:{mark.line + 1}" if mark else name, why=problem, remedy=remedy) from error
    lines: dict[Location, int] = {}
    value = None if node is None else _Reader(name, lines).value(node, ())
    return Document(name, value, lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the tags of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/, 10.3.2)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # PyYAML's own shape


_COLLECTIONS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_NUMBER = list("-+.0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), _NUMBER)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"),
    _NUMBER,
)
_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
    "int": lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
"""Tag -> value of a text. PyYAML takes a prefix that matches for the whole; hence the `\\Z` above."""


@dataclass
class _Reader:
    """Turns nodes into values, writing down lines as it goes."""

    name: str
    lines: dict[Location, int]
    count: int = 0

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or len(location) > MAX_DEPTH:
            raise self._wrong(node, "the file is too large once its aliases are written out", f"at most {MAX_VALUES} values and {MAX_DEPTH} levels")
        self.lines[location] = node.start_mark.line + 1
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise self._wrong(node, f"the tag {node.tag!r} is not allowed", "")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*location, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._wrong(key_node, "a key must be a word", "")
            key = str(key_node.value)
            if key in mapping:
                raise self._wrong(key_node, f"{key!r} is given twice", "")
            mapping[key] = self.value(value_node, (*location, key))
            self.lines[(*location, key)] = key_node.start_mark.line + 1
        return mapping

    def _scalar(self, node: yaml.Node) -> Any:
        kind, text = node.tag.rpartition(":")[2], str(node.value)
        if kind == "int" and len(text) > MAX_DIGITS:
            raise self._wrong(node, "the number is too long", f"over {MAX_DIGITS} digits")
        if kind not in _SCALARS:
            raise self._wrong(node, f"the tag {node.tag!r} is not allowed", "")
        return _SCALARS[kind](text)

    def _wrong(self, node: yaml.Node, what: str, why: str) -> Usage:
        return Usage(what, where=f"{self.name}:{node.start_mark.line + 1}", why=why, remedy="correct the line")
