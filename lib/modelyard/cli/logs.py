"""The log lines of a run, each once, in the order in which they were written, as far as the steps' own clocks tell it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
        fields = " ".join(f"{key}={_short(value)}" for key, value in self.entry.items() if key not in _OWN and value not in ("", None))
        level = "" if self.entry.get("level") in (None, "info") else f"{self.entry['level']}: "
        text = f"{str(self.entry.get('at', ''))[11:19]} {level}{self.entry.get('event', '')}" + (f"  {fields}" if fields else "")
        if self.entry.get("traceback"):
            text += "\n" + str(self.entry["traceback"]).rstrip("\n")
        prefix = f"{self.step:<{width}} | " if width else ""
        return "\n".join(prefix + part for part in text.split("\n"))


class Tail:
    """Reads what is new in the logs of a run's steps, or of one of them; a line that is not whole yet waits for the next time."""

    def __init__(self, run: Run, step: str | None) -> None:
        self._run = run
        self._step = step
        self._read: dict[str, int] = {}
        self._seq: dict[str, int] = {}

    def poll(self) -> list[Line]:
        """New lines, sorted by time over all steps."""
        steps = [self._step] if self._step else list(self._run.status().steps)
        lines = [line for step in steps for attempt in self._run.attempts(step) for line in self._new(attempt)]
        return sorted(lines, key=lambda line: str(line.entry.get("at", "")))

    def _new(self, attempt: Attempt) -> list[Line]:
        try:
            with attempt.log.open("rb") as file:
                file.seek(self._read.get(attempt.id, 0))
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read[attempt.id] = self._read.get(attempt.id, 0) + len(whole)
        found = []
        for text in whole.splitlines():
            try:
                entry = json.loads(text)
            except ValueError:
                continue  # torn by a kill
            if isinstance(entry, dict) and isinstance(entry.get("seq"), int) and entry["seq"] > self._seq.get(attempt.id, 0):
                self._seq[attempt.id] = entry["seq"]
                found.append(Line(attempt.step, attempt.number, entry))
        return found


def _short(value: Any) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text else text
