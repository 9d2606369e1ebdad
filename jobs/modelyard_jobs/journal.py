"""A step's log: one JSON object a line with a sequence number, to the yard and to stdout alike.

The sequence number starts at 1 in each attempt, so that whoever follows both, or reconnects, prints every line once. No line holds a token, whoever
wrote it.
"""

from __future__ import annotations

import json
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from modelyard.hubs.credentials import redact_all
from modelyard.yard.runs import Progress

RATE_OVER = 30
"""Progress messages over which a rate is taken: the pace of now, not the mean since a slow start."""


class Journal:
    """Writes the lines of one attempt."""

    def __init__(self, *to: Callable[[bytes], None]) -> None:
        self._to = to
        self._seq = 0
        self._seen: deque[tuple[float, int, str]] = deque(maxlen=RATE_OVER)
        self._told = 0.0

    def write(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """One line."""
        self._seq += 1
        head = {"seq": self._seq, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", "level": level, "event": event}
        line = json.dumps(redact_all({**head, **fields, **head})).encode() + b"\n"
        for write in self._to:
            write(line)

    def traceback(self) -> None:
        """The exception that is being handled, as a line."""
        self.write("traceback", level="error", traceback=traceback.format_exc())

    def progress(self, done: int, total: int | None, unit: str) -> Progress:
        """Progress with its rate and the time left; a line of it at most every two seconds and at the end."""
        now = time.monotonic()
        if self._seen and (self._seen[-1][2] != unit or self._seen[-1][1] > done):
            self._seen.clear()  # another phase
        self._seen.append((now, done, unit))
        seconds, units = now - self._seen[0][0], done - self._seen[0][1]
        rate = units / seconds if seconds > 0 and units > 0 else None
        left = (total - done) / rate if total is not None and rate else None
        if now - self._told >= 2 or done == total:
            self._told = now
            self.write("progress", done=done, total=total, unit=unit, rate=rate and round(rate, 2), left=left and round(left, 1))
        return Progress(done=done, total=total, unit=unit, rate=rate, left=left)
