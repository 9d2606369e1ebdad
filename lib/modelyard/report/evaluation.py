"""What the page says of evaluations: figures, verdicts and the rows to look at, of any task.

Which parts there are follows from what metrics.json holds, not from the task's name: a confusion matrix, curves, slices, spans in their text,
pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelyard.report import figures, matrix, shapes
from modelyard.report.figures import Series, Whisker
from modelyard.report.marking import Marked, marked
from modelyard.report.record import CASES, RunRecord, StepRecord
from modelyard.report.sections import FLOOR, Figure, Verdict, drawn, gates_of, noun, spaced
from modelyard.report.words import cut, four, number, percent

CLASSES = 100
"""Labels in the table of labels."""
PAIRS = 6
"""Confusions that are named."""
CURVES = 6
"""Labels whose precision is drawn over recall: as many as lines can be told apart, by three colours, whole and dashed."""
SLICES = 8
PARTS = 20
"""Parts of a slice."""
_WORST = {
    "fill-mask": "that the model found least likely",
    "text-generation": "that the model found least likely",
    "object-detection": "with most missed and most wrong boxes",
}
"""How a task's errors were chosen, where it is not by how sure the model was."""
_RIGHT = {
    "token-classification": "A text is right where all of its spans are found, and no others.",
    "object-detection": "An image is right where all of its boxes are found, and no others.",
    "fill-mask": "A text is right where each hidden token was the likeliest in its place.",
    "text-generation": "A text is right where each of its tokens was the likeliest.",
}
"""When a row is right, where it is more than one label."""
_WELL = 0.05
"""Expected calibration error under which probabilities are taken as they are."""


@dataclass(frozen=True)
class Confusion:
    """So many rows of label `true` got label `predicted`; share: of the rows of `true`."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Shown:
    """A row to look at. uri: of its picture; spans: its text with them; said: what is to be read with it, in words."""

    case: shapes.Case
    uri: str
    spans: Marked | None
    said: str

    @property
    def labels(self) -> tuple[str, str] | None:
        """(true, predicted) where both are plain labels, or words."""
        true, predicted = (_plain(side) for side in (self.case.true, self.case.predicted))
        return None if true is None or predicted is None else (true, predicted)


@dataclass(frozen=True)
class Evaluated:
    """An evaluate step. kind: what a class is called; worst: how the errors were chosen."""

    step: StepRecord
    found: shapes.Evaluation
    figures: tuple[Figure, ...]
    overlap: Verdict
    calibration: Verdict | None
    about: tuple[str, ...]
    kind: str
    confusions: tuple[Confusion, ...]
    classes: tuple[shapes.ClassScores, ...]
    detected: tuple[shapes.Detected, ...]
    slices: tuple[shapes.Slice, ...]
    errors: tuple[Shown, ...]
    worst: str


def evaluated(run: RunRecord) -> Iterator[Evaluated]:
    """The evaluations, each with the floors that gates of this run ask of it."""
    for step in run.steps:
        found = step.evaluation
        if found is None:
            continue
        floors = {line.metric: line.at_least for line in gates_of(run, step) if not line.difference}
        drawings = [*_metrics(step, found, floors), *_matrix(step, found), *_curves(step, found), *_reliability(step, found), *_slices(step, found)]
        yield Evaluated(
            step,
            found,
            tuple(drawings),
            _overlap(found),
            _calibrated(found),
            tuple(_about(found)),
            "type" if found.task == "token-classification" else "label",
            _confusions(found),
            tuple(each for each in found.classes[:CLASSES] if isinstance(each, shapes.ClassScores)),
            tuple(each for each in found.classes[:CLASSES] if isinstance(each, shapes.Detected)),
            found.slices[:SLICES],
            tuple(_shown(step, case) for case in found.errors[:CASES]),
            _WORST.get(found.task, "that the model was surest of"),
        )


def main(found: shapes.Evaluation) -> str:
    """The metric that stands for the others, empty where there is none."""
    return found.main if found.main in found.metrics else next(iter(found.metrics), "")


# --- figures ---------------------------------------------------------------------------------------------------------------------------------


def _metrics(step: StepRecord, found: shapes.Evaluation, floors: dict[str, float]) -> Iterator[Figure]:
    """Shares on one scale, anything else (perplexity, loss) on its own."""
    shares = {name: each for name, each in found.metrics.items() if min(each.value, each.low) >= 0 and max(each.value, each.high) <= 1}
    groups = [shares, *({name: each} for name, each in found.metrics.items() if name not in shares)]
    for group in filter(None, groups):
        rows = [
            Whisker(spaced(name), each.value, each.low, each.high, f"{four(each.low)} to {four(each.high)}", floors.get(name))
            for name, each in group.items()
        ]
        n = next((f" over {each.n} rows" for each in group.values() if each.n), "")
        what = "Metrics" if group is shares else cut(spaced(next(iter(group))).capitalize(), 40)
        said = FLOOR if floors.keys() & group.keys() else ""
        yield drawn(figures.whiskers(f"{what} of {step.name} with 95 % intervals", rows, x_format=four), f"{what}, 95 % intervals{n}", said)


def _matrix(step: StepRecord, found: shapes.Evaluation) -> Iterator[Figure]:
    labels, counts = (found.words.types, found.words.confusion) if found.words else (found.labels, found.confusion)
    if not _square(labels, counts):
        return
    what, unit, of = ("types", "Words", "type's words") if found.words else ("labels", "Rows", "label's rows")
    count, share = len(labels), f"share of the true {of}"
    title = f"Confusion matrix of {step.name}: {count} {what}, rows are true {what}, columns predicted ones"
    if count > matrix.DRAWN_LABELS:
        note = f"The {matrix.DRAWN_LABELS} of {count} {what} that take part in most errors, coloured by the {share}."
    elif count > matrix.WRITTEN_LABELS:
        note = f"Coloured by the {share}."
    else:
        note = f"{unit}, and their {share}."
    chart = matrix.matrix(title, labels, counts)
    yield drawn(chart, "Confusion matrix" + " of words" * bool(found.words), note, wide=count > matrix.WRITTEN_LABELS)


def _curves(step: StepRecord, found: shapes.Evaluation) -> Iterator[Figure]:
    curves = [curve for curve in found.curves if len(curve.precision) > 1]
    if not curves:
        return
    series = [
        Series(curve.label, _over_recall(curve.precision), place % 3 + 1, "line" if place < 3 else "dashed")
        for place, curve in enumerate(curves[:CURVES])
    ]
    title = f"Precision over recall of {step.name}: {len(series)} curves"
    more = len(curves) - len(series)
    note = "A box is found where one of its label overlaps it by half." + (f" {more} further labels are not drawn." if more > 0 else "")
    chart = figures.lines(title, series, x="recall", bounds=(0.0, 1.02), width=figures.WIDE)
    yield drawn(chart, "Precision over recall", note)


def _over_recall(precision: Sequence[float]) -> list[figures.Point]:
    return [(place / (len(precision) - 1), value) for place, value in enumerate(precision)]


def _reliability(step: StepRecord, found: shapes.Evaluation) -> Iterator[Figure]:
    if not (found.calibration and found.calibration.bins):
        return
    bins = found.calibration.bins
    points = [(each.confidence, each.accuracy.value) for each in bins]
    spread = [(each.accuracy.low, each.accuracy.high) for each in bins]
    series = [Series("share that is right", points, 1, "dots", spread), Series("as the model says", [(0.0, 0.0), (1.0, 1.0)], 3, "dashed")]
    title = f"Reliability of {step.name}: share of right answers over the model's probability"
    chart = figures.lines(title, series, x="probability", bounds=(0.0, 1.02), width=figures.WIDE)
    yield drawn(chart, "Reliability, 95 % intervals", "Under the dashed line the model is surer than it is right.")


def _slices(step: StepRecord, found: shapes.Evaluation) -> Iterator[Figure]:
    for each in found.slices[:SLICES]:
        rows = [Whisker(_part(each, part.name), part.score.value, part.score.low, part.score.high, f"n = {part.n}") for part in each.parts[:PARTS]]
        if len(rows) > 1:
            metric, by = "share of right rows" if each.metric == "right" else cut(spaced(each.metric), 40), cut(each.by, 40)
            chart, note = figures.whiskers(f"{metric} of {step.name} by {by}", rows, x_format=four), _RIGHT.get(found.task, "")
            yield drawn(chart, f"{metric[:1].upper()}{metric[1:]} by {by}, 95 %", note if each.metric == "right" else "")


def _part(found: shapes.Slice, name: str) -> str:
    return f"{name} {found.unit}".strip()


# --- words -----------------------------------------------------------------------------------------------------------------------------------


def _about(found: shapes.Evaluation) -> Iterator[str]:
    if rows := found.rows:
        drawn = f", a sample (seed {rows.seed})" if rows.seed is not None else ""
        yield f"split {found.split}: {rows.evaluated} of {rows.split} rows{drawn}"
        if rows.faults:
            yield "left out: " + ", ".join(f"{count} rows, {why}" for why, count in rows.faults.items())
    if baseline := found.baseline:
        yield f"always answering “{cut(baseline.label, 40)}” would be right in {four(baseline.accuracy.value)}"
    truncated = found.truncated if noun(found.task) == "text" else None
    if truncated and truncated.rows:
        yield f"{truncated.rows} rows ({percent(truncated.share)}) were cut at {truncated.max_length} tokens"
    elif truncated:
        yield f"no row was longer than {truncated.max_length} tokens"
    if found.words and found.words.cut_off:
        yield f"{found.words.cut_off} words were cut off: spans in them count as missed"


def _overlap(found: shapes.Evaluation) -> Verdict:
    overlap, row = found.overlap, noun(found.task)
    if overlap is None:
        return Verdict("info", f"Whether evaluated {row}s also stand in train is not known: there was no train split to compare with.")
    if overlap.rows == 0:
        return Verdict("good", f"No evaluated {row} also stands in {overlap.split}.")
    shared = f"{overlap.rows} evaluated {row}s ({percent(overlap.share)}) also stand in {overlap.split}"
    return Verdict("warn" if overlap.share < 0.01 else "bad", f"{shared}: the model may know them, and the metrics flatter it.")


def _calibrated(found: shapes.Evaluation) -> Verdict | None:
    if found.calibration is None:
        return None
    ece = found.calibration.ece
    said = f"expected calibration error {four(ece.value)} ({four(ece.low)} to {four(ece.high)}, 95 %)"
    if ece.low > _WELL:
        return Verdict("warn", f"Its probabilities are not how often it is right: {said}.")
    return Verdict("good" if ece.high <= _WELL else "info", f"Its probabilities lie near how often it is right: {said}.")


def _square(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> bool:
    return bool(labels) and [len(row) for row in counts] == [len(labels)] * len(labels)


def _confusions(found: shapes.Evaluation) -> tuple[Confusion, ...]:
    if not _square(found.labels, found.confusion) or len(found.labels) <= 2:
        return ()
    pairs = [
        Confusion(found.labels[true], found.labels[predicted], count, count / sum(row))
        for true, row in enumerate(found.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.count)[:PAIRS])


# --- rows to look at -------------------------------------------------------------------------------------------------------------------------


def _shown(step: StepRecord, case: shapes.Case) -> Shown:
    return Shown(case, step.pictures.get(case.picture, ""), marked(case), ", ".join(_said(case)))


def _plain(side: shapes.Said) -> str | None:
    if isinstance(side, str):
        return side
    words = [each for each in side if isinstance(each, str)] if isinstance(side, tuple) else []
    return ", ".join(words) if words else None


def _said(case: shapes.Case) -> Iterator[str]:
    """What is told of a row beside its labels and its text."""
    sure = max(case.probabilities, default=None)
    if sure is not None and isinstance(case.predicted, str):
        yield f"with {percent(sure)}"
    boxes = [f"{len(side)} {name}" for name, side in (("true", case.true), ("predicted", case.predicted)) if isinstance(side, tuple) and case.picture]
    if boxes:
        yield f"boxes: {' and '.join(boxes)}"
    loss = case.predicted.loss if isinstance(case.predicted, shapes.Followed) else case.loss
    if loss is not None:
        yield f"loss {number(loss)} per token"
    if case.tokens is not None:
        yield f"{case.tokens} tokens"
