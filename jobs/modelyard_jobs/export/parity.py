"""Whether an engine answers as another one does. Pure numpy.

The tolerance is relative to the scale of an output, since that is how float32 rounds: 1e-4 of its largest value is some hundred times what two orders
of summation differ by, and far under what moves a probability that anybody reads.
Labels follow by arithmetic: where the two best logits of an answer lie further apart than twice the largest difference, its label cannot change. What
the tolerance bounds is therefore also which labels may differ; `close` counts those answers.
An answer is a row's label, a token's label or the next token; of a detector it is a box over the threshold, which has to be there with its label at
IoU 0.95. A detector that takes its queries by their score may order equal ones otherwise: queries are compared with those that they match.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs.tasks.task import Arrays, Task

TOLERANCE = 1e-4
"""Largest difference of a value, as a share of the largest value of that output."""
OVERLAP = 0.95
"""Intersection over union at which two boxes are the same."""
_VALUES = 1 << 21
"""That are compared at once."""
_UNITS = {"token-classification": "token", "fill-mask": "token", "text-generation": "token", "object-detection": "box"}
"""What an answer of a task is; of others it is a label."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Parity:
    """Two engines on the same rows.

    answers: how many were compared, each a `unit`; agreement: the share that is equal. output: the one of which the rest is said, the worst by its
    tolerance. max_abs: largest difference of a value. scale: the reference's largest value, without its sign. max_rel: largest difference of an
    answer as a share of its own largest value. close: answers whose margin is no more than twice max_abs, the only ones whose label may differ.
    tolerance: for max_abs.
    """

    rows: int
    answers: int
    unit: str
    output: str
    max_abs: float
    max_rel: float
    scale: float
    agreement: float
    close: int
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the engines answer alike."""
        return self.max_abs <= self.tolerance and (self.unit != "box" or self.agreement == 1.0)

    def enforce(self) -> None:
        """Raise BadData where it does not hold: the model and its export are not the same function."""
        if not self.holds:
            equal = f"{self.agreement:.1%} of the {self.unit}{'es' if self.unit == 'box' else 's'} are equal"
            why = f"{self.output} differ by {self.max_abs:.2e}, where {self.tolerance:.2e} is tolerated; {equal}"
            remedy = "nothing is kept; use the model with the engine torch"
            raise BadData("the exported model does not answer as the model does", why=why, remedy=remedy)


@dataclass
class _Extent:
    difference: float = 0.0
    relative: float = 0.0
    scale: float = 0.0


class Comparison:
    """Counts what two engines say, batch by batch, so that no more than a batch is in memory."""

    def __init__(self, unit: str) -> None:
        """unit: what an answer is: `label`, `token` or `box`."""
        self.unit = unit
        self._extents: dict[str, _Extent] = {}
        self._margins: list[Floats] = []
        self._answers = self._equal = 0

    def add(self, reference: Arrays, found: Arrays, mask: NDArray[Any] | None, *, counted: bool = True) -> None:
        """One batch of both, by output: (rows, values), (rows, tokens, values) or (rows, queries, values).

        mask: (rows, tokens), 1 for tokens that are none of padding. counted: whether labels count as answers, and not their values alone.
        Raises BadData: an engine gave no number.
        """
        pairs = {name: (_answers(reference[name], mask), _answers(found[name], mask)) for name in reference}
        for name, sides in pairs.items():
            for who, values in zip(("the model", "the exported model"), sides, strict=True):
                if broken := int((~np.isfinite(values)).any(-1).sum()):
                    what = f"{who} gave no number for {broken} of {values[..., 0].size} {self.unit}s"
                    raise BadData(what, where=name, remedy="finetune it again")
        if self.unit == "box":
            pairs = _matched(pairs)
        for number, (name, sides) in enumerate(pairs.items()):
            extent = self._extents.setdefault(name, _Extent())
            for one, other in _sliced(*sides):
                difference, sizes = np.abs(other - one).max(1), np.abs(one).max(1)
                relative = np.divide(difference, sizes, out=np.zeros_like(difference), where=sizes > 0)
                extent.difference = max(extent.difference, float(difference.max()))
                extent.relative = max(extent.relative, float(relative.max()))
                extent.scale = max(extent.scale, float(sizes.max()))
                if counted and number == 0 and self.unit != "box":
                    best = np.partition(one, -2, axis=-1)
                    self._margins.append(best[:, -1] - best[:, -2])
                    self.count(len(one), int((one.argmax(-1) == other.argmax(-1)).sum()))

    def count(self, answers: int, equal: int) -> None:
        """So many answers, of which so many are equal."""
        self._answers += answers
        self._equal += equal

    def result(self, rows: int) -> Parity:
        """Of so many rows. What compares nothing holds nothing back: no answers are all equal."""
        name, worst = max(self._extents.items(), key=lambda item: item[1].difference / (item[1].scale or 1.0))
        most = next(iter(self._extents.values())).difference  # of what labels follow from
        close = sum(int((margins <= 2 * most).sum()) for margins in self._margins)
        agreement = self._equal / self._answers if self._answers else 1.0
        return Parity(
            rows=rows,
            answers=self._answers,
            unit=self.unit,
            output=name,
            max_abs=worst.difference,
            max_rel=worst.relative,
            scale=worst.scale,
            agreement=agreement,
            close=close,
            tolerance=TOLERANCE * worst.scale,
        )


def of(task: Task) -> Comparison:
    """A new comparison in the task's own terms."""
    return Comparison(_UNITS.get(task.name, "label"))


def same_boxes(reference: Mapping[str, Any], found: Mapping[str, Any], threshold: float) -> tuple[int, int]:
    """(boxes over the threshold in either answer, each that both have counted once; how many both have, with one label and at OVERLAP).

    A box that stands in one answer right over the threshold may stand in the other right under it, by no more than TOLERANCE.
    Answers as ObjectDetection's: boxes (x, y, width, height), labels, scores.
    """
    one, other = _over(reference, threshold - TOLERANCE), _over(found, threshold - TOLERANCE)
    free, count, same = set(range(len(other))), 0, 0
    for label, box, own in one:
        score = own
        overlaps = {place: _overlap(box, other[place][1]) for place in free if other[place][0] == label}
        best = max(overlaps, key=lambda place: overlaps[place], default=None)
        if best is not None and overlaps[best] >= OVERLAP:
            free.remove(best)
            score = max(score, other[best][2])
            same += score >= threshold
        count += score >= threshold
    return count + sum(other[place][2] >= threshold for place in free), same


def _answers(values: Floats, mask: NDArray[Any] | None) -> Floats:
    if mask is not None and values.ndim == 3 and values.shape[:2] == mask.shape:
        found: Floats = values[mask.astype(bool)]
        return found
    return values


def _sliced(one: Floats, other: Floats) -> Iterator[tuple[Floats, Floats]]:
    """The same answers of both, (answers, values) in float64, a few at a time: those of a large vocabulary are gigabytes."""
    one, other = (side.reshape(-1, side.shape[-1]) for side in (one, other))
    step = max(1, _VALUES // one.shape[-1])
    for start in range(0, len(one), step):
        yield one[start : start + step].astype(np.float64), other[start : start + step].astype(np.float64)


def _matched(pairs: Mapping[str, tuple[Floats, Floats]]) -> dict[str, tuple[Floats, Floats]]:
    """The surer half of each image's queries of the reference, each with the nearest of the others that is still free."""
    first = next(iter(pairs))
    found: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in pairs}
    for image in range(len(pairs[first][0])):
        one, other = ({name: sides[side][image] for name, sides in pairs.items()} for side in (0, 1))
        surer = np.argsort(-one[first].max(-1), kind="stable")[: max(1, len(one[first]) // 2)]
        far = np.sum([np.abs(one[name][surer, None].astype(np.float64) - other[name][None]).max(-1) for name in pairs], axis=0)
        partners = []
        for row in far:  # the surest first; what it takes is gone for those after it
            partners.append(int(row.argmin()))
            far[:, partners[-1]] = np.inf
        for name in pairs:
            found[name].append((one[name][surer], other[name][partners]))
    return {name: (np.concatenate([one for one, _ in sides]), np.concatenate([other for _, other in sides])) for name, sides in found.items()}


def _over(answer: Mapping[str, Any], least: float) -> list[tuple[int, Sequence[float], float]]:
    """(label, box, score) of each."""
    return [each for each in zip(answer["labels"], answer["boxes"], answer["scores"], strict=True) if each[2] >= least]


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else float(list(one) == list(other))
