"""Staging: a folder private to one attempt, in which an artifact or a checkpoint grows until it is whole.

    staging/<attempt>.<random>/files/      becomes artifacts/<digest>/ or checkpoints/<key>/<attempt>/<name>/ by one rename

What a killed attempt leaves here is swept by gc; nobody ever takes over another's staging.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Self, cast

from modelyard.errors import Failure
from modelyard.yard import files
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import FILES, check_name, check_paths


class Staging:
    """One staging folder; as a context manager it drops what was not committed."""

    def __init__(self, layout: Layout, attempt: str) -> None:
        """Make the folder."""
        self.folder = layout.target("staging", f"{check_name(attempt, 'attempt')}.{secrets.token_hex(6)}")
        self.files: Path = self.folder / FILES
        self._written: dict[str, files.NewFile] = {}
        try:
            files.make_folders(self.files)
        except Failure:
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
        """Remove the folder with all that is in it; after a commit there is nothing left to remove. What resists is left to gc."""
        with suppress(Failure):
            files.remove_tree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.drop()
