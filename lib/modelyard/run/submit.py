"""The Python way in: submit a pipeline, wait for it, look at what it made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard import config
from modelyard.errors import Failure, NoInput, from_exit
from modelyard.kube.diagnosis import Diagnosis
from modelyard.run.explain import kept_here
from modelyard.run.results import metrics_of
from modelyard.run.settings import Settings
from modelyard.run.start import attach, start_detached
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Step
from modelyard.yard import Yard
from modelyard.yard.runs import Run, RunStatus, StepState


class StepFailed(Exception):
    """A run ended without all of its steps.

    step: the one that failed, or nothing when the run was stopped. category: why, as `modelyard explain` names it. remedy: what to do next.
    """

    def __init__(self, step: str, failure: Failure, diagnosis: Diagnosis | None = None) -> None:
        super().__init__(f"{step}: {failure}" if step else str(failure))
        self.step = step
        self.failure = failure
        self.category = diagnosis.category if diagnosis else failure.category
        self.remedy = diagnosis.remedy if diagnosis else failure.remedy


@dataclass(frozen=True)
class Result:
    """What a step made.

    digest: the artifact's name. path: the folder of its files, read-only by agreement; None where the yard is on a cluster.
    """

    digest: str
    kind: str
    path: Path | None
    measured: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Name -> point value of an evaluation. Raises NoInput for other kinds of artifacts."""
        if self.kind != "metrics":
            raise NoInput(f"a {self.kind} has no metrics", where=self.digest, remedy="ask for an evaluate step")
        return {name: metric["value"] for name, metric in self.measured.items()}


class Submitted(Protocol):
    """A run that somebody drives."""

    @property
    def id(self) -> str:
        """Its name."""

    def status(self) -> RunStatus:
        """The run as it stands."""

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Wait for the end. Raises StepFailed when a step failed or the run was stopped; TimedOut after `timeout` seconds."""

    def cancel(self) -> None:
        """Ask for the end; steps keep what they have."""

    def artifact(self, step: str) -> Result:
        """What a step made. Raises NoInput when there is no such step, or it has made nothing yet."""


@dataclass(frozen=True)
class Here:
    """A run in a yard of this machine."""

    id: str
    yard: Yard

    def status(self) -> RunStatus:
        """As its driver wrote it."""
        return self._run.status()

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Until its driver has ended it, or is gone."""
        status = attach(self._run, View(), timeout)
        return ended_well(status, kept_here(self._run, status))

    def cancel(self) -> None:
        """By a file in the run's folder."""
        self._run.request_cancel()

    def artifact(self, step: str) -> Result:
        """From the yard."""
        found = self.yard.artifacts.get(made_by(self.status(), step))
        return Result(found.digest, found.kind, found.path, metrics_of(found) if found.kind == "metrics" else {})

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
    namespace: str | None = None,
    context: str | None = None,
    image: str | None = None,
) -> Submitted:
    """Start a run of a pipeline, or of a lone step, in the background or on a cluster; one that is live is joined.

    on, yard, hubs, namespace, context, image: default as modelyard.toml and the environment say. force: steps to do again although their result is
    known.
    """
    if isinstance(pipeline, Step):
        pipeline = Pipeline(pipeline.verb, {pipeline.verb: pipeline})
    told = {"on": on, "yard": None if yard is None else str(yard), "namespace": namespace, "context": context, "image": image}
    in_force = config.load(told)
    settings = Settings(in_force.yard, in_force.hubs if hubs is None else hubs, jobs, frozenset(force))
    if not in_force.remote:
        return Here(start_detached(pipeline, settings), Yard.open(in_force.yard))
    from modelyard.run.there import begin  # late: who runs here never pays for it

    return begin(pipeline, settings, in_force)


def ended_well(status: RunStatus, kept: Mapping[str, Diagnosis]) -> RunStatus:
    """The status, if it is a good one. kept: why steps failed, as far as that was found out. Raises StepFailed."""
    for name, step in status.steps.items():
        if step.state is StepState.FAILED and (failure := step.failure()):
            raise StepFailed(name, failure, kept.get(name))
    if kind := from_exit(status.exit_code or 0):
        remedy = "submit it again: what is finished is reused"
        raise StepFailed("", kind(f"the run was {status.state.value}", why="; ".join(status.notes), remedy=remedy))
    return status


def made_by(status: RunStatus, step: str) -> str:
    """Digest of what a step made. Raises NoInput."""
    if step not in status.steps:
        raise NoInput(f"there is no step {step!r}", where=status.run, why=f"the steps are {', '.join(status.steps)}", remedy="correct the name")
    digest = status.steps[step].artifact
    if digest is None:
        raise NoInput(f"step {step!r} has made nothing", where=status.run, why=f"it is {status.steps[step].state.value}", remedy="wait for the run")
    return digest
