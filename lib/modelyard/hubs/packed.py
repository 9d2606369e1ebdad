r"""Files as one stream of bytes: how a folder travels to where no folder is shared, such as a yard on a cluster.

    {"format": "modelyard-files/1", "source": "…", "files": [["path", size, sha256 or null], …]}\n
    the bytes of the files, in that order

The list comes first, so that names are checked, and files chosen, before a byte is kept; and a stream that breaks off cannot be taken for a whole
one, as the archive of a smaller folder could. Nothing but names, sizes and contents travels: no links, owners, modes or times.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from modelyard.errors import Corrupt, Failure, Usage
from modelyard.hubs.hub import Reader
from modelyard.hubs.listing import HubFile, Listing
from modelyard.refs import PathRef, RefKind
from modelyard.yard import Artifact, files

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

FORMAT = "modelyard-files/1"

_HEAD = files.MAX_READ
"""Bytes of the longest list that is read."""

Open = Callable[[str], BinaryIO | None]


def pack(listing: Listing, chosen: Iterable[HubFile], reader: Reader) -> Iterator[bytes]:
    """The chosen files of a listing, as a stream."""
    listed = list(chosen)
    yield _head(str(listing.ref), listed)
    for file in listed:
        yield from _exactly(file, reader.read(listing, file))


def pack_artifact(artifact: Artifact) -> Iterator[bytes]:
    """An artifact's files, with their hashes, as a stream; its source is the digest."""
    listed = [HubFile(entry.path, entry.size, entry.sha256, "") for entry in artifact.files]
    yield _head(artifact.digest, listed)
    for file in listed:
        yield from _exactly(file, files.chunks(artifact.path / file.path, file.size))


def stream(chunks: Iterable[bytes]) -> BinaryIO:
    """The chunks as a file that can be read once; a read gives what there is, and does not wait for as much as it may take."""
    return cast(BinaryIO, _Chunks(iter(chunks)))


class Unpacker(io.BufferedIOBase):
    """Takes a stream in pieces of any size, and writes its files where it is told to.

    begin: called once with what is to come (checked); gives what opens a file for writing by its path, or None for one that is passed over. Files
    are opened in their order, each after the one before was closed. progress: gets the number of bytes of each piece.
    """

    def __init__(self, begin: Callable[[Listing], Open], kind: RefKind = "dataset", progress: Callable[[int], object] = lambda _: None) -> None:
        """kind: what the stream holds, where a listing has to say so."""
        super().__init__()
        self._begin = begin
        self._kind: RefKind = kind
        self._progress = progress
        self._head = bytearray()
        self._coming: Iterator[HubFile] | None = None
        self._open: Open = lambda _: None
        self._file: HubFile | None = None
        self._target: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._left = 0

    @property
    def whole(self) -> bool:
        """Whether everything has come: who reads from a peer that cannot close its side stops here."""
        return self._coming is not None and self._file is None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Take the next piece.

        Raises Usage: this is no such stream; Refused: a name or a size is not acceptable; Corrupt: too much comes, or other bytes than named.
        """
        view = memoryview(data).cast("B")
        count = len(view)
        if self._coming is None:
            view = self._listed(view)
        while view:
            if not self._left:
                raise Corrupt("more comes than the list of files says", where=FORMAT, remedy=_AGAIN)
            piece, view = view[: self._left], view[self._left :]
            self._take(piece)
        return count

    def finish(self) -> None:
        """Say that nothing more comes. Raises Corrupt when it is not all there."""
        if not self.whole:
            missing = f"{self._left} bytes of {self._file.path!r} are missing" if self._file else "not even the list of its files is whole"
            raise Corrupt("the stream of files broke off", where=FORMAT, why=missing, remedy=_AGAIN)

    def _listed(self, view: memoryview) -> memoryview:
        """Take the list of files; what of the view comes after it."""
        head, end, _ = bytes(view).partition(b"\n")
        self._head += head
        if len(self._head) > _HEAD or not self._head.startswith(b'{"'[: len(self._head)]):
            raise _no_stream("it does not begin with a list of files")
        if not end:
            return memoryview(b"")
        try:
            tree = json.loads(self._head)
            if tree["format"] != FORMAT:
                raise _no_stream(f"its format is {tree['format']!r}")
            listed = tuple(HubFile(str(path), int(size), None if sha256 is None else str(sha256), "") for path, size, sha256 in tree["files"])
            source = str(tree["source"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise _no_stream("its list of files cannot be read") from error
        self._open = self._begin(Listing(PathRef(source), self._kind, "", listed))
        self._file, self._coming = listed[0], iter(listed)
        self._advance()
        return view[len(head) + 1 :]

    def _take(self, piece: memoryview) -> None:
        if self._target and self._file:
            with files.failures(Path(self._file.path)):
                self._target.write(piece)
            if self._file.sha256:
                self._hash.update(piece)
        self._left -= len(piece)
        self._progress(len(piece))
        if not self._left:
            self._advance()

    def _advance(self) -> None:
        """End the present file, which is whole, and go to the next; over empty ones at once."""
        while not self.whole and not self._left:
            self._end()
            self._file = next(self._coming or iter(()), None)
            if self._file:
                self._left, self._target, self._hash = self._file.size, self._open(self._file.path), hashlib.sha256()

    def _end(self) -> None:
        if not self._target or not self._file:
            return
        with files.failures(Path(self._file.path)):
            self._target.close()
        self._target = None
        if self._file.sha256 not in (None, self._hash.hexdigest()):
            remedy = "look for what is wrong with it: modelyard yard verify"
            raise Corrupt(f"{self._file.path!r} is not what it was", why=f"its sha256 is {self._hash.hexdigest()}", remedy=remedy)


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        with memoryview(buffer).cast("B") as target:
            count = min(len(target), len(self._rest))
            target[:count], self._rest = self._rest[:count], self._rest[count:]
            return count


def into_folder(folder: Path) -> Open:
    """Opens files below a folder of this user's own; names are checked already, and nothing there is replaced."""

    def open_(path: str) -> BinaryIO:
        target = folder / path
        with files.failures(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            return target.open("xb")

    return open_


def _head(source: str, listed: list[HubFile]) -> bytes:
    # every character beyond ASCII is escaped: half a surrogate in the name of a folder on this machine travels as well
    return json.dumps({"format": FORMAT, "source": source, "files": [[file.path, file.size, file.sha256] for file in listed]}).encode() + b"\n"


def _exactly(file: HubFile, chunks: Iterable[bytes]) -> Iterator[bytes]:
    left = file.size
    for chunk in chunks:
        left -= len(chunk)
        if left >= 0:
            yield chunk
    if left:
        raise Corrupt(f"{file.path!r} is not as long as it was", why=f"{file.size - left} bytes instead of {file.size}", remedy="run again")


def _no_stream(why: str) -> Failure:
    return Usage("this is no stream of files", where=FORMAT, why=why, remedy="`modelyard yard get ARTIFACT -` writes one")


_AGAIN = "run the command again"
