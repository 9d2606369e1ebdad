"""Names in the yard that move: `yard://models/NAME@ALIAS` -> the digest of an artifact (`yard.refs`).

    refs/models/<name>@<alias>.json      digest, when, from where, previous

A name remembers what it pointed to before, HISTORY times over; all of that can be rolled back to, and gc keeps it. Two who move one name at
once: the last one wins, and what the other wrote may be missing from the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelyard import refs
from modelyard.errors import NoInput, Usage
from modelyard.refs import YardRef
from modelyard.yard import records
from modelyard.yard.artifacts import Artifacts
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import Digest
from modelyard.yard.records import Record

HISTORY = 3


class RefRecord(Record):
    """What a name points to. at: UTC, for people; source: who or what moved it; previous: what it pointed to before."""

    digest: Digest
    at: str
    source: str
    previous: RefRecord | None = None

    def history(self) -> Iterator[RefRecord]:
        """This record and those before it, newest first."""
        record: RefRecord | None = self
        while record:
            yield record
            record = record.previous


class Names:
    """`yard.refs`; a name is written as `models/NAME@ALIAS`, the alias is `latest` unless it is given."""

    def __init__(self, layout: Layout, artifacts: Artifacts, now: Callable[[], str]) -> None:
        """Bind to a layout."""
        self._layout = layout
        self._artifacts = artifacts
        self._now = now

    def get(self, name: str) -> RefRecord:
        """What a name points to. Raises NoInput: there is no such name; Corrupt: its file is torn or foreign."""
        record = self._load(_canonical(name))
        if record is None:
            raise NoInput(f"there is no name {name!r} in the yard", where=str(self._layout.root), remedy="modelyard yard ls shows the names")
        return record

    def move(self, name: str, digest: str, source: str) -> RefRecord:
        """Point a name to an artifact, which must be there; moved to what it points to already, it stays as it is."""
        name = _canonical(name)
        self._artifacts.get(digest)
        current = self._load(name)
        if current and current.digest == digest:
            return current
        return self._store(name, RefRecord(digest=digest, at=self._now(), source=source, previous=_bounded(current, HISTORY)))

    def rollback(self, name: str) -> RefRecord:
        """Point a name to what it pointed to before. NoInput where that is nothing, or not there any more."""
        current = self.get(name)
        before = current.previous
        if before is None:
            raise NoInput(f"{name!r} has never pointed to anything else", where=str(self._layout.root), remedy="move it to a digest")
        self._artifacts.get(before.digest)
        source = f"rollback from {current.digest}"
        return self._store(_canonical(name), RefRecord(digest=before.digest, at=self._now(), source=source, previous=before.previous))

    def list(self) -> dict[str, RefRecord]:
        """All names and what they point to."""
        found = {}
        for kind in ("datasets", "models"):
            for stem in records.stems(self._layout.root / "refs" / kind):
                if record := self._load(f"{kind}/{stem}"):
                    found[f"{kind}/{stem}"] = record
        return found

    def _load(self, name: str) -> RefRecord | None:
        return records.load(self._layout.root / "refs" / (name + records.SUFFIX), RefRecord)

    def _store(self, name: str, record: RefRecord) -> RefRecord:
        records.store(self._layout.target("refs", name + records.SUFFIX), record)
        self._artifacts.get(record.digest)  # gc may have moved it to the trash while nothing pointed to it: this brings it back
        return record


def _canonical(name: str) -> str:
    ref = refs.parse(name if name.startswith("yard://") else f"yard://{name}")
    if not isinstance(ref, YardRef):
        raise Usage(f"{name!r} is no name in the yard", remedy="write models/NAME@ALIAS")
    return str(ref).removeprefix("yard://")


def _bounded(record: RefRecord | None, length: int) -> RefRecord | None:
    if record is None or length == 0:
        return None
    return record.model_copy(update={"previous": _bounded(record.previous, length - 1)})
