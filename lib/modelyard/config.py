"""What is in force outside the pipeline: where steps run, the yard, and where hubs are.

A value comes from, in rising order: the default, `modelyard.toml` (the nearest one, searched upward from the current folder), the environment
(`MODELYARD_ON`, `MODELYARD_YARD`, `MODELYARD_HUBS_MODELSCOPE`, `MODELYARD_HUBS_HUGGINGFACE`), an option. Each knows which of them it was.
Relative folders count from the file that names them, elsewhere from the current folder. None of this is part of the key of a result.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelyard.errors import Usage, suggest

FILE = "modelyard.toml"
PREFIX = "MODELYARD_"


@dataclass(frozen=True)
class Setting:
    """What can be set. folder: its text is a folder, or, for a hub, the address of a server."""

    default: str | None
    folder: bool
    meaning: str


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "on": Setting("local", folder=False, meaning="where steps run"),
        "yard": Setting("./.yard", folder=True, meaning="the folder that holds artifacts, refs, runs and checkpoints"),
        "hubs.modelscope": Setting(None, folder=True, meaning="where modelscope:// refs resolve"),
        "hubs.huggingface": Setting(None, folder=True, meaning="where hf:// refs resolve"),
    }
)

PLACES = ("local",)
_LATER = ("kubernetes",)
_ADDRESS = re.compile(r"[a-z]+://")


@dataclass(frozen=True)
class Value:
    """A value and where it comes from: `default`, the path of a file, the name of a variable or of an option."""

    text: str | None
    source: str


@dataclass(frozen=True)
class Config:
    """All settings in force; keys are those of `SETTINGS`."""

    values: Mapping[str, Value]

    @property
    def on(self) -> str:
        """Where steps run."""
        return self.values["on"].text or ""

    @property
    def yard(self) -> Path:
        """The yard's folder, absolute."""
        return Path(self.values["yard"].text or "")

    @property
    def hubs(self) -> dict[str, str]:
        """Hub -> absolute folder or address, for those that are set."""
        return {name.removeprefix("hubs."): value.text for name, value in self.values.items() if name.startswith("hubs.") and value.text}


def load(options: Mapping[str, str | None] | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Config:
    """The settings in force.

    options: setting -> what the command line says, None where it says nothing. environ, folder: for tests, default the process's own.
    Raises Usage: an unknown key or a value that cannot be, with the file and the key.
    """
    environ = os.environ if environ is None else environ
    folder = folder or Path.cwd()
    values = {name: _value(name, setting.default, "default", folder) for name, setting in SETTINGS.items()}
    file = next((parent / FILE for parent in (folder, *folder.parents) if (parent / FILE).is_file()), None)
    if file:
        values |= {name: _value(name, text, str(file), file.parent) for name, text in _read(file)}
    for name in SETTINGS:
        variable = variable_of(name)
        if text := environ.get(variable):
            values[name] = _value(name, text, variable, folder)
        if text := (options or {}).get(name):
            values[name] = _value(name, text, option_of(name), folder)
    on = values["on"]
    if on.text in _LATER:
        raise Usage(f"on = {on.text!r} is not there yet", where=on.source, why="this version runs steps on this machine only", remedy="on = 'local'")
    if on.text not in PLACES:
        raise Usage(f"on = {on.text!r} is no place to run", where=on.source, remedy=suggest(on.text or "", PLACES))
    return Config(MappingProxyType(values))


def variable_of(name: str) -> str:
    """`MODELYARD_HUBS_MODELSCOPE` for `hubs.modelscope`."""
    return PREFIX + name.replace(".", "_").upper()


def option_of(name: str) -> str:
    """`--yard` for `yard`."""
    return f"--{name}"


def _value(name: str, text: str | None, source: str, base: Path) -> Value:
    if text is None or not SETTINGS[name].folder or (name.startswith("hubs.") and _ADDRESS.match(text)):
        return Value(text, source)
    return Value(os.path.normpath(base.absolute() / Path(text).expanduser()), source)


def _read(file: Path) -> Iterator[tuple[str, str]]:
    """Setting and text for every key of the file."""
    try:
        with file.open("rb") as stream:
            tree = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage("this is not TOML", where=str(file), why=str(error), remedy="correct the file") from error
    except OSError as error:
        raise Usage("the file cannot be read", where=str(file), why=error.strerror or str(error), remedy="check its permissions") from error
    for name, value in _flat(tree):
        where = f"{file}: {name}"
        if name not in SETTINGS:
            raise Usage(f"unknown key {name!r}", where=where, remedy=suggest(name, [*SETTINGS, "hubs"]))
        if not isinstance(value, str) or not value:
            raise Usage(f"should be a text, not {value!r}", where=where, why=SETTINGS[name].meaning, remedy="write it in quotes")
        yield name, value


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and any(name.startswith(f"{above}{key}.") for name in SETTINGS):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
