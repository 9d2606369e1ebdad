"""A listing: what a ref stood for at one moment, file by file, before a byte of it is read.

A file is identified by its sha256 where the hub knows it, otherwise by the hub's own version of it (a folder's is the time of the last change).
The listing's digest therefore moves when any file does. It says nothing about where the hub is: two hubs that hold the same hashed files give
the same digest.

Names come from outside and become paths of a volume that others read: they follow the rules of the yard that will hold them. Nothing is repaired; a
listing with one bad name is refused whole, because a repository that is taken in part is another repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modelyard import refs
from modelyard.errors import NoInput, Refused, Usage
from modelyard.quantities import format_bytes
from modelyard.refs import HubRef, PathRef, RefKind
from modelyard.spec import digest
from modelyard.yard.manifest import check_paths, is_digest

MAX_BYTES = 2**50
"""A pebibyte: more than any repository holds, and far from where sums of sizes stop being exact."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository. size: bytes. sha256: 64 hex digits, or None. version: names the content where no hash does."""

    path: str
    size: int
    sha256: str | None
    version: str


@dataclass(frozen=True)
class Listing:
    """The checked files of one repository at one revision, sorted by path.

    Raises NoInput: it is empty. Refused: a name, a size, a hash, the number of files or the sum of sizes is not acceptable. An unchecked listing
    does not exist.
    """

    ref: HubRef | PathRef
    kind: RefKind
    revision: str
    files: tuple[HubFile, ...]

    def __post_init__(self) -> None:
        if not self.files:
            raise NoInput("there are no files in it", where=str(self.ref), remedy="put them there, or correct the ref")
        check_paths((file.path for file in self.files), str(self.ref))
        wrong = [f"{file.path!r} has the size {file.size}" for file in self.files if file.size < 0]
        wrong += [f"{file.path!r} has a sha256 that is none" for file in self.files if file.sha256 is not None and not is_digest(file.sha256)]
        if self.size > MAX_BYTES:
            wrong.append(f"its files sum up to {format_bytes(self.size)}; at most {format_bytes(MAX_BYTES)} are accepted")
        if wrong:
            raise Refused(wrong[0], where=str(self.ref), remedy="do not use this repository, or have its owner correct it")
        object.__setattr__(self, "files", tuple(sorted(self.files, key=lambda file: file.path)))

    @property
    def digest(self) -> str:
        """64 hex digits over kind, paths, sizes and identities."""
        return digest_of(self.kind, self.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def record(self) -> dict[str, Any]:
        """The listing as JSON, as a run keeps it."""
        files = [[file.path, file.size, file.sha256, file.version] for file in self.files]
        return {"ref": str(self.ref), "kind": self.kind, "revision": self.revision, "files": files}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Listing:
        """The listing that `record` wrote down; checked again."""
        ref = refs.parse(record["ref"])
        if not isinstance(ref, HubRef | PathRef):
            raise Usage(f"{record['ref']!r} is not in a hub", remedy="run the pipeline again: the ref is resolved anew")
        return cls(ref, record["kind"], record["revision"], tuple(HubFile(*entry) for entry in record["files"]))


def digest_of(kind: RefKind, files: Iterable[HubFile]) -> str:
    """sha256 over the canonical JSON of the kind and of each file's path, size and identity, in the order of the paths."""
    entries = sorted([file.path, file.size, f"sha256:{file.sha256}" if file.sha256 else f"version:{file.version}"] for file in files)
    return digest({"files": entries, "kind": kind})
