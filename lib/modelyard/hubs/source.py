"""What a hub of ours serves: repositories, their commits, the bytes of their files; and what can be read of it, whoever holds it.

`Source` is the reading side, which the store of a hub folder and a yard share: the server's faces, FolderHub and YardHub are written against it.
Nothing here knows a protocol, and nothing here decides who may read: `private` and `gated` are the record's words, the server heeds them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelyard.hubs import local
from modelyard.hubs.listing import HubFile
from modelyard.refs import RefKind

if TYPE_CHECKING:
    from modelyard.hubs.store import Store

BRANCH = "main"
"""The name of every default branch. The hubs' own words for it differ: None and `master` mean it too."""

DEFAULTS = (None, BRANCH, "master")


@dataclass(frozen=True)
class Repo:
    """One repository. licence, task: lower-case words of its card, None where it says nothing. created, updated: ISO 8601, UTC.

    downloads: since the server began.
    """

    kind: RefKind
    owner: str
    name: str
    private: bool = False
    gated: bool = False
    licence: str | None = None
    task: str | None = None
    description: str = ""
    created: str = ""
    updated: str = ""
    downloads: int = 0

    @property
    def id(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def below(self) -> str:
        """Its path below a hub's root: `owner/name` or `datasets/owner/name`."""
        return f"datasets/{self.id}" if self.kind == "dataset" else self.id

    def matches(self, words: str) -> bool:
        """Whether each of these words is in its name, its task or its description."""
        text = f"{self.id} {self.task or ''} {self.description}".casefold()
        return all(word in text for word in words.casefold().split())

    @property
    def guarded(self) -> bool:
        """Whether its files are for those with the token."""
        return self.private or self.gated


@dataclass(frozen=True)
class Entry:
    """One file of a commit. size: bytes; sha256: hex. top, below: where its bytes lie; version: time of change of a file that may still change."""

    path: str
    size: int
    sha256: str
    top: Path = field(repr=False)
    below: str = field(repr=False)
    version: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Commit:
    """A state of a repository that never changes. id: 40 hex digits; files: sorted by path; at: ISO 8601, UTC; parent: the id before it."""

    id: str
    files: tuple[Entry, ...]
    message: str
    at: str
    parent: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def find(self, path: str) -> Entry | None:
        """The file of that path, None where there is none."""
        index = bisect_left(self.files, path, key=lambda entry: entry.path)
        return self.files[index] if index < len(self.files) and self.files[index].path == path else None

    def below(self, folder: str) -> tuple[Entry, ...]:
        """The files below a folder, all of them for ""."""
        start, end = (bisect_left(self.files, folder + mark, key=lambda entry: entry.path) for mark in "/0")  # `0` comes after `/`
        return self.files[start:end] if folder else self.files


class Source(Protocol):
    """The reading side. Names and revisions may come from outside: they are checked here, Usage where one cannot be."""

    def repos(self, kind: RefKind) -> list[Repo]:
        """All repositories of a kind, sorted by owner and name."""
        ...

    def find(self, kind: RefKind, owner: str, name: str) -> Repo | None:
        """The repository, None where there is none."""
        ...

    def repo(self, kind: RefKind, owner: str, name: str) -> Repo:
        """The repository. Raises NoInput where there is none; a close name is in the message."""
        ...

    def branches(self, repo: Repo) -> Mapping[str, str]:
        """Branch -> commit id."""
        ...

    def tags(self, repo: Repo) -> Mapping[str, str]:
        """Tag -> commit id."""
        ...

    def commit(self, repo: Repo, revision: str | None = None) -> Commit:
        """What a branch, a tag or a commit id names; None, `main` and `master` are the default branch. Raises NoInput where it names nothing."""
        ...

    def size(self, repo: Repo) -> int | None:
        """Bytes of the default branch's files, without hashing them; None where they cannot be served, which is said when they are asked for."""
        ...

    def count(self, repo: Repo) -> None:
        """Note one more download."""
        ...

    def writer(self) -> Store:
        """Where uploads go. Raises NoPermission: nothing can be written here."""
        ...


def read(entry: Entry, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """The file's bytes from `offset` on, `length` of them at most. Raises Corrupt when it is not the committed file any more."""
    as_listed = HubFile(entry.path, entry.size, None if entry.version else entry.sha256, entry.version or "")
    left = entry.size - offset if length is None else length
    for chunk in local.read_file(entry.top, entry.below, entry.path, as_listed, offset):
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0 and length is not None:
            return


def iso(nanoseconds: int) -> str:
    """A file's time of change as it is shown."""
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).isoformat(timespec="seconds")
