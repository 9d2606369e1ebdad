"""The Python way in: submit a pipeline, wait for it, look at what it made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard import config
from modelyard.errors import Crashed, Failure, NoInput, from_exit
from modelyard.run.settings import Settings
from modelyard.run.start import attach, start_detached
from modelyard.run.view import Silent
from modelyard.spec import Pipeline
from modelyard.steps import Step
from modelyard.yard import Artifact, Yard
from modelyard.yard.runs import Run, RunStatus, StepState


class StepFailed(Exception):
    """A run ended without all of its steps. step: the one that failed, or nothing when the run was stopped."""

    def __init__(self, step: str, failure: Failure) -> None:
        super().__init__(f"{step}: {failure}" if step else str(failure))
        self.step = step
        self.failure = failure

    @property
    def category(self) -> str:
        """The class in the table of failures."""
        return self.failure.category

    @property
    def remedy(self) -> str:
        """What to do next."""
        return self.failure.remedy


@dataclass(frozen=True)
class Result:
    """What a step made."""

    artifact: Artifact

    @property
    def digest(self) -> str:
        """The artifact's name."""
        return self.artifact.digest

    @property
    def path(self) -> Path:
        """The folder of its files; read-only by agreement."""
        return self.artifact.path

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Name -> point value of an evaluation. Raises NoInput for other kinds of artifacts."""
        if self.artifact.kind != "metrics":
            raise NoInput(f"a {self.artifact.kind} has no metrics", where=self.artifact.digest, remedy="ask for an evaluate step")
        document: dict[str, Any] = json.loads((self.path / "metrics.json").read_bytes())
        return {name: metric["value"] if isinstance(metric, dict) and "value" in metric else metric for name, metric in document["metrics"].items()}


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
        status = attach(self._run, Silent(), timeout)
        for name, step in status.steps.items():
            if step.state is StepState.FAILED:
                kind = from_exit(step.exit_code or 0) or Crashed
                raise StepFailed(name, kind(step.what, where=step.where, why=step.why, remedy=step.remedy))
        if status.exit_code:
            kind = from_exit(status.exit_code) or Crashed
            raise StepFailed(
                "", kind(f"the run was {status.state.value}", why="; ".join(status.notes), remedy="submit it again: what is finished is reused")
            )
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
        return Result(self.yard.artifacts.get(digest))

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
    given = {name: str(value) for name, value in (("on", on), ("yard", yard)) if value is not None}
    in_force = config.load(given)
    run = start_detached(pipeline, Settings(in_force.yard, in_force.hubs if hubs is None else hubs, jobs, frozenset(force)))
    return Submitted(run, Yard.open(in_force.yard))
