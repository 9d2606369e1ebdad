"""The Python way in: submit a pipeline, wait for it, look at what it made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard import config
from modelyard.errors import Failure, NoInput, from_exit
from modelyard.run.settings import Settings
from modelyard.run.start import attach, start_detached
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Step
from modelyard.yard import Yard
from modelyard.yard.runs import Run, RunStatus, StepState


class StepFailed(Exception):
    """A run ended without all of its steps.

    step: the one that failed, or nothing when the run was stopped. category: the class in the table of failures. remedy: what to do next.
    """

    def __init__(self, step: str, failure: Failure) -> None:
        super().__init__(f"{step}: {failure}" if step else str(failure))
        self.step = step
        self.failure = failure
        self.category = failure.category
        self.remedy = failure.remedy


@dataclass(frozen=True)
class Result:
    """What a step made. digest: the artifact's name. path: the folder of its files; read-only by agreement."""

    digest: str
    path: Path
    kind: str

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Name -> point value of an evaluation. Raises NoInput for other kinds of artifacts."""
        if self.kind != "metrics":
            raise NoInput(f"a {self.kind} has no metrics", where=self.digest, remedy="ask for an evaluate step")
        return {name: metric["value"] for name, metric in json.loads((self.path / "metrics.json").read_bytes())["metrics"].items()}


@dataclass(frozen=True)
class Submitted:
    """A run that somebody drives."""

    id: str
    yard: Yard

    def status(self) -> RunStatus:
        """The run as it stands."""
        return self._run.status()

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Wait for the end. Raises StepFailed when a step failed or the run was stopped; TimedOut after `timeout` seconds."""
        status = attach(self._run, View(), timeout)
        for name, step in status.steps.items():
            if step.state is StepState.FAILED and (failure := step.failure()):
                raise StepFailed(name, failure)
        if kind := from_exit(status.exit_code or 0):
            remedy = "submit it again: what is finished is reused"
            raise StepFailed("", kind(f"the run was {status.state.value}", why="; ".join(status.notes), remedy=remedy))
        return status

    def cancel(self) -> None:
        """Ask for the end; steps keep what they have."""
        self._run.request_cancel()

    def artifact(self, step: str) -> Result:
        """What a step made. Raises NoInput when there is no such step, or it has made nothing yet."""
        steps = self.status().steps
        if step not in steps:
            raise NoInput(f"there is no step {step!r}", where=self.id, why=f"the steps are {', '.join(steps)}", remedy="correct the name")
        digest = steps[step].artifact
        if digest is None:
            raise NoInput(f"step {step!r} has made nothing", where=self.id, why=f"it is {steps[step].state.value}", remedy="wait for the run")
        found = self.yard.artifacts.get(digest)
        return Result(found.digest, found.path, found.kind)

    @property
    def _run(self) -> Run:
        return self.yard.runs.get(self.id)


def submit(
    pipeline: Pipeline | Step,
    on: str | None = None,
    *,
    yard: Path | str | None = None,
    hubs: Mapping[str, str] | None = None,
    jobs: int = 1,
    force: Iterable[str] = (),
) -> Submitted:
    """Start a run of a pipeline, or of a lone step, in the background; one that is live is joined.

    on, yard, hubs: default as modelyard.toml and the environment say. force: steps to do again although their result is known.
    """
    if isinstance(pipeline, Step):
        pipeline = Pipeline(pipeline.verb, {pipeline.verb: pipeline})
    in_force = config.load({"on": on, "yard": None if yard is None else str(yard)})
    run = start_detached(pipeline, Settings(in_force.yard, in_force.hubs if hubs is None else hubs, jobs, frozenset(force)))
    return Submitted(run, Yard.open(in_force.yard))
