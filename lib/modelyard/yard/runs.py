"""Runs: what was asked, what is happening, and what came of it, as files that a driver and its steps write and anybody may read.

    runs/<run-id>/spec.json, status.json, heartbeat, cancel
    runs/<run-id>/steps/<step>/<attempt>/{order,resolved,progress,outcome,diagnosis}.json, log.jsonl, samples.jsonl, stderr.txt

A run belongs to the driver that made its folder; that rename is the only election. Whether the driver lives is seen from its heartbeat alone:
a counter that stands still for as long as the observer waits, on the observer's own clock. A run whose driver does not see this yard has no
status.json: its steps wrote it down, it stands as their attempts do, and its heart beats while one of them is at work.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from modelyard.document import Document
from modelyard.errors import Corrupt, NoInput, Usage, Yielded, suggest
from modelyard.order import Ending, Order, Outcome
from modelyard.spec import Pipeline, canonical, from_document
from modelyard.steps import Step
from modelyard.yard import files, records
from modelyard.yard.layout import Layout
from modelyard.yard.staging import Staging

LIVE_WINDOW = 10.0
"""Seconds after which a heartbeat that stood still belongs to a crashed driver."""

DEAD_AFTER = 86400.0
"""Seconds without a heartbeat, on the volume's clock, after which gc takes a run for dead. Generous: there is no hurry."""

_DIAGNOSIS = "diagnosis.json"
_RUN_ID = re.compile(r"[a-z0-9-]{1,63}")


class RunState(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # asked to stop; running it again goes on
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """Where a step of a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    REUSED = "reused"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"


FINISHED = frozenset({StepState.REUSED, StepState.DONE})
"""States in which a step has its artifact."""


class StepStatus(Ending):
    """One step of a run, and how its last attempt ended."""

    verb: str
    state: StepState = StepState.WAITING
    attempt: int = 0
    kind: str = ""


class _Spec(records.Record):
    pipeline: dict[str, Any]
    settings: dict[str, Any] = {}
    resolved: dict[str, Any] = {}


class _Resolved(records.Record, extra="allow"):
    ref: str


class RunStatus(records.Record):
    """A run as it stands. started, ended: ISO times, for people; nothing is decided by them."""

    run: str
    pipeline: str
    state: RunState = RunState.RUNNING
    exit_code: int | None = None
    started: str = ""
    ended: str = ""
    notes: tuple[str, ...] = ()
    steps: dict[str, StepStatus] = {}

    def over(self, state: RunState, exit_code: int, *notes: str) -> RunStatus:
        """The status of the run once it has ended: what ran is stopped, what waited is skipped."""
        ends = {StepState.RUNNING: StepState.STOPPED, StepState.WAITING: StepState.SKIPPED}
        steps = {name: step.model_copy(update={"state": ends.get(step.state, step.state)}) for name, step in self.steps.items()}
        update = {"state": state, "exit_code": exit_code, "ended": records.utc_now(), "notes": (*self.notes, *notes), "steps": steps}
        return self.model_copy(update=update)


class Progress(records.Record):
    """How far an attempt is. rate: units a second; left: seconds."""

    done: int
    total: int | None = None
    unit: str
    rate: float | None = None
    left: float | None = None


class Attempt:
    """One attempt at one step of a run."""

    def __init__(self, run: Run, step: str, number: int) -> None:
        self.run = run
        self.step = step
        self.number = number
        self.id = f"{run.id}.{step}.{number}"
        self.path = run.path / "steps" / step / str(number)
        self.log = self.path / "log.jsonl"

    def write_order(self, order: Order) -> Path:
        """Keep what the attempt is told to do; where."""
        path = self.path / "order.json"
        records.store(path, order, durable=False)
        return path

    def write_resolved(self, resolved: dict[str, Any]) -> None:
        """Keep what the ref of a fetch stands for, where the attempt found that out."""
        files.write_atomic(self.path / "resolved.json", canonical(resolved))

    def resolved(self) -> dict[str, Any] | None:
        """What its ref stands for, as far as it found that out."""
        found = records.load(self.path / "resolved.json", _Resolved)
        return found.model_dump() if found else None

    def outcome(self) -> Outcome | None:
        """How the attempt ended, None when it has not, or was killed before it could say so."""
        return records.load(self.path / "outcome.json", Outcome)

    def write_outcome(self, outcome: Outcome) -> None:
        """Say how the attempt ended."""
        records.store(self.path / "outcome.json", outcome)

    def ended(self) -> str:
        """How it ended, in words."""
        outcome = self.outcome()
        return "killed without a word" if outcome is None else outcome.category

    def last_words(self) -> str:
        """The last line that it wrote to stderr: what there is when it could not even leave an outcome."""
        lines = (files.read(self.path / "stderr.txt") or b"").decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def progress(self) -> Progress | None:
        """How far it was when it last said so."""
        return records.load(self.path / "progress.json", Progress)

    def write_progress(self, progress: Progress) -> None:
        """Say how far it is."""
        records.store(self.path / "progress.json", progress, durable=False)

    def add_log(self, line: bytes) -> None:
        """Add a line to the log."""
        files.append(self.log, line)

    def add_sample(self, sample: dict[str, Any]) -> None:
        """Add a sample of memory and device use; `t` is the attempt's running time in seconds."""
        files.append(self.path / "samples.jsonl", canonical(sample) + b"\n")

    def last_sample(self) -> dict[str, Any] | None:
        """The last whole sample."""
        for line in reversed((files.read(self.path / "samples.jsonl") or b"").splitlines()):
            try:
                sample = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if isinstance(sample, dict):
                return sample
        return None

    def seconds(self) -> float:
        """Running time: as the outcome says, else as far as the samples reach."""
        outcome = self.outcome()
        return outcome.seconds if outcome else float((self.last_sample() or {}).get("t", 0.0))


class Run:
    """One execution of a pipeline."""

    def __init__(self, layout: Layout, run_id: str) -> None:
        self._layout = layout
        self.id = run_id
        self.path = layout.root / "runs" / run_id

    def spec(self) -> dict[str, Any]:
        """`pipeline`: with every default; `resolved`: step -> what its ref stands for."""
        spec = self._load("spec.json", _Spec)
        found = {} if self._driven() else {name: [attempt.resolved() for attempt in self.attempts(name)] for name in files.names(self.path / "steps")}
        return {**spec.model_dump(), "resolved": {**spec.resolved, **{name: told for name, all_of in found.items() for told in all_of if told}}}

    def write_spec(self, spec: dict[str, Any]) -> None:
        """Keep the spec, once refs are resolved."""
        files.write_atomic(self._target("spec.json"), canonical(spec))

    def status(self) -> RunStatus:
        """The run as it stands."""
        return self._load("status.json", RunStatus) if self._driven() else self._as_its_attempts()

    def write_status(self, status: RunStatus) -> None:
        """Say how the run stands."""
        records.store(self._target("status.json"), status, durable=status.state is not RunState.RUNNING)

    def beat(self, count: int) -> None:
        """Move the heartbeat."""
        files.write_atomic(self._target("heartbeat"), str(count).encode(), durable=False)

    def heartbeat(self) -> bytes:
        """The heartbeat as it stands; it means something only compared with itself a moment later."""
        return files.read(self.path / "heartbeat") or b""

    def live(self, window: float = LIVE_WINDOW, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> bool:
        """Whether a driver is at work on the run: not ended, and its heartbeat moves within `window` seconds of watching."""
        began, first = clock(), self.heartbeat()
        while self.status().state is RunState.RUNNING:
            if self.heartbeat() != first:
                return True
            if clock() - began >= window:
                return False
            sleep(0.2)
        return False

    def request_cancel(self) -> None:
        """Ask the driver to end its steps and itself."""
        files.create(self._target("cancel"), b"")

    def cancel_requested(self) -> bool:
        """Whether somebody asked for the end."""
        return files.status(self.path / "cancel") is not None

    def attempts(self, step: str) -> list[Attempt]:
        """The attempts at a step, in order."""
        return [self.attempt(step, number) for number in sorted(int(name) for name in files.names(self.path / "steps" / step) if name.isdecimal())]

    def attempt(self, step: str, number: int) -> Attempt:
        """One of them."""
        return Attempt(self, step, number)

    def new_attempt(self, step: str) -> Attempt:
        """The next attempt at a step, with its folder, which nobody else gets."""
        files.make_folders(self._target("steps", step))
        number = max((attempt.number for attempt in self.attempts(step)), default=0) + 1
        while not files.new_folder(self._target("steps", step, str(number))):
            number += 1  # somebody who counts at the same time was faster
        return self.attempt(step, number)

    def write_diagnosis(self, step: str, attempt: int, diagnosis: BaseModel) -> None:
        """Keep why a step failed: with its attempt, or where there was none (0), with the step."""
        records.store(self._target("steps", step, *([str(attempt)] if attempt else []), _DIAGNOSIS), diagnosis)

    def diagnosis(self, step: str, attempt: int, model: type[records.AnyRecord]) -> records.AnyRecord | None:
        """Why a step failed; None where nobody kept it."""
        return records.load(self.path.joinpath("steps", step, *([str(attempt)] if attempt else []), _DIAGNOSIS), model)

    def _driven(self) -> bool:
        """Whether its driver keeps its status here."""
        return files.status(self.path / "status.json") is not None

    def _as_its_attempts(self) -> RunStatus:
        """The status that the last attempt at each step amounts to. A step that nobody tries again looks as if it ran on, or waited."""
        pipeline = self._pipeline()
        steps = {name: self._as_its_last(name, step) for name, step in ((name, pipeline.steps[name]) for name in pipeline.order())}
        failed = [step.exit_code for step in steps.values() if step.state is StepState.FAILED]
        states = {step.state for step in steps.values()}
        state, code = RunState.RUNNING, None
        if failed:
            state, code = RunState.FAILED, failed[0]
        elif states <= FINISHED:
            state, code = RunState.DONE, 0
        elif StepState.STOPPED in states and StepState.RUNNING not in states:
            state, code = RunState.STOPPED, Yielded.exit_code
        last = [self.attempts(name)[-1].path / "outcome.json" for name, step in steps.items() if step.exit_code is not None]
        ended = max((found.st_mtime for path in last if (found := files.status(path))), default=0.0) if code is not None else 0.0
        made = files.status(self.path / "spec.json")
        started = records.utc(made.st_mtime) if made else ""
        ended_at = records.utc(ended) if ended else ""
        return RunStatus(run=self.id, pipeline=pipeline.name, state=state, exit_code=code, started=started, ended=ended_at, steps=steps)

    def _as_its_last(self, name: str, step: Step) -> StepStatus:
        attempts = self.attempts(name)
        if not attempts:
            return StepStatus(verb=step.verb)
        outcome = attempts[-1].outcome()
        if outcome is None:
            return StepStatus(verb=step.verb, state=StepState.RUNNING, attempt=attempts[-1].number)
        state = StepState.STOPPED if outcome.exit_code == Yielded.exit_code else StepState.FAILED
        if not outcome.exit_code:
            state = StepState.REUSED if outcome.reused else StepState.DONE
        told = {field: getattr(outcome, field) for field in Ending.model_fields}
        return StepStatus(verb=step.verb, state=state, attempt=attempts[-1].number, kind=(step.makes() or "") if outcome.artifact else "", **told)

    def _pipeline(self) -> Pipeline:
        try:
            return from_document(Document("spec.json", self._load("spec.json", _Spec).pipeline, {}))
        except Usage as failure:
            raise Corrupt("this run's spec.json is torn or not ours", where=str(self.path), why=str(failure), remedy="remove the folder") from failure

    def _target(self, *parts: str) -> Path:
        return self._layout.target("runs", self.id, *parts)

    def _load(self, name: str, model: type[records.AnyRecord]) -> records.AnyRecord:
        record = records.load(self.path / name, model)
        if record is None:
            raise Corrupt(f"this run has no {name}", where=str(self.path), remedy="remove the folder")
        return record


class Runs:
    """All runs of a yard."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._root = layout.root / "runs"

    def create(self, run_id: str, spec: dict[str, Any], status: RunStatus) -> Run | None:
        """A new run with its first spec and status; None when there is one of that name: whoever made it is its driver."""
        with Staging(self._layout, run_id) as staged:
            files.create(staged.files / "status.json", records.encode(status))
            return Run(self._layout, run_id) if self._put(staged, run_id, spec) else None

    def undriven(self, run_id: str, spec: dict[str, Any]) -> Run:
        """The run of exactly that name, made where it is missing, by one of its steps: its driver does not see this yard. Raises Usage: no name."""
        if not _RUN_ID.fullmatch(run_id):
            raise Usage(f"{run_id!r} is no name of a run", remedy="lower-case letters, digits and '-', at most 63")
        if files.status(self._root / run_id / "spec.json") is None:
            with Staging(self._layout, run_id) as staged:
                self._put(staged, run_id, spec)
        return Run(self._layout, run_id)

    def discard(self, run: Run) -> None:
        """Take a run out of the list; gc deletes what it wrote."""
        files.rename(run.path, self._layout.target("staging", f"{run.id}.{secrets.token_hex(4)}"))

    def list(self) -> Sequence[Run]:
        """All runs, the newest first (by the volume's time of the folder's making, then by name)."""
        made = {name: files.status(self._root / name / "spec.json") for name in self._names()}
        found = sorted(((status.st_mtime_ns, name) for name, status in made.items() if status), reverse=True)
        return [Run(self._layout, name) for _, name in found]

    def get(self, run_id: str) -> Run:
        """The run of that name, or the only one whose name starts so. Raises NoInput."""
        names = self._names()
        matching = [run_id] if run_id in names else [name for name in names if run_id and name.startswith(run_id)]
        if len(matching) == 1:
            return Run(self._layout, matching[0])
        if matching:
            raise NoInput(f"{run_id!r} begins the names of {len(matching)} runs", why=", ".join(matching[:5]), remedy="write more of the name")
        raise NoInput(f"there is no run {run_id!r}", where=str(self._root), remedy=suggest(run_id, names) if names else "modelyard run FILE")

    def latest(self) -> Run:
        """The newest run. Raises NoInput when there is none."""
        for run in self.list():
            return run
        raise NoInput("there is no run yet", where=str(self._root), remedy="modelyard run FILE")

    def named(self, prefix: str) -> Sequence[Run]:
        """The runs `<prefix>-r1`, `<prefix>-r2`, … in that order."""
        matches = (re.fullmatch(re.escape(prefix) + r"-r(\d+)", name) for name in self._names())
        return [Run(self._layout, match[0]) for match in sorted(filter(None, matches), key=lambda match: int(match[1]))]

    def live_digests(self) -> Iterator[str]:
        """Artifacts that a run which may still be driven has made or been given."""
        oldest = files.volume_time(self._layout.target("staging")) - DEAD_AFTER
        for run in self.list():
            beat = files.status(run.path / "heartbeat")
            if beat is not None and beat.st_mtime >= oldest and (status := run.status()).state is RunState.RUNNING:
                yield from (step.artifact for step in status.steps.values() if step.artifact)

    def _put(self, staged: Staging, run_id: str, spec: dict[str, Any]) -> bool:
        """Give a new run its name; False where there is one of that name."""
        files.create(staged.files / "spec.json", canonical(spec))
        files.create(staged.files / "heartbeat", b"0")
        if files.rename(staged.files, self._root / run_id) != "done":
            return False
        files.sync(self._root)
        return True

    def _names(self) -> Sequence[str]:
        return [name for name in files.names(self._root) if _RUN_ID.fullmatch(name)]
