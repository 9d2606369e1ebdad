"""`python -m modelyard.run.driver FILE --yard DIR`: what a driver's pod executes.

The pod may die at any time: the next one takes the run up where it stands, and the steps' Jobs have gone on meanwhile. So SIGTERM ends this process
alone (75, which starts another pod). The exit code is otherwise the class of the run's end, and the termination message says which step it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from modelyard import document
from modelyard.errors import Bug, Crashed, Failure, NoInput, Unavailable, Usage, Yielded
from modelyard.kube import names, render
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.place import Place
from modelyard.kube.policy import CRASHED_STEP
from modelyard.order import Outcome, termination_message
from modelyard.run.kubernetes import AWAY_LIMIT, Jobs
from modelyard.run.mirror import Mirror
from modelyard.run.pipeline import Driver, Signals, first_status
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline, from_document
from modelyard.yard import Yard
from modelyard.yard.runs import Progress, Run, RunState, RunStatus, StepState

PATIENCE = 15.0
"""Seconds for one request: an API server that is away longer is asked again by whoever needs it, and a signal is heard in between."""
TERMINATION_LOG = Path("/dev/termination-log")


class Lines(View):
    """A driver's log: one JSON object a line with a sequence number, as steps write theirs."""

    def __init__(self) -> None:
        self._seq = 0
        self._lock = threading.Lock()
        self._states: dict[str, tuple[StepState, str]] = {}

    def begun(self, run: str, note: str) -> None:
        """A line."""
        self._write("begun", run=run, note=note)

    def changed(self, status: RunStatus) -> None:
        """A line for each step that is in another state, or waits for something else, and for the end of the run."""
        for name, step in status.steps.items():
            if self._states.get(name, (StepState.WAITING, "")) != (step.state, step.note):
                self._states[name] = step.state, step.note
                told = {"category": step.category, "what": step.what, "remedy": step.remedy} if step.state is StepState.FAILED else {}
                self._write(step.state.value, step=name, attempt=step.attempt, artifact=step.artifact, note=step.note, **told)
        if status.state is not RunState.RUNNING:
            self._write("ended", run=status.run, state=status.state.value, exit_code=status.exit_code)

    def progress(self, step: str, progress: Progress) -> None:
        """Nothing: the steps' own logs have it."""

    def note(self, text: str) -> None:
        """A line."""
        self._write(text)

    def _write(self, event: str, **fields: Any) -> None:
        with self._lock:
            self._seq += 1
            told = {name: value for name, value in fields.items() if value not in (None, "")}
            line = {"seq": self._seq, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", "level": "info", "event": event, **told}
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def main(argv: list[str], cluster: Cluster | None = None) -> int:
    """Drive the run that FILE describes, from where it stands; the exit code. cluster: default the one that this process is in."""
    parser = argparse.ArgumentParser(prog="modelyard.run.driver", description="Drive a run as Jobs of the cluster that this process is in.")
    parser.add_argument("file", type=Path, help="the run: its id, pipeline, settings and place")
    parser.add_argument("--yard", type=Path, required=True, help="the yard's folder")
    arguments = parser.parse_args(argv)
    signals = Signals()
    signal.signal(signal.SIGTERM, lambda *_: setattr(signals, "stop", True))
    try:
        status = _drive(arguments.file, arguments.yard, cluster or _own_cluster(), signals)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return _end(Outcome.of(failure, 0.0))
    except Exception as error:  # noqa: BLE001  # the frame does the same for a step: an error of ours has a name and a traceback
        traceback.print_exc()
        return _end(Outcome.of(Bug(f"{type(error).__name__}: {error}", remedy="the driver's log holds the traceback"), 0.0))
    return _end(_outcome(status))


def _drive(file: Path, root: Path, cluster: Cluster, signals: Signals) -> RunStatus:
    told = _read(file)
    pipeline = from_document(document.read(file.with_name(render.PIPELINE_FILE), render.PIPELINE_FILE))
    place, asked = told.place, told.settings.model_dump(mode="json")
    settings = Settings(root, told.settings.hubs, told.settings.jobs, frozenset(told.settings.force))
    settings.check(pipeline)
    render.check(pipeline, asked, place)  # who submits has looked; who installs a chart or a schedule by other means has not
    yard = Yard.open(root)
    own = os.environ.get(render.OWN_JOB) or told.run
    if not own:
        remedy = "have a Job make the driver's pod: modelyard render FILE, modelyard schedule apply, or the chart"
        raise Usage("the driver does not know its Job", why=f"{render.OWN_JOB} is empty, and {file.name} names no run", remedy=remedy)
    owner = _patiently(lambda: cluster.get("Job", own), signals)
    asked = {**asked, "driver": owner["metadata"]["uid"] if owner else ""}
    if told.run:
        run, ours = take(yard, told.run, pipeline, asked)
    else:
        is_anothers = partial(_is_anothers, own=own, cluster=cluster, signals=signals)
        run, ours = named(yard, pipeline, asked, place.image, owner=owner, is_anothers=is_anothers)
        _patiently(lambda: cluster.patch("Job", own, {"metadata": {"labels": {names.RUN: run.id}}}), signals)
    jobs = Jobs(cluster, place, yard, run, pipeline.name, shares_yard=True, owner=owner)
    view = Mirror(cluster, run, pipeline.name, Lines(), yard=yard, jobs=lambda: jobs.made)
    view.begun(run.id, "" if ours else "an earlier driver has begun it")
    view.start()
    try:
        status = run.status()
        if status.state is RunState.RUNNING:
            status = Driver(run, pipeline, yard, jobs, settings, view, signals).drive()
        return status
    finally:
        view.close()


class _Asked(BaseModel, extra="forbid"):
    hubs: dict[str, str]
    jobs: int = Field(ge=1)
    force: list[str]


class _Told(BaseModel, extra="forbid"):
    """run.json. Whoever renders it has made it so; what a hand has changed in it is told to that hand."""

    run: str = Field(pattern=r"^[a-z0-9-]{0,63}$")
    settings: _Asked
    place: Place


def _read(file: Path) -> _Told:
    try:
        return _Told.model_validate_json(file.read_bytes(), strict=False)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        where = ": ".join(filter(None, [file.name, ".".join(map(str, first["loc"]))]))
        remedy = "have it written by this version: modelyard render FILE"
        raise Usage("what the driver is to do cannot be read", where=where, why=first["msg"], remedy=remedy) from errors
    except OSError as error:
        raise NoInput("there is no such file", where=str(file), why=error.strerror or "", remedy="have its ConfigMap mounted") from error


def take(yard: Yard, run_id: str, pipeline: Pipeline, settings: Mapping[str, Any]) -> tuple[Run, bool]:
    """The run of that name, and whether it is new.

    settings: `driver` tells apart the Jobs that drive it. A run that another Job drove gives way, with a request for its end that may be left in it:
    whoever removed that Job and the mirrored status has forgotten the run, and its number was given again.
    """
    spec = {"pipeline": pipeline.to_dict(), "settings": dict(settings)}
    made = yard.runs.create(run_id, spec, first_status(run_id, pipeline))
    if made is None:
        found = yard.runs.get(run_id)
        if (settings.get("driver") or found.spec()["settings"].get("driver")) == found.spec()["settings"].get("driver"):
            return found, False  # ours, or nobody knows whose: the Job is being removed
        yard.runs.discard(found)
        made = yard.runs.create(run_id, spec, first_status(run_id, pipeline))
    return made or yard.runs.get(run_id), made is not None


def named(
    yard: Yard, pipeline: Pipeline, settings: Mapping[str, Any], image: str, *, owner: Manifest | None, is_anothers: Callable[[str], bool]
) -> tuple[Run, bool]:
    """The run of a Job whose name is not a run's, as a chart or a schedule makes them, and whether it is new.

    It is named by its pipeline and the tick that the Job is for, with the first number that nobody has: so the Job's next pod finds it again.
    is_anothers: whether the cluster has a run of that name which this yard does not know, as of a driver that has not begun, or one elsewhere.
    Raises NoInput: there is no such Job any more; Usage: its tick is no time.
    """
    if owner is None:
        raise NoInput("the driver's own Job is gone", why="it says which run this is", remedy="apply it again")
    prefix = names.run_name(pipeline, image, 1, tick(owner)).removesuffix("-r1")
    spec = {"pipeline": pipeline.to_dict(), "settings": dict(settings)}
    number = 0
    while True:
        taken = yard.runs.named(prefix)  # each time: another pod of this Job may be faster
        for run in taken:
            if run.spec()["settings"].get("driver") == settings["driver"]:
                return run, False
        number = max([number, *(int(run.id.rpartition("-r")[2]) for run in taken)]) + 1
        run_id = f"{prefix}-r{number}"
        if not is_anothers(run_id) and (made := yard.runs.create(run_id, spec, first_status(run_id, pipeline))):
            return made, True


def tick(job: Manifest) -> str:
    """The tick of a schedule that a Job is for, in UTC (`2026-11-23T03:00:00Z`); empty for one that no schedule made. Raises Usage: it is no time."""
    annotations = job["metadata"].get("annotations") or {}
    text = annotations.get(names.TICK) or annotations.get(names.SCHEDULED) or ""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if text else ""
    except (ValueError, OverflowError) as error:
        where, remedy = f"Job {job['metadata']['name']}: annotation {names.TICK} or {names.SCHEDULED}", "modelyard schedule trigger writes it"
        raise Usage(f"the tick {text[:100]!r} is no time", where=where, why=str(error), remedy=remedy) from error


def _is_anothers(run_id: str, own: str, cluster: Cluster, signals: Signals) -> bool:
    """Whether the cluster has a Job or a status of that run; the own Job, which may be called like it, is no other."""
    job = None if run_id == own else _patiently(lambda: cluster.get("Job", run_id), signals)
    return job is not None or _patiently(lambda: cluster.get("ConfigMap", names.status_name(run_id)), signals) is not None


def _outcome(status: RunStatus) -> Outcome:
    """How the run ended: as its first failed step did, or 75 where another driver has to go on."""
    for name, step in status.steps.items():
        if step.state is StepState.FAILED and (failure := step.failure()):
            failure.where = ": ".join(filter(None, [name, failure.where]))
            return Outcome.of(failure, 0.0)
    if status.state is RunState.RUNNING:
        return Outcome.of(Yielded("asked to stop", remedy="another driver goes on"), 0.0)
    return Outcome(exit_code=status.exit_code or 0, category=status.state.value, note="; ".join(status.notes))


def _end(outcome: Outcome) -> int:
    terminal = Path(os.environ.get("MODELYARD_TERMINATION_LOG", TERMINATION_LOG))
    if terminal.exists():
        terminal.write_bytes(termination_message(outcome))
    return CRASHED_STEP if outcome.exit_code == Crashed.exit_code else outcome.exit_code


def _patiently(ask: Callable[[], Manifest | None], signals: Signals) -> Manifest | None:
    """What the cluster says, asked until the API server answers: one that is away now would end the run, where one that is away later does not."""
    deadline = time.monotonic() + AWAY_LIMIT
    while True:
        try:
            return ask()
        except Unavailable:
            if signals.stop:
                raise Yielded("asked to stop before the cluster answered", remedy="another driver goes on") from None
            if time.monotonic() >= deadline:
                raise


def _own_cluster() -> Cluster:
    from modelyard.kube.client import connect  # late: the client is slow to import

    return connect(patience=PATIENCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
