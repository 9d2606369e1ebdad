"""`modelyard ls`, `show`, `logs`, `wait`, `cancel`."""

from __future__ import annotations

import json
import time
from datetime import datetime

import click

from modelyard.cli.options import duration
from modelyard.cli.run import described, settle, text
from modelyard.cli.session import Session, command, complete_runs
from modelyard.errors import NoInput
from modelyard.quantities import format_seconds
from modelyard.yard.runs import FINISHED, LIVE_WINDOW, Run, RunState, RunStatus, StepState

_LOOK = 0.3
"""Seconds between two looks at a run that is waited for."""

_NAME = "A run's name, or the beginning of one"
_RUN = click.argument("run", required=False, shell_complete=complete_runs, help=f"{_NAME}; default the latest.")


@command("ls", examples=["modelyard ls", "modelyard ls -q", "modelyard ls -o json"])
def ls(session: Session) -> None:
    """List runs, the newest first.

    A run whose driver was killed is listed as running: `show` looks for a sign of life.
    """
    items = []
    for run in session.yard().runs.list():
        status = run.status()
        done = sum(step.state in FINISHED for step in status.steps.values())
        items.append({**status.model_dump(mode="json"), "_steps": f"{done}/{len(status.steps)}", "_time": _span(status)})
    columns = {"RUN": "run", "PIPELINE": "pipeline", "STATE": "state", "STEPS": "_steps", "STARTED": "started", "TIME": "_time"}
    session.out.listing("Run", items, columns, name="run")


@command("show", examples=["modelyard show", "modelyard show movie-sentiment-1a2b -o json"])
@_RUN
def show(session: Session, run: str | None) -> None:
    """Show a run: its steps, what they made, why they failed."""
    found = find(session, run)
    live = found.live()  # before the status: a run that ends meanwhile has ended
    status = found.status()
    value = described(session, status)
    for name, step in status.steps.items():
        if step.state is StepState.RUNNING and (progress := found.attempt(name, step.attempt).progress()):
            value["steps"][name]["progress"] = progress.model_dump(mode="json")
    session.out.record("Run", {**value, "live": live}, text(value), name=status.run)
    if status.state is RunState.RUNNING and not live:
        session.out.note(gone(found))
    elif status.exit_code:
        settle(session, status)


@command("logs", examples=["modelyard logs", "modelyard logs movie-sentiment-1a2b tuned -f", "modelyard logs -o json"])
@_RUN
@click.argument("step", required=False)
@click.option("-f", "--follow", is_flag=True, help="Wait for more lines until the run has ended.")
def logs(session: Session, run: str | None, step: str | None, follow: bool) -> None:
    """Print the logs of a run.

    Without STEP, those of all steps. With -o json each line is a JSON object; what the step wrote is its `entry`.
    """
    from modelyard.cli.logs import Tail

    found = find(session, run)
    steps = found.status().steps
    if step and step not in steps:
        raise NoInput(f"{found.id} has no step {step!r}", remedy=f"its steps are {', '.join(steps)}")
    tail, width = Tail(found, step), 0 if step else max(map(len, steps), default=0)

    def look() -> None:
        as_json = session.out.format == "json"
        session.out.lines(json.dumps(vars(line), ensure_ascii=False) if as_json else line.text(width) for line in tail.poll())

    def pause(_: float) -> None:
        look()
        time.sleep(_LOOK)

    while follow and found.live(sleep=pause):
        pass
    look()  # with -f, what was written between the last look and the end
    if follow and found.status().state is RunState.RUNNING:
        session.out.note(gone(found))


@command("wait", examples=["modelyard wait", "modelyard wait movie-sentiment-1a2b --timeout 2h"])
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs, help=f"{_NAME}; default the latest.")
@click.option("--timeout", type=duration, help="Give up after this long, such as 90s or 2h, and exit 124; the runs go on.")
def wait(session: Session, runs: tuple[str, ...], timeout: int | None) -> int:
    """Wait until runs have ended, and exit like the first that failed."""
    from modelyard.cli import follow
    from modelyard.run import attach

    began, statuses = time.monotonic(), []
    with follow.view(session.out) as view:
        for found in [find(session, run) for run in runs or (None,)]:
            left = None if timeout is None else max(timeout - (time.monotonic() - began), 0.0)
            statuses.append(attach(found, view, left))
    items = [status.model_dump(mode="json") for status in statuses]
    session.out.listing("Run", items, {"RUN": "run", "STATE": "state", "EXIT": "exit_code"}, name="run")
    return next((code for code in [settle(session, status) for status in statuses] if code), 0)


@command("cancel", examples=["modelyard cancel movie-sentiment-1a2b"])
@click.argument("run", shell_complete=complete_runs, help=f"{_NAME}.")
def cancel(session: Session, run: str) -> None:
    """Stop a run; its steps keep what they have done."""
    found = find(session, run, write=True)
    status = found.status()
    if status.state is not RunState.RUNNING:
        session.out.note(f"{found.id} has ended already: {status.state}")
        return
    found.request_cancel()
    session.out.record("Run", {"run": found.id}, [found.id], name=found.id)
    session.out.hint(f"modelyard wait {found.id}")


def find(session: Session, run: str | None, *, write: bool = False) -> Run:
    """The run of that name, or the beginning of one; without a name the latest. Raises NoInput."""
    runs = session.yard(write=write).runs
    return runs.get(run) if run else runs.latest()


def gone(run: Run) -> str:
    """What to tell of a run that has not ended and has no driver."""
    return f"{run.id}: the driver is gone (no sign of life for {LIVE_WINDOW:g} s); run it again: it goes on from what was kept"


def _span(status: RunStatus) -> str | None:
    """How long the run took, by the times that it says."""
    if not (status.started and status.ended):
        return None
    return format_seconds((datetime.fromisoformat(status.ended) - datetime.fromisoformat(status.started)).total_seconds())
