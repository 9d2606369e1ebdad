"""Gates: how good a model has to be to pass, said before it is trained; and whether a gate could pass at all.

The number is the smallest true value of a proportion that passes with 80 % chance at the rows on which it is measured (modelyard.gate). What is no
proportion is reckoned in the same way, and the row says that it is an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from modelyard.errors import Usage
from modelyard.gate import POWER, passing_value
from modelyard.steps import Evaluate, Export, Gate, Promote, Publish
from modelyard_jobs.preflight.row import Row
from modelyard_jobs.preflight.subject import Subject

PROPORTIONS = frozenset({"accuracy", "accuracy_top5"})
NO_SHARES = frozenset({"map", "ap50", "ap75", "log_likelihood", "pseudo_log_likelihood", "perplexity", "pseudo_perplexity"})
APART = 0.1
"""Share of the rows that a model and the one trained further from it are taken to answer differently."""


def rows(subject: Subject) -> Iterator[Row]:
    """A row for each line of each gate, and one where a gate measures another model than the one that it lets through."""
    for name, step in subject.pipeline.steps.items():
        if isinstance(step, Promote | Publish) and step.gate:
            measured = subject.pipeline.steps[str(step.gate.metrics)]
            if isinstance(measured, Evaluate):
                yield from _other(subject, name, step, measured)
                for metric, floor in step.gate.at_least.items():
                    yield line(name, step.gate, measured, metric, floor)
                for metric in step.gate.compared(measured.measures()[0] if measured.task else "the task's main metric"):
                    yield _compared(name, step.gate, measured, metric)


def line(name: str, gate: Gate, measured: Evaluate, metric: str, floor: float) -> Row:
    """The row of one line of a gate."""
    check, needed = f"gate of {name}", f"{metric} at least {floor:g}" + (", the interval's lower end" if gate.sure else "")
    if measured.rows is None:
        reason = f"{gate.metrics} measures all rows of {measured.split!r}, whose number is not known here; with `rows: N` it could be said"
        return Row(check, "not known", needed, reason)
    if metric in NO_SHARES:
        return _unforeseen(check, metric, needed)
    true = passing_value(floor, measured.rows, gate.sure)
    about = "" if metric in PROPORTIONS else f"; {metric} is no proportion: an estimate"
    if true is None:
        reason = f"no result on {measured.rows} rows can pass"
        remedy = f"more rows in {gate.metrics}, or a lower gate.at_least.{metric}"
        return Row.bad(check, Usage, soft=False, found="out of reach", needed=needed, reason=reason, remedy=remedy)
    shown = math.ceil(true * 1000) / 1000  # rounded down, it would not be enough
    reason = f"a model whose true {metric} is {shown:.3f} passes with {POWER:.0%} chance on {measured.rows} rows{about}"
    return Row(check, f"{shown:.3f} to be safe", needed, reason)


def _compared(name: str, gate: Gate, measured: Evaluate, metric: str) -> Row:
    """The row of one comparison with the champion: how wide its interval may be, for what the two will differ in is not known before."""
    needed = f"{metric} at most {gate.not_worse_than_champion:g} under the champion's" + (", the interval's lower end" if gate.sure else "")
    if measured.rows is None:
        return Row(f"gate of {name}", "not known", needed, f"{gate.metrics} measures all rows of {measured.split!r}, whose number is not known here")
    if metric in NO_SHARES:
        return _unforeseen(f"gate of {name}", metric, needed)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(APART / measured.rows)
    reason = f"where two models answer {APART:.0%} of {measured.rows} rows differently, the difference is known to about {half:.3f} either way"
    return Row(f"gate of {name}", f"{half:.3f} either way", needed, reason)


def _unforeseen(check: str, metric: str, needed: str) -> Row:
    return Row(check, "not known", needed, f"{metric} is no share of rows: how it varies is not known before it is measured")


def _other(subject: Subject, name: str, step: Promote | Publish, measured: Evaluate) -> Iterator[Row]:
    let, seen = str(step.model), str(measured.model)
    source = subject.pipeline.steps[let]
    if seen != let and not (isinstance(source, Export) and str(source.model) == seen):
        reason = f"{step.gate.metrics if step.gate else ''} measures {seen}, and {let} is what goes out"
        remedy = f"evaluate {let}, or the model that it is an export of; it passes only where both are the same artifact"
        yield Row.bad(f"gate of {name}", Usage, soft=True, found=f"metrics of {seen}", needed=f"metrics of {let}", reason=reason, remedy=remedy)
