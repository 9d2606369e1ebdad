"""Artifacts: immutable folders named by the digest of their manifest, and the trash they go through before they are deleted.

    artifacts/<digest>/          there for every reader
    trash/<digest>/              no ref, pin, live run or young action reached it; whoever asks for it brings it back
    trash/<digest>.<random>/     on its way out: broken, or being deleted

A commit is one rename. Where the name is taken, somebody else committed the same content, and ours is dropped; where what has the name is
broken, it makes room for ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from modelyard.errors import Corrupt, Failure, NoInput, VolumeFailed
from modelyard.yard import files, manifest
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import FILES, Artifact, check_digest, is_digest
from modelyard.yard.staging import Staging

ArtifactKind = Literal["model", "dataset", "metrics", "plan"]

_ROUNDS = 5  # a reader, a committer and gc may take an artifact out of each other's hands; so often in a row they cannot


class Artifacts:
    """`yard.artifacts`."""

    def __init__(self, layout: Layout) -> None:
        """Bind to a layout."""
        self._layout = layout
        self._artifacts = layout.root / "artifacts"
        self._trash = layout.root / "trash"

    def commit(self, staging: Staging, kind: ArtifactKind, format: str | None = None, known: Mapping[str, str] | None = None) -> Artifact:
        """Make what was staged an artifact; the staging is used up.

        known: sha256 by path, for files that were hashed as they were written; all others are hashed here.
        Raises Refused: a link, a device or an unsafe or clashing name is among the files; BadData: there is no file; NoSpace, VolumeFailed.
        """
        sealed = manifest.seal(staging.folder, kind, format, {**staging.known, **(known or {})})
        target = self._layout.target("artifacts", sealed.digest)
        for _ in range(_ROUNDS):
            if found := self.find(sealed.digest):
                staging.drop()
                return found
            match files.rename(staging.folder, target):
                case "done":
                    files.sync(self._artifacts)
                    return replace(sealed, path=target / FILES)
                case "taken":
                    if self.find(sealed.digest) is None:
                        self._doom(target)
                case "gone":
                    raise VolumeFailed("what was staged is not there any more", where=str(staging.folder), remedy="run again")
        raise VolumeFailed("the artifact can be neither read nor replaced", where=str(target), remedy="modelyard yard verify")

    def get(self, digest: str) -> Artifact:
        """The artifact of a digest, by its manifest and the sizes of its files alone; one that lies in the trash is brought back.

        Raises NoInput: there is none; Corrupt: its manifest is torn, or a file is missing or has another size.
        """
        try:
            return self._read(digest)
        except Corrupt:  # only what a second look confirms: gc may have taken it away under the first
            return self._read(digest)

    def find(self, digest: str) -> Artifact | None:
        """As `get`, None where the artifact is not there or not whole: what a commit of the same content then replaces."""
        try:
            return self.get(digest)
        except (NoInput, Corrupt):
            return None

    def digests(self) -> list[str]:
        """Digests of all that lies under artifacts/, whole or not."""
        return [name for name in files.names(self._artifacts) if is_digest(name)]

    def verify(self, digest: str) -> list[str]:
        """What is wrong with an artifact, every byte hashed again; empty: nothing. NoInput where there is none."""
        try:
            return manifest.problems(self.get(digest), rehash=True) and manifest.problems(self.get(digest), rehash=True)
        except Corrupt as error:
            return [str(error)]

    def discard(self, digest: str) -> bool:
        """Move an artifact to the trash, where its grace period begins; False where it is not there. gc decides which."""
        folder, trashed = self._layout.target("artifacts", digest), self._trash / digest
        if not files.touch(folder):
            return False
        if files.rename(folder, trashed) == "taken":  # made again while the first lay in the trash: one of the two is enough
            self.delete(digest)
            files.rename(folder, trashed)
        return True

    def delete(self, digest: str) -> bool:
        """Delete an artifact that lies in the trash; False where somebody brought it back first."""
        doomed = self._doom(self._layout.target("trash", digest))
        if doomed:
            files.remove_tree(doomed)
        return doomed is not None

    def list(self) -> list[Artifact]:
        """All whole artifacts; `verify` over `digests` names the others."""
        return [found for digest in self.digests() if (found := self.find(digest))]

    def _doom(self, folder: Path) -> Path | None:
        """Give an artifact a name by which nobody can bring it back: from then on it may be half deleted."""
        doomed = self._trash / f"{folder.name}.{secrets.token_hex(4)}"
        return doomed if files.rename(folder, doomed) == "done" else None

    def _read(self, digest: str) -> Artifact:
        folder = self._locate(digest)
        found = manifest.load(folder)
        if found.digest != digest or found.kind == "checkpoint":
            raise Corrupt("an artifact's manifest is not the one that it is named by", where=str(folder), remedy=_REMEDY)
        if wrong := manifest.problems(found, rehash=False):
            raise Corrupt("an artifact is not whole", where=str(folder), why="; ".join(wrong[:3]), remedy=_REMEDY)
        return found

    def _locate(self, digest: str) -> Path:
        folder, trashed = self._artifacts / check_digest(digest), self._trash / digest
        if self._layout.write and not files.status(folder):
            with suppress(Failure):  # no right to bring it back: it can be read where it lies
                if files.rename(trashed, folder) == "done":
                    files.sync(self._artifacts)
        for place in (folder, trashed, folder):  # again: somebody else may have brought it back between the two looks
            if files.status(place):
                return place
        remedy = "modelyard yard ls shows what there is; a run of the pipeline makes it again"
        raise NoInput(f"there is no artifact {digest}", where=str(self._layout.root), remedy=remedy)


_REMEDY = "run the pipeline again with --force: the artifact is made again and replaces this one"
