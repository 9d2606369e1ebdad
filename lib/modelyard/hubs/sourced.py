"""The hub over a source of repositories of this machine: what FolderHub and YardHub have in common.

No server and no token: who may read and write the files may do so here; `private` and `gated` are heeded by the server alone.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from modelyard.errors import Corrupt, NoInput, Refused, Usage, suggest
from modelyard.hubs import source
from modelyard.hubs.hub import OF_THE_HUB, Access, Found, Query
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.source import DEFAULTS, Repo, Source
from modelyard.hubs.store import Store
from modelyard.refs import HubRef, Scheme
from modelyard.yard import files as volume
from modelyard.yard.manifest import check_paths


class SourceHub:
    """The hub over a source of repositories of this machine. scheme: of the refs that a search gives."""

    def __init__(self, source: Source, where: str, scheme: Scheme) -> None:
        self._source = source
        self._where = where
        self._scheme: Scheme = scheme

    def resolve(self, ref: HubRef) -> Listing:
        """See `Hub`; the revision is a commit."""
        commit = self._source.commit(self._repo(ref), ref.revision)
        return Listing(ref, ref.kind, commit.id, tuple(HubFile(entry.path, entry.size, entry.sha256, commit.id) for entry in commit.files))

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """See `Hub`."""
        ref = cast(HubRef, listing.ref)
        entry = self._source.commit(self._repo(ref), listing.revision).find(file.path)
        if entry is None or (entry.size, entry.sha256) != (file.size, file.sha256):
            raise Corrupt(f"{file.path!r} is not what was listed", where=str(ref), remedy="run again: the ref is resolved anew")
        return source.read(entry, offset)

    def search(self, query: Query) -> list[Found]:
        """See `Hub`."""
        wanted = [("owner", query.owner), ("task", query.task), ("licence", query.licence)]
        found = [
            repo
            for repo in self._source.repos(query.kind)
            if repo.matches(query.words)
            and all(value is None or (getattr(repo, name) or "").casefold() == value.casefold() for name, value in wanted)
        ]
        found.sort(key=lambda repo: repo.downloads if query.sort == "downloads" else repo.updated, reverse=True)
        return [
            Found(
                HubRef(self._scheme, repo.kind, repo.owner, repo.name),
                task=repo.task,
                size=self._source.size(repo),
                licence=repo.licence,
                downloads=None,  # nobody counts them without a server
                updated=repo.updated or None,
                gated=repo.gated,
                private=repo.private,
            )
            for repo in found[: query.limit]
        ]

    def upload(self, ref: HubRef, files: Mapping[str, Path], *, message: str, private: bool = True, licence: str | None = None) -> str:
        """See `Hub`: content first, then one commit."""
        store = self._source.writer()
        if ref.is_commit:
            raise Usage(f"{ref} names a commit", why="a commit does not move", remedy="name a branch, or leave out @revision")
        check_paths(files, str(ref))
        hashes = {path: _keep(store, file, f"{ref}: {path}") for path, file in files.items()}
        repo = store.find(ref.kind, ref.owner, ref.name) or store.create(ref.kind, ref.owner, ref.name, private=private, licence=licence)
        if ref.revision not in DEFAULTS and ref.revision not in store.branches(repo):
            store.branch(repo, ref.revision or "", store.commit(repo).id)
        gone = [entry.path for entry in store.commit(repo, ref.revision).files if entry.path not in hashes.keys() | OF_THE_HUB]
        return store.change(repo, ref.revision, hashes, gone, message).id

    def tag(self, ref: HubRef, name: str) -> None:
        """See `Hub`."""
        store = self._source.writer()
        repo = self._repo(ref)
        store.tag(repo, name, store.commit(repo, ref.revision).id)

    def access(self) -> Access:
        """Nobody in particular: the file system decides."""
        return Access(user=None)

    def _repo(self, ref: HubRef) -> Repo:
        """The ref's repository. Raises NoInput where there is none; a close name is in the message."""
        if repo := self._source.find(ref.kind, ref.owner, ref.name):
            return repo
        raise self._missing(ref)

    def _missing(self, ref: HubRef) -> NoInput:
        other = replace(ref, kind="model" if ref.kind == "dataset" else "dataset")
        if self._source.find(other.kind, other.owner, other.name):
            remedy = f"did you mean {other}?"
        else:
            known = [str(replace(ref, owner=repo.owner, name=repo.name)) for repo in self._source.repos(ref.kind)]
            remedy = suggest(str(ref), known) if known else f"put it into {self._where}"
        return NoInput(f"{ref} does not exist", where=self._where, remedy=remedy)


def _keep(store: Store, path: Path, where: str) -> str:
    """Put a file's content into the store; its sha256. Raises Refused: it is no regular file."""
    found = volume.status(path)
    if found is None or not stat.S_ISREG(found.st_mode):
        raise Refused("only regular files are uploaded", where=where, remedy="put the file itself there")
    sha256 = volume.sha256(path)
    if not store.has_blob(sha256, found.st_size):
        store.put_blob(volume.chunks(path, found.st_size), sha256, found.st_size)
    return sha256
