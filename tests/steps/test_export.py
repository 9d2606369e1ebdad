from __future__ import annotations

import errno
import getpass
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import transformers

from modelyard.errors import BadData, NoInput, Usage, Yielded
from modelyard.steps import Export
from modelyard.yard import Yard
from modelyard_jobs import export, exported, models, tasks
from modelyard_jobs.engine import Engine
from modelyard_jobs.export import graph, int8, parity
from modelyard_jobs.export.answers import Given
from modelyard_jobs.metrics.interval import Metric
from modelyard_jobs.onnx_runner import OnnxRunner, PlainEncoder
from modelyard_jobs.tasks.tags import Tagged
from modelyard_jobs.tasks.task import Item
from modelyard_jobs.tasks.text_classification import TextClassification
from modelyard_jobs.tasks.token_classification import TokenClassification
from modelyard_jobs.torch_runner import TorchRunner
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, level, tiny_model, tiny_tokenizer

LABELS = ["neg", "neutral", "pos"]
ROOT = Path(__file__).parents[2]
TASK = tasks.of("text-classification", Export(model="m", parity="d"))


def texts(n, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(n)]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def labelled(model, rows, margin=0.0):
    """Rows whose labels are what the model says of them; only those of which it is sure."""
    runner = TorchRunner(TASK, models.load(TASK, model, None, torch.float32), "cpu")
    logits = np.stack(Engine(runner, TASK, 128, 2048).raws([{"text": row} for row in rows], lambda _: None)[0])
    ordered = np.sort(logits, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] > margin
    return [{"text": row, "label": LABELS[best]} for row, best, keep in zip(rows, logits.argmax(1), sure, strict=True) if keep]


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A yard with a model and rows, and an export of it."""
    root = tmp_path_factory.mktemp("export")
    yard = Yard.open(root / "yard")
    model = artifact(yard, "model", level(tiny_model(root / "model", LABELS), texts(50)), "safetensors")
    rows = artifact(yard, "dataset", {"test.jsonl": jsonl([{"text": text} for text in texts(90)])})
    context = FakeContext(Export(model="m", parity="d", rows=60), {"model": model, "parity": rows}, yard, root / "work")
    produced = export.run(context)
    return SimpleNamespace(root=root, yard=yard, model=model, rows=rows, context=context, produced=produced)


@pytest.fixture
def prepared(place, tmp_path):
    def make(model=None, rows=None, count=60, **settings):
        inputs = {"model": model or place.model, "parity": rows or place.rows}
        return FakeContext(Export(model="m", parity="d", rows=count, **settings), inputs, place.yard, tmp_path / "work")

    return make


@pytest.fixture
def traced(place, monkeypatch):
    """For tests of what comes after the tracing, which takes seconds: it has been done."""
    monkeypatch.setattr(graph, "write", lambda _model, _signature, _arrays, path: onnx.load(shutil.copyfile(place.context.out / "model.onnx", path)))


def test_the_artifact(place):
    out = place.context.out
    assert (place.produced.kind, place.produced.format) == ("model", "onnx")
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "export.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    assert json.loads((out / "export.json").read_text()) == {
        "schema": 2,
        "task": "text-classification",
        "model": "BertForSequenceClassification",
        "opset": 20,
        "ir": 10,
        "inputs": {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]},
        "outputs": {"logits": ["batch", 3]},
        "labels": LABELS,
        "tried": [{"batch": rows, "sequence": tokens} for rows, tokens in place.context.details["parity"]["shapes"]],
        "text": {"max_length": 128, "pad": 0, "truncation_side": "right", "split_special_tokens": False},
    }
    onnx.checker.check_model(str(out / "model.onnx"), full_check=True)
    assert transformers.AutoConfig.from_pretrained(out).id2label == dict(enumerate(LABELS))
    assert (
        transformers.AutoTokenizer.from_pretrained(out)("a film")["input_ids"]
        == models.load(TASK, place.model, None, torch.float32).tokenizer("a film")["input_ids"]
    )


def test_nothing_of_the_machine_is_in_any_byte(place):
    private = [str(place.root), str(Path.home()), "/tmp", "/usr", "/home", str(ROOT), "site-packages", "modeling_bert", "stack_trace", 'File "']
    private += [name for name in [os.uname().nodename, getpass.getuser()] if len(name) > 4]
    for path in place.context.out.iterdir():
        content = path.read_bytes()
        assert [word for word in private if word.encode() in content] == [], path.name


def test_the_graph_keeps_no_note_of_its_origin(place):
    proto = onnx.load(place.context.out / "model.onnx")
    parts = [proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output]
    assert len(parts) > 50
    assert not any(list(part.metadata_props) or part.doc_string for part in parts)
    assert not proto.graph.value_info
    assert (proto.producer_name, "+" in proto.producer_version) == ("pytorch", False)
    assert {initializer.data_location for initializer in proto.graph.initializer} == {onnx.TensorProto.DEFAULT}


def test_the_opset_is_that_of_the_graph(place):
    assert place.context.decisions["opset"] == 20
    domains = [onnx.helper.make_opsetid("com.microsoft", 1), onnx.helper.make_opsetid("", 18)]
    assert graph.opset(onnx.helper.make_model(onnx.GraphProto(), opset_imports=domains)) == 18, "the exporter may leave it lower than asked for"


def test_parity_is_of_real_rows_in_batches_of_all_sizes(place):
    told = place.context.details["parity"]
    assert told["rows"] == place.context.details["rows"]["rows"] == 60
    assert told["max_abs"] <= told["tolerance"] == pytest.approx(1e-4 * told["scale"])
    assert told["agreement"] == 1.0
    assert [rows for rows, _ in told["shapes"]] == [1, 2, 5, 32, 1]
    assert told["shapes"][-1] == [1, 128]  # longer than any row of the data
    assert len({tokens for _, tokens in told["shapes"]}) > 2
    assert place.context.decisions["provider"] == "CPUExecutionProvider"


def test_speed_is_measured_and_kept_out_of_the_files(place):
    speed = place.context.details["speed"]
    assert (speed["rows"], speed["threads"]) == (60, 1)
    for engine in ("torch", "onnx"):
        assert len(speed[engine]["rounds"]) == 3
        assert sorted(speed[engine]["rounds"])[1] == speed[engine]["rows_per_second"] > 0
        assert 0 < speed[engine]["latency"]["p50"] <= speed[engine]["latency"]["p95"]


ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from modelyard.steps import Export
from modelyard.yard import Yard
from modelyard_jobs import export
from tests.steps.fake import FakeContext
root, model, rows, settings, out = Path(sys.argv[1]), *sys.argv[2:]
yard = Yard.open(root)
inputs = {"model": yard.artifacts.get(model), "parity": yard.artifacts.get(rows)}
export.run(FakeContext(Export(model="m", parity="d", **json.loads(settings)), inputs, yard, Path(out)))
"""


def test_the_same_bytes_from_another_process(place, tmp_path):
    command = [sys.executable, "-c", ANOTHER_PROCESS, place.yard.root, place.model.digest, place.rows.digest, '{"rows": 60}', tmp_path / "elsewhere"]
    paths = os.pathsep.join([str(ROOT), *sys.path])
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"})
    assert hashes(tmp_path / "elsewhere" / "out") == hashes(place.context.out)


@pytest.mark.parametrize("kind", ["distilbert", "llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("roberta", "gpt2"))])
def test_other_families(prepared, place, tmp_path, kind):
    folder = tmp_path / kind
    tiny_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    small = {"vocab_size": len(tokenizer), "num_labels": 3, "initializer_range": 0.5}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "pad_token_id": 0}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=2, max_position_embeddings=128, **small)
    elif kind == "roberta":
        config = transformers.RobertaConfig(max_position_embeddings=130, **shape, **small)
    elif kind == "gpt2":  # a tokenizer that has no padding, as decoders' often have not
        tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
        tokenizer.save_pretrained(folder)
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=2, eos_token_id=3, **small)
    else:
        config = transformers.LlamaConfig(num_key_value_heads=1, max_position_embeddings=256, **shape, **small)
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    context = prepared(artifact(place.yard, "model", folder))
    export.run(context)
    assert context.details["parity"]["agreement"] == 1.0
    assert json.loads((context.out / "export.json").read_text())["text"]["pad"] == (3 if kind == "gpt2" else 0)
    assert json.loads((context.out / "config.json").read_text()).get("use_cache", True)  # only the tracing went without


def test_texts_become_the_same_tokens_without_transformers(place):
    plain = PlainEncoder(place.context.out, exported.read(SimpleNamespace(path=place.context.out, digest="")))
    encoder = models.load(TASK, place.model, None, torch.float32).encoder
    hard = ["good film", "", " [SEP] in [MASK] a text", "good " * 6, "good " * 7, "Ünïcode \u0000 नमस्ते \U0001f600", "x" * 5000, "\n\t"]
    for length in (4, 8, 128):
        assert plain.texts(hard, length) == encoder.texts(hard, length)
    assert plain.texts([], 8) == ([], [])


def test_a_tokenizer_that_cuts_on_the_left_and_reads_special_tokens_as_text(prepared, place, tmp_path):
    folder = tiny_model(tmp_path / "model", LABELS)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "truncation_side": "left", "split_special_tokens": True}))
    rows = jsonl([{"text": f"{text} [SEP] {text}"} for text in texts(20)])
    context = prepared(artifact(place.yard, "model", folder), artifact(place.yard, "dataset", {"test.jsonl": rows}), max_length=16)
    export.run(context)
    told = json.loads((context.out / "export.json").read_text())
    assert (told["text"]["truncation_side"], told["text"]["split_special_tokens"], told["tried"][-1]["sequence"]) == ("left", True, 16)


def test_large_weights_lie_beside_the_graph(prepared, place, monkeypatch, tmp_path):
    monkeypatch.setattr(graph, "LARGEST", 1000)
    rows = artifact(place.yard, "dataset", {"test.jsonl": jsonl(labelled(place.model, texts(40)))})
    monkeypatch.setattr(int8, "MARGIN", 1.0)
    monkeypatch.setattr(int8, "AGREEMENT", 0.0)
    context = prepared(rows=rows, int8=True)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, apart(getattr(os, name), context.scratch, context.out))
    export.run(context)
    names = sorted(path.name for path in context.out.glob("model*"))
    assert names == ["model.onnx", "model.onnx.data", "model_int8.onnx", "model_int8.onnx.data"]
    assert (context.out / "model.onnx").stat().st_size < (context.out / "model.onnx.data").stat().st_size
    for name in ("model", "model_int8"):
        proto = onnx.load(context.out / f"{name}.onnx", load_external_data=False)
        places = {entry.value for initializer in proto.graph.initializer for entry in initializer.external_data if entry.key == "location"}
        assert places == {f"{name}.onnx.data"}
    moved = tmp_path / "moved"
    shutil.copytree(context.out, moved)
    shutil.rmtree(context.out)
    description = exported.read(SimpleNamespace(path=moved, digest=""))
    for name in ("model.onnx", "model_int8.onnx"):
        runner = OnnxRunner(TASK, moved, description, name, device="cpu", threads=1)
        assert runner.run({"input_ids": np.array([[2, 7, 3]]), "attention_mask": np.ones((1, 3), dtype=np.int64)})["logits"].shape == (1, 3)


def apart(move, one, other):
    """`move` as it is where two folders lie on two file systems, as the scratch folder and a yard do on a cluster."""

    def refusing(source, target, **options):
        if Path(source).is_relative_to(one) and Path(target).is_relative_to(other):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        return move(source, target, **options)

    return refusing


def perturb(path, scale):
    proto = onnx.load(path)
    weight = next(part for part in proto.graph.initializer if part.name.endswith("classifier.weight"))
    changed = onnx.numpy_helper.to_array(weight) * np.float32(scale)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(proto, path)


@pytest.mark.parametrize("scale", [1.001, -1])
def test_a_graph_that_answers_otherwise_fails_the_step(prepared, traced, monkeypatch, scale):
    write = graph.write

    def wrong(model, signature, arrays, path):
        proto = write(model, signature, arrays, path)
        perturb(path, scale)
        return proto

    monkeypatch.setattr(graph, "write", wrong)
    context = prepared()
    with pytest.raises(BadData, match="does not answer as the model does"):
        export.run(context)
    assert "speed" not in context.details
    if scale == -1:
        assert context.details["parity"]["agreement"] < 0.5


def test_a_tokenizer_that_gives_other_tokens_fails_the_step(prepared, traced, monkeypatch):
    encode = PlainEncoder.texts
    monkeypatch.setattr(PlainEncoder, "texts", lambda *asked: ([ids[:-1] for ids in encode(*asked)[0]], encode(*asked)[1]))
    with pytest.raises(BadData, match="tokenizer does not give the model's tokens"):
        export.run(prepared())


def test_a_model_that_cannot_be_traced_says_why(prepared, monkeypatch):
    forward = transformers.BertForSequenceClassification.forward

    def data_dependent(self, input_ids=None, **others):
        if input_ids.float().mean() > 3:
            input_ids = input_ids.clone()
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", data_dependent)
    context = prepared()
    with pytest.raises(BadData, match="cannot trace BertForSequenceClassification.*data-dependent") as caught:
        export.run(context)
    assert "torch" in caught.value.remedy
    assert not list(context.out.iterdir())


def test_a_graph_of_fixed_size_is_refused(prepared, monkeypatch):
    save = torch.onnx.ONNXProgram.save

    def fixed(self, path, **options):
        save(self, path, **options)
        proto = onnx.load(path)
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        onnx.save(proto, path)

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", fixed)
    with pytest.raises(BadData, match="any size of batch and sequence"):
        export.run(prepared())


@pytest.mark.parametrize(
    ("model", "rows", "settings", "failure", "message"),
    [
        ("headless", None, {}, BadData, "no trained head"),
        ("exported", None, {}, Usage, "an export already"),
        (None, {"test.csv": "a,b\n1,2\n"}, {}, NoInput, "no column is clearly the text"),
        (None, {"test.jsonl": jsonl([{"text": None}, {"text": " "}])}, {"text": "text"}, BadData, "no row of column text can be used"),
        (None, {"train.jsonl": jsonl([{"text": "good"}])}, {}, NoInput, "no split 'test'"),
        (None, {"test.jsonl": jsonl([{"text": "good"}])}, {"int8": True}, NoInput, "no column is clearly the label"),
        (None, {"test.jsonl": jsonl([{"text": "good", "label": "other"}])}, {"int8": True}, BadData, "not the model's"),
    ],
)
def test_what_cannot_be_exported(prepared, place, tmp_path, model, rows, settings, failure, message):
    source = {
        "headless": lambda: artifact(place.yard, "model", tiny_model(tmp_path / "headless")),
        "exported": lambda: artifact(place.yard, "model", place.context.out, "onnx"),
        None: lambda: place.model,
    }[model]()
    with pytest.raises(failure, match=message):
        export.run(prepared(source, rows and artifact(place.yard, "dataset", rows), **settings))


def test_one_row_is_enough(prepared, traced, place):
    context = prepared(rows=artifact(place.yard, "dataset", {"test.jsonl": jsonl([{"text": "good"}])}))
    export.run(context)
    assert context.details["parity"]["rows"] == 1
    assert [rows for rows, _ in context.details["parity"]["shapes"]] == [1, 2, 5, 32, 1], "the axis of rows is proven by one row as well"


def test_int8_that_agrees_is_kept(prepared, traced, place):
    rows = artifact(place.yard, "dataset", {"test.jsonl": jsonl(labelled(place.model, texts(2000, seed=3), margin=2.0))})
    context = prepared(rows=rows, int8=True, count=400)
    export.run(context)
    told = context.details["int8"]
    assert told["kept"], told
    assert told["agreement"] >= 0.98
    assert told["scores"]["onnx"]["value"] == 1.0
    assert told["scores"]["int8"]["n"] == told["difference"]["n"] == 400
    assert told["difference"]["low"] >= -0.01
    assert told["size"] == (context.out / "model_int8.onnx").stat().st_size < (context.out / "model.onnx").stat().st_size / 2
    assert context.decisions["int8"] == "kept"
    assert context.details["speed"]["int8"]["rows_per_second"] > 0
    proto = onnx.load(context.out / "model_int8.onnx")
    assert not any(list(part.metadata_props) or part.doc_string for part in [proto, proto.graph, *proto.graph.node])
    assert b"/tmp" not in (context.out / "model_int8.onnx").read_bytes()


def test_int8_that_does_not_agree_is_refused_and_the_step_passes(prepared, place, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_model(tmp_path / "outlier", LABELS)
    weights = load_file(folder / "model.safetensors")
    # One activation that nothing reads is so large that it takes all of the 8 bits' range.
    weights["bert.encoder.layer.1.output.LayerNorm.weight"][0] = 5000
    weights["bert.pooler.dense.weight"][:, 0] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = artifact(place.yard, "model", level(folder, texts(50)))
    rows = artifact(place.yard, "dataset", {"test.jsonl": jsonl(labelled(model, texts(100, seed=3)))})
    context = prepared(model, rows, int8=True, count=100)
    assert export.run(context).format == "onnx"
    told = context.details["int8"]
    assert not told["kept"]
    assert told["agreement"] < 0.98
    assert told["difference"]["low"] < -0.01
    assert "are float32's" in told["why"]
    assert told["size"] > 0
    assert context.decisions["int8"] == "refused"
    assert not list(context.out.glob("model_int8*"))
    assert context.details["speed"]["int8"]["rows_per_second"] > 0
    assert context.details["parity"]["agreement"] == 1.0


def leave(source, _target, _scratch):
    """As the quantizer does that fails half way."""
    source.with_name("model-inferred.onnx").write_bytes(b"half")
    raise ValueError("nothing more")


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (leave, "it cannot be quantized: ValueError: nothing more"),
        (lambda *_: (_ for _ in ()).throw(ValueError("no such operator")), "it cannot be quantized: ValueError: no such operator"),
        (lambda _, target, __: target.write_bytes(b"junk"), "model_int8.onnx: ONNX Runtime cannot load the model"),
    ],
)
def test_what_cannot_be_quantized_is_refused_and_the_step_passes(prepared, traced, place, monkeypatch, write, why):
    rows = artifact(place.yard, "dataset", {"test.jsonl": jsonl(labelled(place.model, texts(20)))})
    monkeypatch.setattr(int8, "write", write)
    context = prepared(rows=rows, int8=True)
    assert export.run(context).format == "onnx"
    told = context.details["int8"]
    assert not told["kept"]
    assert told["why"].startswith(why)
    assert [path.name for path in context.out.glob("*.onnx*")] == ["model.onnx"]
    assert "int8" not in context.details["speed"]


def test_a_request_to_stop_is_no_refusal_of_int8(prepared, traced, place, monkeypatch):
    rows = artifact(place.yard, "dataset", {"test.jsonl": jsonl(labelled(place.model, texts(20)))})
    monkeypatch.setattr(int8, "write", lambda *_: (_ for _ in ()).throw(Yielded("asked to stop")))
    with pytest.raises(Yielded):
        export.run(prepared(rows=rows, int8=True))


@pytest.mark.parametrize(
    ("rows", "wrong", "others", "kept", "why"),
    [
        (500, 0, 0, True, "500 of 500 labels"),
        (500, 0, 11, False, "489 of 500 labels are float32's; 98% are asked for"),
        (500, 3, 3, False, "more rows make it narrower"),  # agrees well enough, and may have lost too much
        (20000, 60, 60, True, "19940 of 20000 labels"),
        (64, 0, 0, False, "by 95 % over 64 rows; 1% is allowed"),  # too few to say
        (20000, 399, 399, False, "accuracy may have fallen"),
    ],
)
def test_judge(rows, wrong, others, kept, why):
    """wrong: rows that only int8 has wrong; others: rows with another label than float32's, those included."""
    true = np.zeros(rows, dtype=np.int64)
    float32, found = true.copy(), true.copy()
    found[:wrong] = 1
    float32[wrong:others] = 1
    float32[others : others + 5] = found[others : others + 5] = 2
    verdict = judged(true, float32, found)
    assert (verdict["kept"], why in verdict["why"]) == (kept, True), verdict["why"]
    assert verdict["difference"]["value"] == pytest.approx((others - 2 * wrong) / rows)
    assert verdict["agreement"] == pytest.approx(1 - others / rows)


def judged(true, float32, found, sizes=(100, 30)):
    answers = {"torch": np.eye(3)[float32], "onnx": np.eye(3)[float32], "int8": np.eye(3)[found]}
    return int8.judge(TASK, true, answers, LABELS, parity=compare(answers["onnx"], answers["int8"]), sizes=sizes)


@pytest.mark.parametrize(
    ("low", "words"), [(-0.004, "log likelihood fell by no more than 0.0040, by 95 %"), (-0.02, "fallen by 0.0200, .*; 0.01 is")]
)
def test_a_metric_that_is_no_share_is_not_told_in_percent(low, words):
    value = Metric(-1.5, -1.6, -1.4, 500, "bootstrap")
    task = SimpleNamespace(
        measure=lambda *_: SimpleNamespace(main="log_likelihood", metrics={"log_likelihood": value}),
        differences=lambda *_: {"log_likelihood": Metric(low / 2, low, 0.0, 500, "agresti-min")},
    )
    logits = np.eye(3, dtype=np.float32)[None]
    verdict = int8.judge(task, [], dict.fromkeys(("torch", "onnx", "int8"), ()), [], parity=compare(logits[0], logits[0], "token"), sizes=(100, 30))
    assert verdict["kept"] is (low > -0.01)
    assert re.search(words, verdict["why"]), verdict["why"]
    assert verdict["why"].count("%") == 1 + verdict["kept"]


def test_the_boxes_of_8_bits_are_counted(place, tmp_path, monkeypatch):
    settings = Export(model="m", parity="d", task="object-detection", int8=True)
    task, labels = tasks.of("object-detection", settings), ("bag", "coat")
    exact = {"logits": np.array([[[9, 0, 0], [0, 9, 0], [0, 0, 9]]], np.float32), "pred_boxes": np.full((1, 3, 4), 0.5, np.float32)}
    moved = {**exact, "pred_boxes": exact["pred_boxes"] + np.array([[0], [0.1], [0]], np.float32)}
    monkeypatch.setattr(int8, "write", lambda *_: None)
    monkeypatch.setattr(int8, "OnnxRunner", lambda *_, **__: SimpleNamespace(run=lambda _: moved))
    monkeypatch.setattr(int8, "judge", lambda *_, parity, sizes: {"kept": True, "why": "", "agreement": parity.agreement})
    context, float32 = FakeContext(settings, {}, place.yard, tmp_path / "work"), Given(task, labels, 0.5)
    trial = int8.Trial(context, task, SimpleNamespace(labels=labels))
    items = [Item(16, None, about=(64, 64))]
    float32.add([0], items, exact)
    trial.add([0], items, {}, exact, float32)
    assert trial.end([], {}, labels)
    assert context.details["int8"]["agreement"] == pytest.approx(1 / 3), "one box that both have, and one of each that the other has not"


def test_each_row_is_prepared_once_by_each_tokenizer(prepared, traced, place, monkeypatch):
    content = labelled(place.model, texts(90))
    rows, seen = artifact(place.yard, "dataset", {"test.jsonl": jsonl(content)}), []
    prepare = TextClassification.prepare
    monkeypatch.setattr(
        TextClassification,
        "prepare",
        lambda self, given, encoder, length: (seen.append((encoder, len(given))), prepare(self, given, encoder, length))[1],
    )
    monkeypatch.setattr(export.step.speed, "measure", lambda engines, _: {name: {"rows_per_second": 1.0} for name in engines})
    context = prepared(rows=rows, count=80, int8=True)
    export.run(context)
    assert {type(encoder).__name__ for encoder, _ in seen} == {"TokenizerEncoder", "PlainEncoder"}
    assert sum(count for _, count in seen) == 2 * 80
    assert context.details["parity"]["rows"] == context.details["int8"]["difference"]["n"] == 80


def test_8_bits_that_save_nothing_are_refused():
    true = np.zeros(20000, dtype=np.int64)
    assert judged(true, true, true)["kept"]
    verdict = judged(true, true, true, sizes=(100, 97))
    assert not verdict["kept"]
    assert "saves nothing: 97% of float32's size" in verdict["why"]


def compare(reference, found, unit="label"):
    comparison = parity.Comparison(unit)
    comparison.add({"logits": reference}, {"logits": found}, None)
    return comparison.result(len(reference))


def test_labels_may_differ_only_within_twice_the_difference():
    reference = np.array([[2.0, 1.0], [1.00001, 1.0], [-3.0, 3.0]], dtype=np.float32)
    found = reference + np.array([[1e-5, -1e-5], [-1e-5, 1e-5], [0, 0]], dtype=np.float32)
    near = compare(reference, found)
    assert (near.close, near.holds, near.scale) == (1, True, 3.0)
    assert near.agreement == pytest.approx(2 / 3)
    assert near.max_abs == pytest.approx(1e-5, rel=0.1)
    assert near.max_rel == pytest.approx(1e-5, rel=0.1)
    near.enforce()
    rng = np.random.default_rng(0)
    for size in (0.01, 0.1, 1):
        many = rng.normal(size=(500, 3)).astype(np.float32)
        result = compare(many, many + (rng.normal(size=many.shape) * size).astype(np.float32))
        assert (1 - result.agreement) * 500 <= result.close
        assert not result.holds


def test_the_tolerance_goes_with_the_scale():
    reference = np.array([[3.0, 1.0], [-2.0, 2.0]], dtype=np.float32)
    assert compare(reference, reference + np.float32(1e-4)).holds
    assert not compare(reference / 1000, reference / 1000 + np.float32(1e-4)).holds
    with pytest.raises(BadData, match="differ by 4.00e.00, where 3.00e-04 is tolerated; 0.0% of the labels are equal"):
        compare(reference, reference[:, ::-1].copy()).enforce()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_number_is_no_parity(bad):
    good = np.ones((4, 2), dtype=np.float32)
    broken = good.copy()
    broken[1, 0] = bad
    with pytest.raises(BadData, match="the exported model gave no number for 1 of 4"):
        compare(good, broken)
    with pytest.raises(BadData, match="the model gave no number for 1 of 4"):
        compare(broken, good)


@pytest.mark.parametrize(("rows", "kept"), [(1, False), (150, False), (400, True)])
def test_few_rows_that_stay_as_they_are_prove_nothing_for_spans_either(rows, kept):
    labels = ["O", "B-A", "I-A"]
    truth, answer = Tagged(np.array([1, 2, 0]), [(0, 1), (2, 3), (4, 5)]), {"labels": ["B-A", "I-A", "O"], "scores": [0.9] * 3, "spans": []}
    logits = np.tile(np.eye(3, dtype=np.float32)[[1, 2, 0]], (rows, 1, 1))
    task, answers = TokenClassification(Export(model="m", parity="d")), dict.fromkeys(("torch", "onnx", "int8"), [answer] * rows)
    comparison = parity.Comparison("token")
    comparison.add({"logits": logits}, {"logits": logits}, None)
    verdict = int8.judge(task, [truth] * rows, answers, labels, parity=comparison.result(rows), sizes=(100, 30))
    assert verdict["kept"] is kept
    assert verdict["metric"] == "f1"
