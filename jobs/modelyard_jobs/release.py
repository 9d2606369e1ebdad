"""What promote and publish share: the gate comes first, and what it is about is checked before what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelyard import refs
from modelyard.document import Document
from modelyard.errors import Corrupt, NoInput, Refused
from modelyard.gate import judge
from modelyard.refs import YardRef
from modelyard.spec import from_document
from modelyard.steps import Fetch
from modelyard.yard import Artifact, files
from modelyard.yard.lineage import Lineage
from modelyard_jobs.context import Context

_SCHEMA = 1  # of metrics.json, see evaluate


def pass_gate(context: Context, lineage: Lineage, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdict of the step's gate, as JSON; None where the step has none.

    told: what the step's result says beside it; a refusal keeps both. Raises Refused: the metrics are not of this model, they compare it with what
    is not the champion any more, or they are not good enough; NoInput: the gate names a metric that was not measured, or there is no champion.
    """
    settings = context.settings
    if settings.gate is None:
        return None
    context.result({**told, "gate": {"passed": False, "lines": []}})
    metrics = context.inputs["gate.metrics"]
    _check_subject(context, lineage, metrics)
    found = document(metrics)
    if settings.gate.compares and found.get("against"):
        _check_champion(context, lineage, found)
    elif settings.gate.compares and any(isinstance(metric, dict) and metric.get("difference") for metric in found["metrics"].values()):
        raise Corrupt("metrics.json does not say what was compared", where="gate.metrics", why="it has differences", remedy="evaluate again")
    verdict = judge(found["metrics"], settings.gate, f"metrics of {settings.gate.metrics}", main=str(found["main"]))
    context.result({**told, "gate": verdict.record()})
    for line in verdict.lines:
        said = {name: getattr(line, name) for name in ("metric", "value", "low", "at_least", "sure", "difference", "passed")}
        context.log.info("gate", **said)
    verdict.enforce(where="gate")
    return verdict.record()


def document(metrics: Artifact) -> dict[str, Any]:
    """metrics.json of a metrics artifact. Raises Corrupt: it is not there, or not what evaluate writes."""
    try:
        found = json.loads(files.read(metrics.path / "metrics.json") or b"")
        if isinstance(found["metrics"], dict) and found["schema"] == _SCHEMA and found["main"] in found["metrics"]:
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


def _check_champion(context: Context, lineage: Lineage, found: Mapping[str, Any]) -> None:
    """The model that was compared with is still the champion; or this one has become it, by this run or by an earlier attempt."""
    try:
        compared = str(found["against"]["digests"]["against"])
    except (TypeError, KeyError) as error:
        raise Corrupt("metrics.json does not say what was compared", where="gate.metrics", why=repr(error)[:200], remedy="evaluate again") from error
    name = _champion(context)
    if name is None:
        return
    try:
        now = context.yard.refs.get(name).digest
    except NoInput as error:
        remedy = "promote the first one without not_worse_than_champion"
        raise NoInput("there is no champion", where=name, why="nothing was promoted to that name", remedy=remedy) from error
    if now not in (compared, *lineage.subjects(context.inputs["model"].digest)):
        why = f"the name stands for {now}; {compared} was compared with"
        raise Refused("the champion moved meanwhile", where=name, why=why, remedy="run again: it is compared with the new one")


def _champion(context: Context) -> str | None:
    """The name in the yard that stands for the champion: the one that is to move, else the ref that `against` was written as."""
    settings = context.settings
    if isinstance(refs.parse(settings.to), YardRef):
        return str(settings.to)
    pipeline = from_document(Document("spec.json", context.yard.runs.get(context.run).spec()["pipeline"], {}))
    source = pipeline.steps[pipeline.inputs(str(settings.gate.metrics))["against"]]
    return source.ref if isinstance(source, Fetch) and isinstance(refs.parse(source.ref), YardRef) else None
