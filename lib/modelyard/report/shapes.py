"""What steps leave behind as JSON, as far as the report reads it: details of actions, results of outcomes, metrics.json, samples.

A shape names what it shows and ignores the rest. What does not fit a shape, a number that is none included, is not shown: `read` says so, and
the page passes it on. Absent is not wrong: it gives None.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError


class Shape(BaseModel):
    """Frozen, tolerant of more, intolerant of NaN."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Interval(Shape):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int | None = None


class Measured(Interval):
    """A metric. difference: its value less that of the model that it was measured against, on the same rows."""

    difference: Interval | None = None


class Changed(Shape):
    """Rows that two models answer differently: only the model is right, only the other is, neither is."""

    fixed: int
    broken: int
    other: int = 0


class Against(Shape):
    """The model that an evaluation compares with. digests: of both, by the step's inputs."""

    digests: dict[str, str] = {}
    metrics: dict[str, Interval] = {}
    changed: Changed | None = None


class Baseline(Shape):
    """What always answering the most frequent label is worth."""

    label: str
    accuracy: Interval


class ClassScores(Shape):
    """One label of an evaluation."""

    label: str
    support: int
    predicted: int
    precision: Interval
    recall: Interval
    f1: Interval


class Rows(Shape):
    """Which rows of a split were evaluated."""

    split: int
    evaluated: int
    faults: dict[str, int] = {}
    seed: int | None = None


class Truncated(Shape):
    """Rows that were cut."""

    rows: int
    share: float
    max_length: int


class Overlap(Shape):
    """Evaluated rows whose text also stands in another split."""

    split: str
    rows: int
    share: float


class Span(Shape):
    """A labelled stretch from letter `start` of the text to before letter `end`."""

    start: int
    end: int
    label: str


class Box(Shape):
    """An object in an image."""

    category: str


class Followed(Shape):
    """What a language model says of a text that is there. loss: mean of its tokens that count, in nats."""

    loss: float
    token_accuracy: float | None = None


Said = str | tuple[str, ...] | tuple[Span, ...] | tuple[Box, ...] | Followed | None


class Case(Shape):
    """One row with what is true and what was predicted. picture: a path inside the artifact; loss: mean of its tokens that count, in nats."""

    row: int
    text: str = ""
    picture: str = ""
    true: Said = None
    predicted: Said = None
    probabilities: tuple[float, ...] = ()
    loss: float | None = None
    tokens: int | None = None


class Bin(Shape):
    """Answers whose probability lies between `low` and `high`. confidence: its mean; accuracy: the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: Interval


class Calibration(Shape):
    """Whether the model is as often right as it says. ece: the mean gap over the bins, weighted by their rows."""

    ece: Interval
    bins: tuple[Bin, ...] = ()


class Part(Shape):
    """The rows of a slice."""

    name: str
    n: int
    score: Interval


class Slice(Shape):
    """One metric, of the rows apart by their length or by a column's value."""

    by: str
    unit: str = ""
    metric: str
    parts: tuple[Part, ...] = ()


class Detected(Shape):
    """One label of a detector. boxes: true ones; images: those that have any."""

    label: str
    boxes: int
    images: int
    ap: Interval
    ap50: Interval


class Curve(Shape):
    """Precision of found boxes at recalls from 0 to 1, equally far apart."""

    label: str
    precision: tuple[float, ...]


class Words(Shape):
    """Words by their true and their predicted type, the last for none. cut_off: words that the model did not see."""

    cut_off: int = 0
    types: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()


class Evaluation(Shape):
    """metrics.json of an evaluate step. main: the metric that models are compared by; errors: the surest first."""

    task: str = "text-classification"
    split: str = ""
    main: str = "accuracy"
    rows: Rows | None = None
    labels: tuple[str, ...] = ()
    metrics: dict[str, Measured]
    against: Against | None = None
    classes: tuple[ClassScores, ...] | tuple[Detected, ...] = ()
    curves: tuple[Curve, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    words: Words | None = None
    baseline: Baseline | None = None
    truncated: Truncated | None = None
    overlap: Overlap | None = None
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    errors: tuple[Case, ...] = ()


class TrainPoint(Shape):
    """One point of the training curve; loss: the mean since the point before."""

    step: int
    loss: float
    lr: float


class History(Shape):
    """What a training went through. validation: per epoch: epoch, step, loss and the task's metrics."""

    train: tuple[TrainPoint, ...] = ()
    validation: tuple[dict[str, float], ...] = ()
    resumed: tuple[int, ...] = ()


class TrainRows(Shape):
    """Rows that a training used."""

    split: int
    train: int
    validation: int
    overlap: int = 0


class Latency(Shape):
    """Milliseconds of a row that comes alone."""

    p50: float
    p95: float


class Answered(Shape):
    """Rows of an infer step. failed: those without an answer; faults: why."""

    split: str
    rows: int
    failed: int = 0
    truncated: int = 0
    faults: dict[str, int] = {}


class Speed(Shape):
    """How fast something computed. padding: share of what was computed that was padding; generated: tokens that were made."""

    rows_per_second: float
    tokens_per_second: float | None = None
    generated_per_second: float | None = None
    padding: float | None = None


class EngineSpeed(Shape):
    """How fast one engine was."""

    rows_per_second: float | None = None
    latency: Latency | None = None


class Parity(Shape):
    """How far an exported model answers as the one that it was made from. agreement: the share of the `answers`, each a `unit`, that is equal."""

    rows: int
    answers: int
    unit: str
    max_abs: float
    max_rel: float | None = None
    agreement: float
    tolerance: float | None = None


class Quantised(Shape):
    """What 8-bit weights cost, and whether they were kept. scores: `metric` by engine; difference: int8 minus what it came from, on the same rows."""

    kept: bool
    agreement: float | None = None
    metric: str = "accuracy"
    scores: dict[str, Interval] = {}
    difference: Interval | None = None
    why: str = ""


class GateLine(Shape):
    """One condition of a gate."""

    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    at_least: float
    sure: bool = False
    passed: bool
    difference: bool = False


class Gate(Shape):
    """What a gate said."""

    passed: bool
    lines: tuple[GateLine, ...] = ()


class Release(Shape):
    """What a promote or a publish step did. files: paths, or objects with a path."""

    to: str = ""
    revision: str = ""
    tag: str | None = None
    files: tuple[JsonValue, ...] = ()
    gate: Gate | None = None
    unchanged: bool = False
    digest: str = ""
    previous: str | None = None
    visibility: str = ""
    licence: str | None = None


class Check(Shape):
    """One row of a preflight."""

    check: str
    verdict: str
    found: JsonValue = None
    needed: JsonValue = None
    reason: str = ""
    remedy: str = ""


class Preflight(Shape):
    """What a preflight found."""

    verdict: str
    rows: tuple[Check, ...] = ()


class FoundRepository(Shape):
    """One repository that a search found."""

    ref: str
    task: str | None = None
    size: int | None = None
    licence: str | None = None
    downloads: int | None = None
    updated: str | None = None
    gated: bool | None = None


class Unanswered(Shape):
    """A hub that gave no answer, and why."""

    hub: str
    what: str = ""


class Search(Shape):
    """What a search was for, and found."""

    query: JsonValue = None
    found: tuple[FoundRepository, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()


class DeviceUse(Shape):
    """One accelerator at one moment."""

    percent: float


class Sample(Shape):
    """Memory and devices at one moment of an attempt; t in seconds, sizes in bytes."""

    t: float
    used: float
    limit: float | None = None
    devices: dict[str, DeviceUse] = {}


class Environment(Shape):
    """Where a training ran: the device by name."""

    device: str = ""


class Listed(Shape):
    """What a hub listed for a ref."""

    revision: str = ""


class Resolved(Shape):
    """What a ref was resolved to, once per run."""

    ref: str = ""
    listing: Listed | None = None


AnyShape = TypeVar("AnyShape", bound=Shape)


def read(shape: type[AnyShape], value: Any, what: str, missing: list[str]) -> AnyShape | None:
    """The value in its shape; None where there is none, or where it does not fit, which is added to `missing`."""
    if value is None:
        return None
    try:
        return shape.model_validate(value)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        missing.append(f"{what}: not in a form that this report reads ({place}: {first['msg']})")
        return None
