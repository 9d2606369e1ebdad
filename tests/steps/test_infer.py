from __future__ import annotations

import json
import os
import random
import signal
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

from modelyard.errors import BadData, DeviceOom, NoInput, Yielded
from modelyard.steps import Infer
from modelyard.yard import Yard
from modelyard_jobs import data, engine, infer, models
from modelyard_jobs.tasks import text_classification
from modelyard_jobs.tasks.text_classification import TextClassification
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_model, tiny_tokenizer

LABELS = ["neg", "neutral", "pos"]


def texts(n, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(n)]


def jsonl(values):
    return "".join(json.dumps({"text": value}) + "\n" for value in values)


@pytest.fixture
def yard(tmp_path):
    return Yard.open(tmp_path / "yard")


@pytest.fixture
def model(yard, tmp_path):
    return artifact(yard, "model", tiny_model(tmp_path / "model", LABELS))


@pytest.fixture
def prepared(yard, model, tmp_path):
    def make(files, number=0, key=None, source=None, **settings):
        inputs = {"model": source or model, "data": artifact(yard, "dataset", files)}
        key = number if key is None else key
        return FakeContext(
            Infer(model="m", data="d", **settings), inputs, yard, tmp_path / f"work-{number}", key=f"{key:064x}", attempt=f"run-r1.step.{number + 1}"
        )

    return make


def loaded(source):
    found = models.load(TextClassification(Infer(model="m", data="d")), source, None, torch.float32)
    return found.model, found.tokenizer


def records(context):
    return [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.open()]


def contents(context):
    return {path.name: path.read_bytes() for path in (context.out / "data").iterdir()}


def test_labels_are_those_of_rows_one_by_one_wherever_the_margin_is_real(prepared, model):
    rows = texts(300)
    context = prepared({"a.jsonl": jsonl(rows)}, token_budget=512)
    assert infer.run(context).kind == "dataset"
    classifier, tokenizer = loaded(model)
    found = records(context)
    with torch.inference_mode():
        alone = np.array([classifier(**tokenizer(row, return_tensors="pt")).logits.softmax(-1)[0].tolist() for row in rows])
    assert [record["row"] for record in found] == list(range(300))
    scores = np.array([record["score"] for record in found])
    difference = np.abs(scores - alone.max(1)).max()
    assert difference < 2e-6
    ordered = np.sort(alone, axis=1)
    real = ordered[:, -1] - ordered[:, -2] > 2 * difference
    assert real.mean() > 0.95
    assert [record["label"] for record, sure in zip(found, real, strict=True) if sure] == [
        LABELS[best] for best, sure in zip(alone.argmax(1), real, strict=True) if sure
    ]
    assert len({record["label"] for record in found}) > 1


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "gpt2", "modernbert"])
def test_other_families_in_batches_as_one_by_one(prepared, yard, tmp_path, kind):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig, GPT2Config, ModernBertConfig, RobertaConfig

    folder = tmp_path / kind
    tiny_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    small = {"vocab_size": len(tokenizer), "num_labels": 3, "initializer_range": 0.5}
    if kind == "gpt2":
        tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
        tokenizer.save_pretrained(folder)
        config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=2, eos_token_id=3, **small)
    elif kind == "distilbert":
        config = DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=2, max_position_embeddings=128, **small)
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "pad_token_id": 0}
        config = {"roberta": RobertaConfig, "modernbert": ModernBertConfig}[kind](max_position_embeddings=130, **shape, **small)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    source, rows = artifact(yard, "model", folder), texts(60)
    context = prepared({"a.jsonl": jsonl(rows)}, source=source, token_budget=512)
    infer.run(context)
    classifier, tokenizer = loaded(source)
    with torch.inference_mode():
        alone = [classifier(input_ids=torch.tensor([tokenizer(row)["input_ids"]])).logits.softmax(-1).max().item() for row in rows]
    assert [record["score"] for record in records(context)] == pytest.approx(alone, abs=5e-6)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo", "opt", "bart", "roberta", "bert"])
def test_rows_are_as_long_as_the_model_has_positions(kind):
    from types import SimpleNamespace

    from transformers import AutoConfig, AutoModelForSequenceClassification

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    own = {
        "gpt_neo": {**size, "attention_types": [[["global"], 1]]},
        "opt": {**size, "ffn_dim": 64, "word_embed_proj_dim": 32},
        "bart": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_hidden_layers": 1},
    }.get(kind, size)
    config = AutoConfig.for_model(kind, vocab_size=50, max_position_embeddings=40, pad_token_id=1, eos_token_id=2, **own)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    limit = models.length_limit(model, SimpleNamespace(model_max_length=10**30))
    assert limit == (38 if kind == "roberta" else 40)

    def ran(length):
        ids = torch.full((1, length), 7)
        ids[0, -1] = 2
        with torch.inference_mode():
            return model(input_ids=ids).logits

    assert ran(limit).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        ran(limit + 1)


def test_labels_without_a_zeroth_are_named(prepared, yard, tmp_path):
    folder = tiny_model(tmp_path / "gap", ["bad", "good"])
    config = json.loads((folder / "config.json").read_text()) | {"id2label": {"1": "bad", "2": "good"}, "label2id": {"bad": 1, "good": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadData, match="labels are not numbered from 0") as raised:
        infer.run(prepared({"a.jsonl": jsonl(["good"])}, source=artifact(yard, "model", folder)))
    assert raised.value.why == "config.json has 2 of them, and none with the number 0"


def test_each_bad_row_has_its_error_and_the_others_their_label(prepared):
    rows = ["good film", None, "", "bad", " \t", "x" * 5000, "\u0000\ud83d\ude00 नमस्ते"]
    context = prepared({"a.jsonl": jsonl(rows)}, max_error_rate=0.5)
    infer.run(context)
    found = records(context)
    assert [bool(record["error"]) for record in found] == [False, True, True, False, True, False, False]
    assert found[1]["error"] == {"category": "data", "what": "the text is missing"}
    assert (found[1]["label"], found[1]["score"]) == (None, None)
    assert all(0 < record["score"] <= 1 for record in found if not record["error"])
    faults = {"the text is missing": 1, "the text is empty": 2}
    assert context.details["rows"] == {"split": "train", "rows": 7, "failed": 3, "truncated": 0, "faults": faults}


def test_texts_that_are_no_strings(prepared):
    context = prepared({"a.jsonl": "".join(json.dumps({"text": value}) + "\n" for value in (1, 2))}, text="text", max_error_rate=1.0)
    infer.run(context)
    assert {record["error"]["what"] for record in records(context)} == {"the text is of type int, not a string"}


def test_long_rows_are_cut_and_say_so(prepared):
    context = prepared({"a.jsonl": jsonl(["good " * 200, "good"])}, max_length=16)
    infer.run(context)
    assert [record["truncated"] for record in records(context)] == [True, False]


def test_predictions_are_a_data_set_again(prepared, yard, monkeypatch, tmp_path):
    monkeypatch.setattr(TextClassification, "window", 16)
    context = prepared({"test.jsonl": jsonl([*texts(20), None])})
    infer.run(context)
    assert sorted(contents(context)) == ["test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl"]
    rows = data.read(artifact(yard, "dataset", context.out), tmp_path / "cache")["test"]
    assert rows["row"][:] == list(range(21))
    assert rows[20]["error"]["what"] == "the text is missing"


def test_files_of_any_number_are_in_order():
    names = [infer.shard("test", number, 100_001) for number in (9, 99_999, 100_000)]
    assert names == sorted(names)
    assert {data.split_of(PurePosixPath(name)) for name in names} == {"test"}
    assert infer.shard("test", 1, 2) == "test-00001-of-00002.jsonl"


def test_a_stop_between_batches_keeps_whole_windows_and_the_next_attempt_does_the_rest(prepared, monkeypatch):
    monkeypatch.setattr(TextClassification, "window", 16)
    files = {"a.jsonl": jsonl(texts(70))}
    whole = prepared(files, number=0)
    infer.run(whole)

    computed = []
    answer = engine.Engine.answer

    def counted(self, batch, tick):
        computed.append(len(batch))
        if len(computed) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(self, batch, tick)

    monkeypatch.setattr(engine.Engine, "answer", counted)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    first = prepared(files, number=1, key=77, token_budget=64)
    first.stop.install()
    try:
        with pytest.raises(Yielded):
            infer.run(first)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert first.checkpoints.mine() == ["part-000000", "part-000001"]
    second = prepared(files, number=2, key=77, token_budget=64)
    infer.run(second)
    assert computed == [16, 16, 16, 16, 16, 6]
    assert [record["label"] for record in records(second)] == [record["label"] for record in records(whole)]
    fresh = prepared(files, number=3, token_budget=64)
    infer.run(fresh)
    assert contents(fresh) == contents(second)


def test_a_torn_part_is_computed_again(prepared, monkeypatch, yard):
    monkeypatch.setattr(TextClassification, "window", 16)
    files = {"a.jsonl": jsonl(texts(40))}
    first = prepared(files, number=0, key=5)
    infer.run(first)
    torn = first.checkpoints.whole("part-000001") / "part.npz"
    torn.chmod(0o644)
    torn.write_bytes(torn.read_bytes()[:-4] + b"torn")
    second = prepared(files, number=1, key=5)
    infer.run(second)
    assert contents(second) == contents(first)
    assert second.details["speed"]["rows"] == 16


def test_memory_does_not_grow_with_the_input(prepared, monkeypatch):
    monkeypatch.setattr(TextClassification, "window", 32)
    sizes = []
    answer = engine.Engine.answer
    monkeypatch.setattr(engine.Engine, "answer", lambda self, batch, tick: (sizes.append(len(batch)), answer(self, batch, tick))[1])
    infer.run(prepared({"a.jsonl": jsonl(texts(300))}))
    assert max(sizes) == 32


def test_a_sample_names_the_rows_of_the_split(prepared):
    rows = texts(100)
    everything, sampled = prepared({"a.jsonl": jsonl(rows)}), prepared({"a.jsonl": jsonl(rows)}, number=1, rows=10)
    infer.run(everything)
    infer.run(sampled)
    by_row = {record["row"]: record["label"] for record in records(everything)}
    found = records(sampled)
    assert len(found) == 10
    assert all(by_row[record["row"]] == record["label"] for record in found)


def test_the_split(prepared):
    both = {"train.jsonl": jsonl(["good"]), "test.jsonl": jsonl(["bad", "good"])}
    context = prepared(both)
    infer.run(context)
    assert len(records(context)) == 2
    with pytest.raises(NoInput, match="train, test"):
        infer.run(prepared(both, number=1, split="dev"))


def test_a_headless_model_is_refused(prepared, yard, tmp_path):
    with pytest.raises(BadData, match="no trained head"):
        infer.run(prepared({"a.jsonl": jsonl(["good"])}, source=artifact(yard, "model", tiny_model(tmp_path / "headless"))))


def test_a_device_too_small_halves_the_batch_and_gives_the_same_labels(prepared, monkeypatch):
    files = {"a.jsonl": jsonl(texts(60))}
    roomy, tight = prepared(files), prepared(files, number=1)
    infer.run(roomy)
    pad_ids = text_classification.text.pad_ids

    def small(rows, pad):
        if len(rows) > 10:
            raise engine.OutOfMemory("too much")
        return pad_ids(rows, pad)

    monkeypatch.setattr(text_classification.text, "pad_ids", small)
    infer.run(tight)
    assert [record["label"] for record in records(tight)] == [record["label"] for record in records(roomy)]
    assert tight.details["speed"]["refused"] > 0
    assert tight.decisions["token_budget"] < roomy.decisions["token_budget"]

    monkeypatch.setattr(text_classification.text, "pad_ids", lambda *_: (_ for _ in ()).throw(engine.OutOfMemory("nothing fits")))
    with pytest.raises(DeviceOom):
        infer.run(prepared(files, number=2))


def test_a_processor_without_memory_halves_the_batch_and_ends_with_a_name(prepared, monkeypatch):
    from modelyard_jobs.torch_runner import TorchRunner

    files, room = {"a.jsonl": jsonl(texts(60))}, 10
    outputs = TorchRunner.outputs

    def small(self, tensors):
        if len(tensors["input_ids"]) > room:
            torch.empty(1 << 50)
        return outputs(self, tensors)

    monkeypatch.setattr(TorchRunner, "outputs", small)
    tight = prepared(files)
    infer.run(tight)
    assert len(records(tight)) == 60
    assert tight.details["speed"]["refused"] > 0
    room = 0
    with pytest.raises(DeviceOom, match="does not fit on the device") as raised:
        infer.run(prepared(files, number=1))
    assert "can't allocate memory" in raised.value.why


def test_progress_counts_rows(prepared):
    context = prepared({"a.jsonl": jsonl(texts(50))})
    infer.run(context)
    last = [message for message in context.said if message["type"] == "progress"][-1]
    assert (last["done"], last["total"], last["unit"]) == (50, 50, "rows")
