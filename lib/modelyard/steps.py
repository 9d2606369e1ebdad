"""The settings of every step, typed: the submitter validates a pipeline with them, the jobs run by them.

A step's inputs (`model`, `data`) are written as a ref (refs.py), as the name of another step of the pipeline, or, in Python, as that step
itself. Settings that are not named in `neutral` affect the result and are part of the key under which the result is reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from modelyard import refs
from modelyard.errors import Usage
from modelyard.quantities import Memory, Seconds

Kind = Literal["model", "dataset", "metrics", "plan"]
"""What an artifact is."""


class Reuse(StrEnum):
    """How the result of a step may be used again."""

    RESOLVE = "resolve"  # keyed by what the ref resolved to
    PURE = "pure"  # keyed by settings, inputs, code, versions, device
    OBSERVE = "observe"  # never reused
    EFFECT = "effect"  # changes something outside the yard


class Resources(BaseModel):
    """What a step that computes asks of a machine. Never part of the key of a result."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gpus: int = Field(0, ge=0, le=64, description="accelerators for one step; 0 computes on the CPU")
    accelerator: Literal["nvidia"] = Field("nvidia", description="vendor of the accelerators")
    fallback: Literal["cpu"] | None = Field(None, description="`cpu`: compute on the CPU where no accelerator is usable, and say so")
    cpu: int | None = Field(None, ge=1, description="CPU cores, and threads of a step; default: what the process may use")
    memory: Memory | None = Field(None, description="memory of a step, such as 16Gi; a limit on a cluster, not enforced on a laptop")
    time_limit: Seconds | None = Field(None, description="running time of a step, summed over its attempts, such as 2h")

    def under(self, own: Resources | None) -> Resources:
        """These resources with what `own` sets in their place."""
        return self if own is None else self.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


class Step(BaseModel):
    """What all steps have; a pipeline is made of its subclasses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    verb: ClassVar[str]
    reuse: ClassVar[Reuse]
    made: ClassVar[Kind]
    inputs: ClassVar[Mapping[str, Kind]] = MappingProxyType({})
    """Field -> kind of artifact that it takes."""
    neutral: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not affect the result."""

    resources: Resources | None = Field(None, description="resources of this step alone, written beside the verb", repr=False)

    def makes(self) -> Kind:
        """The kind of artifact that the step commits."""
        return self.made

    def settings(self) -> dict[str, Any]:
        """Every setting with its default, as JSON values; without `resources`. Inputs must be names by now."""
        return self.model_dump(mode="json", exclude={"resources"})

    def result_settings(self) -> dict[str, Any]:
        """The settings that, beside its inputs, decide what the step's result is."""
        return {name: value for name, value in self.settings().items() if name not in self.neutral and name not in self.inputs}

    def smoke(self) -> Self:
        """The same step on a handful of rows, to see a whole pipeline work within a minute or two."""
        return self


def _input(value: object) -> str | Step:
    if isinstance(value, Step):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("input", "should be a ref, a path or the name of a step")
    if not refs.is_step_name(value):
        _checked(value)
    return value


def _ref(kind: refs.RefKind) -> PlainValidator:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise PydanticCustomError("ref", "should be a ref or a path")
        if refs.is_step_name(value):
            raise PydanticCustomError(
                "ref",
                "{value} is a bare word; fetch takes a ref such as modelscope://owner/name, or a path that starts with ./ or /",
                {"value": repr(value)},
            )
        ref = _checked(value)
        if not isinstance(ref, refs.PathRef) and ref.kind != kind:
            raise PydanticCustomError("ref", "{value} names a {found}, not a {kind}", {"value": repr(value), "found": ref.kind, "kind": kind})
        return value

    return PlainValidator(check)


def _checked(value: str) -> refs.Ref:
    try:
        return refs.parse(value)
    except Usage as error:
        message = error.what + (f" ({error.why})" if error.why else "") + (f"; {error.remedy}" if error.remedy else "")
        raise PydanticCustomError("ref", "{message}", {"message": message}) from error


Input = Annotated[str | Step, PlainValidator(_input), WithJsonSchema({"type": "string"})]
ModelRef = Annotated[str, _ref("model"), WithJsonSchema({"type": "string"})]
DatasetRef = Annotated[str, _ref("dataset"), WithJsonSchema({"type": "string"})]
Task = Literal["text-classification"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

SMOKE_ROWS = 64
SMOKE_STEPS = 2


class Fetch(Step):
    """Bring a model or a data set into the yard."""

    verb = "fetch"
    reuse = Reuse.RESOLVE

    model: ModelRef | None = Field(None, description="ref of a model")
    dataset: DatasetRef | None = Field(None, description="ref of a data set")
    fresh: bool = Field(False, description="fail when the hub does not answer, rather than use what it last said")
    trust: tuple[Literal["pickle", "code"], ...] = Field(
        (), strict=False, description="unsafe content to accept: `pickle` weights, `code` of the repository"
    )

    neutral = frozenset({"fresh"})

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.model is None) == (self.dataset is None):
            raise PydanticCustomError("one", "give either `model` or `dataset`")
        return self

    @property
    def ref(self) -> str:
        """The ref as written."""
        return self.model or self.dataset or ""

    def makes(self) -> Kind:
        """A model or a dataset, as the ref says."""
        return "model" if self.model else "dataset"


class _Rows(Step):
    """What steps have that give rows to a model."""

    reuse = Reuse.PURE
    inputs = MappingProxyType({"model": "model", "data": "dataset"})

    model: Input = Field(description="the model to start from")
    data: Input = Field(description="the rows")
    max_length: int = Field(256, ge=4, le=131072, description="tokens of a row; longer rows are cut, and counted")
    text: str | None = Field(None, description="column of the text; default: found by name or type")
    seed: int = Field(42, ge=0, lt=2**32, description="decides what is drawn: samples, order, new weights, dropout, the bootstrap")


class _Sample(_Rows):
    """What steps have that run a model over rows."""

    rows: int | None = Field(None, ge=1, description="a seeded sample of this many rows; default all")

    def smoke(self) -> Self:
        """64 rows."""
        return self.model_copy(update={"rows": min(self.rows or SMOKE_ROWS, SMOKE_ROWS)})


class Finetune(_Rows):
    """Train a model further on labelled rows; the best epoch by the validation split is kept."""

    verb = "finetune"
    made = "model"
    neutral = frozenset({"checkpoint_every"})

    data: Input = Field(description="the rows; without a validation split, 10 % of train are cut for it")
    label: str | None = Field(None, description="column of the label; default: found by name")
    task: Task = Field("text-classification", description="what the model learns to do")
    epochs: int = Field(3, ge=1, description="passes over the rows")
    batch_size: int = Field(16, ge=1, description="rows of one forward pass")
    accumulate: int = Field(1, ge=1, description="batches per optimizer step")
    learning_rate: float = Field(2e-5, gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's decay; not on biases and norms")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all optimizer steps in which the learning rate rises")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    train_rows: int | None = Field(
        None,
        ge=2,
        description="rows to train on, a seeded sample taken after the validation split; it validates on no more than that; default all",
    )
    max_steps: int | None = Field(None, ge=1, description="optimizer steps to stop after")
    patience: int | None = Field(None, ge=1, description="stop after this many epochs without a better validation result")
    dtype: Dtype = Field("auto", description="of the computation; weights and optimizer stay float32")
    checkpoint_every: Seconds = Field(60, description="seconds between checkpoints; one more at each epoch's end")

    def smoke(self) -> Self:
        """64 rows, 2 optimizer steps, 1 epoch."""
        rows, steps = min(self.train_rows or SMOKE_ROWS, SMOKE_ROWS), min(self.max_steps or SMOKE_STEPS, SMOKE_STEPS)
        return self.model_copy(update={"train_rows": rows, "max_steps": steps, "epochs": 1})


class Evaluate(_Sample):
    """Measure a model on labelled rows: metrics with their intervals, confusion matrix, worst errors."""

    verb = "evaluate"
    made = "metrics"

    model: Input = Field(description="the model to measure")
    split: str = Field("test", pattern=r"^[A-Za-z0-9_-]+$", description="which split of the data")
    label: str | None = Field(None, description="column of the label; default: found by name")


class Infer(_Sample):
    """Run a model over rows; a data set of predictions in the order of the rows."""

    verb = "infer"
    made = "dataset"

    model: Input = Field(description="the model to run")
    split: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]+$", description="which split of the data; default: the only one, else test")
    token_budget: int | None = Field(None, ge=16, description="padded tokens of one batch; default: what suits the device")


STEPS: Mapping[str, type[Step]] = MappingProxyType({step.verb: step for step in (Fetch, Finetune, Infer, Evaluate)})
"""Verb -> settings, in the order of the lifecycle."""
