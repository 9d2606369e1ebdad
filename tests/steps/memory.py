"""A hub in memory, with the switches by which a hub can misbehave. Counts what would write."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.errors import NoInput, NoPermission, Usage
from modelyard.hubs import Access, Found, HubFile, Listing, Query
from modelyard.refs import HubRef

Tree = dict[str, bytes]


@dataclass
class MemoryHub:
    """Repositories by `owner/name`: branches and tags -> files.

    hashes: whether listings have the sha256 of `.safetensors` and `.onnx` files (of no other: those are known by their Git id). stale: a file that
    uploads leave there. changed: a path of which a byte is changed when it arrives. token: None, "read" or "write".
    """

    hashes: bool = True
    stale: Tree = field(default_factory=dict)
    changed: str = ""
    token: str | None = "write"
    writes: list[str] = field(default_factory=list)
    repositories: dict[str, dict[str, Tree]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    licences: dict[str, str | None] = field(default_factory=dict)

    def resolve(self, ref: HubRef) -> Listing:
        tree = self._tree(ref)
        return Listing(ref, ref.kind, _commit(tree), tuple(self._file(path, content) for path, content in tree.items()))

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        assert isinstance(listing.ref, HubRef)
        yield self._tree(listing.ref)[file.path][offset:]

    def search(self, query: Query) -> list[Found]:
        raise NotImplementedError

    def upload(self, ref: HubRef, files: Mapping[str, Path], *, message: str, private: bool = True, licence: str | None = None) -> str:
        self._write(f"upload {ref}")
        name = f"{ref.owner}/{ref.name}"
        if name not in self.repositories:
            self.repositories[name], self.private[name], self.licences[name] = {}, private, licence
        tree = {path: source.read_bytes() for path, source in files.items()} | self.stale
        if self.changed:
            tree[self.changed] = bytes([tree[self.changed][0] ^ 1]) + tree[self.changed][1:]
        self.repositories[name][ref.revision or "main"] = tree
        return _commit(tree)

    def tag(self, ref: HubRef, name: str) -> None:
        self._write(f"tag {name}")
        tree = self._tree(ref)
        if self.repositories[f"{ref.owner}/{ref.name}"].setdefault(name, tree) != tree:
            raise Usage(f"the tag {name} is taken")

    def access(self) -> Access:
        return Access("me" if self.token else None, self.token == "write" if self.token else None)

    def _write(self, what: str) -> None:
        self.writes.append(what)
        if self.token != "write":
            raise NoPermission("no token")

    def _tree(self, ref: HubRef) -> Tree:
        found = self.repositories.get(f"{ref.owner}/{ref.name}", {}).get(ref.revision or "main")
        if found is None:
            raise NoInput(f"{ref} is not there")
        return found

    def _file(self, path: str, content: bytes) -> HubFile:
        known = self.hashes and path.endswith((".safetensors", ".onnx"))
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return HubFile(path, len(content), hashlib.sha256(content).hexdigest() if known else None, git)


def _commit(tree: Tree) -> str:
    whole = hashlib.sha1(usedforsecurity=False)
    for path, content in sorted(tree.items()):
        whole.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
    return whole.hexdigest()
