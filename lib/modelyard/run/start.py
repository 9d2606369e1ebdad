"""Starting a run, or joining the one that is there: the same pipeline is one run at a time.

A run is named by its validated pipeline. One that is live is joined; one that has ended, in any way, is followed by the next number, and what
it had finished is reused.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.document import Document
from modelyard.errors import Interrupted, TimedOut, Yielded
from modelyard.run.local import LocalExecutor
from modelyard.run.pipeline import Driver, Signals, first_status
from modelyard.run.settings import Settings
from modelyard.run.view import Silent, View
from modelyard.spec import Pipeline, from_document
from modelyard.yard import Yard
from modelyard.yard.records import utc_now
from modelyard.yard.runs import LIVE_WINDOW, Run, RunState, RunStatus, StepState


def start(pipeline: Pipeline, settings: Settings, view: View) -> RunStatus:
    """Drive a run of the pipeline in this process, or watch the one that is live, to its end.

    Ctrl-C and SIGTERM stop the steps, which keep what they have; Ctrl-C twice ends them at once. While watching they end the watching only.
    """
    settings.check(pipeline)
    yard = Yard.open(settings.yard)
    run, ours = _claim(yard, pipeline, settings, view)
    view.begun(run.id, "" if ours else "it is running already; watching it")
    if not ours:
        return attach(run, view)
    return _drive(run, pipeline, yard, settings, view)


def start_detached(pipeline: Pipeline, settings: Settings) -> str:
    """Drive a run of the pipeline in a background process, or find the one that is live; its name."""
    settings.check(pipeline)
    yard = Yard.open(settings.yard)
    run, ours = _claim(yard, pipeline, settings, Silent())
    if ours:
        command = [sys.executable, "-m", "modelyard.run", "--yard", str(yard.root), "--run", run.id]
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
            view.ended(status)
            return status
        for name, step in status.steps.items():
            progress = run.attempt(name, step.attempt).progress() if step.state is StepState.RUNNING else None
            if progress:
                view.progress(name, progress)
        now, beat = time.monotonic(), run.heartbeat()
        if beat != heartbeat:
            heartbeat, moved = beat, now
        elif now - moved >= LIVE_WINDOW:
            crashed = _crashed(run)
            view.ended(crashed)
            return crashed
        if timeout is not None and now - began >= timeout:
            raise TimedOut(f"{run.id} is still running after {timeout:g} s", remedy=f"modelyard wait {run.id}")
        time.sleep(0.2)


def _claim(yard: Yard, pipeline: Pipeline, settings: Settings, view: View) -> tuple[Run, bool]:
    """The run to drive, or to watch: (run, whether it is ours to drive)."""
    prefix = f"{pipeline.name}-{pipeline.digest[:10]}"
    while True:
        runs = yard.runs.named(prefix)
        last = runs[-1] if runs else None
        if last and last.status().state is RunState.RUNNING:
            view.note(f"{last.id} has not ended; looking whether its driver lives (at most {LIVE_WINDOW:g} s)")
            if last.live():
                return last, False
            if last.status().state is RunState.RUNNING:
                last.write_status(_crashed(last))
        number = int(last.id.rpartition("-r")[2]) + 1 if last else 1
        run_id = f"{prefix}-r{number}"
        run = yard.runs.create(run_id, {"pipeline": pipeline.to_dict(), "settings": settings.record()}, first_status(run_id, pipeline))
        if run:
            return run, True


def _drive(run: Run, pipeline: Pipeline, yard: Yard, settings: Settings, view: View) -> RunStatus:
    signals = Signals()
    with _listening(signals, view):
        return Driver(run, pipeline, yard, LocalExecutor(yard.root), settings, view, signals).drive()


@contextmanager
def _listening(signals: Signals, view: View) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into the driver's flags for a while; Python lets only the main thread do so."""

    def on_term(*_: object) -> None:
        signals.stop = True

    def on_interrupt(*_: object) -> None:
        if signals.stop:
            signals.kill = True
            return
        signals.stop, signals.by = True, Interrupted
        view.note("stopping: steps keep what they have; the same command goes on (Ctrl-C again ends them at once)")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: list[tuple[int, Any]] = [(number, signal.signal(number, handler)) for number, handler in _handlers(on_term, on_interrupt)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _handlers(on_term: Callable[..., None], on_interrupt: Callable[..., None]) -> list[tuple[int, Callable[..., None]]]:
    return [(signal.SIGTERM, on_term), (signal.SIGINT, on_interrupt)]


def _crashed(run: Run) -> RunStatus:
    """The status of a run whose driver is gone."""
    status = run.status()
    steps = {
        name: step.model_copy(update={"state": StepState.STOPPED if step.state is StepState.RUNNING else StepState.SKIPPED})
        if step.state in (StepState.RUNNING, StepState.WAITING)
        else step
        for name, step in status.steps.items()
    }
    note = f"the driver is gone: its heartbeat stood still for {LIVE_WINDOW:g} s"
    return status.model_copy(
        update={"state": RunState.STOPPED, "exit_code": Yielded.exit_code, "ended": utc_now(), "notes": (*status.notes, note), "steps": steps}
    )


def main(argv: list[str]) -> int:
    """Drive, in the background, a run that has been made; the exit code is the run's."""
    parser = argparse.ArgumentParser(prog="modelyard.run", description="Drive a run that has been made.")
    parser.add_argument("--yard", type=Path, required=True)
    parser.add_argument("--run", required=True)
    arguments = parser.parse_args(argv)
    yard = Yard.open(arguments.yard)
    run = yard.runs.get(arguments.run)
    spec = run.spec()
    pipeline = from_document(Document("spec.json", spec["pipeline"], {}))
    status = _drive(run, pipeline, yard, Settings.from_record(spec["settings"], arguments.yard), Silent())
    return status.exit_code or 0
