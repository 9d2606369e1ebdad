"""A folder as a hub, and a file or folder of this machine as a repository.

    DIR/owner/name/…            models
    DIR/datasets/owner/name/…   data sets

As long as nothing was committed to a repository of a folder, it has one revision, which none, `main` and `master` name; its files are identified by
size and time of change (see `local`), so that resolving it reads no content. What is uploaded is committed by the store: from then on the
repository has commits, and its files are identified by their sha256.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from modelyard.errors import NoInput, Refused, suggest
from modelyard.hubs import local
from modelyard.hubs.hub import Access
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.source import DEFAULTS, Repo
from modelyard.hubs.sourced import SourceHub
from modelyard.hubs.store import Store
from modelyard.refs import HubRef, PathRef, RefKind, Scheme

PLAIN = "main"
"""The revision of a listing of files that were never committed."""


class FolderHub(SourceHub):
    """The hub whose repositories are folders below `root`, and what was committed to them."""

    def __init__(self, root: Path, scheme: Scheme = "modelscope") -> None:
        self._store = Store(root)
        super().__init__(self._store, str(root), scheme)
        self.root = root

    def resolve(self, ref: HubRef) -> Listing:
        """The repository's files. Raises NoInput when it, or the revision, is not there; a close name is in the message."""
        repo = Repo(ref.kind, ref.owner, ref.name)
        if self._store.commits(repo):
            return super().resolve(ref)
        with local.failures(str(ref)):
            if not self._lies(repo):
                raise self._missing(ref)
            if ref.revision not in DEFAULTS:
                why = f"nothing was committed to it, and {self.root} is a folder: it has only main"
                raise NoInput(f"{ref} has no revision {ref.revision!r}", why=why, remedy="leave out @revision")
            return Listing(ref, ref.kind, PLAIN, local.list_files(local.inside(self.root, repo.below, str(ref)), str(ref)))

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes from `offset` on. Raises Corrupt when the file changed after it was listed."""
        if listing.revision != PLAIN:
            return super().read(listing, file, offset)
        ref = cast(HubRef, listing.ref)
        return local.read_file(self.root, f"{Repo(ref.kind, ref.owner, ref.name).below}/{file.path}", str(ref), file, offset)

    def access(self) -> Access:
        """Whether this user may write in the folder."""
        return Access(user=None, writes=os.access(self.root, os.W_OK))

    def _lies(self, repo: Repo) -> bool:
        """Not for a model whose owner is called `datasets`: that folder belongs to the data sets."""
        return (repo.kind == "dataset" or repo.owner != "datasets") and self.root.joinpath(repo.below).is_dir()


class PathHub:
    """A file or a folder of this machine; a file is a repository of one file. The path itself may be a symbolic link: a person named it."""

    def resolve(self, ref: PathRef, kind: RefKind) -> Listing:
        """The files at the path, which is made absolute. Raises NoInput when there are none."""
        path = Path(os.path.abspath(ref.path))
        with local.failures(str(ref)):
            if not path.exists():
                names = sorted(entry.name for entry in path.parent.iterdir() if entry.name[0] != ".") if path.parent.is_dir() else []
                raise NoInput(f"{ref} does not exist", where=str(path), remedy=suggest(path.name, names) if names else "correct the path")
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                listed = local.list_files(path.resolve(), str(ref))
            elif stat.S_ISREG(found.st_mode):
                listed = (local.describe(path.name, found),)
            else:
                raise Refused(f"{ref} is neither a file nor a folder", where=str(path), remedy="name a file or a folder")
        return Listing(PathRef(str(path)), kind, "", listed)

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes from `offset` on. Raises Corrupt when the file changed after it was listed."""
        path = Path(str(listing.ref)).resolve()
        return local.read_file(path, file.path if path.is_dir() else "", str(listing.ref), file, offset)
