"""What a step's work is given, and what it gives back.

The work runs in a child process of the frame (frame.py). Everything that it says (log lines, progress, decisions, facts) goes to the frame as
one JSON object a line; the frame numbers it, keeps it, and commits what the work left in `out`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from modelyard.errors import Yielded
from modelyard.steps import Kind
from modelyard.yard import Artifact, Checkpoints, Yard

Send = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Produced:
    """What the work made: the files in `out`, or an artifact that somebody else committed meanwhile.

    kind: None where the step makes no artifact; what it found or did is what it told by `Context.result`.

    known: relative path -> sha256 of files that were hashed while they were written.
    """

    kind: Kind | None = None
    format: str | None = None
    known: Mapping[str, str] = field(default_factory=dict)
    existing: str | None = None


class Stop:
    """Whether the step was asked to stop (SIGTERM).

    Work that can stop anywhere need not look: the signal raises Yielded where it stands. Work that has something to keep looks at
    `requested` between its units, inside `polled()`, or all the time (`polled=True`). Who is asked again is not disturbed in obeying.
    """

    def __init__(self, *, polled: bool = False) -> None:
        self.requested = False
        self._polled = int(polled)

    def install(self) -> None:
        """Take SIGTERM; leave SIGINT to the driver, which turns it into SIGTERM for its steps."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Inside, the signal only sets `requested`; whoever leaves without having obeyed it is stopped at the end."""
        self._polled += 1
        try:
            yield
        finally:
            self._polled -= 1
        if not self._polled:
            self.check()

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """Inside, the signal raises Yielded where it finds the work, for a part that has nothing to keep in work that is otherwise polled."""
        polled = self._polled
        try:
            self._polled = 0
            self.check()
            yield
        finally:
            self._polled = polled
        self.check()

    def check(self) -> None:
        """Raise Yielded when the step was asked to stop; for work whose pieces are already kept."""
        if self.requested:
            raise Yielded("asked to stop", remedy="the same command goes on from here")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if not self._polled and not again:
            raise Yielded("asked to stop", remedy="the same command starts over: there was nothing to keep yet")


@dataclass(kw_only=True, eq=False)
class Context:
    """One attempt at one step, as the work sees it."""

    settings: Any
    """The step's settings (modelyard.steps)."""
    inputs: Mapping[str, Artifact]
    """Settings field -> artifact."""
    out: Path
    """Empty private folder in the yard's staging; what is in it at the end becomes the artifact."""
    scratch: Path
    """Private folder outside the yard for caches; removed at the end."""
    yard: Yard
    key: str
    run: str
    """The run's name: `yard.runs.get(run).spec()` is the whole pipeline, and what its refs resolved to."""
    attempt: str
    device: str
    """Name of the device in torch: cpu, cuda."""
    threads: int
    """Threads that the process may keep busy."""
    listing: Any
    """Fetch only: the Listing that the ref was resolved to."""
    forced: bool = False
    """Whether the step is to be done although its result may be known."""
    hubs: Mapping[str, str]
    stop: Stop
    send: Send

    def __post_init__(self) -> None:
        self.checkpoints: Checkpoints = self.yard.checkpoints(self.key, self.attempt)
        self.log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[structlog.processors.format_exc_info, self._log], wrapper_class=structlog.make_filtering_bound_logger(10)
        )
        self._progressed = 0.0

    def progress(self, done: int, total: int | None, unit: str) -> None:
        """Say how far the work is. Cheap: all but five a second are dropped, the last one never."""
        now = time.monotonic()
        if now - self._progressed >= 0.2 or done == total:
            self._progressed = now
            self.send({"type": "progress", "done": done, "total": total, "unit": unit})

    def decide(self, name: str, value: Any, reason: str) -> None:
        """Keep an automatic choice with its reason, for the action and the report."""
        self.send({"type": "decide", "name": name, "value": value, "reason": reason})
        self.log.info("decided", name=name, value=value, reason=reason)

    def detail(self, name: str, value: Any) -> None:
        """Keep a JSON-able fact beside the result: curves, speeds, counts. Facts may differ between equal results; files may not."""
        self.send({"type": "detail", "name": name, "value": value})

    def result(self, value: Mapping[str, Any]) -> None:
        """Keep what a step that makes no artifact found or did, as JSON: it is part of the outcome, also when the step fails afterwards."""
        self.send({"type": "result", "value": value})

    def _log(self, _logger: Any, method: str, event: Mapping[str, Any]) -> Any:
        self.send({**event, "type": "log", "level": method})
        raise structlog.DropEvent
