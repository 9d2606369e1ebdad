"""A run as the report shows it: everything that the yard knows of it, read once, into plain frozen values.

Nothing is computed or judged here, and nothing is made up: what is not there is None, and what is there but cannot be read is named in `missing`.
A step that has no action (it failed, it runs, it makes nothing) still has the decisions and the curve that its log tells.
Neither the environment nor the addresses of hubs are looked at, so what is secret there cannot reach a page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.errors import Corrupt, NoInput
from modelyard.order import Outcome
from modelyard.quantities import format_bytes
from modelyard.report import shapes
from modelyard.report.pictures import Album
from modelyard.report.shapes import read
from modelyard.steps import STEPS
from modelyard.yard import Action, Decision, Yard, files
from modelyard.yard.runs import Attempt, Run, RunStatus, StepState, StepStatus

SAMPLES = 200
"""Of an attempt at most; between them, the highest."""
CASES = 12
"""Worst errors of an evaluation, and pictures of an inference, at most."""


@dataclass(frozen=True)
class Try:
    """One attempt, and how it ended, in words."""

    number: int
    ended: str


@dataclass(frozen=True)
class StepRecord:
    """One step. task: as set, or found. inputs: field -> step. ref, revision: what a fetch was told, and found. made: in words.

    action: of the result, whoever made it. pictures: path in the artifact -> data URI, of the rows that the evaluation shows, or the first of an
    inference.
    """

    name: str
    status: StepStatus
    task: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    ref: str = ""
    revision: str = ""
    to: str = ""
    attempts: tuple[Try, ...] = ()
    action: Action | None = None
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    made: str = ""
    evaluation: shapes.Evaluation | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)
    history: shapes.History | None = None
    rows: shapes.TrainRows | None = None
    answered: shapes.Answered | None = None
    environment: shapes.Environment | None = None
    parity: shapes.Parity | None = None
    int8: shapes.Quantised | None = None
    engines: Mapping[str, shapes.EngineSpeed] = field(default_factory=dict)
    speed: shapes.Speed | None = None
    latency: shapes.Latency | None = None
    release: shapes.Release | None = None
    preflight: shapes.Preflight | None = None
    search: shapes.Search | None = None
    samples: tuple[shapes.Sample, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether it failed because a gate, or a check of what it was given, said no."""
        return self.status.state is StepState.FAILED and self.status.category == "refused"

    @property
    def state(self) -> str:
        """In a word."""
        return "refused" if self.refused else self.status.state.value

    @property
    def made_by(self) -> str:
        """The run whose attempt made the result, empty when that is not known."""
        return self.action.attempt.partition(".")[0] if self.action else ""


@dataclass(frozen=True)
class RunRecord:
    """A run. pipeline: its spec with every default."""

    status: RunStatus
    pipeline: Mapping[str, Any]
    steps: tuple[StepRecord, ...]
    missing: tuple[str, ...]


def collect(yard: Yard, run: Run) -> RunRecord:
    """Read a run as it stands. Raises Corrupt: its status or spec is gone or torn."""
    status, spec = run.status(), run.spec()
    return _Collector(yard, run, status, spec).record()


@dataclass
class _Collector:
    yard: Yard
    run: Run
    status: RunStatus
    spec: Mapping[str, Any]
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.album = Album(self.missing)

    def record(self) -> RunRecord:
        steps = tuple(self._step(name, step) for name, step in self.status.steps.items())
        return RunRecord(self.status, self.spec["pipeline"], steps, tuple(dict.fromkeys(self.missing)))

    def _step(self, name: str, status: StepStatus) -> StepRecord:
        settings = self._settings(name, status.verb)
        attempts = self.run.attempts(name)
        outcomes = [self._outcome(attempt) for attempt in attempts]
        action = self._action(name, status)
        resolved = read(shapes.Resolved, self.spec["resolved"].get(name), f"{name}: what its ref stands for", self.missing)
        told: dict[str, Any] = {}
        if action is None:
            decisions, told = self._told(attempts)
        else:
            decisions = dict(action.decisions)
            told |= self._details(name, status.verb, action.details)
        return StepRecord(
            name,
            status,
            task=str(settings.get("task") or (decisions["task"].value if "task" in decisions else "")),
            inputs=self._inputs(status.verb, settings),
            ref=(resolved.ref if resolved else "") or str(settings.get("model") or settings.get("dataset") or "") if status.verb == "fetch" else "",
            revision=resolved.listing.revision if resolved and resolved.listing else "",
            to=str(settings.get("to") or ""),
            attempts=tuple(Try(attempt.number, self._ended(status, attempt, outcome)) for attempt, outcome in zip(attempts, outcomes, strict=True)),
            action=action,
            decisions=decisions,
            samples=self._samples(attempts[-1]) if attempts else (),
            **told,
            **self._artifact(name, status),
            **self._result(name, status.verb, outcomes[-1] if outcomes else None),
        )

    def _outcome(self, attempt: Attempt) -> Outcome | None:
        try:
            return attempt.outcome()
        except Corrupt as error:
            self.missing.append(f"{attempt.step}: how attempt {attempt.number} ended cannot be read: {error.what}")
            return None

    @staticmethod
    def _ended(status: StepStatus, attempt: Attempt, outcome: Outcome | None) -> str:
        if outcome:
            return outcome.category
        running = status.state is StepState.RUNNING and attempt.number == status.attempt
        return "running" if running else "killed without a word"

    def _settings(self, name: str, verb: str) -> Mapping[str, Any]:
        step = self.spec["pipeline"].get("steps", {}).get(name, {})
        return step.get(verb) or {}

    def _inputs(self, verb: str, settings: Mapping[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for place in STEPS[verb].inputs if verb in STEPS else ():
            value: Any = settings
            for part in place.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value in self.status.steps:
                found[place] = value
        return found

    def _action(self, name: str, status: StepStatus) -> Action | None:
        if not (status.key and status.artifact):
            return None
        try:
            action = self.yard.actions.get(status.key)
        except Corrupt as error:
            self.missing.append(f"{name}: its action cannot be read: {error.what}")
            return None
        if action is None:
            self.missing.append(f"{name}: its action is gone from the yard, and with it settings, decisions and timings")
        elif action.artifact != status.artifact:
            self.missing.append(f"{name}: it was done again since, with another result; its action is that of the later one")
            return None
        return action

    def _told(self, attempts: list[Attempt]) -> tuple[dict[str, Decision], dict[str, Any]]:
        """(decisions, curve and parity), as the logs of all attempts have them; what a later one says again counts."""
        told: dict[str, Any] = {}
        decisions: dict[str, Decision] = {}
        train: dict[int, shapes.TrainPoint] = {}
        validation: dict[float, dict[str, float]] = {}
        for attempt in attempts:
            for entry in self._lines(attempt, attempt.log, "log"):
                if entry.get("event") == "decided" and isinstance(name := entry.get("name"), str):
                    decisions[name] = Decision(value=entry.get("value"), reason=str(entry.get("reason", "")))
                elif entry.get("event") == "step" and (point := read(shapes.TrainPoint, entry, f"{attempt.step}: its log", self.missing)):
                    train[point.step] = point
                elif entry.get("event") == "compared":
                    told["parity"] = read(shapes.Parity, entry, f"{attempt.step}: its log", self.missing)
                elif entry.get("event") == "validated":
                    numbers = {key: value for key, value in entry.items() if isinstance(value, int | float) and math.isfinite(value) and key != "seq"}
                    validation[numbers.get("epoch", 0)] = numbers
        points = tuple(point for _, point in sorted(train.items()))
        curve = {"train": points, "validation": tuple(validation.values())} if points else None
        if curve:
            told["history"] = read(shapes.History, curve, f"{attempts[-1].step}: its log", self.missing)
        return decisions, told

    def _lines(self, attempt: Attempt, path: Path, what: str) -> Iterator[dict[str, Any]]:
        """The whole lines of a file of an attempt, JSON objects."""
        try:
            lines = (files.read(path) or b"").splitlines()
        except Corrupt as error:
            self.missing.append(f"{attempt.step}: the {what} of attempt {attempt.number} cannot be read: {error.why}")
            return
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if isinstance(entry, dict):
                yield entry

    def _details(self, name: str, verb: str, details: Mapping[str, Any]) -> dict[str, Any]:
        def shaped(shape: type[shapes.AnyShape], key: str) -> shapes.AnyShape | None:
            return read(shape, details.get(key), f"{name}: {key}", self.missing)

        if verb == "export":
            return {"parity": shaped(shapes.Parity, "parity"), "int8": shaped(shapes.Quantised, "int8"), "engines": self._engines(name, details)}
        found: dict[str, Any] = {"speed": shaped(shapes.Speed, "speed"), "latency": shaped(shapes.Latency, "latency")}
        if verb == "finetune":
            found |= {"history": shaped(shapes.History, "history"), "rows": shaped(shapes.TrainRows, "rows")}
            found |= {"environment": shaped(shapes.Environment, "environment")}
        elif verb == "infer":
            found["answered"] = shaped(shapes.Answered, "rows")
        return found

    def _engines(self, name: str, details: Mapping[str, Any]) -> dict[str, shapes.EngineSpeed]:
        """The speed of each engine; what stands beside the engines is about all of them."""
        speed = details.get("speed")
        engines = {key: value for key, value in speed.items() if isinstance(value, Mapping)} if isinstance(speed, Mapping) else {}
        found = {engine: read(shapes.EngineSpeed, value, f"{name}: speed of {engine}", self.missing) for engine, value in engines.items()}
        return {engine: value for engine, value in found.items() if value}

    def _artifact(self, name: str, status: StepStatus) -> dict[str, Any]:
        if not status.artifact:
            return {}
        try:
            artifact = self.yard.artifacts.get(status.artifact)
        except (NoInput, Corrupt) as error:
            self.missing.append(f"{name}: its artifact {status.artifact[:12]} is not there or not whole: {error.what}")
            return {}
        form, count = f" ({artifact.format})" if artifact.format else "", len(artifact.files)
        made = f"{artifact.kind}{form}, {count} file{'s' * (count != 1)}, {format_bytes(artifact.size)}"
        if status.verb == "infer":
            drawn = sorted((entry.path for entry in artifact.files if entry.path.startswith("pictures/")), key=lambda path: (len(path), path))
            return {"made": made, "pictures": self.album.of(name, artifact, drawn[:CASES])}
        if artifact.kind != "metrics":
            return {"made": made}
        try:
            document = json.loads(files.read(artifact.path / "metrics.json") or b"null")
        except ValueError:
            self.missing.append(f"{name}: its metrics.json is no JSON")
            return {"made": made}
        evaluation = read(shapes.Evaluation, document, f"{name}: metrics.json", self.missing)
        cases = evaluation.errors[:CASES] if evaluation else ()
        return {"made": made, "evaluation": evaluation, "pictures": self.album.of(name, artifact, [case.picture for case in cases])}

    def _result(self, name: str, verb: str, outcome: Outcome | None) -> dict[str, Any]:
        """What a step without an artifact found or did. outcome: of its last attempt."""
        if outcome is None or outcome.result is None:
            return {}
        what = f"{name}: its result"
        if verb == "search":
            return {"search": read(shapes.Search, outcome.result, what, self.missing)}
        if verb == "preflight":
            return {"preflight": read(shapes.Preflight, outcome.result, what, self.missing)}
        return {"release": read(shapes.Release, outcome.result, what, self.missing)}

    def _samples(self, attempt: Attempt) -> tuple[shapes.Sample, ...]:
        lines = self._lines(attempt, attempt.path / "samples.jsonl", "memory")
        shaped = (read(shapes.Sample, line, f"{attempt.step}: a sample of its memory", self.missing) for line in lines)
        found = [sample for sample in shaped if sample]
        each = -(-len(found) // SAMPLES) or 1
        return tuple(max(found[place : place + each], key=lambda sample: sample.used) for place in range(0, len(found), each))
