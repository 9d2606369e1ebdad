"""Checkpoints and parts: what an attempt has done so far, kept for the next attempt of the same key.

    checkpoints/<key>/<attempt>/<name>/{files/, manifest.json}
    checkpoints/<key>/<attempt>/<index>-<size>-<sha256>          of a download: a file's first `size` bytes, synced before it got this name

A checkpoint is sealed in staging and renamed into place; nothing under its name is ever half written by us. A crash of the machine or of the
volume can still tear one, so every byte is hashed before it is resumed from, and a torn one is skipped in favour of the one before.

A download's key fixes its files and their order, so an index names one of them, and a part that is as long as its file is all of it. The names of
parts are further links to what lies in the attempt's staging; on a volume without hard links nothing is kept, which costs bandwidth alone. Only
the attempt that made a file writes to it, and only behind what it has kept: another one links to it when it is whole and copies from it while
it is not, and believes nothing that it has not hashed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelyard.errors import Corrupt, VolumeFailed
from modelyard.yard import files, manifest
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import FILES, check_digest, check_name
from modelyard.yard.staging import Staging

_PART = re.compile(r"(\d{5,6})-(\d{1,18})-([0-9a-f]{64})")
_ROUNDS = 5  # another attempt that clears the same key may take our folder away between two operations


class Checkpoints:
    """The checkpoints of one key, as one attempt of it sees and adds to them. skipped: what `furthest` and `whole` found torn, with reasons."""

    def __init__(self, layout: Layout, key: str, attempt: str) -> None:
        """Bind to a layout, a key (64 hex digits) and an attempt."""
        self._layout = layout
        self._folder = layout.root / "checkpoints" / check_digest(key)
        self._attempt = check_name(attempt, "attempt")
        self.skipped: list[str] = []

    def save(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Keep what `fill` writes into the folder that it is given, in place of what this attempt has by that name; gives the folder of its files."""
        target = self._folder / self._attempt / check_name(name, "checkpoint")
        with Staging(self._layout, self._attempt) as staging:
            with files.failures(staging.files):
                fill(staging.files)
            manifest.seal(staging.folder, "checkpoint", None, {})
            for _ in range(_ROUNDS):
                files.make_folders(target.parent)
                match files.rename(staging.folder, target):
                    case "done":
                        files.sync(target.parent)
                        return target / FILES
                    case "taken":
                        self._remove(target)
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
        # One look for each attempt: lists of names would take the square of their number, of who asks for part after part.
        attempts = [attempt for attempt in files.names(self._folder) if files.status(self._folder / attempt / name)]
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
        for number, attempt, name in self._numbered(prefix) if len(mine) >= keep else ():
            if number < mine[-keep]:
                self._remove(self._folder / attempt / name)

    def clear(self) -> None:
        """Remove all checkpoints of the key: its artifact is committed."""
        self._remove(self._folder)

    def _numbered(self, prefix: str) -> list[tuple[int, str, str]]:
        pattern = re.compile(re.escape(prefix) + r"(\d{1,18})")
        return [(int(match[1]), attempt, name) for attempt, saved in self.attempts().items() for name in saved if (match := pattern.fullmatch(name))]

    def _whole(self, attempt: str, name: str) -> Path | None:
        folder = self._folder / attempt / name
        try:
            problems = manifest.problems(manifest.load(folder), rehash=True)
        except Corrupt as error:
            problems = [error.what]
        if problems:
            self.skipped.append(f"{attempt}/{name}: {problems[0]}")
            return None
        return folder / FILES

    def _remove(self, folder: Path) -> None:
        """Remove a folder: out of sight first, so that nobody finds it half removed."""
        with Staging(self._layout, self._attempt) as doomed:
            files.rename(folder, doomed.files / "gone")


@dataclass(frozen=True)
class Part:
    """The first `size` bytes of a file, synced."""

    path: Path
    size: int
    sha256: str


class Parts:
    """The parts of one key, as one attempt at it sees and adds to them."""

    def __init__(self, layout: Layout, key: str, attempt: str) -> None:
        """Look at what other attempts have left."""
        folder = layout.target("checkpoints", check_digest(key))
        self._mine = folder / check_name(attempt, "attempt")
        self._kept: dict[int, Path] = {}
        self._others: dict[int, Part] = {}
        for path in [folder / other / name for other in files.names(folder) if other != attempt for name in files.names(folder / other)]:
            if match := _PART.fullmatch(path.name):
                index, part = int(match[1]), Part(path, int(match[2]), match[3])
                if index not in self._others or part.size > self._others[index].size:
                    self._others[index] = part

    def furthest(self, index: int) -> Part | None:
        """The part with the most bytes that another attempt left of a file."""
        return self._others.get(index)

    def keep(self, index: int, path: Path, size: int, sha256: str) -> None:
        """Keep what has been written to a file so far: `size` bytes with that sha256."""
        files.sync(path)
        files.make_folders(self._mine)
        name = self._mine / f"{index:05d}-{size}-{sha256}"
        if name != self._kept.get(index) and files.link(path, name):
            self.forget(index)
            self._kept[index] = name

    def forget(self, index: int) -> None:
        """Take back what this attempt kept of a file."""
        if index in self._kept:
            files.remove(self._kept.pop(index))

    def drop(self) -> None:
        """Take back everything that this attempt kept."""
        files.remove_tree(self._mine)
