"""Checkpoints: what an attempt has done so far, kept whole for the next attempt of the same key.

    checkpoints/<key>/<attempt>/<name>/{files/, manifest.json}

A checkpoint is sealed in staging and renamed into place; nothing under its name is ever half written by us. A crash of the machine or of the
volume can still tear one, so every byte is hashed before it is resumed from, and a torn one is skipped in favour of the one before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from modelyard.errors import Corrupt, VolumeFailed
from modelyard.yard import files, manifest
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import FILES, check_digest
from modelyard.yard.staging import Staging, check_name

_ROUNDS = 5  # another attempt that clears the same key may take our folder away between two operations


class Checkpoints:
    """The checkpoints of one key, as one attempt of it sees and adds to them. skipped: what `furthest` and `whole` found torn, with reasons."""

    def __init__(self, layout: Layout, key: str, attempt: str) -> None:
        """Bind to a layout, a key (64 hex digits) and an attempt."""
        self._layout = layout
        self._folder = layout.root / "checkpoints" / check_digest(key)
        self._attempt = check_name(attempt, "attempt")
        self.skipped: list[str] = []

    def save(self, name: str, fill: Callable[[Path], Mapping[str, str] | None]) -> Path:
        """Keep a checkpoint, in place of one of this attempt that has the name; gives the folder of its files.

        fill: writes files into the folder that it is given; it may return the sha256 of those that it hashed already, by path.
        """
        check_name(name, "checkpoint")
        with Staging(self._layout, self._attempt) as staging:
            with files.failures(staging.files):
                known = fill(staging.files)
            manifest.seal(staging.folder, "checkpoint", None, known or {})
            target = self._folder / self._attempt / name
            for _ in range(_ROUNDS):
                files.make_folders(target.parent)
                match files.rename(staging.folder, target):
                    case "done":
                        files.sync_folder(target.parent)
                        return target / FILES
                    case "taken":
                        self._remove(self._attempt, name)
            raise VolumeFailed("a checkpoint cannot be put in place", where=str(target), remedy="run again")

    def furthest(self, prefix: str = "step-") -> tuple[int, Path] | None:
        """Number and files of the whole checkpoint `<prefix><number>` with the highest number, of any attempt."""
        for number, attempt, name in sorted(self._numbered(prefix), reverse=True):
            if found := self._whole(attempt, name):
                return number, found
        return None

    def whole(self, name: str) -> Path | None:
        """Files of the checkpoint of that name, of this attempt or else of any, every byte checked; None where none is whole."""
        check_name(name, "checkpoint")
        attempts = [attempt for attempt, saved in self.attempts().items() if name in saved]
        for attempt in sorted(attempts, key=lambda attempt: attempt != self._attempt):
            if found := self._whole(attempt, name):
                return found
        return None

    def mine(self) -> list[str]:
        """Names of this attempt's checkpoints."""
        return files.names(self._folder / self._attempt)

    def attempts(self) -> dict[str, list[str]]:
        """Names of the checkpoints by attempt, also of attempts of other runs."""
        return {attempt: files.names(self._folder / attempt) for attempt in files.names(self._folder)}

    def prune(self, keep: int = 2, prefix: str = "step-") -> None:
        """Remove what this attempt has left behind by `keep` checkpoints of its own, other attempts' included: nobody would resume from those."""
        mine = sorted(number for number, attempt, _ in self._numbered(prefix) if attempt == self._attempt)
        if len(mine) >= keep:
            for number, attempt, name in self._numbered(prefix):
                if number < mine[-keep]:
                    self._remove(attempt, name)

    def clear(self) -> None:
        """Remove all checkpoints of the key: its artifact is committed."""
        for attempt, saved in self.attempts().items():
            for name in saved:
                self._remove(attempt, name)
            files.remove_folder(self._folder / attempt)
        files.remove_folder(self._folder)

    def _numbered(self, prefix: str) -> list[tuple[int, str, str]]:
        pattern = re.compile(re.escape(prefix) + r"(\d{1,18})")
        return [(int(match[1]), attempt, name) for attempt, saved in self.attempts().items() for name in saved if (match := pattern.fullmatch(name))]

    def _whole(self, attempt: str, name: str) -> Path | None:
        folder = self._folder / attempt / name
        try:
            loaded = manifest.load(folder)
            problems = ["manifest.json: missing"] if loaded is None else manifest.problems(folder, loaded, rehash=True)
        except Corrupt as error:
            problems = [error.what]
        if problems:
            self.skipped.append(f"{attempt}/{name}: {problems[0]}")
            return None
        return folder / FILES

    def _remove(self, attempt: str, name: str) -> None:
        """Remove one: out of sight first, so that nobody finds it half removed."""
        with Staging(self._layout, self._attempt) as doomed:
            files.rename(self._folder / attempt / name, doomed.folder / name)
