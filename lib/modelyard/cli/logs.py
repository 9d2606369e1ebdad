"""The log lines of a run, each once, in the order in which they were written, as far as the steps' own clocks tell it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from modelyard.cli.output import printable
from modelyard.yard.runs import Attempt, Run

_OWN = frozenset({"seq", "at", "level", "event", "traceback"})
"""Parts of an entry that are not shown as `key=value`."""


@dataclass(frozen=True)
class Line:
    """A line of the log of an attempt at a step. entry: what was written there."""

    step: str
    attempt: int
    entry: Mapping[str, Any]

    def text(self, width: int) -> str:
        """For people: `tuned | 12:00:01 step  loss=0.3`. width: of the longest step's name; 0: without it."""
        told = {"at": "", "level": "info", "event": "", "traceback": "", **self.entry}
        fields = "".join(f" {key}={_short(value)}" for key, value in self.entry.items() if key not in _OWN and value not in ("", None))
        level = "" if told["level"] == "info" else f"{told['level']}: "
        text = f"{told['at'][11:19]} {level}{told['event']}{' ' if fields else ''}{fields}\n{told['traceback']}"
        prefix = f"{self.step:<{width}} | " if width else ""
        return "\n".join(prefix + printable(part, keep="\t") for part in text.rstrip("\n").split("\n"))


class Tail:
    """Reads what is new in the logs of a run's steps, or of one of them; a line that is not whole yet waits for the next time."""

    def __init__(self, run: Run, step: str | None) -> None:
        self._run = run
        self._step = step
        self._read: dict[str, int] = {}

    def poll(self) -> list[Line]:
        """New lines, sorted by time over all steps."""
        steps = [self._step] if self._step else list(self._run.status().steps)
        lines = [line for step in steps for attempt in self._run.attempts(step) for line in self._new(attempt)]
        return sorted(lines, key=lambda line: str(line.entry.get("at", "")))

    def _new(self, attempt: Attempt) -> Iterator[Line]:
        with suppress(FileNotFoundError), attempt.log.open("rb") as file:
            file.seek(self._read.get(attempt.id, 0))
            for line in file:
                if line.endswith(b"\n"):
                    self._read[attempt.id] = self._read.get(attempt.id, 0) + len(line)
                    with suppress(ValueError):  # torn by a kill
                        yield Line(attempt.step, attempt.number, dict(json.loads(line)))


def _short(value: Any) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text else text
