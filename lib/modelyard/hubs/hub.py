"""What every hub can do, and the words in which it answers.

A hub has repositories of models and of data sets. A ref resolves to a `Listing`; its files are read from any offset; a repository is replaced whole
by `upload`, and one of its states is kept under a name by `tag`. Tokens are the hub's own business (credentials.py): nothing here carries one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from modelyard.hubs.listing import HubFile, Listing
from modelyard.refs import HubRef, RefKind

Sort = Literal["downloads", "updated"]

OF_THE_HUB = frozenset({".gitattributes"})
"""Files that hubs put into a repository themselves: an upload leaves them, and they are no difference to what was sent."""


@dataclass(frozen=True)
class Query:
    """What to look for; empty words and None match everything. limit: results at most."""

    words: str = ""
    kind: RefKind = "model"
    owner: str | None = None
    task: str | None = None
    licence: str | None = None
    sort: Sort = "downloads"
    limit: int = 10


@dataclass(frozen=True)
class Found:
    """One repository, as the hub describes it; None is what it does not say. size: bytes of its files. updated: ISO date."""

    ref: HubRef
    task: str | None = None
    size: int | None = None
    licence: str | None = None
    downloads: int | None = None
    updated: str | None = None
    gated: bool | None = None
    private: bool | None = None


@dataclass(frozen=True)
class Access:
    """Who the hub takes us for. user: None without a token. writes: whether the token may write; None where the hub does not say."""

    user: str | None
    writes: bool | None = None


class Reader(Protocol):
    """Gives the bytes of listed files."""

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes from `offset` on, in chunks of at most a few MiB.

        Raises Corrupt when the file is not the listed one any more, Unavailable when the hub does not answer. Does not check hashes.
        """
        ...


class Hub(Reader, Protocol):
    """A place where refs resolve.

    Every call ends within its deadline. What may pass (429, 5xx, a broken connection) has been tried again before Unavailable is raised; a token
    that is missing, wrong or too weak is NoPermission, what is not there NoInput, what cannot be read as an answer Corrupt or Refused.
    """

    def resolve(self, ref: HubRef) -> Listing:
        """What the ref stands for now; the listing's revision is a commit where the hub has commits."""
        ...

    def search(self, query: Query) -> list[Found]:
        """Repositories that match, in the order that the query asks for."""
        ...

    def upload(self, ref: HubRef, files: Mapping[str, Path], *, message: str, private: bool = True, licence: str | None = None) -> str:
        """Make the ref's branch hold exactly these files (path in the repository -> regular file); a repository is made where there is none.

        Gives the new commit where the hub tells it, else the branch. private, licence: of a repository that is made; one that is there keeps its own.
        """
        ...

    def tag(self, ref: HubRef, name: str) -> None:
        """Keep what the ref stands for under a name that does not move: again on the same content is no error, on other content it is Usage."""
        ...

    def access(self) -> Access:
        """Ask the hub who we are; raises Unavailable where it cannot be reached, NoPermission where it does not know the token."""
        ...
