"""The step: a model, rows and settings -> an ONNX graph that has been compared with the model on those rows.

Both are run on the CPU: one machine's float32 is the reference, and an accelerator's shortcuts (TF32) are no part of it.
Beside the batches that `infer` would make of the rows, the first of them go through in batches of other sizes and with other padding, one alone, one
as long as rows may be, and one image of another size where the model takes any; where it does not, the graph has the size of these images, and
export.json says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from modelyard.errors import Usage
from modelyard_jobs import exported, models, tasks
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.engine import CPU_BUDGET, Engine
from modelyard_jobs.export import companions, graph, image_size, shapes, speed
from modelyard_jobs.export.int8 import Trial
from modelyard_jobs.export.pair import Pair
from modelyard_jobs.export.sample import Sample
from modelyard_jobs.export.shapes import Batch
from modelyard_jobs.exported import Description
from modelyard_jobs.models import Loaded
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.tasks.task import Item
from modelyard_jobs.torch_runner import TorchRunner


def run(context: Context) -> Produced:
    """Export, compare, and leave the files in `context.out`; a failure leaves none."""
    if context.inputs["model"].format == "onnx":
        remedy = "give the model that it was made from"
        raise Usage("the model is an export already", where=context.inputs["model"].digest, remedy=remedy)
    task = tasks.chosen(context)
    loaded = models.load(task, context.inputs["model"], None, torch.float32)
    original = TorchRunner(task, loaded, "cpu")
    engines = {"torch": Engine(original, task, context.settings.max_length, CPU_BUDGET)}
    reference = engines["torch"]
    sample = Sample(context, task, reference)
    description, probes = _write(context, original, loaded, sample.first(sum(shapes.SIZES)), reference.max_length)
    runner = OnnxRunner(task, context.out, description, exported.GRAPH, device="cpu", threads=context.threads)
    context.decide("provider", runner.provider, "what the session says that it runs on")
    engines["onnx"] = Engine(runner, task, context.settings.max_length, CPU_BUDGET)
    trial = Trial(context, task, description) if context.settings.int8 else None
    parity, answers = Pair(task, original, runner, reference.max_length).compare(context, sample, probes, trial)
    context.detail("rows", sample.told())
    told = {**asdict(parity), "shapes": [list(tried.values()) for tried in description.tried]}
    context.detail("parity", told)
    context.log.info("compared", **told)
    parity.enforce()
    if trial and (smaller := trial.end(sample.truths(), answers, reference.labels)):
        engines["int8"] = Engine(smaller, task, context.settings.max_length, CPU_BUDGET)
    speeds = speed.measure(engines, [sample.rows[place] for place in sample.good])
    context.log.info("speed", **{name: speeds[name]["rows_per_second"] for name in engines})
    context.detail("speed", {**speeds, "threads": context.threads})
    return Produced(kind="model", format="onnx")


def _write(context: Context, original: TorchRunner, loaded: Loaded, items: Sequence[Item], max_length: int) -> tuple[Description, Sequence[Batch]]:
    """(what the export says of itself, batches of other shapes to compare it on); all files are there but int8's."""
    begun = time.perf_counter()
    written, probe = image_size.write(context, original, items, max_length)
    probes = shapes.probes(graph.inputs(written), original.task, original.encoder, items, max_length)
    probes += [probe] if probe else []
    description = companions.write(context, original.task, loaded, written, probes)
    context.decide("opset", description.opset, "one that all supported versions of ONNX Runtime read")
    context.detail("export", {"seconds": round(time.perf_counter() - begun, 3), "bytes": graph.size(context.out / exported.GRAPH)})
    return description, probes
