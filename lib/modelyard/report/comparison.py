"""One model against another on the same rows: a verdict, a table, the differences with their paired intervals, the rows that changed.

From metrics.json of an evaluate step with `against`. Says which is better, not whether that suffices: that is the gate's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.report import figures, shapes
from modelyard.report.figures import Bar, Whisker
from modelyard.report.record import RunRecord, StepRecord
from modelyard.report.sections import FLOOR, Figure, Verdict, drawn, gates_of, spaced
from modelyard.report.words import signed
from modelyard.steps import LOWER


@dataclass(frozen=True)
class Row:
    """A metric of this model and of the other, and the difference. lower: less of it is better."""

    metric: str
    lower: bool
    own: shapes.Interval
    other: shapes.Interval | None
    less: shapes.Interval


@dataclass(frozen=True)
class Compared:
    """An evaluation that compares. digests: name and digest of both models."""

    verdict: Verdict
    digests: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...]


def compared(run: RunRecord) -> dict[str, Compared]:
    """Step -> its comparison, each with the least differences that gates of this run ask of it."""
    found = {}
    for step in run.steps:
        if step.evaluation and step.evaluation.against:
            floors = {line.metric: line.at_least for line in gates_of(run, step) if line.difference}
            if one := _compared(step, step.evaluation, step.evaluation.against, floors):
                found[step.name] = one
    return found


def _compared(step: StepRecord, found: shapes.Evaluation, other: shapes.Against, floors: Mapping[str, float]) -> Compared | None:
    rows = [
        Row(spaced(name), name in LOWER, each, other.metrics.get(name), each.difference) for name, each in found.metrics.items() if each.difference
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row.metric != spaced(found.main))  # what models are compared by goes first
    marks = {spaced(name): floor for name, floor in floors.items()}
    drawings = [_differences(step, group, marks) for group in _scales(rows)]
    if changed := other.changed:
        counts = (("fixed", changed.fixed, 2), ("broken", changed.broken, 3), ("wrong either way", changed.other, 1))
        bars = [Bar(name, count, f"{count} rows", colour) for name, count, colour in counts]
        read = "Fixed: only this model is right. Broken: only the other is."
        drawings.append(drawn(figures.bars(f"Rows of {step.name} that changed", bars), "Rows that the two answer differently", read))
    names = (("model", "this model"), ("against", "the other"))
    digests = tuple((name, other.digests[key]) for key, name in names if key in other.digests)
    same = len(digests) == len(names) and len({digest for _, digest in digests}) == 1
    return Compared(_judged(rows[0], same=same), digests, tuple(rows), tuple(drawings))


def _scales(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Shares on one scale, anything else (perplexity, likelihood) on its own; what models are compared by goes first."""
    shares = [row for row in rows if all(0 <= end <= 1 for each in (row.own, row.other or row.own) for end in (each.value, each.low, each.high))]
    groups = [shares, *([row] for row in rows if row not in shares)]
    return sorted(filter(None, groups), key=lambda group: rows[0] not in group)


def _differences(step: StepRecord, rows: Sequence[Row], floors: Mapping[str, float]) -> Figure:
    whiskers = [
        Whisker(
            row.metric, row.less.value, row.less.low, row.less.high, f"{signed(row.less.low)} to {signed(row.less.high)}", floors.get(row.metric, 0)
        )
        for row in rows
    ]
    asked = [row.metric in floors for row in rows]
    read = FLOOR if all(asked) else f"{FLOOR.rstrip('.')}; elsewhere it is zero." if any(asked) else "The mark across a line is zero: no difference."
    what = f"{rows[0].metric} of {step.name}" if len(rows) == 1 else step.name
    svg = figures.whiskers(f"Differences of {what} with 95 % intervals", whiskers, x_format=signed)
    return drawn(svg, "Differences on the same rows, 95 % intervals", read + " Less is better." * rows[0].lower)


def _judged(row: Row, *, same: bool) -> Verdict:
    if same:
        return Verdict("info", "It was compared with itself: both are the same artifact.")
    said = f"{row.metric} {signed(row.less.value)} ({signed(row.less.low)} to {signed(row.less.high)}, 95 %)"
    more, less = row.less.low > 0, row.less.high < 0
    if less if row.lower else more:
        return Verdict("good", f"Better than the other model: {said}.")
    if more or less:
        return Verdict("bad", f"Worse than the other model: {said}.")
    return Verdict("info", f"Neither better nor worse than the other model beyond chance: {said}.")
