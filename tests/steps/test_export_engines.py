from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelyard.errors import BadData, DeviceOom, NoAccelerator, Usage
from modelyard.steps import Evaluate, Export, Infer
from modelyard.yard import Yard
from modelyard_jobs import engine, evaluate, export, infer
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.tasks.text_classification import TextClassification
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, level, tiny_model

LABELS = ["neg", "neutral", "pos"]
ROOT = Path(__file__).parents[2]

WITHOUT_TORCH = """
import json, sys
from importlib.machinery import PathFinder

class Without(PathFinder):  # as where they are not installed: nothing finds them, importing one raises
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {"torch", "transformers", "safetensors", "onnx"} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from pathlib import Path
from modelyard.steps import Evaluate, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, infer
from tests.steps.fake import FakeContext
yard, model, rows, name, out = Yard.open(Path(sys.argv[1])), *sys.argv[2:]
inputs = {"model": yard.artifacts.get(model), "data": yard.artifacts.get(rows)}
for step, settings in ((infer, Infer), (evaluate, Evaluate)):
    folder = Path(out) / settings.verb
    context = FakeContext(settings(model="m", data="d", split="test", engine=name), inputs, yard, folder, key=settings.verb.encode().hex().zfill(64))
    step.run(context)
    print(json.dumps([context.decisions, sorted(part for part in sys.modules if part.startswith(("torch", "transformers")))]))
"""


def texts(n, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(n)]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A yard with a model, its export with 8 bits, and labelled rows."""
    root = tmp_path_factory.mktemp("engines")
    yard = Yard.open(root / "yard")
    model = artifact(yard, "model", level(tiny_model(root / "model", LABELS), texts(60)), "safetensors")
    content = [{"text": text, "label": random.Random(text).choice(LABELS)} for text in [*texts(60), "", "good " * 300]]
    rows = artifact(yard, "dataset", {"test.jsonl": jsonl(content)})
    patch = pytest.MonkeyPatch()
    patch.setattr(export.int8, "MARGIN", 1.0)
    patch.setattr(export.int8, "AGREEMENT", 0.5)
    context = FakeContext(Export(model="m", parity="d", rows=20, int8=True), {"model": model, "parity": rows}, yard, root / "work")
    export.run(context)
    patch.undo()
    whole = {path.name: path.read_bytes() for path in context.out.iterdir()}
    return SimpleNamespace(
        root=root,
        yard=yard,
        model=model,
        rows=rows,
        onnx=artifact(yard, "model", whole, "onnx"),
        single=artifact(yard, "model", {name: content for name, content in whole.items() if name != "model_int8.onnx"}, "onnx"),
    )


@pytest.fixture
def prepared(place, tmp_path):
    def make(model, settings=Infer, number=0, **more):
        inputs = {"model": model, "data": place.rows}
        step = settings(model="m", data="d", split="test", **more)
        return FakeContext(step, inputs, place.yard, tmp_path / f"work-{number}", key=f"{os.urandom(32).hex()}", attempt=f"run-r1.step.{number + 1}")

    return make


def records(folder):
    return [json.loads(line) for path in sorted((folder / "data").iterdir()) for line in path.open()]


def alike(found, expected, tolerance):
    assert [record["error"] for record in found] == [record["error"] for record in expected]
    assert [record["truncated"] for record in found] == [record["truncated"] for record in expected]
    for one, other in zip(found, expected, strict=True):
        if one["error"] is None:
            assert one["score"] == pytest.approx(other["score"], abs=tolerance)
    assert [record["label"] for record in found] == [record["label"] for record in expected]


@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_an_export_runs_where_there_is_no_torch(place, prepared, tmp_path, name):
    torch = prepared(place.model)
    infer.run(torch)
    expected = records(torch.out)
    assert {record["label"] for record in expected} == {None, *LABELS}  # None: the empty row
    command = [sys.executable, "-c", WITHOUT_TORCH, place.yard.root, place.onnx.digest, place.rows.digest, name, tmp_path / "light"]
    paths = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        decisions, loaded = json.loads(line)
        assert (decisions["engine"], decisions["provider"], loaded) == (name, "CPUExecutionProvider", [])
    found = records(tmp_path / "light" / "infer" / "out")
    if name == "onnx":
        alike(found, expected, 2e-5)
    else:
        same = sum(one["label"] == other["label"] for one, other in zip(found, expected, strict=True))
        assert same >= 0.9 * len(expected)
    metrics = json.loads((tmp_path / "light" / "evaluate" / "out" / "metrics.json").read_text())
    assert metrics["labels"] == LABELS
    assert metrics["metrics"]["accuracy"]["n"] == 61


def test_the_format_decides_the_engine(place, prepared):
    for model, expected in ((place.model, "torch"), (place.onnx, "onnx")):
        context = prepared(model)
        infer.run(context)
        assert context.decisions["engine"] == expected
        assert ("provider" in context.decisions) == (expected == "onnx")


@pytest.mark.parametrize(
    ("model", "name", "message", "remedy"),
    [
        ("model", "onnx", "engine onnx runs exported models only", "export it"),
        ("model", "onnx-int8", "engine onnx-int8 runs exported models only", "export it"),
        ("onnx", "torch", "torch cannot run an exported model", "engine: onnx"),
        ("single", "onnx-int8", "no 8-bit weights.*no model_int8.onnx", "int8: true"),
    ],
)
@pytest.mark.parametrize("step", [infer, evaluate])
def test_an_engine_that_the_model_is_not_for(place, prepared, step, model, name, message, remedy):
    context = prepared(getattr(place, model), {infer: Infer, evaluate: Evaluate}[step], engine=name)
    with pytest.raises(Usage, match=message) as caught:
        step.run(context)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("step", [infer, evaluate])
def test_an_export_for_another_task(place, prepared, step):
    context = prepared(place.onnx, {infer: Infer, evaluate: Evaluate}[step], task="fill-mask")
    with pytest.raises(Usage, match="export for text-classification, not for fill-mask") as caught:
        step.run(context)
    assert "task: text-classification" in caught.value.remedy


def test_two_models_are_compared_each_by_its_own_engine(place, prepared):
    context = prepared(place.model, Evaluate, against="c")
    context.inputs = {**context.inputs, "against": place.onnx}
    evaluate.run(context)
    assert (context.decisions["engine"], context.decisions["against_engine"]) == ("torch", "onnx")
    assert "against_provider" in context.decisions
    document = json.loads((context.out / "metrics.json").read_text())
    assert document["against"]["digests"] == {"model": place.model.digest, "against": place.onnx.digest}
    assert document["metrics"]["accuracy"]["difference"]["value"] == 0.0  # the same model, twice


def test_evaluate_says_the_same_under_either_engine(place, prepared):
    documents = []
    for number, model in enumerate((place.model, place.onnx)):
        context = prepared(model, Evaluate, number)
        evaluate.run(context)
        documents.append(json.loads((context.out / "metrics.json").read_text()))
        assert context.details["latency"]["n"] == 16
        assert context.details["speed"]["rows"] == 61
    for document in documents:
        document.pop("errors")  # their probabilities differ in the last digits, and so do those of the calibration
    errors = [document.pop("calibration")["ece"]["value"] for document in documents]
    assert errors[0] == pytest.approx(errors[1], abs=1e-5)
    assert documents[0] == documents[1]


def test_an_interrupted_export_engine_goes_on_where_it_was(place, prepared, monkeypatch):
    monkeypatch.setattr(TextClassification, "window", 16)
    whole = prepared(place.onnx)
    infer.run(whole)
    answer, calls = engine.Engine.answer, []

    def fail_at_third(self, rows, tick):
        calls.append(len(rows))
        if len(calls) == 3:
            raise MemoryError
        return answer(self, rows, tick)

    monkeypatch.setattr(engine.Engine, "answer", fail_at_third)
    first = prepared(place.onnx, number=1)
    with pytest.raises(MemoryError):
        infer.run(first)
    second = prepared(place.onnx, number=2)
    second.checkpoints = place.yard.checkpoints(first.key, second.attempt)
    infer.run(second)
    assert calls == [16, 16, 16, 16, 14]
    for path in (whole.out / "data").iterdir():
        assert (second.out / "data" / path.name).read_bytes() == path.read_bytes()


def test_max_length_is_cut_to_the_models_positions(place, prepared):
    for number, model in enumerate((place.model, place.onnx)):
        context = prepared(model, number=number, max_length=4096)
        infer.run(context)
        assert context.decisions["max_length"] == 128
        assert context.details["rows"]["truncated"] == 1


@pytest.mark.parametrize("device", ["cuda", "xpu"])
def test_an_accelerator_that_onnx_runtime_cannot_use(place, prepared, device):
    context = prepared(place.onnx)
    context.device = device
    with pytest.raises(NoAccelerator, match="the session runs on CPUExecutionProvider") as caught:
        infer.run(context)
    assert "gpus: 0" in caught.value.remedy


def test_a_type_that_an_export_does_not_have_is_not_passed_over(place, prepared):
    context = prepared(place.onnx, dtype="bfloat16")
    infer.run(context)
    assert context.decisions["dtype"] == "float32"


def test_threads_are_those_of_the_step(place, prepared, monkeypatch):
    seen = []
    import onnxruntime

    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, **more: (seen.append(options), session(path, options, **more))[1])
    context = prepared(place.onnx)
    context.threads = 3
    infer.run(context)
    assert [(options.intra_op_num_threads, options.inter_op_num_threads) for options in seen] == [(3, 1)]


def test_a_device_too_small_halves_the_batch(place, prepared, monkeypatch):
    roomy = prepared(place.onnx)
    infer.run(roomy)
    run = OnnxRunner.raws

    def small(self, items):
        if len(items) > 4:
            raise engine.OutOfMemory("too much")
        return run(self, items)

    monkeypatch.setattr(OnnxRunner, "raws", small)
    tight = prepared(place.onnx, number=1)
    infer.run(tight)
    alike(records(tight.out), records(roomy.out), 2e-6)
    assert tight.details["speed"]["refused"] > 0 == roomy.details["speed"]["refused"]
    monkeypatch.setattr(OnnxRunner, "raws", lambda *_: (_ for _ in ()).throw(engine.OutOfMemory("nothing fits")))
    with pytest.raises(DeviceOom, match="nothing fits"):
        infer.run(prepared(place.onnx, number=2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("export.json", None, "has no export.json"),
        ("export.json", b"{", "description of the export cannot be used"),
        ("export.json", b'{"schema": 1}', "export.json: .*: schema: Input should be 2"),
        ("model.onnx", b"junk", "ONNX Runtime cannot load the model"),
        ("tokenizer.json", b"{}", "tokenizer cannot be loaded"),
    ],
)
def test_a_broken_export_says_what_is_broken(place, prepared, name, content, message):
    files = {path.name: path.read_bytes() for path in place.single.path.iterdir()}
    files = {key: value for key, value in (files | {name: content}).items() if value is not None}
    with pytest.raises(BadData, match=message) as caught:
        infer.run(prepared(artifact(place.yard, "model", files, "onnx")))
    assert str(place.root) not in str(caught.value)
