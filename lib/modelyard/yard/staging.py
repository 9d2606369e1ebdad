"""Staging: a folder private to one attempt, in which an artifact or a checkpoint grows until it is whole.

    staging/<attempt>.<random>/files/      becomes artifacts/<digest>/ or checkpoints/<key>/<attempt>/<name>/ by one rename

What a killed attempt leaves here is swept by gc; nobody ever takes over another's staging.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Self, cast

from modelyard.errors import Failure, Usage
from modelyard.yard import files
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import FILES, check_paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Staging:
    """One staging folder; as a context manager it drops what was not committed."""

    def __init__(self, layout: Layout, attempt: str) -> None:
        """Make the folder."""
        self.folder = layout.target("staging", f"{check_name(attempt, 'attempt')}.{secrets.token_hex(6)}")
        self.files: Path = self.folder / FILES
        self._written: dict[str, files.NewFile] = {}
        try:
            files.make_folder(self.folder)
            files.make_folder(self.files)
        except Failure:
            with suppress(Failure):
                self.drop()
            raise

    @property
    def known(self) -> dict[str, str]:
        """sha256 by path of the files that `open` wrote and that are closed."""
        return {path: file.sha256 for path, file in self._written.items() if file.closed}

    def open(self, path: str) -> BinaryIO:
        """Start a new file at a relative path; it is hashed as it is written.

        Raises Refused: the path is unsafe, the file is there, or a link lies on the way.
        """
        check_paths([path], str(self.files))
        self._written[path] = files.NewFile(self.files, PurePosixPath(path))
        return cast(BinaryIO, self._written[path])

    def touch(self) -> None:
        """Say that the attempt is alive, so that gc leaves a staging alone whose files do not change for long."""
        files.touch(self.folder)

    def drop(self) -> None:
        """Remove the folder with all that is in it; after a commit there is nothing left to remove."""
        files.remove_tree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.drop()
        else:
            with suppress(Failure):  # the first failure says more; gc sweeps the rest
                self.drop()


def check_name(text: str, what: str) -> str:
    """`text` if it may be one component of a path in the yard; Usage otherwise."""
    if not _NAME.fullmatch(text):
        raise Usage(f"{what} {text!r} is not allowed", why="letters, digits, '.', '_' and '-', no dot first, at most 200", remedy="correct it")
    return text
