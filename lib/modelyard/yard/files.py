"""The one door to the file system for everything under modelyard.yard.

Each function here is one operation, or a short row of them, and each operation passes `operation` first. What the operating system refuses
comes out as a failure of the table (`failure`); what a caller must decide on (is it there, was somebody faster) comes out as a value. Nothing
follows a symbolic link, and nothing here knows what a yard is.

For tests alone: MODELYARD_FAULT=kill:17 ends the process by SIGKILL in place of its 17th operation, ENOSPC:17 (or any other name of an
errno) lets that one operation fail.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import secrets
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from modelyard.errors import Corrupt, Failure, NoPermission, NoSpace, Refused, VolumeFailed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FILE_MODE = 0o664
FOLDER_MODE = 0o2775
"""Modes of everything in a yard: one group shares it, and what is made in a folder gets the folder's group."""

MAX_READ = 64 * 2**20
"""Bytes of the largest file that is read whole (a manifest of 100,000 files is a third of it)."""

BEGIN_EVERY = 8 * 2**20
"""Bytes of a growing file after which the volume is asked to begin writing them: the sync at the end then finds little left."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # non-blocking: opening a planted FIFO must not wait for ever
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ABSENT = (FileNotFoundError, NotADirectoryError)


# --- faults and failures ---------------------------------------------------------------------------------------------------------------------


def inject(fault: str) -> None:
    """Count operations from here on and let the one that `fault` names end as it says; "" ends the counting. For tests alone."""
    global _fault, _count
    kind, _, at = fault.partition(":")
    _fault, _count = ((kind, int(at)) if fault else None), itertools.count(1)


def operation(name: str, path: Path) -> None:
    """Called before each operation on the file system: the place where a fault comes in."""
    if _fault is None or next(_count) != _fault[1]:
        return
    if _fault[0] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = getattr(errno, _fault[0])
    raise OSError(number, f"{os.strerror(number)} (injected into {name})", str(path))


def failure(error: OSError, path: Path) -> Failure:
    """The row of the table that an error of the operating system belongs to."""
    kind: type[Failure] = VolumeFailed
    what, remedy = "the volume failed", "run again; if it stays, look at the volume"
    if error.errno in _FULL:
        kind, what, remedy = NoSpace, "the volume is full", "make room (modelyard yard gc), or use a larger volume"
    elif error.errno == errno.EROFS:
        what, remedy = "the volume is mounted read-only", "mount it writable; where it was writable before, look at the volume"
    elif error.errno in (errno.EACCES, errno.EPERM):
        kind, what = NoPermission, "the yard does not belong to this user's group"
        remedy = f"where the volume lies: chgrp -R {os.getegid()} YARD && chmod -R g+rwX YARD && find YARD -type d -exec chmod g+s {{}} +"
    return kind(what, where=str(path), why=error.strerror or type(error).__name__, remedy=remedy)


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn each OSError of the body into its failure."""
    try:
        yield
    except OSError as error:
        raise failure(error, path) from error


@contextmanager
def _door(name: str, path: Path) -> Iterator[None]:
    with failures(path):
        operation(name, path)
        yield


# --- folders ---------------------------------------------------------------------------------------------------------------------------------


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing."""
    for folder in reversed(list(itertools.takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))):
        with _door("mkdir", folder), suppress(FileExistsError):
            os.mkdir(folder, FOLDER_MODE)
            os.chmod(folder, FOLDER_MODE)  # mkdir heeds the umask, and ignores setgid


def new_folder(path: Path) -> bool:
    """Make one folder in a folder that is there; False where something of that name is there: of many who try, one made it."""
    with _door("mkdir", path), suppress(FileExistsError):
        os.mkdir(path, FOLDER_MODE)
        os.chmod(path, FOLDER_MODE)  # as above
        return True
    return False


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones (our own temporary files are hidden); none where the folder is missing."""
    with _door("list", folder), suppress(*_ABSENT):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder, each folder before what is in it: relative path with `/`, and status.

    Links are not followed; what vanishes meanwhile is left out.
    """
    top = status(folder)
    pending = [""] if top and stat.S_ISDIR(top.st_mode) else []
    while pending:
        prefix = pending.pop()
        with _door("walk", folder / prefix):
            try:
                entries = list(os.scandir(folder / prefix))
            except FileNotFoundError:
                continue
        for entry in entries:
            with failures(Path(entry.path)), suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                yield prefix + entry.name, found
                if stat.S_ISDIR(found.st_mode):
                    pending.append(f"{prefix}{entry.name}/")


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it, or a file; a link as a link. Others may be at work on it.

    A folder that fills again meanwhile stays, with no failure: NFS does so for a file that is open somewhere. gc comes again.
    """
    top = status(path)
    for name, found in reversed([("", top), *walk(path)] if top else []):
        with _door("remove", path / name):
            try:
                os.rmdir(path / name) if stat.S_ISDIR(found.st_mode) else os.unlink(path / name)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    raise


def volume_time(folder: Path) -> float:
    """Now, in seconds, by the clock of the volume itself: the time that a file made at this moment in `folder` gets."""
    with _door("probe", folder), tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


# --- files -----------------------------------------------------------------------------------------------------------------------------------


def read(path: Path) -> bytes | None:
    """The bytes of a regular file, None where there is none.

    Raises Corrupt: it is no regular file, or larger than MAX_READ.
    """
    with _door("read", path):
        try:
            descriptor = os.open(path, _READ)
        except _ABSENT:
            return None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_READ:
            os.close(descriptor)
            raise Corrupt("this is no file that a yard writes", where=str(path), why="not a regular file, or too large", remedy="remove it")
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_READ)


def create(path: Path, data: bytes) -> bool:
    """Make a file with these bytes and sync it; False where something of that name is there."""
    with _door("create", path), suppress(FileExistsError):
        _write_new(path, data, durable=True)
        return True
    return False


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put a file in place, or replace it, so that every reader sees the old bytes or the new ones.

    durable: synced too; without, a crash of the machine may bring the old bytes back.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _door("write", temporary):
        _write_new(temporary, data, durable=durable)
    try:
        with _door("replace", path):
            os.replace(temporary, path)
    except Failure:
        with suppress(Failure):
            remove(temporary)
        raise
    if durable:
        sync(path.parent)


def _write_new(path: Path, data: bytes, *, durable: bool) -> None:
    """All of it, or no file."""
    descriptor = os.open(path, _CREATE, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)  # open heeds the umask
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        raise


def append(path: Path, data: bytes, *, new: bool = True) -> bool:
    """Add these bytes to the end of a file, in one write. Where there is no file: make it, or (not `new`) give False."""
    with _door("append", path), suppress(*(() if new else (FileNotFoundError,))):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if new else 0), FILE_MODE)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
        return True
    return False


def rename(source: Path, target: Path) -> Literal["done", "taken", "gone"]:
    """Move a folder or file.

    "taken": a file, or a folder that is not empty, has that name. "gone": the source, or the folder above the target, is not there.
    """
    with _door("rename", target), suppress(FileNotFoundError):
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                return "taken"
            raise
        return "done"
    return "gone"


def remove(path: Path) -> bool:
    """Remove a file; False where there is none."""
    with _door("unlink", path), suppress(FileNotFoundError):
        os.unlink(path)
        return True
    return False


def status(path: Path) -> os.stat_result | None:
    """What lies at a path itself, links not followed; None where nothing does."""
    with _door("stat", path), suppress(*_ABSENT):
        return os.lstat(path)
    return None


def touch(path: Path) -> bool:
    """Set a file's or folder's time to now, on the volume's clock; False where it is not there."""
    with _door("touch", path), suppress(FileNotFoundError):
        os.utime(path)
        return True
    return False


def sha256(path: Path) -> str:
    """Hex digest of a regular file's bytes."""
    with _door("hash", path), os.fdopen(os.open(path, _READ), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the volume cannot, the name is taken, or either side is not there: the caller can do without."""
    with _door("link", target):
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno in (*_FULL, errno.EIO, errno.ESTALE):
                raise
            return False
        return True


def chunks(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a regular file, in pieces; fewer where it is shorter."""
    with _door("read", path), os.fdopen(os.open(path, _READ), "rb", buffering=0) as file:
        while size and (chunk := file.read(min(size, 1 << 20))):
            size -= len(chunk)
            yield chunk


def sync(path: Path, mode: int | None = None) -> None:
    """Make a file's bytes or the names in a folder durable, and its mode where one is given.

    A file system that cannot sync a folder needs no such call.
    """
    with _door("fsync", path):
        descriptor = os.open(path, _READ)
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


class NewFile(io.BufferedIOBase):
    """A file that is being written for the first time, in order, and hashed on the way; `sha256` is its digest so far."""

    def __init__(self, root: Path, path: PurePosixPath) -> None:
        """path: relative to root and already checked; folders in between are made.

        Raises Refused: it is there, or a link or a file lies where a folder should.
        """
        self._path = root / path
        self._hash = hashlib.sha256()
        self._size = self._begun = 0
        with _door("create", self._path):
            try:
                for folder in reversed(self._path.parents[: len(path.parts) - 1]):
                    with suppress(FileExistsError):
                        os.mkdir(folder, FOLDER_MODE)
                    os.close(os.open(folder, _READ | os.O_DIRECTORY))
                self._descriptor = os.open(self._path, _CREATE, FILE_MODE)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ELOOP, errno.ENOTDIR):
                    raise Refused(f"{str(path)!r} cannot be made", where=str(root), why="something else has its name") from error
                raise

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: ReadableBuffer) -> int:
        """Write all of the bytes."""
        with memoryview(data).cast("B") as view, _door("write", self._path):
            rest = view
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._hash.update(view)
            self._size += len(view)
            if self._size - self._begun >= BEGIN_EVERY:
                with suppress(OSError):  # a hint: what is dirty is not dropped, the kernel begins to write it
                    os.posix_fadvise(self._descriptor, self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
                self._begun = self._size
            return len(view)

    def close(self) -> None:
        """End the file; a second time does nothing."""
        if not self.closed:
            super().close()
            with _door("close", self._path):
                os.close(self._descriptor)


_fault: tuple[str, int] | None
_count: Iterator[int]
inject(os.environ.get("MODELYARD_FAULT", ""))
