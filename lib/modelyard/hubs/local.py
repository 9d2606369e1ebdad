"""Files of a folder of somebody else's, as they lie there: listed, and read.

A file is identified by its size and the time of its last change in nanoseconds; a `SHA256SUMS` at the top of the folder, as sha256sum(1) writes it,
gives hashes, which then identify the files that it names. It is not listed itself; neither are folders called `.git` or `.modelyard`. A symbolic
link, a device or a socket refuses the folder: it would bring in what its owner did not put there. Whoever changes a folder while it is read is
caught by size, time or hash, not by the walk.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from modelyard.errors import Corrupt, NoPermission, Refused, Unavailable
from modelyard.hubs.listing import HubFile
from modelyard.yard import manifest

CHUNK = 1 << 20
SUMS = "SHA256SUMS"
SKIPPED = frozenset({".git", ".modelyard"})

_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
_SUMS_BYTES = 64 << 20
_GONE = "run again when nobody writes there: the ref is resolved anew"


def inside(top: Path, below: str, ref: str) -> Path:
    """`top/below`. Raises Refused when a component below the top is a symbolic link."""
    path = top
    for part in PurePosixPath(below).parts:
        path /= part
        if path.is_symlink():
            why = "it may lead out of the hub"
            raise Refused(f"{str(path.relative_to(top))!r} is a symbolic link", where=ref, why=why, remedy="put the files themselves there")
    return path


def list_files(folder: Path, ref: str) -> tuple[HubFile, ...]:
    """The files below a folder, with the hashes that its SHA256SUMS has for them."""
    walked = itertools.islice(_walk(folder, ref), manifest.MAX_FILES + 2)  # enough for a listing to be refused by its number
    files = {file.path: file for file in walked}
    sums = _sums(folder / SUMS, ref) if files.pop(SUMS, None) else {}
    if absent := sorted(sums.keys() - files.keys()):
        why = f"the copy is not complete: {len(absent)} of {len(sums)} are missing"
        raise Corrupt(f"{SUMS} names {absent[0]!r}, which is not there", where=ref, why=why, remedy=f"copy it again, or correct {SUMS}")
    return tuple(replace(file, sha256=sums.get(file.path)) for file in files.values())


def _walk(top: Path, ref: str) -> Iterator[HubFile]:
    for folder, folders, names, descriptor in os.fwalk(top, onerror=_raise):
        below = PurePosixPath(folder).relative_to(top)
        if len(below.parts) > manifest.MAX_DEPTH:
            raise Refused(f"{str(below)[:200]!r} is too deep", where=ref, why=f"at most {manifest.MAX_DEPTH} levels are taken", remedy="flatten it")
        for name in (*folders, *names):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                yield describe(str(below / name), found)
            elif not stat.S_ISDIR(found.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a special file"
                remedy = "put the file itself there"
                raise Refused(f"{str(below / name)!r} is {kind}", where=ref, why="it may lead out of the repository", remedy=remedy)
        folders[:] = [name for name in folders if name not in SKIPPED]


def _raise(error: OSError) -> NoReturn:
    raise error


def describe(path: str, found: os.stat_result) -> HubFile:
    """A file by its size and time alone."""
    return HubFile(path, found.st_size, None, str(found.st_mtime_ns))


def _sums(path: Path, ref: str) -> dict[str, str]:
    """Path -> sha256 of a SHA256SUMS.

    Format: https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html; escaped names hold characters that no listing may have.
    """
    if path.stat().st_size > _SUMS_BYTES:
        raise Refused(f"{SUMS} is too large", where=ref, remedy=f"write it again: sha256sum -- * > {SUMS}")
    lines = path.read_text("utf-8", "surrogateescape").split("\n")
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _SUM.fullmatch(line.rstrip("\r"))
        if match and sums.setdefault(match[2], match[1].lower()) == match[1].lower():
            continue
        if line.strip():
            why = "it has another hash above" if match else "64 hexadecimal digits, two spaces and a path are expected"
            raise Refused(f"{SUMS} line {number} cannot be used", where=ref, why=why, remedy=f"write it again: sha256sum -- * > {SUMS}")
    if sums:
        manifest.check_paths(sums, f"{ref}: {SUMS}")
    return sums


def read_file(top: Path, below: str, ref: str, file: HubFile, offset: int = 0) -> Iterator[bytes]:
    """The bytes of `top/below` from `offset` on, in chunks of at most CHUNK. ref: for messages.

    Raises Corrupt when it is not, or no longer, what `file` says; Refused when a link or something special took its place.
    """
    with failures(f"{ref}: {file.path}"):
        path = inside(top, below, ref)
        _check_unchanged(path.lstat(), ref, file)
        # O_NONBLOCK: a fifo put in a file's place must not block the open; it has no effect on files
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as stream:
            stream.seek(offset)
            while chunk := stream.read(CHUNK):
                yield chunk
            _check_unchanged(os.fstat(stream.fileno()), ref, file)


def _check_unchanged(found: os.stat_result, ref: str, file: HubFile) -> None:
    """Accept a file that is as it was listed; one with a known hash may have another time, because its content is compared."""
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{file.path!r} is not a file any more", where=ref, remedy="put the file itself there")
    if found.st_size != file.size or (file.sha256 is None and str(found.st_mtime_ns) != file.version):
        why = f"it had {file.size} bytes and has {found.st_size}" if found.st_size != file.size else "its time of change is another"
        raise Corrupt(f"{file.path!r} changed after it was listed", where=ref, why=why, remedy=_GONE)


@contextmanager
def failures(where: str) -> Iterator[None]:
    """Name the operating system's errors: the hub is somebody else's volume, not the yard's."""
    try:
        yield
    except FileNotFoundError as error:
        raise Corrupt("it vanished after it was listed", where=where, remedy=_GONE) from error
    except PermissionError as error:
        raise NoPermission("it may not be read", where=where, why=error.strerror or "", remedy="let this user read the hub's folder") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise Unavailable("the hub's folder cannot be read", where=where, why=why, remedy="look at the volume, then run again") from error
