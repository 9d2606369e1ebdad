"""Small JSON files that are put in place by temp + rename (actions, refs, pins), read back as models.

A reader sees the old record or the new one. What does not parse was not written by us: Corrupt, and its remedy names the file.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from modelyard.errors import Corrupt
from modelyard.yard import files

SUFFIX = ".json"


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


def store(path: Path, record: Record) -> None:
    """Put a record in place."""
    files.make_folders(path.parent)
    files.write_atomic(path, json.dumps(record.model_dump(mode="json"), indent=1).encode() + b"\n")  # ASCII: holds any text, half a surrogate too


def stems(folder: Path) -> list[str]:
    """Names of the records in a folder, without their suffix."""
    return [name.removesuffix(SUFFIX) for name in files.names(folder) if name.endswith(SUFFIX)]


def utc_now() -> str:
    """The time of this machine for people to read (ISO 8601, UTC, seconds); nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
