"""Small JSON files that are put in place by temp + rename (actions, refs, pins), read back as models.

A reader sees the old record or the new one. What does not parse was not written by us: Corrupt, and its remedy names the file.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from modelyard.errors import Corrupt
from modelyard.yard import files
from modelyard.yard.layout import Layout


class Record(BaseModel):
    """A frozen record; fields that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def load(path: Path, model: type[AnyRecord]) -> AnyRecord | None:
    """The record in a file, None where there is no file; Corrupt where it is torn or foreign."""
    data = files.read(path)
    if data is None:
        return None
    try:
        return model.model_validate(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"this {model.__name__.lower()} is torn or not ours", where=str(path), remedy="remove the file, then run again") from error


def store(path: Path, record: BaseModel, *, durable: bool = True) -> None:
    """Put a record in place. durable: as for `files.write_atomic`."""
    files.make_folders(path.parent)
    files.write_atomic(path, encode(record), durable=durable)


def encode(record: BaseModel) -> bytes:
    """The bytes of a record's file: ASCII, which holds any text, half a surrogate too."""
    return json.dumps(record.model_dump(mode="json"), indent=1).encode() + b"\n"


class Table(Generic[AnyRecord]):
    """The records of one model in a folder of a yard, by name; who calls has checked the name."""

    def __init__(self, layout: Layout, folder: str, model: type[AnyRecord]) -> None:
        """folder: below the yard's root."""
        self._layout = layout
        self._parts = folder.split("/")
        self._model = model

    def get(self, name: str) -> AnyRecord | None:
        """The record of that name, None where there is none. Raises Corrupt: its file is torn or foreign."""
        return load(self._layout.root.joinpath(*self._parts, f"{name}.json"), self._model)

    def put(self, name: str, record: AnyRecord) -> None:
        """Put a record in place."""
        store(self.target(name), record)

    def target(self, name: str) -> Path:
        """The file of a record that is about to be changed."""
        return self._layout.target(*self._parts, f"{name}.json")

    def all(self) -> dict[str, AnyRecord]:
        """All records by name, sorted."""
        names = [name.removesuffix(".json") for name in files.names(self._layout.root.joinpath(*self._parts)) if name.endswith(".json")]
        return {name: record for name in names if (record := self.get(name))}


def utc_now() -> str:
    """The time of this machine for people to read (ISO 8601, UTC, seconds); nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def utc(seconds: float) -> str:
    """A file's time in the same form."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
