"""A model over many rows: windows of rows, in batches of like size, in the order in which they came.

`parts` is what evaluate and infer share. A window is a fixed range of rows and is kept as a checkpoint when it is done, so that the next attempt,
of whichever run, computes only what is missing. Memory holds one window, whatever the number of rows; two where the next one is prepared while an
accelerator computes. Batches follow from a window's rows alone: equal input gives equal output on one device kind, with the same versions and
threads. Only where a device has no room for a batch do its rows go through in smaller ones, which may round otherwise; that is written down.
What computes is a Runner: torch (torch_runner.py) or ONNX Runtime (onnx_runner.py); only the one in use is loaded. What rows are, and what the
model's output says, is the task's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, DeviceOom, Usage
from modelyard.yard import Artifact
from modelyard_jobs import batching, data, exported
from modelyard_jobs.batching import Budget
from modelyard_jobs.context import Context
from modelyard_jobs.tasks.task import Answers, Choosing, ImageEncoder, Item, Row, Task, TextEncoder

PART = "part.npz"
CPU_BUDGET = 512  # measured by benchmarks/infer.py --budgets: what more costs in caches and padding, it does not bring
DEVICE_BUDGET = 16384
GENERATED = 4
"""Times as many where tokens are generated: of each row one token at a time is computed, and the others only lie in the cache."""
TIMED = 16
"""Rows that are run one by one for the latency."""

NO_NUMBER = "the model gave no number"
"""The fault of a row whose answer is NaN."""


class OutOfMemory(Exception):
    """Raised by a Runner when the device has no room for a batch; its memory is free again."""


class Runner(Protocol):
    """A model on its device. labels: in the order of their ids."""

    name: str
    device: str
    labels: list[str]

    @property
    def encoder(self) -> TextEncoder | ImageEncoder:
        """What turns rows into what the model takes."""

    def raws(self, items: Sequence[Item]) -> list[Any]:
        """The model's output for each item of one batch, as `Task.raws` gives it. Raises OutOfMemory."""


@runtime_checkable
class Generating(Protocol):
    """A Runner that makes tokens, beside those that it is given: how many so far, and in how many seconds.

    spared: how many more the sizes of its items had room for.
    """

    generated: int
    spared: int
    generating: float


@dataclass(frozen=True)
class Answered:
    """What is said of some rows, in their order.

    answers: zeros or None where there is a fault. sizes: tokens or patches. truncated: something was cut off.
    faults: why a row has no answer, "" where it has one.
    """

    answers: Answers
    sizes: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    faults: NDArray[np.str_]


@dataclass(frozen=True)
class Part(Answered):
    """One window. rows: their numbers in the split."""

    rows: NDArray[np.int64]


class Engine:
    """A runner over many rows; counts what it does."""

    def __init__(self, runner: Runner, task: Task, max_length: int, token_budget: int) -> None:
        """max_length: tokens of a row. token_budget: padded tokens, or patches, of a batch, as long as the device has room for them."""
        self.runner, self.task = runner, task
        self.labels = list(task.choices) if isinstance(task, Choosing) else runner.labels
        self.max_length, self.budget = min(max_length, runner.encoder.limit), Budget(token_budget)
        self.seconds = 0.0
        """Spent on computing, and on waiting for rows to be prepared."""
        self._rows = self._tokens = self._slots = 0

    def prepare(self, rows: Sequence[Row]) -> list[Item | str]:
        """The rows as the model takes them, or why it cannot; may run beside `answer` in another thread."""
        return self.task.prepare(rows, self.runner.encoder, self.max_length)

    def answer(self, items: Sequence[Item | str], tick: Callable[[int], None]) -> Answered:
        """Answers to prepared rows; tick: called after each batch with the number of rows done so far, may raise."""
        begun = time.perf_counter()
        answers: Answers = np.zeros((len(items), len(self.labels)), dtype=np.float32) if self.task.dense else [None] * len(items)
        faults = np.array([item if isinstance(item, str) else "" for item in items], dtype=object)
        for places, batch, raws in self._batches(items, tick):
            for place, answer in zip(places, self.task.answers(raws, batch, self.runner.labels), strict=True):
                broken = answer is None or (self.task.dense and not np.isfinite(answer).all())
                if broken:
                    faults[place] = NO_NUMBER
                else:
                    answers[place] = answer
        self.seconds += time.perf_counter() - begun
        self._rows += len(items)
        sizes = np.array([0 if isinstance(item, str) else item.size for item in items], dtype=np.int32)
        truncated = np.array([not isinstance(item, str) and item.truncated for item in items], dtype=np.bool_)
        return Answered(answers, sizes, truncated, faults.astype(np.str_))

    def raws(self, rows: Sequence[Row], tick: Callable[[int], None]) -> tuple[list[Any], list[Item]]:
        """(the model's output for each row, the rows as the model took them). Raises BadData: a row that cannot be used."""
        begun = time.perf_counter()
        items: list[Item] = []
        for row, item in zip(rows, self.prepare(rows), strict=True):
            if isinstance(item, str):
                raise BadData("a row cannot be used", where=", ".join(row), why=item)
            items.append(item)
        found: list[Any] = [None] * len(items)
        for places, _, raws in self._batches(items, tick):
            for place, raw in zip(places, raws, strict=True):
                found[place] = raw
        self.seconds += time.perf_counter() - begun
        self._rows += len(rows)
        return found, items

    def speed(self) -> dict[str, Any]:
        """What was computed so far, and how fast; padding: share of the computed tokens that were padding. refused: batches without room."""
        seconds, tokens, slots = self.seconds or 1.0, self._tokens, self._slots
        made = {}
        if isinstance(runner := self.runner, Generating):
            tokens, slots = tokens - runner.spared, slots - runner.spared
            made = {"generated": runner.generated, "generated_per_second": round(runner.generated / (runner.generating or 1.0), 1)}
        return {
            "rows": self._rows,
            "tokens": tokens,
            "token_budget": self.budget.most,
            "refused": self.budget.refused,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self._rows / seconds, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "padding": round(1 - tokens / slots, 4) if slots else 0.0,
            **made,
        }

    def latency(self, rows: Sequence[Row]) -> dict[str, Any] | None:
        """Milliseconds of a row that comes alone, from value to answer: p50 and p95, after one to warm up; None where no row can be used.

        Adds to the speed's tokens.
        """
        rows = [row for row in rows if not isinstance(self.prepare([row])[0], str)]
        timed = []
        for row in [*rows[:1], *rows]:
            begun = time.perf_counter()
            for _, batch, raws in self._batches(self.prepare([row]), lambda _: None):
                self.task.answers(raws, batch, self.runner.labels)
            timed.append((time.perf_counter() - begun) * 1000)
        if not timed:
            return None
        p50, p95 = np.quantile(timed[1:], [0.5, 0.95])
        return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "n": len(rows), "unit": "ms per row, one at a time"}

    def _batches(self, items: Sequence[Item | str], tick: Callable[[int], None]) -> Iterator[tuple[list[int], list[Item], list[Any]]]:
        """(places, items, their raws) batch by batch."""
        good = [(place, item) for place, item in enumerate(items) if not isinstance(item, str)]
        sizes = [item.size for _, item in good]
        order = batching.order(sizes)
        while order:
            count = batching.first(order, sizes, self.budget.tokens)
            places, chosen = [good[place][0] for place in order[:count]], [good[place][1] for place in order[:count]]
            try:
                raws = self.runner.raws(chosen)
            except OutOfMemory as error:
                if count == 1:
                    what, remedy = f"one row of {chosen[0].size} tokens does not fit on the device", "a lower max_length, or a larger device"
                    if self.task.encoder == "image":
                        what, remedy = f"one image of {chosen[0].size} patches of 16 x 16 pixels does not fit on the device", "a larger device"
                    raise DeviceOom(what, why=str(error), remedy=remedy) from error
                self.budget.refuse(count * chosen[0].size)
                continue
            self.budget.ran()
            self._tokens += sum(item.size for item in chosen)
            self._slots += count * chosen[0].size
            order = order[count:]
            yield places, chosen, raws
            tick(len(items) - len(order))


def load(context: Context, task: Task, token_budget: int | None, which: str = "model") -> Engine:
    """One of the step's models under the engine that its settings name, with the choices written down.

    token_budget: padded tokens of a batch; None: what suits the device. which: the input; choices for another than `model` carry its name.
    Raises Usage: the model is not in that engine's format.
    """
    decide = context.decide if which == "model" else lambda name, value, reason: context.decide(f"{which}_{name}", value, reason)
    runner = _runner(context, task, context.inputs[which], decide)
    wanted = context.settings.max_length
    suited = (CPU_BUDGET if runner.device == "cpu" else DEVICE_BUDGET) * (GENERATED if isinstance(runner, Generating) else 1)
    engine = Engine(runner, task, wanted, token_budget or suited)
    if task.encoder == "text" and engine.max_length < wanted:
        reason = f"the model has positions for {engine.max_length} tokens, fewer than the {wanted} asked for"
        decide("max_length", engine.max_length, reason)
    if token_budget is None:
        unit = "padded tokens" if task.encoder == "text" else "patches of 16 x 16 pixels"
        reason = f"{unit} of a batch on {runner.device}: more no longer fit its caches, or bring no speed"
        decide("token_budget", engine.budget.most, reason)
    ahead = runner.device != "cpu"
    decide("prefetch", ahead, "rows are prepared while the accelerator computes" if ahead else "what would prepare rows meanwhile is what computes")
    return engine


def parts(
    context: Context,
    engine: Engine,
    dataset: Any,
    columns: Mapping[str, str],
    rows: NDArray[np.int64] | range,
    *,
    kept: str = "part",
    turn: int = 1,
    turns: int = 1,
) -> Iterator[Part]:
    """The rows in windows of `task.window`, each from its checkpoint or computed and kept; Yielded between batches once asked to stop.

    columns: role -> column of what the task reads. kept: name of the checkpoints, one for each model. turn, turns: which of how many models over the
    same rows this is, for the progress.
    """
    chosen = dataset.select_columns(list(dict.fromkeys(columns.values()))).with_format("arrow")
    size = engine.task.window
    start = resumed = 0
    before, total = (turn - 1) * len(rows), turns * len(rows)

    def tick(done: int) -> None:
        context.stop.check()
        context.progress(before + start + done, total, "rows")

    def ready(number: int) -> Path | list[Item | str]:
        """A window's checkpoint, or its rows as the model takes them."""
        saved = context.checkpoints.whole(f"{kept}-{number:06d}")
        return saved or engine.prepare(data.by_role(chosen[rows[number * size : (number + 1) * size]], columns))

    with context.stop.polled():
        windows = _ahead(ready, -(-len(rows) // size), meanwhile=engine.runner.device != "cpu")
        for number, start in enumerate(range(0, len(rows), size)):
            begun = time.perf_counter()
            found = next(windows)
            context.stop.check()
            if isinstance(found, Path):
                part = _restore(found)
                resumed += 1
            else:
                engine.seconds += time.perf_counter() - begun
                part = Part(rows=np.asarray(rows[start : start + size]), **vars(engine.answer(found, tick)))
                context.checkpoints.save(f"{kept}-{number:06d}", partial(_save, part))
            context.progress(before + start + len(part.rows), total, "rows")
            yield part
    if resumed:
        context.log.info("resumed", parts=resumed, window=size)
    if engine.budget.refused:
        name = "token_budget" if kept == "part" else f"{kept}_token_budget"
        reason = f"the device refused {engine.budget.refused} batches: it went down from {engine.budget.most}, and up again where there was room"
        context.decide(name, engine.budget.lowest, reason)


_Made = TypeVar("_Made")


def _ahead(make: Callable[[int], _Made], count: int, *, meanwhile: bool) -> Iterator[_Made]:
    """What `make` gives for 0, 1, ...; each made when it is asked for or, `meanwhile`, in another thread since the one before it was given."""
    if not meanwhile:
        yield from map(make, range(count))
        return
    with ThreadPoolExecutor(1, "prepare") as thread:
        coming = [thread.submit(make, 0)] if count else []
        for number in range(count):
            found = coming.pop().result()
            if number + 1 < count:
                coming.append(thread.submit(make, number + 1))
            yield found


def _save(part: Part, folder: Path) -> None:
    answers = part.answers
    if isinstance(answers, list):  # JSON, as bytes: numpy's own way to keep lists is a pickle
        answers = np.frombuffer(json.dumps(answers, allow_nan=False).encode(), dtype=np.uint8)
    np.savez(folder / PART, **{**vars(part), "answers": answers})


def _restore(folder: Path) -> Part:
    with np.load(folder / PART, allow_pickle=False) as arrays:
        found = dict(arrays)
    answers = found.pop("answers")
    return Part(answers=json.loads(answers.tobytes()) if answers.dtype == np.uint8 else answers, **found)


def _runner(context: Context, task: Task, source: Artifact, decide: Callable[[str, Any, str], None]) -> Runner:
    wanted, is_export = context.settings.engine, source.format == "onnx"
    name = wanted if wanted != "auto" else "onnx" if is_export else "torch"
    decide("engine", name, "as set" if wanted != "auto" else "the model is an export" if is_export else "the model is not exported")
    if name == "torch":
        if is_export:
            remedy = "engine: onnx, or the model that it was exported from"
            raise Usage("torch cannot run an exported model", where=source.digest, why="it holds a graph in ONNX and no safetensors", remedy=remedy)
        from modelyard_jobs import torch_runner

        return torch_runner.load(task, source, context, decide)
    if not is_export:
        remedy = "export it, and give that step as `model`"
        raise Usage(f"the engine {name} runs exported models only", where=source.digest, why="the model is not in ONNX", remedy=remedy)
    graph = exported.INT8 if name == "onnx-int8" else exported.GRAPH
    if graph == exported.INT8 and all(entry.path != graph for entry in source.files):
        why, remedy = f"it has no {graph}", "export with `int8: true`, and look there whether it was kept"
        raise Usage("the export has no 8-bit weights", where=source.digest, why=why, remedy=remedy)
    from modelyard_jobs.onnx_runner import OnnxRunner

    runner = OnnxRunner.load(task, source, graph, device=context.device, threads=context.threads)
    decide("provider", runner.provider, "what the session says that it runs on")
    if context.settings.dtype not in {"auto", "float32"}:
        decide("dtype", "float32", f"{context.settings.dtype} was asked for, and an export computes in the types that it was written in")
    return runner
