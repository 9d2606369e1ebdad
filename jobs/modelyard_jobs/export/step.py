"""The step: a model, rows and settings -> an ONNX graph that has been compared with the model on those rows.

Both are run on the CPU: one machine's float32 is the reference, and an accelerator's shortcuts (TF32) are no part of it.
The whole way is compared, from text to label: the model with its own tokenizer under torch, the export as `infer` runs it. Beside the batches
that `infer` would make, some rows go through in batches of other sizes and with other padding, one alone, and one as long as rows may be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, Usage
from modelyard_jobs import data, exported
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.engine import CPU_BUDGET, TIMED, Engine, Runner
from modelyard_jobs.export import graph, int8, parity
from modelyard_jobs.export.parity import Logits
from modelyard_jobs.exported import Description, Tried
from modelyard_jobs.finetune import export as files
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.tasks import text_classification as task
from modelyard_jobs.torch_runner import TorchRunner

SIZES = (1, 2, 5, 32)
"""Rows of the batches that are made without regard to length."""
ROUNDS = 3
TIMED_ROWS = 64
"""Rows of a round of the speed's measurement."""
_MOST_TOKENS = 131072
_LONG = 512


@dataclass(frozen=True)
class _Rows:
    """The sample. labels: of the model's labels, which is each row's; None where nothing asks for it."""

    texts: list[str]
    labels: NDArray[np.int64] | None


def run(context: Context) -> Produced:
    """Export, compare, and leave the files in `context.out`; a failure leaves none."""
    if context.inputs["model"].format == "onnx":
        remedy = "give the model that it was made from"
        raise Usage("the model is an export already", where=context.inputs["model"].digest, remedy=remedy)
    original = TorchRunner.load(context.inputs["model"], "cpu")
    rows = _rows(context, original.labels)
    begun = time.perf_counter()
    reference = Engine(original, context.settings.max_length, CPU_BUDGET)
    long = _long(original, rows.texts, reference.max_length)
    description = _write(context, original, Tried(rows=min(SIZES[-1], len(rows.texts)), tokens=len(long)))
    context.detail("export", {"seconds": round(time.perf_counter() - begun, 3), "bytes": _size(context.out, exported.GRAPH)})
    runner = OnnxRunner(context.out, description, exported.GRAPH, device="cpu", threads=context.threads)
    context.decide("provider", runner.provider, "what the session says that it runs on")
    candidate = Engine(runner, context.settings.max_length, CPU_BUDGET)
    expected, found = _compare(context, reference, candidate, rows.texts, long)
    engines = {"torch": reference, "onnx": candidate}
    if rows.labels is not None:
        engines |= _int8(context, description, rows.texts, rows.labels, {"torch": expected, "onnx": found})
    context.detail("speed", _speed(context, engines, rows.texts))
    return Produced(kind="model", format="onnx")


def _rows(context: Context, names: Sequence[str]) -> _Rows:
    settings = context.settings
    splits = data.read(context.inputs["parity"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split)
    # Labels are for int8's accuracy alone: rows without them prove parity too.
    label = task.columns(dataset, settings.text, settings.label).label if settings.int8 else None
    column = task.text_column(dataset, settings.text)
    context.decide("columns", {"text": column, **({"label": label} if label else {})}, "named, or found by name and type")
    usable, faults = task.usable_rows(dataset, column)
    numbers = usable[data.sample(settings.rows, len(usable), settings.seed)]
    context.detail("rows", {"split": split, "rows": len(numbers), "usable": len(usable), "faults": faults})
    return _Rows(dataset[numbers][column], task.label_ids(dataset, label, names)[numbers] if label else None)


def _write(context: Context, original: TorchRunner, tried: Tried) -> Description:
    """All files but int8's."""
    tokenizer, out = original.tokenizer, context.out
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        why = f"{type(tokenizer).__name__} has no form that runs without transformers"
        raise BadData("the model's tokenizer cannot be exported", why=why, remedy="use the model with the engine torch")
    written = graph.write(original.model, original.limit, out / exported.GRAPH)
    context.decide("opset", graph.OPSET, "one that all supported versions of ONNX Runtime read")
    original.model.config._name_or_path = ""
    original.model.config.save_pretrained(out)
    files.accompany(tokenizer, context.inputs["model"], out)
    # The tokenizer as it is used, not as it was found: transformers may have changed it while loading.
    own = type(backend).from_str(backend.to_str())
    own.no_padding()
    own.no_truncation()
    (out / exported.TOKENIZER).write_text(own.to_str(pretty=True) + "\n", encoding="utf-8")
    description = Description(
        opset=written.opset_import[0].version,
        ir=written.ir_version,
        inputs={value.name: graph.axes(value) for value in written.graph.input},
        outputs={value.name: graph.axes(value) for value in written.graph.output},
        labels=tuple(original.labels),
        max_length=min(original.limit, _MOST_TOKENS),
        tried=tried,
        pad=tokenizer.pad_token_id or 0,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=bool(tokenizer.split_special_tokens),
    )
    (out / exported.NAME).write_text(description.json_text(), encoding="utf-8")
    return description


def _compare(context: Context, reference: Engine, candidate: Engine, texts: list[str], long: list[int]) -> tuple[Logits, Logits]:
    """The logits of both for the texts; they agree."""
    model, other = reference.runner, candidate.runner
    ids, same = model.encode(texts, reference.max_length)[0], other.encode(texts, candidate.max_length)[0]
    if differ := sum(one != two for one, two in zip(ids, same, strict=True)):
        remedy = "use the model with the engine torch"
        raise BadData("the exported tokenizer does not give the model's tokens", why=f"{differ} of {len(ids)} rows have others", remedy=remedy)
    expected = reference.logits(texts, _tick(context, 0, len(texts) * 2))[0]
    found = candidate.logits(texts, _tick(context, len(texts), len(texts) * 2))[0]
    shapes = _shapes(len(texts))
    shaped = [other.logits([ids[place] for place in shape]) for shape in shapes]
    reached = parity.compare(
        np.concatenate([expected, *(expected[shape] for shape in shapes), model.logits([long])]),
        np.concatenate([found, *shaped, other.logits([long])]),
    )
    rows = parity.compare(expected, found)  # what the labels are a statement about: each row once, as `infer` runs it
    extent = [[len(shape), max(len(ids[place]) for place in shape)] for shape in shapes] + [[1, len(long)]]
    told = {**asdict(reached), "rows": rows.rows, "agreement": rows.agreement, "close": rows.close, "shapes": extent}
    context.detail("parity", told)
    context.log.info("compared", **told)
    reached.enforce()
    return expected, found


def _int8(context: Context, description: Description, texts: list[str], true: NDArray[np.int64], logits: dict[str, Logits]) -> dict[str, Engine]:
    """The engine of the 8-bit graph, for its speed; its file is gone again where it may not stay."""
    engines: dict[str, Engine] = {}
    try:
        int8.write(context.out / exported.GRAPH, context.out / exported.INT8, context.scratch)
        runner = OnnxRunner(context.out, description, exported.INT8, device="cpu", threads=context.threads)
        engine = Engine(runner, context.settings.max_length, CPU_BUDGET)
        found = engine.logits(texts, _tick(context, 0, len(texts)))[0]
        engines["int8"] = engine
        verdict = int8.judge(true, logits["torch"].argmax(1), logits["onnx"].argmax(1), found.argmax(1))
        verdict["size"] = _size(context.out, exported.INT8)
        if not np.isfinite(found).all():
            verdict |= {"kept": False, "why": "it gave no number for some rows"}
    except BadData as error:
        verdict = {"kept": False, "why": str(error)}
    except Exception as error:  # noqa: BLE001  # a graph that the quantizer cannot read is still a good export
        verdict = {"kept": False, "why": f"it cannot be quantized: {data.reason(error)}"}
    context.detail("int8", verdict)
    context.decide("int8", "kept" if verdict["kept"] else "refused", verdict["why"])
    if not verdict["kept"]:
        for path in context.out.glob(f"{exported.INT8}*"):
            path.unlink()
    return engines


def _speed(context: Context, engines: dict[str, Engine], texts: list[str]) -> dict[str, Any]:
    """Of each engine the median of rounds that take turns, so that what else the machine does meets all of them."""
    timed = texts[:TIMED_ROWS]
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.logits(timed, lambda _: None)
            seconds[name].append(time.perf_counter() - begun)
    speeds = {
        name: {
            "rows_per_second": round(len(timed) / statistics.median(seconds[name]), 2),
            "rounds": [round(len(timed) / each, 2) for each in seconds[name]],
            "latency": engine.latency(texts[:TIMED]),
        }
        for name, engine in engines.items()
    }
    context.log.info("speed", **{name: speed["rows_per_second"] for name, speed in speeds.items()})
    return {**speeds, "rows": len(timed), "threads": context.threads}


def _shapes(rows: int) -> list[NDArray[np.int64]]:
    """Batches of the first rows, of each size in turn."""
    ends = np.cumsum([min(size, rows) for size in SIZES])
    return [np.arange(end - min(size, rows), end) % rows for size, end in zip(SIZES, ends, strict=True)]


def _long(runner: Runner, texts: list[str], max_length: int) -> list[int]:
    """Tokens of a row as long as rows may be; where that is very long, as the longest of these or as 512."""
    ids, _ = runner.encode(texts, max_length)
    tokens = min(max_length, max(_LONG, *map(len, ids)))
    joined = " ".join(texts[:_LONG])
    return runner.encode([" ".join([joined] * (1 + 8 * tokens // len(joined)))], tokens)[0][0]


def _size(folder: Path, name: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{name}*"))


def _tick(context: Context, start: int, total: int) -> Callable[[int], None]:
    return lambda done: context.progress(start + done, total, "rows")
