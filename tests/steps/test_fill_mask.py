"""Gaps in texts: filled as transformers' own pipeline fills them, made by the seed, measured by document, and clear where there is none to fill."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from modelyard.errors import BadData
from modelyard.steps import Evaluate, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, infer, models, tasks
from modelyard_jobs.masked import MaskedRunner
from modelyard_jobs.tasks.fill_mask import HIDDEN, FillMask, Vocabulary
from modelyard_jobs.tasks.likelihood import log_shares
from modelyard_jobs.torch_runner import TorchRunner
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_tokenizer

GAPS = ["the [MASK] was good", "a [MASK] film and a [MASK] plot", "[MASK]", "very [MASK] acting , not [MASK] story"]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path / "yard")


def masked_model(folder: Path, seed: int = 0) -> Path:
    tiny_tokenizer(folder)
    torch.manual_seed(seed)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=128
    )
    config.initializer_range = 0.5
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def fills(**more: Any) -> FillMask:
    return FillMask(Infer(model="m", data="d", task="fill-mask", **{"max_length": 32, **more}))


def hides(**more: Any) -> FillMask:
    return FillMask(Evaluate(model="m", data="d", task="fill-mask", **{"max_length": 64, **more}))


def runner(task: FillMask, source: Any, kind: type[TorchRunner] = MaskedRunner) -> TorchRunner:
    return kind(task, models.load(task, source, None, torch.float32), "cpu")


def items_of(task: FillMask, encoder: Any, texts: list[Any], max_length: int = 32) -> list[Any]:
    return task.prepare([{"text": text} for text in texts], encoder, max_length)


@pytest.mark.parametrize("kind", [MaskedRunner, TorchRunner])
def test_gaps_are_filled_as_the_pipeline_fills_them(yard: Yard, tmp_path: Path, kind: type[TorchRunner]) -> None:
    model = artifact(yard, "model", masked_model(tmp_path / "m"))
    task = fills(top_k=4)
    run = runner(task, model, kind)
    items = items_of(task, run.encoder, GAPS)
    answers = task.answers(run.raws(items), items, [])
    pipeline = transformers.pipeline("fill-mask", model=str(model.path), tokenizer=str(model.path), top_k=4)
    for text, answer in zip(GAPS, answers, strict=True):
        theirs = pipeline(text)
        theirs = theirs if isinstance(theirs[0], list) else [theirs]
        assert len(answer["masks"]) == text.count("[MASK]") == len(theirs)
        for mask, their in zip(answer["masks"], theirs, strict=True):
            assert [(one["id"], one["token"]) for one in mask] == [(one["token"], one["token_str"]) for one in their]
            assert [one["score"] for one in mask] == pytest.approx([one["score"] for one in their], abs=2e-6)
        if len(theirs) == 1:
            assert answer["filled"] == theirs[0][0]["sequence"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("the film was good", "the text has no [MASK] to fill"),
        ("good " * 40 + "[MASK]", "1 of its 1 masks are cut off with what is longer than 32 tokens"),
        ("[MASK] " + "good " * 40 + "[MASK]", "1 of its 2 masks are cut off"),
        (None, "the text is missing"),
        ("  ", "the text is empty"),
        (3, "the text is of type int"),
    ],
)
def test_rows_without_a_gap_to_fill_are_faults(yard: Yard, tmp_path: Path, text: Any, why: str) -> None:
    task = fills()
    run = runner(task, artifact(yard, "model", masked_model(tmp_path / "m")))
    good, bad = items_of(task, run.encoder, ["a [MASK] film", text])
    assert not isinstance(good, str)
    assert isinstance(bad, str)
    assert bad.startswith(why)


def test_a_long_text_with_its_mask_in_front_is_filled_and_says_that_it_was_cut(yard: Yard, tmp_path: Path) -> None:
    task = fills()
    run = runner(task, artifact(yard, "model", masked_model(tmp_path / "m")))
    (item,) = items_of(task, run.encoder, ["[MASK] " + "good " * 40])
    assert item.truncated
    assert item.about.places.tolist() == [1]


def test_a_tokenizer_without_a_mask_is_no_masked_model(yard: Yard, tmp_path: Path) -> None:
    folder = masked_model(tmp_path / "m")
    path = folder / "tokenizer_config.json"
    known = json.loads(path.read_text())
    known.pop("mask_token")
    path.write_text(json.dumps(known))
    with pytest.raises(BadData, match="not one for fill mask") as raised:
        runner(fills(), artifact(yard, "model", folder))
    assert "no mask token" in raised.value.why


def test_the_plain_tokenizer_of_an_export_has_the_same_vocabulary(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    ours = Vocabulary.of(SimpleNamespace(tokenizer=tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))))
    theirs = Vocabulary.of(SimpleNamespace(tokenizer=transformers.AutoTokenizer.from_pretrained(tmp_path)))
    assert (ours.mask, ours.special) == (theirs.mask, theirs.special)
    ids = [2, 7, 8, ours.mask, 9, 3]
    assert ours.readable(ids) == theirs.readable(ids)
    assert [ours.decode([token]) for token in ids] == [theirs.decode([token]) for token in ids]
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(BadData, match="not one for fill mask"):
        Vocabulary.of(SimpleNamespace(tokenizer=plain))


def test_what_is_hidden_follows_from_the_seed_and_the_text_alone(yard: Yard, tmp_path: Path) -> None:
    source = artifact(yard, "model", masked_model(tmp_path / "m"))
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 40))) for _ in range(200)]
    task = hides()
    encoder = runner(task, source).encoder
    first = items_of(task, encoder, texts, 64)
    again = items_of(task, encoder, texts[::-1], 64)[::-1]
    assert all(np.array_equal(one.values, other.values) for one, other in zip(first, again, strict=True))
    mask, special = first[0].about.vocabulary.mask, first[0].about.vocabulary.special
    original = items_of(fills(), encoder, [f"{text} [MASK]" for text in texts], 128)
    for item, whole in zip(first, original, strict=True):
        gaps = item.about
        plain = item.size - 2
        assert len(gaps.places) == max(1, round(HIDDEN * plain))
        assert (item.values[gaps.places] == mask).all()
        assert gaps.true.tolist() == whole.values[gaps.places].tolist()
        assert not special & set(gaps.true.tolist())
    other = items_of(hides(seed=1), encoder, texts, 64)
    assert sum(not np.array_equal(one.values, two.values) for one, two in zip(first, other, strict=True)) > 150


def test_masks_that_stood_in_a_text_are_read_and_not_measured(yard: Yard, tmp_path: Path) -> None:
    task = hides()
    run = runner(task, artifact(yard, "model", masked_model(tmp_path / "m")))
    (item,) = items_of(task, run.encoder, ["a [MASK] film"])
    assert len(item.about.places) == 2
    assert min(item.about.true.tolist()) == -1
    (answer,) = task.answers(run.raws([item]), [item], [])
    assert answer["tokens"] == 1
    assert items_of(task, run.encoder, ["[MASK] [SEP]"]) == ["the text has no token that could be hidden"]


def test_losses_are_those_of_the_model_itself(yard: Yard, tmp_path: Path) -> None:
    task = hides()
    run = runner(task, artifact(yard, "model", masked_model(tmp_path / "m")))
    items = items_of(task, run.encoder, ["the film was very good", "a dull plot and awful acting " * 4], 64)
    answers = task.answers(run.raws(items), items, [])
    for item, answer in zip(items, answers, strict=True):
        labels = np.full(item.size, -100)
        labels[item.about.places] = item.about.true
        with torch.inference_mode():
            found = run.model(input_ids=torch.tensor(item.values)[None], labels=torch.tensor(labels)[None])
        assert answer["loss"] / answer["tokens"] == pytest.approx(float(found.loss), rel=1e-5)
        assert answer["hits"] == int((found.logits[0].argmax(-1).numpy() == labels).sum())
        assert len(answer["true"]) == len(answer["predicted"]) == answer["tokens"]


def test_no_number_is_no_answer() -> None:
    item = SimpleNamespace(about=None, values=None)
    assert hides().answers([np.array([[0.0, np.nan]], dtype=np.float32)], [item], []) == [None]
    assert np.exp(log_shares(np.array([[1000.0, 0.0], [3.0, 3.0]], dtype=np.float32))).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def texts(count: int) -> str:
    chance = random.Random(3)
    return "".join(json.dumps({"text": " ".join(chance.choices(WORDS, k=chance.randint(4, 30)))}) + "\n" for _ in range(count))


def test_infer_writes_the_masks_and_the_filled_text(yard: Yard, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in [*GAPS * 5, "nothing to fill"])
    inputs = {"model": artifact(yard, "model", masked_model(tmp_path / "m")), "data": artifact(yard, "dataset", {"rows.jsonl": rows})}
    context = FakeContext(Infer(model="m", data="d", top_k=3), inputs, yard, tmp_path / "work")
    infer.run(context)  # the task is found by the architecture
    (file,) = (context.out / "data").iterdir()
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(record["masks"]) for record in written[:4]] == [1, 2, 1, 2]
    assert written[0] == {**written[4], "row": 0}
    assert all(len(mask) == 3 for record in written[:-1] for mask in record["masks"])
    assert (written[-1]["masks"], written[-1]["filled"]) == (None, None)
    assert written[-1]["error"]["what"] == "the text has no [MASK] to fill"


def test_evaluate_measures_by_document_and_compares_two_models(yard: Yard, tmp_path: Path) -> None:
    inputs = {
        "model": artifact(yard, "model", masked_model(tmp_path / "m")),
        "against": artifact(yard, "model", masked_model(tmp_path / "n", seed=7)),
        "data": artifact(yard, "dataset", {"test.jsonl": texts(60)}),
    }
    context = FakeContext(Evaluate(model="m", against="n", data="d", task="fill-mask", max_length=64), inputs, yard, tmp_path / "work")
    evaluate.run(context)
    document = json.loads((context.out / "metrics.json").read_text())
    assert document["main"] == "token_accuracy"
    metrics = document["metrics"]
    assert set(metrics) == {"token_accuracy", "pseudo_log_likelihood", "pseudo_perplexity"}
    assert metrics["pseudo_perplexity"]["value"] == pytest.approx(np.exp(-metrics["pseudo_log_likelihood"]["value"]))
    records = [json.loads(line) for line in (context.out / "predictions.jsonl").read_text().splitlines()]
    hits = [one == other for record in records for one, other in zip(record["true"], record["predicted"], strict=True)]
    assert metrics["token_accuracy"]["value"] == pytest.approx(np.mean(hits))
    assert document["tokens"] == len(hits)
    for metric in metrics.values():
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert metric["n"] == 60
        assert metric["difference"]["low"] <= metric["difference"]["value"] <= metric["difference"]["high"]
    assert document["errors"][0]["loss"] >= document["errors"][-1]["loss"]


def test_it_is_made_by_its_name() -> None:
    assert tasks.of("fill-mask", Infer(model="m", data="d")).name == "fill-mask"
