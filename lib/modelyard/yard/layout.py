"""Where things lie in a yard, whether they may be written, and whether the volume can hold a yard at all.

The volume is probed once, when a yard is made on it: yard.json is written after the probe has passed. What is probed is what commits and
leases stand on: rename of folders, O_EXCL, append, permissions. Not probed: that the volume keeps what it has synced.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelyard.errors import Corrupt, Failure, NoInput, Usage, VolumeFailed
from modelyard.yard import files

MARKER = "yard.json"
FORMAT = b'{"format": 1}\n'
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
    marker = root / MARKER
    found = files.read(marker)
    if found is None and not write:
        raise NoInput("there is no yard", where=str(root), remedy="name another with --yard; `modelyard run` and `modelyard yard put` make one")
    if found is None:
        for folder in FOLDERS:
            files.make_folders(root / folder)
        probe(root / "staging")
        staged = root / "staging" / f"{MARKER}.{secrets.token_hex(4)}"
        files.create(staged, FORMAT)
        files.rename(staged, marker)
        files.sync(root)
    elif found != FORMAT:
        raise Corrupt("this yard is not of a form that is known here", where=str(marker), remedy="use the version that made it")
    return Layout(root, write)


def probe(staging: Path) -> None:
    """Raise VolumeFailed unless the volume of the yard's staging folder does what a yard needs; leaves nothing behind."""
    folder = staging / f"probe.{secrets.token_hex(4)}"
    try:
        lacks = _lacks(folder)
    except VolumeFailed as error:
        lacks = error.why
    finally:
        with suppress(Failure):  # the probe's own failure says more
            files.remove_tree(folder)
    if lacks:
        remedy = "use a POSIX volume (a local disk, NFS, CephFS, Lustre); mounts of object stores lack what a yard needs"
        raise VolumeFailed("the volume cannot hold a yard", where=str(staging.parent), why=lacks, remedy=remedy)


def _lacks(folder: Path) -> str:
    source, target, file = folder / "a", folder / "b", folder / "a" / "file"
    files.make_folders(source)
    if not files.create(file, b"1") or files.create(file, b"2"):
        return "O_EXCL does not keep a second writer out"
    files.append(file, b"3")
    if files.read(file) != b"13":
        return "what was appended to a file is not there"
    for path, needed in ((file, 0o660), (source, 0o770)):
        found = files.status(path)
        if found is None or found.st_mode & needed != needed:
            return "the group cannot be given the right to write"
    files.make_folders(target)
    files.create(target / "file", b"")
    if files.rename(source, target) != "taken":
        return "a folder that is not empty can be replaced by a rename"
    if files.rename(source, folder / "c") != "done" or files.read(folder / "c" / "file") != b"13":
        return "a folder cannot be renamed in one step"
    return ""
