"""How a run looks while it is followed: on a terminal a progress line per running step, otherwise plain lines. All of it goes to stderr.

Plain also with `NO_COLOR` and in CI. The result itself is printed by the command, when the run has ended.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelyard.cli.output import Output, printable, short, terminal
from modelyard.quantities import format_seconds
from modelyard.run.view import View
from modelyard.yard.runs import Progress, RunStatus, StepState, StepStatus

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

EVERY = 10.0
"""Seconds between two plain lines of progress of one step."""


@contextmanager
def view(out: Output) -> Iterator[View]:
    """The view that fits the terminal; its lines are gone when the block is left."""
    plain = out.quiet or not terminal(sys.stderr) or os.environ.get("NO_COLOR") or os.environ.get("CI")
    if plain:
        yield Plain(out.note)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[text]}"))
    with Bars(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bars:
        yield Live(bars)


class Plain(View):
    """A line for each change, and now and then one of progress; the result is the command's."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._states: dict[str, tuple[StepState, int]] = {}
        self._told: dict[str, tuple[float, int]] = {}

    def begun(self, run: str, note: str) -> None:
        """Name the run."""
        self._write(f"run {run}" + (f": {note}" if note else ""))

    def changed(self, status: RunStatus) -> None:
        """One line for each step whose state is another than it was."""
        for name, step in status.steps.items():
            if self._states.get(name, (StepState.WAITING, 0)) != (step.state, step.attempt):
                self._states[name] = (step.state, step.attempt)
                self._told[name] = (self._clock(), -1)
                self._write(f"{name}: {change(step)}")

    def progress(self, step: str, progress: Progress) -> None:
        """A line, when the last one is old enough and the step has come further since."""
        now = self._clock()
        when, done = self._told.get(step, (now, -1))
        if now - when >= EVERY and progress.done != done:
            self._told[step] = (now, progress.done)
            self._write(f"{step}: {pace(progress)}")

    def note(self, text: str) -> None:
        """The text."""
        self._write(text)


class Live(Plain):
    """A bar for each running step, below the lines of what has changed."""

    def __init__(self, bars: Bars) -> None:
        super().__init__(lambda text: bars.console.print(printable(text, keep="\n"), markup=False, highlight=False))
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def changed(self, status: RunStatus) -> None:
        """Bars for the steps that run, lines for those that changed."""
        super().changed(status)
        for name, step in status.steps.items():
            running = step.state is StepState.RUNNING
            if running and name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=None, text="")
            elif not running and name in self._tasks:
                self._bars.remove_task(self._tasks.pop(name))

    def progress(self, step: str, progress: Progress) -> None:
        """Move the bar."""
        if step in self._tasks:
            self._bars.update(self._tasks[step], completed=progress.done, total=progress.total, text=pace(progress))


def change(step: StepStatus) -> str:
    """What has become of a step, in a line."""
    text = "submitted" if step.state is StepState.RUNNING and not step.attempt else str(step.state)  # an attempt begins when its pod does
    if step.state is StepState.RUNNING and step.attempt > 1:
        text += f", attempt {step.attempt}"
    if step.state is StepState.DONE and step.seconds is not None:
        text += f" in {format_seconds(step.seconds)}"
    for more in (short(step.artifact), step.what, step.note):
        text += f": {more}" if more else ""
    return text


def pace(progress: Progress) -> str:
    """`120/376 steps, 8.1/s, 32s left`, as far as it is known."""
    parts = [f"{progress.done}" + (f"/{progress.total}" if progress.total is not None else "") + f" {progress.unit}"]
    if progress.rate is not None:
        parts.append(f"{progress.rate:.3g}/s")
    if progress.left is not None:
        parts.append(f"{format_seconds(progress.left)} left")
    return ", ".join(parts)
