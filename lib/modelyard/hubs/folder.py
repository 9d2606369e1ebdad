"""A folder as a hub, and a file or folder of this machine as a repository.

    DIR/owner/name/…            models
    DIR/datasets/owner/name/…   data sets

There is one revision: none, `main` and `master` name it. A file is identified by its size and the time of its last change in nanoseconds; a
`SHA256SUMS` at the top of a repository, as sha256sum(1) writes it, gives hashes, which then identify the files that it names. It is not listed
itself; neither are folders called `.git` or `.modelyard`. A symbolic link, a device or a socket refuses the repository: it would bring in
what its owner did not put there. Each component of a path is opened by its parent's descriptor without following links, so that this holds
also for a folder that is changed meanwhile.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, Refused, Unavailable
from modelyard.hubs.listing import HubFile, Listing
from modelyard.refs import HubRef, PathRef, RefKind
from modelyard.yard import manifest

CHUNK = 1 << 20
SUMS = "SHA256SUMS"
SKIPPED = frozenset({".git", ".modelyard"})
REVISIONS = (None, "main", "master")

_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
_SUMS_BYTES = 64 << 20


class FolderHub:
    """The hub whose repositories are folders below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resolve(self, ref: HubRef) -> Listing:
        """The repository's files as they are now. Raises NoInput when it, or the revision, is not there; close names are in the message."""
        if ref.revision not in REVISIONS:
            raise NoInput(f"{ref} has no revision {ref.revision!r}", why=f"{self.root} is a folder and has only main", remedy="leave out @revision")
        parts = self._parts(ref)
        if parts is None or not self.root.joinpath(*parts).is_dir():
            raise self._missing(ref)
        with _failures(str(ref)), _opened(self.root, parts, str(ref), os.O_DIRECTORY) as folder:
            return Listing(ref, ref.kind, "main", _list(folder, str(ref)))

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes from `offset` on. Raises Corrupt when the file changed after it was listed."""
        if not isinstance(listing.ref, HubRef):
            raise TypeError("a folder hub reads what it listed")
        return _read(self.root, (*(self._parts(listing.ref) or ()), *file.path.split("/")), str(listing.ref), file, offset)

    def _parts(self, ref: HubRef) -> tuple[str, ...] | None:
        """The repository's path below the root; None for a model whose owner is called `datasets`: that folder belongs to the data sets."""
        if ref.kind == "dataset":
            return ("datasets", ref.owner, ref.name)
        return None if ref.owner == "datasets" else (ref.owner, ref.name)

    def _missing(self, ref: HubRef) -> NoInput:
        wanted = f"{ref.owner}/{ref.name}"
        other: RefKind = "model" if ref.kind == "dataset" else "dataset"
        if wanted in self._names(other):
            right = HubRef(ref.scheme, other, ref.owner, ref.name, ref.revision)
            return NoInput(f"{ref} does not exist", why=f"{wanted} is a {other} there", remedy=f"write {right}")
        names = self._names(ref.kind)
        close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or names[:3]
        prefix = f"{ref.scheme}://" + ("datasets/" if ref.kind == "dataset" else "")
        why = f"there are {', '.join(close)}" if close else f"{self.root} holds no {ref.kind}s"
        remedy = (
            f"did you mean {prefix}{close[0]}?" if close else f"put the files into {self.root.joinpath(*(self._parts(ref) or ('OWNER', 'NAME')))}"
        )
        return NoInput(f"{ref} does not exist", where=str(self.root), why=why, remedy=remedy)

    def _names(self, kind: RefKind) -> list[str]:
        """`owner/name` of every repository of that kind that can be seen."""
        top = self.root / "datasets" if kind == "dataset" else self.root
        try:
            found = [path for path in top.glob("*/*") if path.is_dir() and not path.name.startswith(".") and not path.parent.name.startswith(".")]
        except OSError:
            return []
        return sorted(f"{path.parent.name}/{path.name}" for path in found if kind == "dataset" or path.parent.name != "datasets")


class PathHub:
    """A file or a folder of this machine; a file is a repository of one file. The path itself may be a symbolic link: a person named it."""

    def __init__(self, kind: RefKind) -> None:
        self.kind = kind

    def resolve(self, ref: PathRef) -> Listing:
        """The files at the path, which is made absolute. Raises NoInput when there are none."""
        path = Path(os.path.abspath(ref.path))
        where = PathRef(str(path))
        if not path.exists():
            names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() and os.access(path.parent, os.R_OK) else []
            close = difflib.get_close_matches(path.name, names, n=3)
            raise NoInput(f"{ref} does not exist", where=str(path), remedy=f"did you mean {close[0]}?" if close else "correct the path")
        with _failures(str(ref)):
            if path.is_dir():
                with _opened(path.resolve(), (), str(ref), os.O_DIRECTORY) as folder:
                    return Listing(where, self.kind, "", _list(folder, str(ref)))
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise Refused(f"{ref} is neither a file nor a folder", where=str(path), remedy="name a file or a folder")
            return Listing(where, self.kind, "", (HubFile(path.name, found.st_size, None, str(found.st_mtime_ns)),))

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes from `offset` on. Raises Corrupt when the file changed after it was listed."""
        if not isinstance(listing.ref, PathRef):
            raise TypeError("a path hub reads what it listed")
        path = Path(listing.ref.path).resolve()
        if path.is_dir():
            return _read(path, tuple(file.path.split("/")), str(listing.ref), file, offset)
        return _read(path.parent, (path.name,), str(listing.ref), file, offset)


def _list(folder: int, ref: str) -> tuple[HubFile, ...]:
    """The files below an open folder, with the hashes that its SHA256SUMS has for them."""
    walked = itertools.islice(_walk(folder, "", ref, 1), manifest.MAX_FILES + 2)  # enough for a listing to be refused by its number
    files = {file.path: file for file in walked if file.path != SUMS}
    sums = _sums(folder, ref)
    absent = sorted(sums.keys() - files.keys())
    if absent:
        why = f"{len(absent)} in all are missing: the copy is not complete" if len(absent) > 1 else "the copy is not complete"
        raise Corrupt(f"{SUMS} names {absent[0]!r}, which is not there", where=ref, why=why, remedy=f"copy it again, or correct {SUMS}")
    return tuple(HubFile(file.path, file.size, sums.get(file.path), file.version) for file in files.values())


def _walk(folder: int, prefix: str, ref: str, depth: int) -> Iterator[HubFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                if depth > manifest.MAX_DEPTH:
                    raise Refused(f"{path[:200]!r} is too deep", where=ref, why=f"at most {manifest.MAX_DEPTH} levels are taken", remedy="flatten it")
                if entry.name not in SKIPPED:
                    inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                    try:
                        yield from _walk(inner, path + "/", ref, depth + 1)
                    finally:
                        os.close(inner)
            elif stat.S_ISREG(found.st_mode):
                yield HubFile(path, found.st_size, None, str(found.st_mtime_ns))
            else:
                kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a special file"
                raise Refused(f"{path!r} is {kind}", where=ref, why="it may lead out of the repository", remedy="put the file itself there")


def _sums(folder: int, ref: str) -> dict[str, str]:
    """Path -> sha256 of the folder's SHA256SUMS; empty without one.

    Format: https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html; escaped names hold characters that no listing may have.
    """
    try:
        descriptor = os.open(SUMS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(_SUMS_BYTES + 1)
    sums: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), start=1):
        match = _SUM.fullmatch(line.rstrip("\r"))
        if match and sums.setdefault(match[2], match[1].lower()) == match[1].lower():
            continue
        if match or line.strip() or len(content) > _SUMS_BYTES:
            why = "it has another hash above" if match else "64 hexadecimal digits, two spaces and a path are expected"
            raise Refused(f"{SUMS} line {number} cannot be used", where=ref, why=why, remedy=f"write it again: sha256sum -- * > {SUMS}")
    return sums


def _read(root: Path, parts: tuple[str, ...], ref: str, file: HubFile, offset: int) -> Iterator[bytes]:
    with _failures(f"{ref}: {file.path}"), _opened(root, parts, ref, 0) as descriptor:
        before = os.fstat(descriptor)
        _unchanged(before, ref, file)
        os.lseek(descriptor, offset, os.SEEK_SET)
        while chunk := os.read(descriptor, CHUNK):
            yield chunk
        after = os.fstat(descriptor)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(ref, file, "it was written to while it was read")


def _unchanged(found: os.stat_result, ref: str, file: HubFile) -> None:
    """Accept a file that is as it was listed; one with a known hash may have another time, because its content is compared."""
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{file.path!r} is not a file any more", where=ref, remedy="put the file itself there")
    if found.st_size != file.size:
        raise _changed(ref, file, f"it had {file.size} bytes and has {found.st_size}")
    if file.sha256 is None and str(found.st_mtime_ns) != file.version:
        raise _changed(ref, file, "its time of change is another")


def _changed(ref: str, file: HubFile, why: str) -> Corrupt:
    return Corrupt(
        f"{file.path!r} changed after it was listed", where=ref, why=why, remedy="run again when nobody writes there: the ref is resolved anew"
    )


@contextmanager
def _opened(root: Path, parts: tuple[str, ...], ref: str, flags: int) -> Iterator[int]:
    """The descriptor of root/parts…; no component below the root is followed when it is a link."""
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if parts else flags))
    try:
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            # O_NONBLOCK: a fifo put in a file's place must not block the open; it has no effect on files
            wanted = flags | os.O_NONBLOCK if last else os.O_DIRECTORY
            try:
                inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | wanted, dir_fd=descriptor)
            except OSError:
                if stat.S_ISLNK(os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    link = "/".join(parts[: index + 1])
                    why = "it may lead out of the hub"
                    raise Refused(f"{link!r} is a symbolic link", where=ref, why=why, remedy="put the files themselves there") from None
                raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _failures(where: str) -> Iterator[None]:
    """Name the operating system's errors: the hub is somebody else's volume, not the yard's."""
    try:
        yield
    except Failure:
        raise
    except FileNotFoundError as error:
        raise Corrupt("it vanished after it was listed", where=where, remedy="run again: the ref is resolved anew") from error
    except PermissionError as error:
        raise NoPermission("it may not be read", where=where, why=error.strerror or "", remedy="let this user read the hub's folder") from error
    except OSError as error:
        raise Unavailable(
            "the hub's folder cannot be read", where=where, why=error.strerror or str(error), remedy="look at the volume, then run again"
        ) from error
