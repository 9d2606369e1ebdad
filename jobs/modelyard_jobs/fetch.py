"""Fetch: the selected files of a listing, read from its hub into `out`, each hashed on the way.

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
from pathlib import PurePosixPath

from modelyard import hubs
from modelyard.errors import Corrupt, Failure, NoSpace, Unavailable
from modelyard.hubs import HubFile, Listing, Reader
from modelyard.hubs.selection import Selection, select
from modelyard.quantities import format_bytes
from modelyard.yard import Lease, files
from modelyard.yard.checkpoints import Part, Parts
from modelyard.yard.leases import TIME_TO_LIVE
from modelyard_jobs.context import Context, Produced

KEEP_EVERY = 64 << 20
"""Bytes between two syncs of a growing file: what a kill costs at most."""
LOOK_EVERY = 0.5
"""Seconds between two looks at what another process is doing."""


def run(context: Context) -> Produced:
    """Fetch what `context.listing` names, or take what another process fetched meanwhile.

    Raises Refused, NoInput: of the listing (see `select`); NoSpace: before a byte is read; Corrupt: a file is not what was listed; Yielded.
    """
    listing: Listing = context.listing
    selection = select(listing, context.settings.trust)
    if selection.left_out:
        value = [f"{path}: {why}" for path, why in selection.left_out]
        context.decide("files left out", value, "weights in one safe format, no code, and nothing that a model or data set has no use for")
    if selection.trusted:
        context.decide("trusted", list(selection.trusted), "the step says `trust`: these files can run code when they are loaded")
    with context.stop.polled(), _lease(context, selection.size) as lease:
        if existing := _existing(context):  # committed while this one waited, or since the frame looked
            lease.release()
            return Produced(listing.kind, selection.format, existing=existing)
        return _Fetch(context, listing, selection).run()


class _Fetch:
    """One attempt's reading of one selection."""

    def __init__(self, context: Context, listing: Listing, selection: Selection) -> None:
        self.context = context
        self.listing = listing
        self.selection = selection
        self.reader: Reader = hubs.reader(listing, context.hubs)
        self.parts = Parts(context.yard.layout, context.key, context.attempt)
        self.known: dict[str, str] = {}
        self.done = 0
        self.read = 0

    def run(self) -> Produced:
        chosen = list(enumerate(self.selection.files))
        try:
            rest = [(index, file) for index, file in chosen if not self._take_over(index, file)]
            self._check_space(sum(file.size for _, file in rest))
            taken_over = self.done
            for index, file in rest:
                self._fetch(index, file)
        except NoSpace:
            with suppress(Failure):  # the first failure says more
                self.parts.drop()  # what lies there keeps others from working
            raise
        self.context.detail("bytes", {"all": self.done, "read from the hub": self.read, "whole from earlier attempts": taken_over})
        return Produced(self.listing.kind, self.selection.format, known=self.known)

    def _take_over(self, index: int, file: HubFile) -> bool:
        """Link a whole file of another attempt into `out`, if there is one and it is what was listed."""
        part = self.parts.furthest(index)
        if part is None or part.size != file.size or file.sha256 not in (None, part.sha256):
            return False
        found, target = files.status(part.path), self.context.out / file.path
        files.make_folders(target.parent)
        if found is None or found.st_uid != os.geteuid() or not files.link(part.path, target):  # another user's file could not be sealed
            return False
        if files.sha256(target) != part.sha256:
            files.remove(target)
            return False
        self.parts.keep(index, target, file.size, part.sha256)
        self.known[file.path] = part.sha256
        self._progress(file.size)
        return True

    def _fetch(self, index: int, file: HubFile) -> None:
        """Read one file, from where another attempt left it."""
        part = self.parts.furthest(index)
        sha256 = self._write(index, file, part if part and part.size <= file.size else None)
        if sha256 is None or (part and file.sha256 not in (None, sha256)):
            self._discard(index, file)
            sha256 = self._write(index, file, None)  # what was taken over was not what it said, or not what was listed: all of it again
        if sha256 is None or file.sha256 not in (None, sha256):
            self._discard(index, file)
            why = f"expected {file.sha256}, read {sha256}"
            remedy = "copy the file into the hub again, or correct its SHA256SUMS"
            raise Corrupt(f"{file.path!r} does not match its sha256", where=str(self.listing.ref), why=why, remedy=remedy)
        self.parts.keep(index, self.context.out / file.path, file.size, sha256)
        self.known[file.path] = sha256

    def _write(self, index: int, file: HubFile, part: Part | None) -> str | None:
        """Write the file into `out`; its sha256. None: the part is not what its record says."""
        path, size = self.context.out / file.path, 0
        with files.NewFile(self.context.out, PurePosixPath(file.path)) as new:
            for chunk in files.chunks(part.path, part.size) if part else ():
                size += new.write(chunk)
                self._progress(len(chunk))
                self.context.stop.check()
            if part and (size, new.sha256) != (part.size, part.sha256):
                return None
            kept = size
            try:
                for chunk in self.reader.read(self.listing, file, size):
                    if size + len(chunk) > file.size:
                        raise self._other_size(file, f"more than {size}")
                    size += new.write(chunk)
                    self.read += len(chunk)
                    self._progress(len(chunk))
                    if self.context.stop.requested or size - kept >= KEEP_EVERY:
                        self.parts.keep(index, path, size, new.sha256)
                        kept = size
                        self.context.stop.check()
            except Unavailable:
                self.parts.keep(index, path, size, new.sha256)
                raise
            if size != file.size:
                raise self._other_size(file, str(size))
            return new.sha256

    def _other_size(self, file: HubFile, got: str) -> Corrupt:
        what, remedy = f"{file.path!r} has another size than it was listed with", "run again: the ref is resolved anew"
        return Corrupt(what, where=str(self.listing.ref), why=f"{file.size} bytes were listed, {got} came", remedy=remedy)

    def _discard(self, index: int, file: HubFile) -> None:
        target = self.context.out / file.path
        found = files.status(target)
        self.done -= found.st_size if found else 0
        self.parts.forget(index)
        files.remove(target)

    def _check_space(self, needed: int) -> None:
        """Raise NoSpace where the volume cannot take what is missing."""
        with files.failures(self.context.out):
            free = shutil.disk_usage(self.context.out).free
        if needed > free:
            why = f"{format_bytes(needed)} are to be written, {format_bytes(free)} are free: {format_bytes(needed - free)} are missing"
            what, remedy = "the volume is too small for what is to be fetched", "make room (modelyard yard gc), or use a larger volume"
            raise NoSpace(what, where=str(self.context.yard.root), why=why, remedy=remedy)

    def _progress(self, count: int) -> None:
        self.done += count
        self.context.progress(self.done, self.selection.size, "bytes")


def _existing(context: Context) -> str | None:
    """Digest of the artifact, where another process has it committed by now."""
    action = None if context.forced else context.yard.known(context.key)
    return action.artifact if action else None


@contextmanager
def _lease(context: Context, total: int) -> Iterator[Lease]:
    """Hold the lease to read; one that does nothing when the artifact appeared while another process held it.

    It is kept alive from a thread: a hub may be silent for longer than the lease lives. Who has read everything does not release it: others
    would take over all files while they are being committed. The frame ends it after that.
    """
    waited = False
    while (lease := context.yard.leases.acquire(context.key)) is None and not _existing(context):
        if not waited:
            context.log.info("another process fetches this", key=context.key)
        waited = True
        context.progress(0, total, "bytes")
        time.sleep(LOOK_EVERY)
        context.stop.check()
    held, over = lease or Lease(None), threading.Event()

    def beat() -> None:
        while not over.wait(TIME_TO_LIVE / 4):
            held.beat()

    threading.Thread(target=beat, name="lease", daemon=True).start()
    try:
        yield held
        held.beat()  # a commit follows
    except BaseException:
        held.release()
        raise
    finally:
        over.set()
