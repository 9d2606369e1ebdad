"""A classifier over many texts: windows of rows, in batches of like length, in the order in which they came.

`parts` is what evaluate and infer share. A window is a fixed range of rows and is kept as a checkpoint when it is done, so that the next attempt,
of whichever run, computes only what is missing. Memory holds one window, whatever the number of rows.
Batches follow from a window's rows alone: equal input gives equal output on one device kind, with the same versions and threads.
What computes is a Runner: torch (torch_runner.py) or ONNX Runtime (onnx_runner.py); only the one in use is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import DeviceOom, Usage
from modelyard.yard import Artifact
from modelyard_jobs import batching, exported
from modelyard_jobs.context import Context
from modelyard_jobs.tasks import text_classification as task

PART = "part.npz"
WINDOW = 4096
CPU_BUDGET = 2048  # measured with a BERT of 6 layers, 384 wide, one thread: 1024 to 4096 alike, 8192 a tenth slower
DEVICE_BUDGET = 16384
TIMED = 16
"""Rows that are run one by one for the latency."""


class OutOfMemory(Exception):
    """Raised by a Runner when the device has no room for a batch; its memory is free again."""


class Runner(Protocol):
    """A model on its device. labels: in the order of their ids; limit: tokens that it has positions for."""

    name: str
    device: str
    labels: list[str]
    limit: int

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        """(token ids of each text, at most `max_length`, unpadded; of each whether tokens were cut off)."""

    def logits(self, encodings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(rows, labels) of one batch. Raises OutOfMemory."""


@dataclass(frozen=True)
class Part:
    """One window, in the order of its rows.

    rows: their numbers in the split. probabilities: (rows, labels) float32, zeros where there is a fault. truncated: tokens were cut off.
    faults: why a row was not classified, "" where it was.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    faults: NDArray[np.str_]


class Engine:
    """A runner over many texts; counts what it does."""

    def __init__(self, runner: Runner, max_length: int, token_budget: int) -> None:
        """max_length: tokens of a row. token_budget: padded tokens of a batch, halved when the device has no room for them."""
        self.runner = runner
        self.labels, self.max_length, self.token_budget = runner.labels, min(max_length, runner.limit), token_budget
        self._rows = self._tokens = self._slots = 0
        self._seconds = 0.0

    def classify(self, texts: Sequence[str], tick: Callable[[int], None]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(probabilities (texts, labels), truncated); tick: called after each batch with the number of texts done so far, may raise."""
        logits, truncated = self.logits(texts, tick)
        return probabilities(logits), truncated

    def logits(self, texts: Sequence[str], tick: Callable[[int], None]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As `classify`, with the logits."""
        begun, done = time.perf_counter(), 0
        ids, truncated = self.runner.encode(texts, self.max_length)
        logits = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        for batch in batching.plan(list(map(len, ids)), self.token_budget):
            logits[batch] = self._logits([ids[place] for place in batch])
            done += len(batch)
            tick(done)
        self._seconds += time.perf_counter() - begun
        self._rows += len(texts)
        return logits, np.array(truncated, dtype=np.bool_)

    def speed(self) -> dict[str, Any]:
        """What was computed so far, and how fast; padding: share of the computed tokens that were padding."""
        seconds, slots = self._seconds or 1.0, self._slots or 1
        return {
            "rows": self._rows,
            "tokens": self._tokens,
            "token_budget": self.token_budget,
            "seconds": round(self._seconds, 3),
            "rows_per_second": round(self._rows / seconds, 2),
            "tokens_per_second": round(self._tokens / seconds, 1),
            "padding": round(1 - self._tokens / slots, 4),
        }

    def latency(self, texts: Sequence[str]) -> dict[str, Any]:
        """Milliseconds of a text that comes alone, from string to label: p50 and p95, after one to warm up. Adds to the speed's tokens."""
        timed = []
        for text in [*texts[:1], *texts]:
            begun = time.perf_counter()
            probabilities(self._logits(self.runner.encode([text], self.max_length)[0]))
            timed.append((time.perf_counter() - begun) * 1000)
        p50, p95 = np.quantile(timed[1:], [0.5, 0.95])
        return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "n": len(texts), "unit": "ms per row, one at a time"}

    def _logits(self, encodings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        try:
            found = self.runner.logits(encodings)
        except OutOfMemory as error:
            if len(encodings) == 1:
                what, remedy = f"one row of {len(encodings[0])} tokens does not fit on the device", "a lower max_length, or a larger device"
                raise DeviceOom(what, why=str(error), remedy=remedy) from error
        else:
            self._tokens += sum(map(len, encodings))
            self._slots += len(encodings) * max(map(len, encodings))
            return found
        half = len(encodings) // 2
        self.token_budget = max(1, self.token_budget // 2)
        return np.concatenate([self._logits(encodings[:half]), self._logits(encodings[half:])])


def load(context: Context, token_budget: int | None, which: str = "model") -> Engine:
    """One of the step's models under the engine that its settings name, with the choices written down.

    token_budget: padded tokens of a batch; None: what suits the device. which: the input; choices for another than `model` carry its name.
    Raises Usage: the model is not in that engine's format.
    """
    decide = context.decide if which == "model" else lambda name, value, reason: context.decide(f"{which}_{name}", value, reason)
    runner = _runner(context, context.inputs[which], decide)
    wanted = context.settings.max_length
    engine = Engine(runner, wanted, token_budget or (CPU_BUDGET if runner.device == "cpu" else DEVICE_BUDGET))
    if engine.max_length < wanted:
        reason = f"the model has positions for {engine.max_length} tokens, fewer than the {wanted} asked for"
        decide("max_length", engine.max_length, reason)
    if token_budget is None:
        reason = f"padded tokens of a batch on {runner.device}: more no longer fit its caches, or bring no speed"
        decide("token_budget", engine.token_budget, reason)
    return engine


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of each row, computed in float64; a row with a logit that is no number has none either."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        shares: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return shares


def parts(
    context: Context, engine: Engine, dataset: Any, column: str, rows: NDArray[np.int64], *, kept: str = "part", turn: int = 1, turns: int = 1
) -> Iterator[Part]:
    """The rows in windows of 4096, each from its checkpoint or computed and kept; Yielded between batches once the step was asked to stop.

    kept: name of the checkpoints, one for each model. turn, turns: which of how many models over the same rows this is, for the progress.
    """
    texts_of = dataset.select_columns([column]).with_format("arrow")
    start = resumed = 0
    before, total = (turn - 1) * len(rows), turns * len(rows)

    def tick(done: int) -> None:
        context.stop.check()
        context.progress(before + start + done, total, "rows")

    with context.stop.polled():
        for number, start in enumerate(range(0, len(rows), WINDOW)):
            window, name = rows[start : start + WINDOW], f"{kept}-{number:06d}"
            if saved := context.checkpoints.whole(name):
                with np.load(saved / PART, allow_pickle=False) as arrays:
                    part = Part(**arrays)
                resumed += 1
            else:
                context.stop.check()
                part = _compute(engine, texts_of[window][column].to_pylist(), window, tick)
                context.checkpoints.save(name, partial(_save, part))
            context.progress(before + start + len(window), total, "rows")
            yield part
    if resumed:
        context.log.info("resumed", parts=resumed, window=WINDOW)


def _compute(engine: Engine, texts: list[Any], window: NDArray[np.int64], tick: Callable[[int], None]) -> Part:
    faults = np.array([task.fault(text) or "" for text in texts], dtype=object)
    good = np.flatnonzero(faults == "")
    probabilities = np.zeros((len(texts), len(engine.labels)), dtype=np.float32)
    truncated = np.zeros(len(texts), dtype=np.bool_)
    probabilities[good], truncated[good] = engine.classify([texts[place] for place in good], tick)
    broken = ~np.isfinite(probabilities).all(1)
    probabilities[broken], faults[broken] = 0, "the model gave no number"
    return Part(window, probabilities, truncated, faults.astype(np.str_))


def _save(part: Part, folder: Path) -> None:
    np.savez(folder / PART, **vars(part))


def _runner(context: Context, source: Artifact, decide: Callable[[str, Any, str], None]) -> Runner:
    wanted, is_export = context.settings.engine, source.format == "onnx"
    name = wanted if wanted != "auto" else "onnx" if is_export else "torch"
    decide("engine", name, "as set" if wanted != "auto" else "the model is an export" if is_export else "the model is not exported")
    if name == "torch":
        if is_export:
            remedy = "engine: onnx, or the model that it was exported from"
            raise Usage("torch cannot run an exported model", where=source.digest, why="it holds a graph in ONNX and no safetensors", remedy=remedy)
        from modelyard_jobs.torch_runner import TorchRunner

        decide("dtype", "float32", "labels and probabilities are those of the weights as they are stored, on every device")
        return TorchRunner.load(source, context.device)
    if not is_export:
        remedy = "export it, and give that step as `model`"
        raise Usage(f"the engine {name} runs exported models only", where=source.digest, why="the model is not in ONNX", remedy=remedy)
    graph = exported.INT8 if name == "onnx-int8" else exported.GRAPH
    if graph == exported.INT8 and all(entry.path != graph for entry in source.files):
        why, remedy = f"it has no {graph}", "export with `int8: true`, and look there whether it was kept"
        raise Usage("the export has no 8-bit weights", where=source.digest, why=why, remedy=remedy)
    from modelyard_jobs.onnx_runner import OnnxRunner

    runner = OnnxRunner.load(source, graph, device=context.device, threads=context.threads)
    decide("provider", runner.provider, "what the session says that it runs on")
    return runner
