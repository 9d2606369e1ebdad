"""What stands in each section of the report: verdicts in words, facts, figures. From a RunRecord alone; reads nothing.

A verdict is a tone (good, warn, bad, info) and a sentence that says the same: nothing depends on a colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from modelyard.report import figures, shapes
from modelyard.report.figures import Bar, Series, Whisker
from modelyard.report.record import RunRecord, StepRecord
from modelyard.report.words import cut, four, percent, plain, small

Tone = Literal["good", "warn", "bad", "info"]

FLOOR = "The mark across a line is the floor of the gate."
"""How a floor in a figure is to be read."""
DOTS = 100
"""Epochs that are drawn as dots at most; more are a line."""

_IMAGES = frozenset({"image-classification", "object-detection"})
_SMOOTHED = 4
"""Points of a curve whose mean is drawn, at least."""


@dataclass(frozen=True)
class Verdict:
    """A judgement in words."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Figure:
    """A chart. note: what is to be known to read it."""

    svg: Markup
    caption: str
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Trained:
    """A finetune step."""

    step: StepRecord
    about: tuple[str, ...]
    overlap: Verdict | None
    figures: tuple[Figure, ...]
    validation: tuple[Mapping[str, float], ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Inferred:
    """An infer step. pictures: row -> data URI, of the first rows with their answers drawn on them."""

    step: StepRecord
    about: tuple[str, ...]
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Exported:
    """An export step."""

    step: StepRecord
    parity: Verdict | None
    int8: Verdict | None
    facts: tuple[tuple[str, str], ...]
    int8_figure: Figure | None
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Released:
    """A promote or publish step. gate: where it is passed; where it is not, that is the outcome."""

    step: StepRecord
    gate: Verdict | None
    outcome: Verdict
    files: tuple[str, ...]


def drawn(svg: str, caption: str, note: str = "", *, wide: bool = False) -> Figure:
    """A figure of an SVG that figures.py wrote."""
    return Figure(Markup(svg), caption, note, wide)  # noqa: S704  # figures.py escapes every text


def spaced(name: str) -> str:
    """A metric's name as people write it."""
    return name.replace("_", " ")


def noun(task: str) -> str:
    """What a row of the task is called."""
    return "image" if task in _IMAGES else "text"


def gates_of(run: RunRecord, step: StepRecord) -> list[shapes.GateLine]:
    """What gates of this run ask of an evaluation, line by line."""
    gates = [other.release.gate for other in run.steps if other.release and other.release.gate and other.inputs.get("gate.metrics") == step.name]
    return [line for gate in gates for line in gate.lines]


def trained(run: RunRecord) -> Iterator[Trained]:
    """The trainings, also those that did not come to their end."""
    for step in run.steps:
        history = step.history
        if history is None:
            continue
        columns = tuple(dict.fromkeys(key for epoch in history.validation for key in epoch))
        rows, overlap = step.rows, None
        if rows:
            shared = f"{rows.overlap} of {rows.validation} validation {noun(step.task)}s also stand in the rows that were trained on"
            none = f"No validation {noun(step.task)} stands in the rows that were trained on."
            overlap = Verdict("warn", f"{shared}: the epoch was chosen with their help.") if rows.overlap else Verdict("good", none)
        yield Trained(step, tuple(_training(step)), overlap, tuple(_curves(step, history)), history.validation, columns)


def inferred(run: RunRecord) -> Iterator[Inferred]:
    """The inferences that have a result."""
    for step in run.steps:
        if step.answered:
            pictures = {path.rpartition("/")[2].partition(".")[0]: uri for path, uri in step.pictures.items()}
            yield Inferred(step, tuple(_inference(step, step.answered)), pictures)


def exported(run: RunRecord) -> Iterator[Exported]:
    """The exports."""
    for step in run.steps:
        if step.parity is None and step.int8 is None and not step.engines:
            continue
        int8 = step.int8
        verdict = None
        if int8:
            verdict = Verdict("good" if int8.kept else "info", f"8-bit weights were {'kept' if int8.kept else 'dropped'}" + _because(int8.why))
        yield Exported(step, _parity(step.parity), verdict, tuple(_export_facts(step)), _int8drawn(step), tuple(_speeds(step)))


def released(run: RunRecord) -> Iterator[Released]:
    """What was promoted or published, or was not."""
    for step in run.steps:
        if step.status.verb not in ("promote", "publish"):
            continue
        release = step.release or shapes.Release()
        gate = Verdict("good", "The gate is passed.") if release.gate and release.gate.passed else None
        paths = [each if isinstance(each, str) else str(each.get("path", "")) if isinstance(each, Mapping) else "" for each in release.files]
        yield Released(step, gate, _outcome(step, release), tuple(filter(None, paths)))


# --- the parts of a section ------------------------------------------------------------------------------------------------------------------


def _training(step: StepRecord) -> Iterator[str]:
    if rows := step.rows:
        yield f"{rows.train} rows trained on, {rows.validation} to validate with, of {rows.split} in train"
    if best := step.decisions.get("best_epoch"):
        yield f"epoch {plain(best.value)} is kept: {best.reason}"
    if step.history and step.history.resumed:
        yield "went on from step " + ", ".join(map(str, step.history.resumed))
    if step.speed:
        yield _throughput(step, step.speed)
    if step.action is None:
        yield f"from its log: the step is {step.state} and has no result"


def _throughput(step: StepRecord, speed: shapes.Speed) -> str:
    unit = "tokens" if noun(step.task) == "text" else "patches of 16 x 16 pixels"
    parts = f", {speed.tokens_per_second:,.0f} {unit}" if speed.tokens_per_second else ""
    return f"{speed.rows_per_second:,.1f} rows{parts} a second"


def _inference(step: StepRecord, answered: shapes.Answered) -> Iterator[str]:
    yield f"split {answered.split}: {answered.rows} rows, {answered.rows - answered.failed} with an answer"
    if answered.faults:
        yield "without one: " + ", ".join(f"{count} rows, {why}" for why, count in answered.faults.items())
    if answered.truncated:
        yield f"{answered.truncated} rows were cut"
    if speed := step.speed:
        padding = f"; {percent(speed.padding)} of what was computed was padding" if speed.padding is not None else ""
        made = f"; {speed.generated_per_second:,.0f} tokens generated a second" if speed.generated_per_second else ""
        yield _throughput(step, speed) + made + padding


def _curves(step: StepRecord, history: shapes.History) -> Iterator[Figure]:
    train, validation = history.train, history.validation
    losses = [(float(point.step), point.loss) for point in train]
    ends = [epoch for epoch in validation if "step" in epoch]
    style: Literal["dots", "line"] = "dots" if len(ends) <= DOTS else "line"
    window = max(1, len(losses) // 15)
    series = [Series("each step", losses, 1, "faint"), Series(f"mean of {window}", figures.smoothed(losses, window), 1)]
    series = series if window >= _SMOOTHED else [Series("training", losses, 1)]
    if held := [(epoch["step"], epoch["loss"]) for epoch in ends if "loss" in epoch]:
        series.append(Series("validation", held, 2, style))
    if losses:
        yield drawn(figures.lines(f"Loss of {step.name} per step", series, x="step"), "Loss")
    names = [name for name in dict.fromkeys(key for epoch in ends for key in epoch) if name not in ("epoch", "step", "loss")][:3]
    if names:
        found = [
            Series(spaced(name), [(epoch["step"], epoch[name]) for epoch in ends if name in epoch], place + 1, style)
            for place, name in enumerate(names)
        ]
        yield drawn(figures.lines(f"Validation of {step.name} per epoch", found, x="step"), "Validation, at the end of each epoch")
    if losses:
        rates = [Series("learning rate", [(float(point.step), point.lr) for point in train], 3)]
        low_high = (0.0, max(point.lr for point in train) * 1.08 or 1.0)
        yield drawn(figures.lines(f"Learning rate of {step.name} per step", rates, x="step", bounds=low_high), "Learning rate")


def _parity(parity: shapes.Parity | None) -> Verdict | None:
    if parity is None:
        return None
    of = f"{parity.answers} {_many(parity.unit)} in {parity.rows} real rows"
    same = f"{percent(parity.agreement)} of {of} are equal" if parity.answers else f"There are {of}"
    agreed = f"{same}, the largest difference is {small(parity.max_abs)}"
    if parity.tolerance is None:
        return Verdict("info", f"{agreed}.")
    held = parity.max_abs <= parity.tolerance
    return Verdict("good" if held else "bad", f"{agreed}, {'within' if held else 'over'} the tolerance of {small(parity.tolerance)}.")


def _many(unit: str) -> str:
    return f"{cut(unit, 40)}{'es' if unit.endswith('x') else 's'}"


def _export_facts(step: StepRecord) -> Iterator[tuple[str, str]]:
    if parity := step.parity:
        yield "rows compared", str(parity.rows)
        yield f"same {cut(parity.unit, 40)}", percent(parity.agreement)
        yield "largest difference", small(parity.max_abs)
        if parity.max_rel is not None:
            yield "largest, relative", small(parity.max_rel)
        if parity.tolerance is not None:
            yield "tolerance", small(parity.tolerance)
    if int8 := step.int8:
        if int8.agreement is not None:
            yield "int8, same answers", percent(int8.agreement)
        if difference := int8.difference:
            yield f"int8, {spaced(int8.metric)}", f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def _int8drawn(step: StepRecord) -> Figure | None:
    if not (step.int8 and step.int8.scores):
        return None
    rows = [
        Whisker(_engine(name), each.value, each.low, each.high, f"{four(each.low)} to {four(each.high)}") for name, each in step.int8.scores.items()
    ]
    n = next((f" over {each.n} rows" for each in step.int8.scores.values() if each.n), "")
    metric = spaced(step.int8.metric)
    return drawn(
        figures.whiskers(f"{metric} of {step.name} by engine with 95 % intervals", rows, x_format=four, width=figures.NARROW),
        f"{metric[:1].upper()}{metric[1:]}, 95 % intervals{n}",
    )


def _speeds(step: StepRecord) -> Iterator[Figure]:
    fast = [
        Bar(_engine(name), each.rows_per_second, f"{each.rows_per_second:,.1f} rows a second", place % 3 + 1)
        for place, (name, each) in enumerate(step.engines.items())
        if each.rows_per_second is not None
    ]
    if fast:
        yield drawn(figures.bars(f"Rows a second of {step.name} by engine", fast), "Speed in batches", "Longer is better.")
    slow = [
        Bar(_engine(name), each.latency.p50, f"{each.latency.p50:.1f} ms · p95 {each.latency.p95:.1f} ms", place % 3 + 1)
        for place, (name, each) in enumerate(step.engines.items())
        if each.latency
    ]
    if slow:
        yield drawn(figures.bars(f"Latency of one row of {step.name} by engine", slow), "Latency of one row, median", "Shorter is better.")


def _outcome(step: StepRecord, release: shapes.Release) -> Verdict:
    to = release.to or step.to
    done = "published" if step.status.verb == "publish" else "promoted"
    if step.state == "done":
        tag = f", tag {release.tag}" if release.tag else ""
        return Verdict("good", f"{'Found unchanged at' if release.unchanged else f'{done.capitalize()} to'} {to}{tag}.")
    if step.state in ("failed", "refused"):
        return Verdict("bad", f"Not {done}: {step.status.what}" + _because(step.status.why))
    return Verdict("info", f"Not {done}: the step is {step.state}.")


def _because(why: str) -> str:
    return f": {why.rstrip('.')}." if why else "."


def _engine(name: str) -> str:
    return {"torch": "PyTorch", "onnx": "ONNX", "int8": "ONNX, 8-bit"}.get(name, name)
