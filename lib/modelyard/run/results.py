"""What the steps of a run found or did, as JSON values read from its yard: metrics of evaluations, results of steps that make no artifact."""

from __future__ import annotations

import json
from typing import Any

from modelyard.steps import STEPS, Reuse
from modelyard.yard import Artifact, Yard, files
from modelyard.yard.runs import RunStatus


def described(yard: Yard, status: RunStatus) -> dict[str, Any]:
    """A run as JSON values: its status, `metrics` and `results`."""
    return {**status.model_dump(mode="json"), "metrics": metrics(yard, status), "results": results(yard, status)}


def metrics(yard: Yard, status: RunStatus) -> dict[str, dict[str, Any]]:
    """Step -> its metrics with their intervals, for the evaluations of a run that have ended."""
    found = {name: yard.artifacts.find(step.artifact) for name, step in status.steps.items() if step.kind == "metrics" and step.artifact}
    return {name: metrics_of(made) for name, made in found.items() if made}


def metrics_of(artifact: Artifact) -> dict[str, Any]:
    """Metric -> its value with its interval, of an evaluation."""
    found = json.loads(files.read(artifact.path / "metrics.json") or b"{}")
    return dict(found.get("metrics", {}))


def results(yard: Yard, status: RunStatus) -> dict[str, dict[str, Any]]:
    """Step -> its result, for the steps of a run that have one."""
    told = {name: step for name, step in status.steps.items() if step.attempt and STEPS[step.verb].reuse in (Reuse.OBSERVE, Reuse.EFFECT)}
    run = yard.runs.get(status.run) if told else None
    outcomes = {name: run.attempt(name, step.attempt).outcome() for name, step in told.items()} if run else {}
    return {name: outcome.result for name, outcome in outcomes.items() if outcome and outcome.result is not None}
