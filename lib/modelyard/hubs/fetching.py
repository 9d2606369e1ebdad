"""Fetching: the selected files of a listing, read from its hub into a staging folder, each hashed on the way.

One process reads while others wait for what it makes: that is the lease's advice, and without it each reads for itself and the same artifact comes
out. What an attempt has read is kept as parts (modelyard.yard.checkpoints), so that a killed download goes on where it was last synced. Nothing
is decided here about which files are taken (modelyard.hubs.selection), and no byte is believed before its hash is compared where the hub knows one.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from modelyard.errors import Corrupt, Failure, NoSpace, Unavailable
from modelyard.hubs.hub import Reader
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.selection import Selection
from modelyard.quantities import format_bytes
from modelyard.yard import Lease, Yard, files
from modelyard.yard.checkpoints import Part, Parts
from modelyard.yard.leases import TIME_TO_LIVE

KEEP_EVERY = 64 << 20
"""Bytes between two syncs of a growing file: what a kill costs at most."""
LOOK_EVERY = 0.5
"""Seconds between two looks at what another process is doing."""


class Watch(Protocol):
    """What the one who fetches wants to be told, and how it says stop."""

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""

    def check(self) -> None:
        """Raise where a stop was asked for: what was read is kept."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """So far it is. Called for each chunk."""

    def waiting(self) -> None:
        """Another process fetches the same; told once."""


@dataclass(frozen=True)
class Fetched:
    """What was read. known: path -> sha256; then bytes: of all files, read from the hub now, and found whole from earlier attempts."""

    known: dict[str, str]
    size: int
    read: int
    taken_over: int

    def details(self) -> dict[str, Any]:
        """The counts, as an action keeps them."""
        return {"bytes": {"all": self.size, "read from the hub": self.read, "whole from earlier attempts": self.taken_over}}


class Fetching:
    """One attempt's reading of one selection."""

    def __init__(
        self, yard: Yard, listing: Listing, selection: Selection, reader: Reader, out: Path, *, key: str, attempt: str, watch: Watch
    ) -> None:
        """out: an empty folder in the yard's staging. key: of the fetch's action (`selection.fetch_key`)."""
        self._yard = yard
        self._listing = listing
        self._selection = selection
        self._reader = reader
        self._out = out
        self._parts = Parts(yard.layout, key, attempt)
        self._watch = watch
        self._known: dict[str, str] = {}
        self._done = 0
        self._read = 0

    def run(self) -> Fetched:
        """Read all files. Raises NoSpace: before a byte is read; Corrupt: a file is not what was listed; what the watch raises."""
        chosen = list(enumerate(self._selection.files))
        try:
            rest = [(index, file) for index, file in chosen if not self._take_over(index, file)]
            self._check_space(sum(file.size for _, file in rest))
            taken_over = self._done
            for index, file in rest:
                self._fetch(index, file)
        except NoSpace:
            with suppress(Failure):  # the first failure says more
                self._parts.drop()  # what lies there keeps others from working
            raise
        return Fetched(self._known, self._done, self._read, taken_over)

    def _take_over(self, index: int, file: HubFile) -> bool:
        """Link a whole file of another attempt into `out`, if there is one and it is what was listed."""
        part = self._parts.furthest(index)
        if part is None or part.size != file.size or file.sha256 not in (None, part.sha256):
            return False
        found, target = files.status(part.path), self._out / file.path
        files.make_folders(target.parent)
        if found is None or found.st_uid != os.geteuid() or not files.link(part.path, target):  # another user's file could not be sealed
            return False
        if files.sha256(target) != part.sha256:
            files.remove(target)
            return False
        self._parts.keep(index, target, file.size, part.sha256)
        self._known[file.path] = part.sha256
        self._progress(file.size)
        return True

    def _fetch(self, index: int, file: HubFile) -> None:
        """Read one file, from where another attempt left it."""
        part = self._parts.furthest(index)
        sha256 = self._write(index, file, part if part and part.size <= file.size else None)
        if sha256 is None or (part and file.sha256 not in (None, sha256)):
            self._discard(index, file)
            sha256 = self._write(index, file, None)  # what was taken over was not what it said, or not what was listed: all of it again
        if sha256 is None or file.sha256 not in (None, sha256):
            self._discard(index, file)
            why = f"expected {file.sha256}, read {sha256}"
            remedy = "run again; if it stays, the hub holds another file than it lists (of a folder: copy the file again, or correct its SHA256SUMS)"
            raise Corrupt(f"{file.path!r} does not match its sha256", where=str(self._listing.ref), why=why, remedy=remedy)
        self._parts.keep(index, self._out / file.path, file.size, sha256)
        self._known[file.path] = sha256

    def _write(self, index: int, file: HubFile, part: Part | None) -> str | None:
        """Write the file into `out`; its sha256. None: the part is not what its record says."""
        path, size = self._out / file.path, 0
        with files.NewFile(self._out, PurePosixPath(file.path)) as new:
            for chunk in files.chunks(part.path, part.size) if part else ():
                size += new.write(chunk)
                self._progress(len(chunk))
                self._watch.check()
            if part and (size, new.sha256) != (part.size, part.sha256):
                return None
            kept = size
            try:
                for chunk in self._reader.read(self._listing, file, size):
                    if size + len(chunk) > file.size:
                        raise self._other_size(file, f"more than {size}")
                    size += new.write(chunk)
                    self._read += len(chunk)
                    self._progress(len(chunk))
                    if self._watch.requested or size - kept >= KEEP_EVERY:
                        self._parts.keep(index, path, size, new.sha256)
                        kept = size
                        self._watch.check()
            except Unavailable:
                self._parts.keep(index, path, size, new.sha256)
                raise
            if size != file.size:
                raise self._other_size(file, str(size))
            return new.sha256

    def _other_size(self, file: HubFile, got: str) -> Corrupt:
        what, remedy = f"{file.path!r} has another size than it was listed with", "run again: the ref is resolved anew"
        return Corrupt(what, where=str(self._listing.ref), why=f"{file.size} bytes were listed, {got} came", remedy=remedy)

    def _discard(self, index: int, file: HubFile) -> None:
        target = self._out / file.path
        found = files.status(target)
        self._done -= found.st_size if found else 0
        self._parts.forget(index)
        files.remove(target)

    def _check_space(self, needed: int) -> None:
        """Raise NoSpace where the volume cannot take what is missing."""
        with files.failures(self._out):
            free = shutil.disk_usage(self._out).free
        if needed > free:
            why = f"{format_bytes(needed)} are to be written, {format_bytes(free)} are free: {format_bytes(needed - free)} are missing"
            what, remedy = "the volume is too small for what is to be fetched", "make room (modelyard yard gc), or use a larger volume"
            raise NoSpace(what, where=str(self._yard.root), why=why, remedy=remedy)

    def _progress(self, count: int) -> None:
        self._done += count
        self._watch.progress(self._done, self._selection.size, "bytes")


@contextmanager
def turn(yard: Yard, key: str, total: int, watch: Watch, *, forced: bool = False) -> Iterator[str | None]:
    """Wait until it is this process's turn to fetch, and hold the lease inside. Gives the artifact's digest where another process made it meanwhile.

    The lease is kept alive from a thread: a hub may be silent for longer than the lease lives. Who has read everything does not release it: others
    would take over all files while they are being committed. The one who commits ends it after that.
    """
    waited = False
    while (lease := yard.leases.acquire(key)) is None and not _existing(yard, key, forced):
        if not waited:
            watch.waiting()
        waited = True
        watch.progress(0, total, "bytes")
        time.sleep(LOOK_EVERY)
        watch.check()
    held, over = lease or Lease(None), threading.Event()

    def beat() -> None:
        while not over.wait(TIME_TO_LIVE / 4):
            held.beat()

    threading.Thread(target=beat, name="lease", daemon=True).start()
    try:
        existing = _existing(yard, key, forced)  # committed while this one waited, or since its caller looked
        if existing:
            held.release()
        yield existing
        held.beat()  # a commit follows
    except BaseException:
        held.release()
        raise
    finally:
        over.set()


def _existing(yard: Yard, key: str, forced: bool) -> str | None:
    """Digest of the artifact, where it is committed by now."""
    action = None if forced else yard.known(key)
    return action.artifact if action else None
