"""What a task is to the steps: which columns it reads, how rows become what a model takes, and what the model's output says.

A Task knows no engine: nothing here or in a module of tasks/ needs torch, so that an export runs without it. The way of a row:

  row (column values by role) --prepare--> Item --collate--> arrays --the model, by a Runner--> arrays --raws--> one raw per item --answers--> answer

The same functions serve torch and ONNX; what trains is finetune/<task>.py. Faults are per row: a row that the task cannot use never ends a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics.interval import Metric

Row = Mapping[str, Any]
"""Role (text, tokens, image, label …) -> the row's value of that column."""
Arrays = Mapping[str, NDArray[Any]]
Answers = NDArray[np.float32] | list[Any]
"""One per row: (rows, labels) of a task whose answers are dense, else JSON values."""
Truths = NDArray[np.int64] | list[Any]
"""One per row."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row that a model can take. size: tokens, or patches of 16 x 16 pixels, that it fills in a batch; truncated: something was cut off.

    values: what collate makes tensors of. about: what answers need beside the model's output, such as where words stand in the text.
    """

    size: int
    values: Any
    truncated: bool = False
    about: Any = None


@dataclass(frozen=True)
class Signature:
    """A task's graph in ONNX: input -> its axes, output -> its axes; a string is an axis of any size of that name, a number a fixed one."""

    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]


@dataclass(frozen=True)
class Measured:
    """What answers are worth. main: the metric that models are compared by. document: the task's own parts of metrics.json.

    right: of each row whether the answer is the truth. worst: places of wrong answers, the surest first.
    """

    main: str
    metrics: Mapping[str, Metric]
    right: NDArray[np.bool_]
    worst: NDArray[np.int64]
    document: Mapping[str, Any] = field(default_factory=dict)


class TextEncoder(Protocol):
    """Texts to token ids, the model's special tokens included, unpadded, at most `max_length`; of each whether tokens were cut off."""

    limit: int
    """Tokens that the model has positions for."""
    pad: int

    def texts(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        """Of texts that stand alone."""

    def pairs(self, texts: Sequence[str], others: Sequence[str], max_length: int) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        """As `texts`, each followed by another; what is too long is cut off the first. Second: of each token 0 or 1, the text that it is of.

        No such row for a model that does not ask for it. The others must leave room for the first.
        """

    def words(self, rows: Sequence[Sequence[str]], max_length: int) -> tuple[list[list[int]], list[list[int | None]], list[bool]]:
        """As `texts`, of rows that are words already; second: of each token the place of its word, None for special tokens."""


class ImageEncoder(Protocol):
    """Images to pixels, as the model's preprocessor_config.json says."""

    limit: int

    def pixels(self, image: Any) -> NDArray[np.float32]:
        """(channels, height, width) of a PIL image."""


class Task(Protocol):
    """One task, made with the settings of the step that runs it (tasks.of)."""

    name: str
    auto: str
    """The class of transformers that loads a model for it."""
    encoder: Literal["text", "image"]
    labelled: bool
    """Whether the model carries the labels that it gives."""
    dense: bool
    """Whether an answer is one array of float32, (labels,): a part then holds (rows, labels). Otherwise an answer is made of JSON values."""
    window: int
    """Rows of a part: what is kept, and redone, at once."""
    outputs: tuple[str, ...]
    """Names of the model's outputs that raws are made of."""

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """Role -> column, named by the settings or found; with `truth` those of what is to be learnt too. NoInput where one is not there.

        The first is the content of a row, by which splits are cut and overlaps are counted.
        """

    def unfit(self, config: Any) -> str | None:
        """Why a model with this configuration of transformers cannot do the task, None when it can."""

    def fault(self, row: Row) -> str | None:
        """Why a row cannot be used, as far as it is seen without the model's encoder; None when it seems that it can."""

    def prepare(self, rows: Sequence[Row], encoder: Any, max_length: int) -> list[Item | str]:
        """Of each row what the model takes, or why it cannot take it."""

    def collate(self, items: Sequence[Item], encoder: Any) -> dict[str, NDArray[Any]]:
        """The model's inputs for one batch, by name, padded."""

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[Any]:
        """The model's output for each item, without padding: an array, or arrays by name."""

    def answers(self, raws: Sequence[Any], items: Sequence[Item], labels: Sequence[str]) -> Answers:
        """What each raw says. An answer that holds a number that is none (NaN) is None."""

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """An answer as infer writes it: JSON values by name, the same names for every answer; `empty` where there is no answer."""

    def empty(self) -> dict[str, Any]:
        """The names of `record` for a row without an answer."""

    def signature(self, labels: Sequence[str]) -> Signature | None:
        """The graph that an export has; None where there is none."""


class Measurable(Task, Protocol):
    """A task that evaluate measures."""

    def label_names(self, dataset: Any, columns: Mapping[str, str]) -> list[str]:
        """The labels that the data have, in the order of their ids; empty where the task has none. BadData: too few of them, or not usable."""

    def truths(self, dataset: Any, columns: Mapping[str, str], labels: Sequence[str]) -> Truths:
        """What is right for each row of `dataset`, comparable with answers. BadData: a row without it, or a label that the model does not know."""

    def measure(self, truths: Truths, answers: Answers, labels: Sequence[str]) -> Measured:
        """Metrics with 95 % intervals."""

    def differences(self, truths: Truths, first: Answers, second: Answers, labels: Sequence[str]) -> dict[str, Metric]:
        """Metric -> how much more of it the first answers have than the second, on the same rows, with a paired interval."""

    def compared(self, truth: Any, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """A row of predictions.jsonl: what is true and what was predicted, as JSON values."""


@runtime_checkable
class Choosing(Protocol):
    """A task whose answers are over labels that the step names; `Task.answers` is still given the model's own."""

    choices: tuple[str, ...]


@runtime_checkable
class Illustrated(Protocol):
    """A task whose answers are seen best in a picture."""

    def picture(self, row: Row, answer: Any, truth: Any | None, labels: Sequence[str]) -> bytes:
        """A PNG of a row with its answer drawn on it, beside the truth where there is one."""
