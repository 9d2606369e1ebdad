"""The settings of every step, typed: the submitter validates a pipeline with them, the jobs run by them.

A step's inputs (`model`, `data`, `gate.metrics`) are written as a ref (refs.py), as the name of another step of the pipeline, or, in Python, as
that step itself. Settings that are not named in `neutral` affect the result and are part of the key under which the result is reused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
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


def _accelerator(value: str) -> str:
    if not _ACCELERATOR.fullmatch(value):
        message = f"{value!r} is no accelerator; known are nvidia, nvidia-mig:1g.10gb, amd, intel, ascend, none"
        raise PydanticCustomError("accelerator", "{message}", {"message": message})
    return value


_ACCELERATOR = re.compile(r"nvidia|nvidia-mig:[1-9]g\.[0-9]+gb|amd|intel|ascend|none")
Accelerator = Annotated[str, AfterValidator(_accelerator)]


class Resources(BaseModel):
    """What a step that computes asks of a machine. Never part of the key of a result."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gpus: int = Field(0, ge=0, le=64, description="accelerators for one step; 0 computes on the CPU")
    accelerator: Accelerator = Field("nvidia", description="vendor of the accelerators: nvidia, nvidia-mig:1g.10gb, amd, intel, ascend, none")
    gpu_model: str | None = Field(
        None, min_length=1, description="only accelerators of this model, by the label of its nodes, such as NVIDIA-H100-80GB-HBM3"
    )
    fallback: Literal["cpu"] | None = Field(None, description="`cpu`: compute on the CPU where no accelerator is usable, and say so")
    cpu: int | None = Field(None, ge=1, description="CPU cores, and threads of a step; default: what the process may use, on a cluster by the step")
    memory: Memory | None = Field(None, description="memory of a step, such as 16Gi; a limit on a cluster, not enforced on a laptop")
    shm: Memory | None = Field(None, description="shared memory of a step on a cluster, such as 2Gi; part of its memory")
    time_limit: Seconds | None = Field(None, description="running time of a step, summed over its attempts, such as 2h")
    pending_limit: Seconds | None = Field(None, description="how long a step may wait for a place on a cluster, such as 30m")
    priority: str | None = Field(None, min_length=1, description="priority class of a step's pods on a cluster")
    queue: str | None = Field(None, min_length=1, description="queue that a step's Jobs are put into on a cluster (Kueue's LocalQueue)")
    tolerations: tuple[dict[str, Any], ...] = Field((), strict=False, description="further tolerations of a step's pods, as Kubernetes writes them")
    overlay: dict[str, Any] | None = Field(None, description="a strategic merge patch over the pod of a step, for what has no setting")

    def under(self, own: Resources | None) -> Resources:
        """These resources with what `own` sets in their place."""
        return self if own is None else self.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


class Step(BaseModel):
    """What all steps have; a pipeline is made of its subclasses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    verb: ClassVar[str]
    reuse: ClassVar[Reuse]
    made: ClassVar[Kind | None] = None
    inputs: ClassVar[Mapping[str, Kind]] = MappingProxyType({})
    """Field, or `field.field` of a setting that has settings of its own -> kind of artifact that it takes."""
    neutral: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not affect the result."""

    resources: Resources | None = Field(None, description="resources of this step alone, written beside the verb", repr=False)

    def makes(self) -> Kind | None:
        """The kind of artifact that the step commits; None: it commits none, and what it found or did is in its outcome."""
        return self.made

    def sources(self) -> dict[str, str | Step]:
        """Input -> what it was written as, for the inputs that are given."""
        found = {name: attrgetter(name)(self) for name in self.inputs if getattr(self, name.partition(".")[0]) is not None}
        return {name: source for name, source in found.items() if source is not None}

    def with_sources(self, sources: Mapping[str, str]) -> Self:
        """The same step with these inputs."""
        update: dict[str, Any] = {}
        for name, source in sources.items():
            outer, _, inner = name.partition(".")
            update[outer] = getattr(self, outer).model_copy(update={inner: source}) if inner else source
        return self.model_copy(update=update)

    def settings(self) -> dict[str, Any]:
        """Every setting with its default, as JSON values; without `resources`. Inputs must be names by now."""
        return self.model_dump(mode="json", exclude={"resources"})

    def computes(self) -> bool:
        """Whether the step takes the accelerators that its resources ask for."""
        return self.reuse is Reuse.PURE

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


def _target(scheme: str) -> PlainValidator:
    def check(value: object) -> str:
        form = "yard://models/NAME@ALIAS" if scheme == "yard" else "modelscope://OWNER/NAME or hf://OWNER/NAME"
        ref = _checked(value) if isinstance(value, str) and "://" in value else None
        if ref is None or isinstance(ref, refs.YardRef) != (scheme == "yard") or isinstance(ref, refs.PathRef) or ref.kind != "model":
            raise PydanticCustomError("ref", "{value} is no place for it; write {form}", {"value": repr(value), "form": form})
        if isinstance(ref, refs.HubRef) and ref.is_commit:
            raise PydanticCustomError("ref", "{value} is no place for it: a commit does not change", {"value": repr(value)})
        return str(value)

    return PlainValidator(check)


def _tag(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        tagged = refs.HubRef("modelscope", "model", "owner", "name", refs.check_revision(value, "tag"))
    except Usage as error:
        raise PydanticCustomError("tag", "{what}", {"what": f"{value!r} is no tag: letters, digits, '.', '_', '-', '+' and '/'"}) from error
    if tagged.is_commit or value in ("main", "master"):
        raise PydanticCustomError("tag", "{value} is no tag: hubs take it for a commit or their main branch", {"value": repr(value)})
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
YardName = Annotated[str, _target("yard"), WithJsonSchema({"type": "string"})]
HubName = Annotated[str, _target("hub"), WithJsonSchema({"type": "string"})]
Task = Literal[
    "text-classification",
    "token-classification",
    "zero-shot-classification",
    "fill-mask",
    "text-generation",
    "image-classification",
    "object-detection",
]
Trainable = Literal["text-classification", "token-classification", "text-generation", "image-classification", "object-detection"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Engine = Literal["auto", "torch", "onnx", "onnx-int8"]

_OF_LABELS = ("accuracy", "precision_macro", "precision_weighted", "recall_macro", "recall_weighted", "f1_macro", "f1_weighted", "accuracy_top5")
MEASURED: Mapping[Task, tuple[str, ...]] = MappingProxyType(
    {
        "text-classification": _OF_LABELS,
        "token-classification": ("f1", "precision", "recall", "f1_macro", "precision_macro", "recall_macro", "token_accuracy"),
        "zero-shot-classification": _OF_LABELS,
        "fill-mask": ("token_accuracy", "pseudo_log_likelihood", "pseudo_perplexity"),
        "text-generation": ("log_likelihood", "token_accuracy", "perplexity"),
        "image-classification": _OF_LABELS,
        "object-detection": ("map", "ap50", "ap75"),
    }
)
"""Task -> the metrics that evaluate measures, first that by which models are compared where no other is named."""
LOWER = frozenset({"perplexity", "pseudo_perplexity"})
"""Metrics that are better when they are lower, so that no gate can ask for a floor."""
SMOKE_ROWS = 64
SMOKE_STEPS = 2


class Search(Step):
    """Look for models or data sets on hubs."""

    verb = "search"
    reuse = Reuse.OBSERVE

    query: str = Field("", description="words to look for")
    kind: Literal["model", "dataset"] = Field("model", description="what to look for")
    hub: tuple[Literal["modelscope", "huggingface"], ...] = Field(
        ("modelscope", "huggingface"), strict=False, min_length=1, description="where to look"
    )
    owner: str | None = Field(None, description="only what belongs to this owner")
    task: str | None = Field(None, description="only for this task, such as text-classification")
    licence: str | None = Field(None, description="only under this licence, such as apache-2.0")
    sort: Literal["downloads", "updated"] = Field("downloads", description="the most downloaded, or the last updated, first")
    limit: int = Field(10, ge=1, le=100, description="results of each hub")


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

    def makes(self) -> refs.RefKind:
        """A model or a dataset, as the ref says."""
        return "model" if self.model else "dataset"


class Preflight(Step):
    """Look whether a pipeline could run here; a verdict and a reason for each thing that it needs."""

    verb = "preflight"
    reuse = Reuse.OBSERVE

    disk: Memory | None = Field(None, description="free space that the yard must have, such as 10Gi; default: what the pipeline's refs need")

    def computes(self) -> bool:
        """It looks at the accelerators that the pipeline asks for."""
        return True


class Gate(BaseModel):
    """What has to hold before anything is promoted or published: floors, no worse than the champion, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

    metrics: Input = Field(description="the evaluate step that measured it")
    at_least: dict[str, float] = Field({}, description="metric -> lowest value that passes")
    not_worse_than_champion: float | None = Field(
        None, ge=0, lt=1, description="what each metric of `at_least`, else the task's main one, may lose against the model measured `against`"
    )
    sure: bool = Field(False, description="the lower end of the 95 % interval has to pass, not the value")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.at_least and self.not_worse_than_champion is None:
            raise PydanticCustomError("one", "give `at_least`, `not_worse_than_champion`, or both")
        if lower := sorted(LOWER & self.at_least.keys()):
            raise PydanticCustomError(
                "lower",
                "{name} is better when it is lower: ask for log_likelihood or pseudo_log_likelihood, its negative logarithm",
                {"name": lower[0]},
            )
        return self

    @property
    def compares(self) -> bool:
        """Whether the model may not be worse than the champion."""
        return self.not_worse_than_champion is not None

    def compared(self, main: str) -> tuple[str, ...]:
        """The metrics in which it may not. main: that of the task."""
        return (tuple(self.at_least) or (main,)) if self.compares else ()


_WHERE = frozenset({"max_memory_per_gpu", "cpu_offload"})
"""Settings that say where a model lies, and not what it computes."""


class _Rows(Step):
    """What steps have that give rows to a model."""

    reuse = Reuse.PURE
    inputs = MappingProxyType({"model": "model", "data": "dataset"})
    neutral = _WHERE

    model: Input = Field(description="the model to start from")
    data: Input = Field(description="the rows")
    max_length: int = Field(256, ge=4, le=131072, description="tokens of a row; longer rows are cut, and counted")
    text: str | None = Field(None, description="column of the text, of its words, or of the messages of a chat; default: found by name or type")
    image: str | None = Field(None, description="column of the image; default: found by name or type")
    seed: int = Field(42, ge=0, lt=2**32, description="decides what is drawn: samples, order, new weights, dropout, the bootstrap")
    max_memory_per_gpu: Memory | None = Field(
        None, description="of each accelerator at most this much, such as 40Gi, for a model that is split over several; default: what is free"
    )
    cpu_offload: bool = Field(False, description="keep in the host's memory what does not fit the accelerators, which is slow; otherwise it fails")


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
    neutral = _WHERE | {"checkpoint_every", "activation_checkpointing"}

    data: Input = Field(description="the rows; without a validation split, 10 % of train are cut for it")
    label: str | None = Field(None, description="column of the label, of the words' labels, or of the objects; default: found by name")
    task: Trainable = Field("text-classification", description="what the model learns to do")
    method: Literal["full", "lora"] = Field("full", description="train all weights, or adapters of low rank that are merged into them at the end")
    lora_rank: int = Field(16, ge=1, le=1024, description="rank of the adapters")
    activation_checkpointing: bool = Field(False, description="compute activations again in the backward pass: less memory, a third more time")
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


def _check_candidates(task: Task | None, candidates: tuple[str, ...]) -> None:
    """Zero-shot classification chooses between labels that are given; nothing else does."""
    if task == "zero-shot-classification" and len(set(candidates)) < 2:
        raise PydanticCustomError("candidates", "zero-shot-classification needs `candidates`: two labels to choose from, or more")
    if candidates and task != "zero-shot-classification":
        raise PydanticCustomError("candidates", "`candidates` are for `task: zero-shot-classification`")
    if len(set(candidates)) < len(candidates):
        raise PydanticCustomError("candidates", "a label stands twice in `candidates`")


class _Engine(_Sample):
    """What steps have that run a model as it is."""

    task: Task | None = Field(None, description="what the model is run for; default: what its architecture is made for")
    engine: Engine = Field("auto", description="what runs the model; `auto`: onnx for an exported model, torch for others")
    dtype: Dtype = Field("float32", description="of the computation; `auto`: bfloat16 where the accelerator has it")
    candidates: tuple[str, ...] = Field((), strict=False, description="zero-shot-classification: the labels to choose from")
    hypothesis: str = Field("This example is {}.", pattern=r"\{\}", description="zero-shot-classification: what is said of a label, written as {}")
    threshold: float = Field(0.5, ge=0, le=1, description="object-detection: the lowest score of a box that is written and drawn")
    max_error_rate: float = Field(0.1, ge=0, le=1, description="share of rows that may be unusable; more fail the step")

    @model_validator(mode="after")
    def _candidates(self) -> Self:
        _check_candidates(self.task, self.candidates)
        return self


class Evaluate(_Engine):
    """Measure a model on labelled rows: metrics with their intervals, confusion matrix, worst errors."""

    verb = "evaluate"
    made = "metrics"
    inputs = MappingProxyType({"model": "model", "against": "model", "data": "dataset"})

    model: Input = Field(description="the model to measure")
    against: Input | None = Field(None, description="a second model, measured on the same rows and compared with the first, such as the champion")
    split: str = Field("test", pattern=r"^[A-Za-z0-9_-]+$", description="which split of the data")
    label: str | None = Field(None, description="column of the label, of the words' labels, or of the objects; default: found by name")
    slice_by: str | None = Field(None, description="column whose values are measured apart, beside slices by length")

    def measures(self) -> tuple[str, ...]:
        """The metrics that it has, the main one first; where no task is named, those of all tasks."""
        return tuple(dict.fromkeys(name for task, names in MEASURED.items() if self.task in (task, None) for name in names))


class Infer(_Engine):
    """Run a model over rows; a data set of predictions in the order of the rows."""

    verb = "infer"
    made = "dataset"

    model: Input = Field(description="the model to run")
    split: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]+$", description="which split of the data; default: the only one, else test")
    token_budget: int | None = Field(
        None, ge=16, description="padded tokens, or patches of 16 x 16 pixels, of one batch; default: what suits the device"
    )
    top_k: int = Field(5, ge=1, le=100, description="fill-mask, image-classification: how many answers of a row are written")
    max_new_tokens: int = Field(128, ge=1, le=131072, description="text-generation: tokens of an answer at most")
    temperature: float = Field(0.0, ge=0, le=10, description="text-generation: 0 takes the likeliest token; more draws, by the seed")
    pictures: int = Field(20, ge=0, le=10000, description="tasks over images: rows whose image is written with the answer drawn on it")


class Export(Step):
    """Write a model as ONNX, and prove on real rows that it answers as before; fails where it does not."""

    verb = "export"
    reuse = Reuse.PURE
    made = "model"
    inputs = MappingProxyType({"model": "model", "parity": "dataset"})

    model: Input = Field(description="the model to export")
    parity: Input = Field(description="rows on which both have to give the same answers")
    split: str = Field("test", pattern=r"^[A-Za-z0-9_-]+$", description="which split of them")
    rows: int = Field(500, ge=8, description="a seeded sample of this many rows")
    max_length: int = Field(256, ge=4, le=131072, description="tokens of a row; longer rows are cut")
    task: Task | None = Field(None, description="what the model is for; default: what its architecture is made for")
    text: str | None = Field(None, description="column of the text or of its words; default: found by name or type")
    image: str | None = Field(None, description="column of the image; default: found by name or type")
    label: str | None = Field(None, description="column of the label, of the words' labels, or of the objects; default: found by name")
    candidates: tuple[str, ...] = Field((), strict=False, description="zero-shot-classification: the labels to choose from")
    hypothesis: str = Field("This example is {}.", pattern=r"\{\}", description="zero-shot-classification: what is said of a label, written as {}")
    threshold: float = Field(0.5, ge=0, le=1, description="object-detection: the lowest score of a box")
    seed: int = Field(42, ge=0, lt=2**32, description="decides the sample and the bootstrap")
    int8: bool = Field(False, description="also write 8-bit weights; kept only where they do not cost accuracy")

    @model_validator(mode="after")
    def _candidates(self) -> Self:
        _check_candidates(self.task, self.candidates)
        return self

    def computes(self) -> bool:
        """Not on an accelerator: an export is compared in the float32 of a CPU."""
        return False

    def smoke(self) -> Self:
        """64 rows."""
        return self.model_copy(update={"rows": min(self.rows, SMOKE_ROWS)})


class _Release(Step):
    """What steps have that give a model a name elsewhere."""

    reuse = Reuse.EFFECT
    inputs = MappingProxyType({"model": "model", "gate.metrics": "metrics"})

    gate: Gate | None = Field(None, description="what has to hold first; otherwise the step is refused")


class Promote(_Release):
    """Move a name in the yard to a model, or back to what it was before."""

    verb = "promote"

    model: Input | None = Field(None, description="the model that the name is to stand for")
    to: YardName = Field(description="the name, such as yard://models/reviews@champion")
    rollback: bool = Field(False, description="instead of a model: move the name back to what it stood for before")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.model is None) != self.rollback or (self.rollback and self.gate):
            raise PydanticCustomError("one", "give either `model`, with or without a `gate`, or `rollback`")
        return self


class Publish(_Release):
    """Put a model on a hub, with a card that says how it was made and measured."""

    verb = "publish"

    model: Input = Field(description="the model to publish; an export goes with the weights that it was made from")
    to: HubName = Field(description="the repository, such as modelscope://me/reviews; it is made where it is not there")
    visibility: Literal["private", "public"] = Field("private", description="of a repository that is made")
    tag: Annotated[str | None, AfterValidator(_tag)] = Field(None, description="name of the version; default: made from the content")
    licence: str | None = Field(None, description="of what is published; default: that of the model that it was made from")


STEPS: Mapping[str, type[Step]] = MappingProxyType(
    {step.verb: step for step in (Search, Fetch, Preflight, Finetune, Infer, Evaluate, Export, Promote, Publish)}
)
"""Verb -> settings, in the order of the lifecycle."""
