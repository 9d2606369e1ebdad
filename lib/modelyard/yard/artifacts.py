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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from modelyard.errors import Corrupt, Failure, NoInput, VolumeFailed
from modelyard.yard import files, manifest
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import FILES, FileEntry, Manifest, check_digest, is_digest
from modelyard.yard.staging import Staging

ArtifactKind = Literal["model", "dataset", "metrics", "plan"]

_ROUNDS = 5  # a reader, a committer and gc may take an artifact out of each other's hands; so often in a row they cannot


@dataclass(frozen=True)
class Artifact:
    """A committed artifact. path: the folder of its files; size: bytes of all of them."""

    digest: str
    kind: ArtifactKind
    format: str | None
    path: Path
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


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
        digest = sealed.digest
        target = self._layout.target("artifacts", digest)
        for _ in range(_ROUNDS):
            if found := self.find(digest):
                staging.drop()
                return found
            match files.rename(staging.folder, target):
                case "done":
                    files.sync_folder(self._artifacts)
                    return _artifact(digest, sealed, target)
                case "taken":
                    if self.find(digest) is None:
                        self.set_aside(digest)
                case "gone":
                    raise VolumeFailed("what was staged is not there any more", where=str(staging.folder), remedy="run again")
        raise VolumeFailed("the artifact can be neither read nor replaced", where=str(target), remedy="modelyard yard verify")

    def get(self, digest: str) -> Artifact:
        """The artifact of a digest, by its manifest and the sizes of its files alone; one that lies in the trash is brought back.

        Raises NoInput: there is none; Corrupt: its manifest is torn, or a file is missing or has another size.
        """
        before = ""
        while folder := self._locate(digest):
            try:
                return _read(digest, folder)
            except Corrupt as error:
                if str(error) == before:  # only what a second look confirms: gc may have taken it away under the first
                    raise
                before = str(error)
        raise NoInput(
            f"there is no artifact {digest}",
            where=str(self._layout.root),
            remedy="modelyard yard ls shows what there is; a run of the pipeline makes it again",
        )

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
        found = before = [""]
        while found:
            before = found
            try:
                artifact = self.get(digest)
            except Corrupt as error:
                return [str(error)]
            found = manifest.problems(artifact.path.parent, Manifest(artifact.kind, artifact.format, artifact.files), rehash=True)
            if found == before:
                break
        return found

    def set_aside(self, digest: str) -> None:
        """Take a broken artifact out of artifacts/, so that the next run makes it again; gc deletes it."""
        files.rename(self._layout.target("artifacts", check_digest(digest)), self._trash / f"{digest}.{secrets.token_hex(4)}")

    def discard(self, digest: str) -> bool:
        """Move an artifact to the trash, where its grace period begins; False where it is not there. gc decides which."""
        folder = self._layout.target("artifacts", digest)
        if not files.touch(folder):
            return False
        match files.rename(folder, self._trash / digest):
            case "taken":  # made again while the first lay in the trash: one of the two is enough
                self.delete(digest)
                return files.rename(folder, self._trash / digest) == "done"
            case outcome:
                return outcome == "done"

    def delete(self, digest: str) -> bool:
        """Delete an artifact that lies in the trash; False where somebody brought it back first."""
        doomed = self._doomed(digest)
        if doomed:
            files.remove_tree(doomed)
        return doomed is not None

    def list(self) -> list[Artifact]:
        """All whole artifacts; `verify` over `digests` names the others."""
        return [found for digest in self.digests() if (found := self.find(digest))]

    def _doomed(self, digest: str) -> Path | None:
        """Give what lies in the trash a name by which nobody can bring it back: from then on it may be half deleted."""
        doomed = self._layout.target("trash", f"{digest}.{secrets.token_hex(4)}")
        return doomed if files.rename(self._trash / digest, doomed) == "done" else None

    def _locate(self, digest: str) -> Path | None:
        folder, trashed = self._artifacts / check_digest(digest), self._trash / digest
        for _ in range(_ROUNDS):
            if files.status(folder):
                return folder
            if not files.status(trashed):
                if files.status(folder):  # brought back by somebody else between the two looks
                    return folder
                return None
            if not self._layout.write:
                return trashed
            try:
                if files.rename(trashed, folder) == "done":
                    files.sync_folder(self._artifacts)
            except Failure:
                return trashed  # no right to bring it back: it can be read where it lies
        return None


def _read(digest: str, folder: Path) -> Artifact:
    loaded = manifest.load(folder)
    if loaded is None or loaded.digest != digest or loaded.kind == "checkpoint":
        raise Corrupt("an artifact's manifest is not the one that it is named by", where=str(folder), remedy=_REMEDY)
    if found := manifest.problems(folder, loaded, rehash=False):
        raise Corrupt("an artifact is not whole", where=str(folder), why="; ".join(found[:3]), remedy=_REMEDY)
    return _artifact(digest, loaded, folder)


def _artifact(digest: str, loaded: Manifest, folder: Path) -> Artifact:
    return Artifact(digest, cast(ArtifactKind, loaded.kind), loaded.format, folder / FILES, loaded.files)


_REMEDY = "run the pipeline again with --force: the artifact is made again and replaces this one"
