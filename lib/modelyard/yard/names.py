"""What people keep artifacts by: names that move, `yard://models/NAME@ALIAS` -> digest (`yard.refs`), and pins (`yard.pins`).

    refs/models/<name>@<alias>.json      digest, when, from where, previous
    pins/<digest>.json                   why, and when

gc keeps what is pinned, what a name points to and what it pointed to before, so that it can be moved back. Of two who
move one name at once, the last one wins.
"""

from __future__ import annotations

from modelyard import refs
from modelyard.errors import NoInput, Usage
from modelyard.refs import YardRef
from modelyard.yard import files
from modelyard.yard.artifacts import Artifacts
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import Digest, check_digest
from modelyard.yard.records import Record, Table, utc_now

_FOLDERS = ("datasets", "models")


HISTORY = 3
"""Steps that a name can be rolled back."""


class RefRecord(Record):
    """What a name points to. at: UTC, for people; source: who or what moved it; previous: what it pointed to before."""

    digest: Digest
    at: str
    source: str
    previous: RefRecord | None = None

    def history(self, length: int = HISTORY) -> list[RefRecord]:
        """This record and those before it, the newest first."""
        return [self, *(self.previous.history(length - 1) if self.previous and length else [])]


class Names:
    """`yard.refs`; a name is written as `models/NAME@ALIAS`, the alias is `latest` unless it is given."""

    def __init__(self, layout: Layout, artifacts: Artifacts) -> None:
        """Bind to a layout."""
        self._tables = {folder: Table(layout, f"refs/{folder}", RefRecord) for folder in _FOLDERS}
        self._artifacts = artifacts

    def get(self, name: str) -> RefRecord:
        """What a name points to. Raises NoInput: there is no such name; Corrupt: its file is torn or foreign."""
        table, stem = self._find(name)
        if record := table.get(stem):
            return record
        raise NoInput(f"there is no name {name!r} in the yard", remedy="modelyard yard ls shows the names")

    def move(self, name: str, digest: str, source: str) -> RefRecord:
        """Point a name to an artifact, which must be there; moved to what it points to already, it stays as it is."""
        table, stem = self._find(name)
        self._artifacts.get(digest)
        current = table.get(stem)
        if current and current.digest == digest:
            return current
        return self._put(table, stem, RefRecord(digest=digest, at=utc_now(), source=source, previous=_bounded(current, HISTORY)))

    def rollback(self, name: str, by: str = "") -> RefRecord:
        """Point a name to what it pointed to before. Raises NoInput where that is nothing, or is not there any more. by: who wants it so."""
        table, stem = self._find(name)
        current = self.get(name)
        if current.previous is None:
            raise NoInput(f"{name!r} has not pointed to anything else", remedy="move it to a digest")
        self._artifacts.get(current.previous.digest)
        source = f"rollback from {current.digest}" + (f" by {by}" if by else "")
        return self._put(table, stem, current.previous.model_copy(update={"at": utc_now(), "source": source}))

    def _put(self, table: Table[RefRecord], stem: str, record: RefRecord) -> RefRecord:
        table.put(stem, record)
        self._artifacts.get(record.digest)  # gc may have moved it to the trash while nothing pointed to it: this brings it back
        return record

    def list(self) -> dict[str, RefRecord]:
        """All names and what they point to."""
        return {f"{folder}/{stem}": record for folder, table in self._tables.items() for stem, record in table.all().items()}

    def _find(self, name: str) -> tuple[Table[RefRecord], str]:
        ref = refs.parse(name if name.startswith("yard://") else f"yard://{name}")
        if not isinstance(ref, YardRef):
            raise Usage(f"{name!r} is no name in the yard", remedy="write models/NAME@ALIAS")
        return self._tables[f"{ref.kind}s"], f"{ref.name}@{ref.alias}"


def _bounded(record: RefRecord | None, length: int) -> RefRecord | None:
    return record and record.model_copy(update={"previous": _bounded(record.previous, length - 1) if length > 1 else None})


class Pin(Record):
    """One pin. at: UTC, for people."""

    digest: Digest
    why: str
    at: str


class Pins:
    """`yard.pins`."""

    def __init__(self, layout: Layout, artifacts: Artifacts) -> None:
        """Bind to a layout."""
        self._table = Table(layout, "pins", Pin)
        self._artifacts = artifacts

    def add(self, digest: str, why: str) -> None:
        """Keep an artifact, which must be there; a second pin replaces the first."""
        self._artifacts.get(digest)
        self._table.put(digest, Pin(digest=digest, why=why, at=utc_now()))
        self._artifacts.get(digest)  # gc may have moved it to the trash while nothing kept it: this brings it back

    def remove(self, digest: str) -> None:
        """Let go of an artifact. NoInput where it is not pinned."""
        if not files.remove(self._table.target(check_digest(digest))):
            raise NoInput(f"{digest} is not pinned", remedy="modelyard yard pin without a digest shows the pins")

    def list(self) -> list[Pin]:
        """All pins."""
        return list(self._table.all().values())
