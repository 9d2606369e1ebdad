"""promote: move a name in the yard to a model, or back.

The result: to, digest (what the name stands for now), previous (what it stood for before, null: nothing), unchanged, gate.
Doing it again changes nothing: a name that stands for the model already stays, and one run rolls back once, however often it is tried.
"""

from __future__ import annotations

from typing import Any

from modelyard.errors import NoInput
from modelyard.yard.lineage import Lineage
from modelyard.yard.names import RefRecord
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.release import pass_gate


def run(context: Context) -> Produced:
    """Gate, then move. Raises Refused: the gate said no; NoInput: there is nothing to roll back to."""
    settings, refs = context.settings, context.yard.refs
    _, step, _ = context.attempt.split(".")
    source = f"run {context.run}, step {step}"
    if settings.rollback:
        before = refs.get(settings.to)
        ours = [one for one in before.history() if one.source.startswith("rollback ") and one.source.endswith(f" by {source}")]
        record = before if ours else refs.rollback(settings.to, source)  # by an earlier attempt at this step, whoever has moved it since
        previous = ours[0].source.split()[2] if ours else before.digest
        context.result(_result(settings.to, record, previous, unchanged=bool(ours), gate=None))
    else:
        model = context.inputs["model"].digest
        verdict = pass_gate(context, Lineage(context.yard.actions.list()), {"to": settings.to})
        unchanged = _stands_for(context) == model
        record = refs.move(settings.to, model, source)
        context.result(_result(settings.to, record, record.previous.digest if record.previous else None, unchanged=unchanged, gate=verdict))
    context.log.info("promoted", to=settings.to, digest=record.digest, source=record.source)
    return Produced()


def _stands_for(context: Context) -> str | None:
    try:
        return context.yard.refs.get(context.settings.to).digest
    except NoInput:
        return None


def _result(to: str, record: RefRecord, previous: str | None, *, unchanged: bool, gate: dict[str, Any] | None) -> dict[str, Any]:
    return {"to": to, "digest": record.digest, "previous": previous, "unchanged": unchanged, "gate": gate}
