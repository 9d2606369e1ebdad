"""Content by its sha256: hashed while it comes, and kept only when it is what it was announced as.

blobs/<sha256>        whole, synced, never changed
incoming/…            on its way; what is left there of uploads that never ended is swept by age
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from modelyard.errors import Corrupt, Failure
from modelyard.yard import files
from modelyard.yard.manifest import check_digest

FOLDER = "blobs"
LEFTOVER_AGE = 86_400.0
"""Seconds after which an upload that was never finished is removed."""


class Blobs:
    """The contents below one folder."""

    def __init__(self, own: Path) -> None:
        self._own = own

    def size(self, sha256: str) -> int | None:
        """Bytes of a content, None where it is not stored. Raises Usage: that is no sha256."""
        found = files.status(self._own / FOLDER / check_digest(sha256))
        return found.st_size if found else None

    def put(self, stream: Iterable[bytes], sha256: str, size: int | None = None) -> None:
        """Store content. Raises Corrupt where it does not have that hash or that size."""
        with self.upload(sha256, size) as upload:
            for chunk in stream:
                upload.write(chunk)
            upload.finish()

    def upload(self, sha256: str, size: int | None = None) -> Upload:
        """Content that comes piece by piece: `write` and, at the end, `finish`."""
        return Upload(self._own, check_digest(sha256), size)

    def sweep(self) -> None:
        """Remove what uploads that never ended have left, once it is old."""
        folder = self._own / "incoming"
        for name in files.names(folder):
            found = files.status(folder / name)
            if found and files.volume_time(folder) - found.st_mtime > LEFTOVER_AGE:
                files.remove(folder / name)


class Upload:
    """Content on its way into the store. What is not finished leaves nothing."""

    def __init__(self, own: Path, sha256: str, size: int | None) -> None:
        """Use `Blobs.upload`."""
        self._folder, self._name, self._expected, self._size = own / "incoming", f"{sha256[:16]}.{secrets.token_hex(8)}", sha256, size
        self._target = own / FOLDER / sha256
        files.make_folders(self._folder)
        self._file = files.NewFile(self._folder, PurePosixPath(self._name))
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        with suppress(Failure):  # what ended the upload says more; the sweep comes again
            files.remove(self._folder / self._name)

    def write(self, data: bytes) -> None:
        """Take the next piece. Raises Corrupt where it is more than was said; NoSpace."""
        self._written += len(data)
        if self._size is not None and self._written > self._size:
            raise self._wrong(f"more than the {self._size} bytes that were announced")
        self._file.write(data)

    def finish(self) -> None:
        """Put the content in place, durably. Raises Corrupt where it is not the content that was announced."""
        if self._size not in (None, self._written):
            raise self._wrong(f"{self._written} bytes instead of {self._size}")
        if self._file.sha256 != self._expected:
            raise self._wrong(f"its sha256 is {self._file.sha256}")
        self._file.close()
        files.sync(self._folder / self._name, files.FILE_MODE)
        files.make_folders(self._target.parent)
        files.rename(self._folder / self._name, self._target)
        files.sync(self._target.parent)

    def _wrong(self, why: str) -> Corrupt:
        return Corrupt("the upload is not what it should be", where=self._expected, why=why, remedy="upload it again")
