"""Leases: advice that somebody is already at work on something (a download), so that others may wait instead of doing it too.

    leases/<name>.<generation>       the holder's token, then a dot for each heartbeat

Nothing is correct because of a lease; two who hold one at the same time only move more bytes. A lease has expired when its file did not change
for TIME_TO_LIVE on the observer's own monotonic clock, so that no clock is compared with another machine's. Taking over is O_EXCL of the next
generation. Where leases cannot be written, everybody gets one that does nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelyard.errors import Failure
from modelyard.yard import files
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import check_name

TIME_TO_LIVE = 10.0
"""Seconds without a heartbeat after which a lease has expired: after a kill, the others' wait. The holder beats several times as often."""


class Lease:
    """A lease that this process holds, or (without a path) one that does nothing. Its methods never fail: it is advice."""

    def __init__(self, path: Path | None) -> None:
        """path: the generation's file."""
        self._path = path

    def beat(self) -> bool:
        """Say that the holder is alive; False where the lease was lost or cannot be written. Any thread may call it."""
        with suppress(Failure):
            return self._path is not None and files.append(self._path, b".", new=False)
        return False

    def release(self) -> None:
        """Let go."""
        if self._path:
            with suppress(Failure):
                files.remove(self._path)


class Leases:
    """`yard.leases`; remembers what it saw of others' leases, so that asking again is how one waits for their end."""

    def __init__(self, layout: Layout, clock: Callable[[], float]) -> None:
        """clock: monotonic seconds."""
        self._layout = layout
        self._folder = layout.root / "leases"
        self._clock = clock
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def acquire(self, name: str) -> Lease | None:
        """The lease of that name if it is free or has expired, None while somebody live holds it."""
        check_name(name, "lease")
        if not self._layout.write:
            return Lease(None)
        try:
            generation = max(self._generations(name), default=0)
            if self._held(self._path(name, generation)):
                return None
            path = self._path(name, generation + 1)  # of the one that was watched, not of one that came meanwhile
            if not files.create(path, secrets.token_hex(8).encode()):
                return None  # somebody else took over what has expired
            with suppress(Failure):
                files.remove(self._path(name, generation))
            return Lease(path)
        except Failure:
            return Lease(None)

    def end(self, name: str) -> None:
        """Remove the lease of that name, whoever holds it: what it was for is done."""
        with suppress(Failure):
            for generation in self._generations(check_name(name, "lease")):
                files.remove(self._path(name, generation))

    def _held(self, path: Path) -> bool:
        """Whether the lease is there and has changed within its time to live, as far as it was watched."""
        content, now = files.read(path), self._clock()
        if content is None:
            return False
        if path not in self._seen or self._seen[path][0] != content:
            self._seen[path] = content, now
        return now - self._seen[path][1] <= TIME_TO_LIVE

    def _generations(self, name: str) -> list[int]:
        found = (entry.rpartition(".") for entry in files.names(self._folder))
        return [int(generation) for stem, _, generation in found if stem == name and generation.isdecimal() and len(generation) < 18]

    def _path(self, name: str, generation: int) -> Path:
        return self._folder / f"{name}.{generation}"
