"""Starting a run, or joining the one that is there: the same pipeline is one run at a time.

A run is named by its validated pipeline. One that is live is joined; one that has ended, in any way, is followed by the next number, and what
it had finished is reused.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.document import Document
from modelyard.errors import Interrupted, TimedOut, Yielded
from modelyard.run.handlers import handling
from modelyard.run.local import Local
from modelyard.run.pipeline import Driver, Signals, first_status
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline, from_document
from modelyard.yard import Yard
from modelyard.yard.runs import LIVE_WINDOW, Run, RunState, RunStatus, StepState


def start(pipeline: Pipeline, settings: Settings, view: View) -> RunStatus:
    """Drive a run of the pipeline in this process, or watch the one that is live, to its end.

    Ctrl-C and SIGTERM stop the steps, which keep what they have; Ctrl-C twice ends them at once. While watching they end the watching only.
    """
    yard, run, ours = _claim(pipeline, settings, view)
    unheeded = "; --force is not heeded, since it has begun" if settings.force else ""
    view.begun(run.id, "" if ours else f"it is running already; watching it{unheeded}")
    return _drive(run, pipeline, yard, settings, view) if ours else attach(run, view)


def start_detached(pipeline: Pipeline, settings: Settings) -> str:
    """Drive a run of the pipeline in a background process, or find the one that is live; its name."""
    yard, run, ours = _claim(pipeline, settings, View())
    if ours:
        command = [sys.executable, "-m", "modelyard.run", str(yard.root), run.id]
        with (run.path / "driver.txt").open("ab") as output:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)  # our own module
    return run.id


def attach(run: Run, view: View, timeout: float | None = None) -> RunStatus:
    """Watch a run that somebody else drives, to its end.

    Raises TimedOut after `timeout` seconds. A run whose heartbeat stands still has crashed: its status then says so.
    """
    began = moved = time.monotonic()
    heartbeat, shown = b"", None
    while True:
        status = run.status()
        if status != shown:
            shown = status
            view.changed(status)
        if status.state is not RunState.RUNNING:
            return status
        for name, step in status.steps.items():
            progress = run.attempt(name, step.attempt).progress() if step.state is StepState.RUNNING else None
            if progress:
                view.progress(name, progress)
        now, beat = time.monotonic(), run.heartbeat()
        if beat != heartbeat:
            heartbeat, moved = beat, now
        elif now - moved >= LIVE_WINDOW:
            return _crashed(run)
        if timeout is not None and now - began >= timeout:
            raise TimedOut(f"{run.id} is still running after {timeout:g} s", remedy=f"modelyard wait {run.id}")
        time.sleep(0.2)


def _claim(pipeline: Pipeline, settings: Settings, view: View) -> tuple[Yard, Run, bool]:
    """The yard, and the run in it to drive, or to watch: (yard, run, whether it is ours to drive)."""
    settings.check(pipeline)
    yard = Yard.open(settings.yard)
    prefix = f"{pipeline.name}-{pipeline.digest[:10]}"
    while True:
        runs = yard.runs.named(prefix)
        last = runs[-1] if runs else None
        if last and last.status().state is RunState.RUNNING:
            view.note(f"{last.id} has not ended; looking whether its driver lives (at most {LIVE_WINDOW:g} s)")
            if last.live():
                return yard, last, False
            if last.status().state is RunState.RUNNING:
                last.write_status(_crashed(last))
        number = int(last.id.rpartition("-r")[2]) + 1 if last else 1
        run_id = f"{prefix}-r{number}"
        run = yard.runs.create(run_id, {"pipeline": pipeline.to_dict(), "settings": settings.told()}, first_status(run_id, pipeline))
        if run:
            return yard, run, True


def _drive(run: Run, pipeline: Pipeline, yard: Yard, settings: Settings, view: View) -> RunStatus:
    signals = Signals()
    with _listening(signals, view):
        return Driver(run, pipeline, yard, Local(run), settings, view, signals).drive()


@contextmanager
def _listening(signals: Signals, view: View) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into the driver's flags for a while; only the main thread may."""

    def on_term(*_: object) -> None:
        signals.stop = True

    def on_interrupt(*_: object) -> None:
        if signals.stop:
            signals.kill = True
            return
        signals.stop, signals.by = True, Interrupted
        view.note("stopping: steps keep what they have; the same command goes on (Ctrl-C again ends them at once)")

    with handling({signal.SIGTERM: on_term, signal.SIGINT: on_interrupt}):
        yield


def _crashed(run: Run) -> RunStatus:
    """The status of a run whose driver is gone."""
    return run.status().over(RunState.STOPPED, Yielded.exit_code, f"the driver is gone: its heartbeat stood still for {LIVE_WINDOW:g} s")


def main(root: str, name: str) -> int:
    """Drive, in the background, a run that has been made; the exit code is the run's."""
    yard = Yard.open(Path(root))
    run = yard.runs.get(name)
    spec = run.spec()
    told = spec["settings"]
    settings = Settings(yard.root, told["hubs"], told["jobs"], frozenset(told["force"]))
    return _drive(run, from_document(Document("spec.json", spec["pipeline"], {})), yard, settings, View()).exit_code or 0
