"""`modelyard ls`, `show`, `logs`, `wait`, `cancel`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import datetime

import click

from modelyard.cli.logs import Line
from modelyard.cli.options import duration
from modelyard.cli.places import place
from modelyard.cli.run import settle, text
from modelyard.cli.session import Session, command, complete_runs
from modelyard.errors import NoInput, TimedOut
from modelyard.quantities import format_seconds
from modelyard.yard.runs import FINISHED, RunState, RunStatus

_NAME = "A run's name, or the beginning of one"
_RUN = click.argument("run", required=False, shell_complete=complete_runs, help=f"{_NAME}; default the latest.")


@command("ls", examples=["modelyard ls", "modelyard ls -q", "modelyard ls -o json"])
def ls(session: Session) -> None:
    """List runs, the newest first.

    A run whose driver was killed is listed as running: `show` looks for a sign of life.
    """
    items = []
    for status in place(session).statuses():
        done = sum(step.state in FINISHED for step in status.steps.values())
        items.append({**status.model_dump(mode="json"), "_steps": f"{done}/{len(status.steps)}", "_time": _span(status)})
    columns = {"RUN": "run", "PIPELINE": "pipeline", "STATE": "state", "STEPS": "_steps", "STARTED": "started", "TIME": "_time"}
    session.out.listing("Run", items, columns, name="run")


@command("show", examples=["modelyard show", "modelyard show movie-sentiment-1a2b -o json"])
@_RUN
def show(session: Session, run: str | None) -> None:
    """Show a run: its steps, what they made, why they failed."""
    found = place(session).find(run)
    value, live = found.described()
    status = RunStatus.model_validate(value)
    session.out.record("Run", {**value, "live": live}, text(value), name=status.run)
    if status.state is RunState.RUNNING and not live:
        session.out.note(found.gone())
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
    found = place(session).find(run)
    steps = found.status().steps
    if step and step not in steps:
        raise NoInput(f"{found.id} has no step {step!r}", remedy=f"its steps are {', '.join(steps)}")
    width = 0 if step else max(map(len, steps), default=0)

    def show(lines: Iterable[Line]) -> None:
        as_json = session.out.format == "json"
        session.out.lines(json.dumps(vars(line), ensure_ascii=False) if as_json else line.text(width) for line in lines)

    found.logs(step, show, follow=follow)
    if follow and found.status().state is RunState.RUNNING:
        session.out.note(found.gone())


@command("wait", examples=["modelyard wait", "modelyard wait movie-sentiment-1a2b --timeout 2h"])
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs, help=f"{_NAME}; default the latest.")
@click.option("--timeout", type=duration, help="Give up after this long, such as 90s or 2h, and exit 124; the runs go on.")
def wait(session: Session, runs: tuple[str, ...], timeout: int | None) -> int:
    """Wait until runs have ended, and exit like the first that failed."""
    from modelyard.cli import follow

    began, statuses = time.monotonic(), []
    with follow.view(session.out) as view:
        where = place(session)
        for found in [where.find(run) for run in runs or (None,)]:
            left = None if timeout is None else max(timeout - (time.monotonic() - began), 0.0)
            try:
                statuses.append(found.attach(view, left))
            except TimedOut as error:  # which speaks of what was left of the time
                what = f"{found.id} is still running after {format_seconds(timeout or 0)}"
                raise TimedOut(what, remedy=session.again(f"modelyard wait {found.id}")) from error
    items = [status.model_dump(mode="json") for status in statuses]
    session.out.listing("Run", items, {"RUN": "run", "STATE": "state", "EXIT": "exit_code"}, name="run")
    return next((code for code in [settle(session, status) for status in statuses] if code), 0)


@command("cancel", examples=["modelyard cancel movie-sentiment-1a2b"])
@click.argument("run", shell_complete=complete_runs, help=f"{_NAME}.")
@click.option("--purge", is_flag=True, help="On a cluster: also remove what it keeps of the run, also of one that has ended; the yard keeps its own.")
def cancel(session: Session, run: str, purge: bool) -> None:
    """Stop a run; its steps keep what they have done."""
    found = place(session).find(run, write=True)
    status = found.status()
    running = status.state is RunState.RUNNING
    if running or purge:
        found.cancel(purge=purge)
    else:
        session.out.note(f"{found.id} has ended already: {status.state}")
    session.out.record("Run", {"run": found.id}, [found.id], name=found.id)
    if running and not purge:
        session.hint(f"modelyard wait {found.id}")


def _span(status: RunStatus) -> str | None:
    """How long the run took, by the times that it says."""
    if not (status.started and status.ended):
        return None
    return format_seconds((datetime.fromisoformat(status.ended) - datetime.fromisoformat(status.started)).total_seconds())
