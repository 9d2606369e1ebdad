"""Where things lie in a yard, whether they may be written, and whether the volume can hold a yard at all.

The volume is probed once, when a yard is made on it: yard.json is written after the probe has passed. What is probed is what commits and
leases stand on: rename of folders, O_EXCL, append, permissions. Not probed: that the volume keeps what it has synced.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelyard.errors import Corrupt, Failure, NoInput, Usage, VolumeFailed
from modelyard.yard import files

MARKER = "yard.json"
FORMAT = 1
FOLDERS = ("artifacts", "actions", "refs", "runs", "checkpoints", "pins", "staging", "leases", "trash")


@dataclass(frozen=True)
class Layout:
    """An opened yard's root; `write`: whether this opening may change anything."""

    root: Path
    write: bool

    def target(self, *parts: str) -> Path:
        """A path in the yard that is about to be written; Usage where the yard was opened for reading."""
        if not self.write:
            raise Usage("the yard was opened for reading", where=str(self.root), remedy="open it for writing")
        return self.root.joinpath(*parts)


def open_layout(root: Path, write: bool) -> Layout:
    """The layout at `root`; for writing it is made where it is missing.

    Raises NoInput: no yard is there to read; VolumeFailed: the volume cannot hold one; Corrupt: it was made by another version.
    """
    root = root.absolute()
    data = files.read(root / MARKER)
    if data is None:
        if not write:
            raise NoInput("there is no yard", where=str(root), remedy="name another with --yard; `modelyard run` and `modelyard yard put` make one")
        files.make_folders(root)
        for folder in FOLDERS:
            files.make_folder(root / folder)
        _probe(root / "staging")
        marker = root / "staging" / f"{MARKER}.{secrets.token_hex(4)}"
        files.create(marker, json.dumps({"format": FORMAT}).encode() + b"\n")
        files.rename(marker, root / MARKER)
        files.sync_folder(root)
        return Layout(root, write)
    try:
        found = json.loads(data)["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        found = None
    if found != FORMAT:
        raise Corrupt(
            "this yard is not of a form that is known here",
            where=str(root / MARKER),
            why=f"format {found!r} instead of {FORMAT}",
            remedy="use the version that made it",
        )
    return Layout(root, write)


def _probe(staging: Path) -> None:
    """Raise VolumeFailed unless the volume does what a yard needs; leaves nothing behind."""
    folder = staging / f"probe.{secrets.token_hex(4)}"
    source, target, file = folder / "a", folder / "b", folder / "a" / "file"
    files.make_folder(folder)
    try:
        files.make_folder(source)
        if not files.create(file, b"1") or files.create(file, b"2"):
            _refuse(staging, "O_EXCL does not keep a second writer out")
        files.append(file, b"3")
        if files.read(file) != b"13":
            _refuse(staging, "what was appended to a file is not there")
        for path, needed in ((file, 0o660), (source, 0o770)):
            found = files.status(path)
            if found is None or found.st_mode & needed != needed:
                _refuse(staging, "the group cannot be given the right to write")
        files.make_folder(target)
        files.create(target / "file", b"")
        if files.rename(source, target) != "taken":
            _refuse(staging, "a folder that is not empty can be replaced by a rename")
        if files.rename(source, folder / "c") != "done" or files.read(folder / "c" / "file") != b"13":
            _refuse(staging, "a folder cannot be renamed in one step")
    except VolumeFailed as error:
        raise VolumeFailed(error.what, where=error.where, why=error.why, remedy=_OTHER_VOLUME) from error
    finally:
        with suppress(Failure):  # the probe's own failure says more
            files.remove_tree(folder)


def _refuse(staging: Path, why: str) -> None:
    raise VolumeFailed("the volume cannot hold a yard", where=str(staging.parent), why=why)


_OTHER_VOLUME = "use a POSIX volume (a local disk, NFS, CephFS, Lustre); mounts of object stores lack what a yard needs"
