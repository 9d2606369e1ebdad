"""What is in force outside the pipeline: where steps run, the yard, and where hubs are.

A value comes from, in rising order: the default (a hub's is the address that its own SDK would use, `MODELSCOPE_ENDPOINT`, `HF_ENDPOINT`),
`modelyard.toml` (the nearest one, searched upward from the current folder), the environment (`MODELYARD_ON`, `MODELYARD_YARD`, …,
`MODELYARD_HUBS_MODELSCOPE`, `MODELYARD_HUBS_HUGGINGFACE`), an option. Each knows which of them it was.
Relative folders count from the file that names them, elsewhere from the current folder. None of this is part of the key of a result.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from modelyard.errors import Usage, suggest

FILE = "modelyard.toml"
PREFIX = "MODELYARD_"


SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "on": "local",
        "yard": "./.yard",
        "namespace": "",
        "context": "",
        "image": "modelyard",
        "secret": "modelyard-tokens",
        "pull_secret": "",
        "queue": "",
        "driver_memory": "512Mi",
        "hubs.modelscope": "https://modelscope.cn",
        "hubs.huggingface": "https://huggingface.co",
    }
)
"""What can be set, with its default. yard: a folder, on a cluster the name of a claim. namespace, context: empty for what kubectl would take.
image: repository:version, of which `-light` and `-cuda` exist; without a version it is this one's. secret: the Secret with the hubs'
tokens (keys `modelscope`, `huggingface`). queue: for pipelines that name none. driver_memory: of a run's driver on a
cluster. hubs: a folder, or the address of a server."""

CLAIM = "modelyard"
"""The claim that is the yard on a cluster, unless told otherwise."""

ENDPOINTS: Mapping[str, str] = MappingProxyType({"hubs.modelscope": "MODELSCOPE_ENDPOINT", "hubs.huggingface": "HF_ENDPOINT"})
"""The variables of the hubs' own SDKs."""

PLACES = ("local", "kubernetes")
_WORDS = frozenset({"on", "namespace", "context", "image", "secret", "pull_secret", "queue", "driver_memory"})
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class Value:
    """A value and where it comes from: `default`, the path of a file, the name of a variable or of an option."""

    text: str | None
    source: str


@dataclass(frozen=True)
class Config:
    """All settings in force; keys are those of `SETTINGS`."""

    values: Mapping[str, Value]

    def __getitem__(self, name: str) -> str:
        """The text of a setting; empty where it has none."""
        return self.values[name].text or ""

    @property
    def remote(self) -> bool:
        """Whether steps run on a cluster; the yard is a claim there then."""
        return self["on"] == "kubernetes"

    @property
    def yard(self) -> Path:
        """The yard's folder, absolute, where steps run on this machine."""
        return Path(self["yard"])

    @property
    def hubs(self) -> dict[str, str]:
        """Hub -> absolute folder or address, for those that are set."""
        return {name.removeprefix("hubs."): value.text for name, value in self.values.items() if name.startswith("hubs.") and value.text}


def load(options: Mapping[str, str | None] | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Config:
    """The settings in force.

    options: setting -> what the command line says, None where it says nothing. environ, folder: for tests, default the process's own.
    Raises Usage: an unknown key or a value that cannot be, with the file and the key; a hub's address that holds a secret.
    """
    environ = os.environ if environ is None else environ
    folder = folder or Path.cwd()
    values = {name: _value(name, text, "default", folder) for name, text in SETTINGS.items()}
    as_written: dict[str, Value] = {"yard": Value(CLAIM, "default")}
    for name, variable in ENDPOINTS.items():
        if address := environ.get(variable):
            values[name] = _value(name, address if _ADDRESS.match(address) else f"https://{address}", variable, folder)
    file = next((parent / FILE for parent in (folder, *folder.parents) if (parent / FILE).is_file()), None)
    if file:
        for name, text in _read(file):
            values[name], as_written[name] = _value(name, text, str(file), file.parent), Value(text, str(file))
    for name in SETTINGS:
        variable = PREFIX + name.replace(".", "_").upper()
        for given, source in ((environ.get(variable), variable), ((options or {}).get(name), f"--{name}")):
            if given:
                values[name], as_written[name] = _value(name, given, source, folder), Value(given, source)
    on = values["on"]
    if on.text not in PLACES:
        raise Usage(f"on = {on.text!r} is no place to run", where=on.source, remedy=suggest(on.text or "", PLACES))
    if on.text == "kubernetes":
        values["yard"] = _claim(as_written["yard"])
    for name, value in values.items():
        if name.startswith("hubs."):
            check_hub(value.text or "", f"{value.source}: {name}")
    return Config(MappingProxyType(values))


def check_hub(text: str, where: str) -> None:
    """Refuse a hub's address that holds a name, a password or a query: addresses are shown, and kept in runs. Raises Usage without repeating it."""
    if _ADDRESS.match(text) and any(mark in text for mark in "@?#"):
        remedy = "write https://HOST alone; a token goes into MODELSCOPE_API_TOKEN or HF_TOKEN"
        raise Usage("the hub's address holds a name, a password or a query", where=where, remedy=remedy)


def _claim(yard: Value) -> Value:
    if not _CLAIM.fullmatch(yard.text or ""):
        remedy = f"--yard {CLAIM}, the name of a PersistentVolumeClaim; `modelyard yard create` makes one"
        raise Usage(f"the yard {yard.text!r} is no claim, and on a cluster it has to be one", where=yard.source, remedy=remedy)
    return yard


def _value(name: str, text: str | None, source: str, base: Path) -> Value:
    if text is None or name in _WORDS or (name.startswith("hubs.") and _ADDRESS.match(text)):
        return Value(text, source)
    return Value(os.path.normpath(base.absolute() / Path(text).expanduser()), source)


def _read(file: Path) -> Iterator[tuple[str, str]]:
    """Setting and text for every key of the file."""
    import tomllib  # late: where there is no file, nobody pays for it

    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise Usage("the file cannot be read as TOML", where=str(file), why=str(error), remedy="correct the file") from error
    if isinstance(tree.get("hubs"), dict):
        tree |= {f"hubs.{hub}": text for hub, text in tree.pop("hubs").items()}
    for name, value in tree.items():
        where = f"{file}: {name}"
        if name not in SETTINGS:
            raise Usage(f"unknown key {name!r}", where=where, remedy=suggest(name, [*SETTINGS, "hubs"]))
        if not isinstance(value, str) or not value:
            raise Usage(f"should be a text, not {value!r}", where=where, remedy="write it in quotes")
        yield name, value
