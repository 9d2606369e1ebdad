"""What promote and publish share: the gate comes first, and what it is about is checked before what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelyard.errors import Corrupt, Refused
from modelyard.gate import judge
from modelyard.yard import Artifact, files
from modelyard.yard.lineage import Lineage
from modelyard_jobs.context import Context

_SCHEMA = 1  # of metrics.json, see evaluate


def pass_gate(context: Context, lineage: Lineage, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdict of the step's gate, as JSON; None where the step has none.

    told: what the step's result says beside it; a refusal keeps both. Raises Refused: the metrics are not of this model, or not good enough;
    NoInput: the gate names a metric that was not measured.
    """
    settings = context.settings
    if settings.gate is None:
        return None
    context.result({**told, "gate": {"passed": False, "lines": []}})
    metrics = context.inputs["gate.metrics"]
    _check_subject(context, lineage, metrics)
    verdict = judge(document(metrics)["metrics"], settings.gate, where=f"metrics of {settings.gate.metrics}")
    context.result({**told, "gate": verdict.record()})
    for line in verdict.lines:
        context.log.info("gate", metric=line.metric, value=line.value, low=line.low, at_least=line.at_least, sure=line.sure, passed=line.passed)
    verdict.enforce(where="gate")
    return verdict.record()


def document(metrics: Artifact) -> dict[str, Any]:
    """metrics.json of a metrics artifact. Raises Corrupt: it is not there, or not what evaluate writes."""
    try:
        found = json.loads(files.read(metrics.path / "metrics.json") or b"")
        if isinstance(found["metrics"], dict) and found["schema"] == _SCHEMA:
            return dict(found)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Corrupt("metrics.json is missing, or not what evaluate writes", where=metrics.digest, remedy="evaluate again")


def _check_subject(context: Context, lineage: Lineage, metrics: Artifact) -> None:
    settings, model = context.settings, context.inputs["model"].digest
    subjects, measured = lineage.subjects(model), lineage.measured(metrics.digest)
    if set(subjects).isdisjoint(measured):
        exported = f", exported from {', '.join(subjects[1:])}" if subjects[1:] else ""
        raise Refused(
            "the gate's metrics are of another model",
            where=f"gate.metrics: {settings.gate.metrics}",
            why=f"{', '.join(measured) or 'no evaluate step of this yard'} was measured; {settings.model} is {model}{exported}",
            remedy=f"evaluate {{model: {settings.model}, …}}, and name that step in gate.metrics",
        )
