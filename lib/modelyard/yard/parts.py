"""Parts: what attempts at one key have of the files of a download, so that the next attempt does not begin again.

    checkpoints/<key>/<attempt>/<index>-<sha256>     a whole file, synced before it got this name
    checkpoints/<key>/<attempt>/<index>.part         a file that may still grow
    checkpoints/<key>/<attempt>/<index>.json         how many bytes of the part are synced, and their sha256

The key fixes the files and their order, so an index names one of them. The names here are further links to what lies in the attempt's staging; on a
volume without hard links nothing is kept, which costs bandwidth alone. Only the attempt that made a file ever writes to it: another one
links to it when it is whole and copies from it while it is not, and believes nothing that it has not hashed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelyard.errors import Failure
from modelyard.yard import files, records
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import Digest, check_digest
from modelyard.yard.staging import check_name

_WHOLE = re.compile(r"(\d{5,6})-([0-9a-f]{64})")
_PART = re.compile(r"(\d{5,6})\.part")


class _Synced(records.Record):
    size: int = Field(ge=0)
    sha256: Digest


@dataclass(frozen=True)
class Part:
    """The first `size` bytes of a file, synced. whole: there are no more."""

    path: Path
    size: int
    sha256: str
    whole: bool


class Parts:
    """The parts of one key, as one attempt at it sees and adds to them."""

    def __init__(self, layout: Layout, key: str, attempt: str) -> None:
        """Look at what other attempts have left."""
        self._folder = layout.target("checkpoints", check_digest(key))
        self._mine = self._folder / check_name(attempt, "attempt")
        self._others: dict[int, list[Part]] = {}
        for index, part in self._found():
            self._others.setdefault(index, []).append(part)

    def furthest(self, index: int) -> Part | None:
        """The part with the most bytes that another attempt left of a file."""
        return max(self._others.get(index, ()), key=lambda part: part.size, default=None)

    def keep_whole(self, index: int, path: Path, sha256: str) -> None:
        """Keep a file that will not be written to any more."""
        files.sync_file(path)
        self._link(path, f"{index:05d}-{sha256}")
        self.forget(index)

    def keep_part(self, index: int, path: Path, size: int, sha256: str) -> None:
        """Keep what has been written to a file so far: `size` bytes with that sha256."""
        files.sync_file(path)
        name = f"{index:05d}.part"
        if files.status(self._mine / name) or self._link(path, name):
            records.store(self._sidecar(self._mine, index), _Synced(size=size, sha256=sha256))

    def forget(self, index: int) -> None:
        """Take back what this attempt kept of an unfinished file."""
        if files.remove(self._sidecar(self._mine, index)):
            files.remove(self._mine / f"{index:05d}.part")

    def drop(self) -> None:
        """Take back everything that this attempt kept."""
        files.remove_tree(self._mine)

    def _link(self, path: Path, name: str) -> bool:
        files.make_folders(self._mine)
        return files.link(path, self._mine / name)

    def _found(self) -> Iterator[tuple[int, Part]]:
        for attempt in files.names(self._folder):
            folder = self._folder / attempt
            for name in files.names(folder) if folder != self._mine else ():
                found = files.status(folder / name)
                if found and (match := _WHOLE.fullmatch(name)):
                    yield int(match[1]), Part(folder / name, found.st_size, match[2], whole=True)
                elif found and (match := _PART.fullmatch(name)):
                    synced = None
                    with suppress(Failure):  # a torn record: the part is of no use
                        synced = records.load(self._sidecar(folder, int(match[1])), _Synced)
                    if synced and 0 < synced.size <= found.st_size:
                        yield int(match[1]), Part(folder / name, synced.size, synced.sha256, whole=False)

    @staticmethod
    def _sidecar(folder: Path, index: int) -> Path:
        return folder / f"{index:05d}.json"
