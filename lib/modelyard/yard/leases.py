"""Leases: advice that somebody is already at work on something (a download), so that others may wait instead of doing it too.

    leases/<name>.<generation>       time to live in seconds, the holder's token, a count of heartbeats

Nothing is correct because of a lease; two who hold one at the same time only move more bytes. A lease has expired when its file did not change
for its time to live on the observer's own monotonic clock, so that no clock is compared with another machine's. Taking over is O_EXCL of the
next generation. Where leases cannot be written, everybody gets one that does nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from modelyard.errors import Failure
from modelyard.yard import files
from modelyard.yard.layout import Layout
from modelyard.yard.staging import check_name

TIME_TO_LIVE = 30
"""Seconds without a heartbeat after which a lease has expired; the holder beats several times as often."""

State = Literal["free", "held", "expired"]

_LONGEST = 3600


@dataclass(frozen=True)
class _Seen:
    generation: int
    content: bytes
    since: float


class Lease:
    """A lease that this process holds, or (without a path) one that does nothing. Its methods never fail: it is advice."""

    def __init__(self, path: Path | None, time_to_live: int = TIME_TO_LIVE) -> None:
        """path: the generation's file, not made yet."""
        self._path = path
        self._token = secrets.token_hex(8)
        self._beats = 0
        self.time_to_live = time_to_live

    def content(self) -> bytes:
        """What the file holds at this beat; always the same length, so that it can be written over."""
        return f"{self.time_to_live} {self._token} {self._beats:012d}\n".encode()

    def beat(self) -> bool:
        """Say that the holder is alive; False where the lease was lost or cannot be written. Any thread may call it."""
        self._beats += 1
        with suppress(Failure):
            return self._path is not None and files.overwrite(self._path, self.content())
        return False

    def release(self) -> None:
        """Let go."""
        if self._path:
            with suppress(Failure):
                files.remove(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class Leases:
    """`yard.leases`; remembers what it saw of others' leases, so that asking again is how one waits for their end."""

    def __init__(self, layout: Layout, clock: Callable[[], float]) -> None:
        """clock: monotonic seconds."""
        self._layout = layout
        self._folder = layout.root / "leases"
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def acquire(self, name: str, time_to_live: int = TIME_TO_LIVE) -> Lease | None:
        """The lease of that name if it is free or has expired, None while somebody live holds it."""
        check_name(name, "lease")
        if not self._layout.write:
            return Lease(None)
        try:
            state, generation = self._look(name)
            if state == "held":
                return None
            path = self._path(name, generation + 1)
            lease = Lease(path, time_to_live)
            if not files.create(path, lease.content()):
                return None  # somebody else took over what has expired
        except Failure:
            return Lease(None)
        with suppress(Failure):
            files.remove(self._path(name, generation))
        return lease

    def end(self, name: str) -> None:
        """Remove the lease of that name, whoever holds it: what it was for is done."""
        with suppress(Failure):
            for generation in self._generations(check_name(name, "lease")):
                files.remove(self._path(name, generation))

    def watch(self, name: str) -> State:
        """What can be said of a lease now; "expired" only after it was watched for its time to live."""
        return self._look(check_name(name, "lease"))[0]

    def _look(self, name: str) -> tuple[State, int]:
        """The state, and the generation that has it: a takeover has to be of the one that was watched, not of one that came meanwhile."""
        generation = max(self._generations(name), default=0)
        content = files.read(self._path(name, generation)) if generation else None
        if content is None:
            self._seen.pop(name, None)
            return "free", generation
        seen, now = self._seen.get(name), self._clock()
        if seen is None or (seen.generation, seen.content) != (generation, content):
            self._seen[name] = seen = _Seen(generation, content, now)
        return ("expired" if now - seen.since > _time_to_live(content) else "held"), generation

    def _generations(self, name: str) -> list[int]:
        found = (entry.rpartition(".") for entry in files.names(self._folder))
        return [int(generation) for stem, _, generation in found if stem == name and generation.isdecimal() and len(generation) < 18]

    def _path(self, name: str, generation: int) -> Path:
        return self._folder / f"{name}.{generation}"


def _time_to_live(content: bytes) -> int:
    """What the holder wrote, within reason: the file may be torn or foreign."""
    first = content[:8].split(b" ")[0]
    return min(max(int(first), 1), _LONGEST) if first.isdigit() else TIME_TO_LIVE
