"""The step: a model, rows and settings -> an ONNX graph that has been compared with the model on those rows.

Both are run on the CPU: one machine's float32 is the reference, and an accelerator's shortcuts (TF32) are no part of it.
The whole way is compared, from row to answer: the model with its own tokenizer under torch, the export as `infer` runs it. Beside the batches that
`infer` would make, the first rows go through in batches of other sizes and with other padding, one alone, one as long as rows may be, and one image
of another size where the model takes any; where it does not, the graph has the size of these images, and export.json says so.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelyard.errors import BadData, Usage
from modelyard_jobs import batching, data, exported, models, tasks
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.engine import CPU_BUDGET, TIMED, Engine
from modelyard_jobs.export import graph, int8, shapes
from modelyard_jobs.export.parity import Comparison, Parity, same_boxes
from modelyard_jobs.export.shapes import Batch
from modelyard_jobs.exported import Description, Text
from modelyard_jobs.finetune import export as files
from modelyard_jobs.models import Loaded
from modelyard_jobs.onnx_runner import OnnxRunner, session
from modelyard_jobs.tasks.task import Item, Measurable, Row, Signature, Truths
from modelyard_jobs.torch_runner import TorchRunner

SIZES = (1, 2, 5, 32)
"""Rows of the batches that are made without regard to length, of at most PROBED tokens or patches each."""
PROBED = 2048
ROUNDS = 3
TIMED_ROWS = 64
"""Rows of a round of the speed's measurement."""
_MOST_TOKENS = 131072
_LONG = 512
_WINDOW = 64
"""Rows that are prepared at once."""
_UNITS = {"token-classification": "token", "fill-mask": "token", "text-generation": "token", "object-detection": "box"}
"""What an answer of a task is; of others it is a label."""


@dataclass(frozen=True)
class _Rows:
    """The sample. truths: of each row; none where nothing asks for them."""

    rows: list[Row]
    truths: Truths


@dataclass(frozen=True)
class _Pair:
    """A model and its export, on the CPU. max_length: tokens of a row at most."""

    task: Measurable
    original: TorchRunner
    runner: OnnxRunner
    max_length: int

    def batches(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], list[Item], Batch]]:
        """(places, items, arrays) batch by batch. Raises BadData: the export makes something else of a row than the model's own tokenizer."""
        for start in range(0, len(rows), _WINDOW):
            window = rows[start : start + _WINDOW]
            items, others = (_usable(self.task.prepare(window, runner.encoder, self.max_length)) for runner in (self.original, self.runner))
            for planned in batching.plan([item.size for item in items], CPU_BUDGET):
                batch, same = ([each[place] for place in planned if place < len(each)] for each in (items, others))
                arrays, its = (self.task.collate(each, runner.encoder) for each, runner in ((batch, self.original), (same, self.runner)))
                if len(items) != len(others) or not all(np.array_equal(arrays[name], its.get(name, ())) for name in arrays):
                    remedy = "use the model with the engine torch"
                    why = f"among rows {start} to {start + len(window) - 1} of the sample"
                    raise BadData("the exported tokenizer does not give the model's tokens", why=why, remedy=remedy)
                yield [start + place for place in planned], batch, arrays


def run(context: Context) -> Produced:
    """Export, compare, and leave the files in `context.out`; a failure leaves none."""
    if context.inputs["model"].format == "onnx":
        remedy = "give the model that it was made from"
        raise Usage("the model is an export already", where=context.inputs["model"].digest, remedy=remedy)
    task = tasks.chosen(context)
    loaded = models.load(task, context.inputs["model"], None, torch.float32)
    original = TorchRunner(task, loaded, "cpu")
    reference = Engine(original, task, context.settings.max_length, CPU_BUDGET)
    rows = _rows(context, task, reference)
    first = _usable(task.prepare(rows.rows[: sum(SIZES)], original.encoder, reference.max_length))
    begun = time.perf_counter()
    written, probes = _graph(context, original, first, reference.max_length)
    description = _accompany(context, task, loaded, written, probes)
    context.detail("export", {"seconds": round(time.perf_counter() - begun, 3), "bytes": _size(context.out, exported.GRAPH)})
    runner = OnnxRunner(task, context.out, description, exported.GRAPH, device="cpu", threads=context.threads)
    context.decide("provider", runner.provider, "what the session says that it runs on")
    engines = {"torch": reference, "onnx": Engine(runner, task, context.settings.max_length, CPU_BUDGET)}
    pair = _Pair(task, original, runner, reference.max_length)
    answers = _compare(context, pair, rows, probes)
    if context.settings.int8:
        engines |= _int8(context, pair, description, rows, answers)
    context.detail("speed", _speed(context, engines, rows.rows))
    return Produced(kind="model", format="onnx")


def _rows(context: Context, task: Measurable, engine: Engine) -> _Rows:
    settings = context.settings
    splits = data.read(context.inputs["parity"], context.scratch / "rows")
    split, dataset = data.pick(splits, settings.split)
    # What is true matters to int8 alone: rows without it prove parity too.
    columns = task.columns(dataset, truth=settings.int8)
    context.decide("columns", columns, "named, or found by name and type")
    usable, faults = tasks.usable(task, dataset, columns)
    numbers = usable[data.sample(settings.rows, len(usable), settings.seed)]
    chosen = dataset.select(numbers)
    truths = task.truths(chosen, columns, engine.labels) if settings.int8 else []
    rows = list(data.rows(chosen, columns))
    # Some faults are seen only as a row is prepared, such as that an image is cut short.
    late: Counter[str] = Counter()
    good: list[int] = []
    for start in range(0, len(rows), _WINDOW):
        for place, item in enumerate(task.prepare(rows[start : start + _WINDOW], engine.runner.encoder, engine.max_length), start):
            if isinstance(item, str):
                late[item] += 1
            else:
                good.append(place)
    if not good:
        why = "; ".join(f"{why}: {count} rows" for why, count in late.items())
        raise BadData("no row of the sample can be used", where=f"split {split}", why=why, remedy="mend the rows")
    context.detail("rows", {"split": split, "rows": len(good), "usable": len(usable), "faults": dict(Counter(faults) + late)})
    kept = truths[np.array(good)] if isinstance(truths, np.ndarray) else [truths[place] for place in good if truths]
    return _Rows([rows[place] for place in good], kept)


def _graph(context: Context, original: TorchRunner, items: Sequence[Item], max_length: int) -> tuple[Any, list[Batch]]:
    """(the graph, batches of other shapes to compare it on), with images of any size where the model takes them."""
    task, path = original.task, context.out / exported.GRAPH
    asked = task.signature(original.labels)
    if asked is None:
        raise BadData(f"there is no graph for {task.name.replace('-', ' ')}", remedy="use the model with the engine torch")
    collated = task.collate([items[0], items[-1]], original.encoder)
    why = ""
    if any(axis in shapes.SIZED for axes in asked.inputs.values() for axis in axes):
        signature = shapes.signature_of(asked, collated, sized=True)
        try:
            probe = shapes.other_sizes(signature.inputs, collated)
            original.run(probe)
            graph.write(original.model, signature, shapes.to_trace(signature.inputs, collated, max_length), path)
            _check_sizes(original, signature, path, [collated, probe])
            context.decide("image_size", "any", "the model and its graph take it")
        except Exception as error:  # noqa: BLE001  # a model that is made for one size says so in as many ways as there are models
            why = error.why if isinstance(error, BadData) else data.reason(error)
            path.unlink(missing_ok=True)
        else:
            return _written(context, path), [*_probes(signature, original, items, max_length), probe]
    signature = shapes.signature_of(asked, collated, sized=False)
    if why:
        size = "x".join(str(each) for each in signature.inputs["pixel_values"][2:])
        context.decide("image_size", size, f"that of the images as they are prepared; of another size: {why[:200]}")
    graph.write(original.model, signature, shapes.to_trace(signature.inputs, collated, max_length), path)
    return _written(context, path), _probes(signature, original, items, max_length)


def _check_sizes(original: TorchRunner, signature: Signature, path: Path, batches: Sequence[Batch]) -> None:
    """Raise BadData: a graph for images of any size answers otherwise than the model, as where the exporter kept one size's constants."""
    run, comparison = session(path, "cpu", 1).run, Comparison(_UNITS.get(original.task.name, "label"))
    for batch in batches:
        found = run(list(signature.outputs), {name: batch[name] for name in signature.inputs})
        comparison.add(original.run(batch), dict(zip(signature.outputs, found, strict=True)), None, counted=False)
    comparison.result(len(batches)).enforce()


def _written(context: Context, path: Path) -> Any:
    import onnx

    context.decide("opset", graph.OPSET, "one that all supported versions of ONNX Runtime read")
    return onnx.load(path, load_external_data=False)


def _probes(signature: Signature, original: TorchRunner, items: Sequence[Item], max_length: int) -> list[Batch]:
    """The first rows in batches of each size in turn, and one row as long as rows may be."""
    task, start, made = original.task, 0, []
    for size in SIZES:
        chosen = [items[(start + place) % len(items)] for place in range(size)]  # few rows come again: the axis is proven all the same
        start += size
        while len(chosen) > 1 and len(chosen) * max(item.size for item in chosen) > PROBED:
            chosen.pop()
        made.append({name: array for name, array in task.collate(chosen, original.encoder).items() if name in signature.inputs})
    if any("sequence" in axes for axes in signature.inputs.values()):
        tokens = min(max_length, max(_LONG, *(item.size for item in items)))
        made.append(shapes.resized(signature.inputs, made[0], {"batch": 1, "sequence": tokens}))
    return made


def _accompany(context: Context, task: Measurable, loaded: Loaded, written: Any, probes: Sequence[Batch]) -> Description:
    """All files beside the graph but int8's."""
    out, tokenizer, text = context.out, loaded.tokenizer, None
    inputs = {value.name: graph.axes(value) for value in written.graph.input}
    loaded.model.config._name_or_path = ""
    loaded.model.config.save_pretrained(out)
    files.accompany(tokenizer, context.inputs["model"], out)
    if tokenizer is not None:
        _write_tokenizer(tokenizer, out / exported.TOKENIZER)
        text = Text(
            max_length=min(loaded.encoder.limit, _MOST_TOKENS),
            pad=tokenizer.pad_token_id or 0,
            truncation_side=tokenizer.truncation_side,
            split_special_tokens=bool(tokenizer.split_special_tokens),
        )
    description = Description(
        task=task.name,
        model=type(loaded.model).__name__,
        opset=written.opset_import[0].version,
        ir=written.ir_version,
        inputs=inputs,
        outputs={value.name: graph.axes(value) for value in written.graph.output},
        labels=tuple(loaded.labels),
        tried=tuple(shapes.sizes(inputs, probe) for probe in probes),
        text=text,
    )
    (out / exported.NAME).write_text(description.json_text(), encoding="utf-8")
    return description


def _write_tokenizer(tokenizer: Any, path: Path) -> None:
    """The tokenizer as it is used, not as it was found: transformers may have changed it while loading."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        why = f"{type(tokenizer).__name__} has no form that runs without transformers"
        raise BadData("the model's tokenizer cannot be exported", why=why, remedy="use the model with the engine torch")
    own = type(backend).from_str(backend.to_str())
    own.no_padding()
    own.no_truncation()
    path.write_text(own.to_str(pretty=True) + "\n", encoding="utf-8")


def _compare(context: Context, pair: _Pair, rows: _Rows, probes: Sequence[Batch]) -> dict[str, Any]:
    """The answers of both to the rows; they agree."""
    comparison = Comparison(_UNITS.get(pair.task.name, "label"))
    answers = _answered(context, pair, rows, comparison)
    for probe in probes:
        expected, found = pair.original.run(probe), pair.runner.run(probe)
        comparison.add(expected, found, probe.get("attention_mask"), counted=False)
    reached = comparison.result(len(rows.rows))
    extent = [list(shapes.sizes(pair.runner.description.inputs, probe).values()) for probe in probes]
    told = {**asdict(reached), "shapes": extent}
    context.detail("parity", told)
    context.log.info("compared", **told)
    reached.enforce()
    return answers


def _answered(context: Context, pair: _Pair, rows: _Rows, comparison: Comparison) -> dict[str, Any]:
    """The answers of torch and onnx, row by row; each batch that both have answered goes into the comparison."""
    count = len(rows.rows)
    found: dict[str, list[Any]] = {"torch": [None] * count, "onnx": [None] * count}
    done = 0
    for places, items, arrays in pair.batches(rows.rows):
        outputs = {"torch": pair.original.run(arrays), "onnx": pair.runner.run(arrays)}
        comparison.add(outputs["torch"], outputs["onnx"], arrays.get("attention_mask"))
        for name, arrays_of in outputs.items():
            for place, answer in zip(places, _said(pair, arrays_of, items), strict=True):
                found[name][place] = answer
        if comparison.unit == "box":
            for place in places:
                comparison.count(*same_boxes(found["torch"][place], found["onnx"][place], context.settings.threshold))
        done += len(places)
        context.progress(done, count, "rows")
    return {name: _stacked(pair.task, answers) for name, answers in found.items()}


def _said(pair: _Pair, outputs: Any, items: Sequence[Item]) -> Sequence[Any]:
    return list(pair.task.answers(pair.task.raws(outputs, items), items, pair.original.labels))


def _stacked(task: Measurable, answers: list[Any]) -> Any:
    return np.stack(answers) if task.dense else answers


def _int8(context: Context, pair: _Pair, description: Description, rows: _Rows, answers: dict[str, Any]) -> dict[str, Engine]:
    """The engine of the 8-bit graph, for its speed; its file is gone again where it may not stay."""
    engines: dict[str, Engine] = {}
    try:
        int8.write(context.out / exported.GRAPH, context.out / exported.INT8, context.scratch)
        runner = OnnxRunner(pair.task, context.out, description, exported.INT8, device="cpu", threads=context.threads)
        engine = Engine(runner, pair.task, context.settings.max_length, CPU_BUDGET)
        quantized, parity = _quantized(context, pair, runner, rows)
        engines["int8"] = engine
        sizes = (_size(context.out, exported.GRAPH), _size(context.out, exported.INT8))
        verdict = int8.judge(pair.task, rows.truths, {**answers, "int8": quantized}, engine.labels, parity=parity, sizes=sizes)
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


def _quantized(context: Context, pair: _Pair, runner: OnnxRunner, rows: _Rows) -> tuple[Any, Parity]:
    """(int8's answers, how far they agree with float32's). Raises BadData: it gave no number."""
    comparison = Comparison(_UNITS.get(pair.task.name, "label"))
    found: list[Any] = [None] * len(rows.rows)
    done = 0
    for places, items, arrays in pair.batches(rows.rows):
        outputs = runner.run(arrays)
        comparison.add(pair.runner.run(arrays), outputs, arrays.get("attention_mask"))
        for place, answer in zip(places, _said(pair, outputs, items), strict=True):
            found[place] = answer
        done += len(places)
        context.progress(done, len(rows.rows), "rows")
    return _stacked(pair.task, found), comparison.result(len(rows.rows))


def _speed(context: Context, engines: dict[str, Engine], rows: Sequence[Row]) -> dict[str, Any]:
    """Of each engine the median of rounds that take turns, so that what else the machine does meets all of them."""
    timed = rows[:TIMED_ROWS]
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.answer(engine.prepare(timed), lambda _: None)
            seconds[name].append(time.perf_counter() - begun)
    speeds = {
        name: {
            "rows_per_second": round(len(timed) / statistics.median(seconds[name]), 2),
            "rounds": [round(len(timed) / each, 2) for each in seconds[name]],
            "latency": engine.latency(rows[:TIMED]),
        }
        for name, engine in engines.items()
    }
    context.log.info("speed", **{name: speed["rows_per_second"] for name, speed in speeds.items()})
    return {**speeds, "rows": len(timed), "threads": context.threads}


def _usable(items: Sequence[Item | str]) -> list[Item]:
    return [item for item in items if not isinstance(item, str)]


def _size(folder: Path, name: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{name}*"))
