"""Labels that no model was trained for: as transformers' own pipeline says, measured like any classifier, and clear where it cannot be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelyard.errors import BadData, Usage
from modelyard.steps import Evaluate, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, infer, models, tasks
from modelyard_jobs.tasks.zero_shot_classification import ZeroShotClassification
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_model, tiny_tokenizer

CANDIDATES = ("good film", "bad story", "dull acting")
NLI = ("contradiction", "neutral", "entailment")
TEXTS = ["the plot was very good", "a dull film and awful acting", "not bad", "fine " * 40, "great story: [SEP] the acting was not great"]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path / "yard")


def nli(folder: Path, labels: tuple[str, ...] = NLI, seed: int = 0) -> Path:
    """A tiny BERT of natural language inference; its answers differ by the candidate."""
    tiny_model(folder, labels, texts=(*WORDS, "this example is ."), seed=seed, spread=0.7)
    path = folder / "tokenizer_config.json"
    asked = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}  # as BERT's own tokenizers say it
    path.write_text(json.dumps({**json.loads(path.read_text()), **asked}))
    return folder


def settings(**more: Any) -> Infer:
    return Infer(model="m", data="d", task="zero-shot-classification", **{"candidates": CANDIDATES, "max_length": 64, **more})


@pytest.mark.parametrize("hypothesis", ["This example is {}.", "the film is {}"])
def test_shares_are_those_of_the_pipeline(yard: Yard, tmp_path: Path, hypothesis: str) -> None:
    model = artifact(yard, "model", nli(tmp_path / "m"))
    task = ZeroShotClassification(settings(hypothesis=hypothesis))
    loaded = models.load(task, model, None, torch.float32)
    items = task.prepare([{"text": text} for text in TEXTS], loaded.encoder, 64)
    arrays = task.collate(items, loaded.encoder)
    assert arrays["input_ids"].shape[0] == len(TEXTS) * len(CANDIDATES)
    assert arrays["token_type_ids"].max() == 1
    assert [item.truncated for item in items] == [False, False, False, False, False]
    with torch.inference_mode():
        logits = loaded.model(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits.numpy()
    found = task.answers(task.raws({"logits": logits}, items), items, loaded.labels)
    assert found.shape == (len(TEXTS), len(CANDIDATES))
    assert np.ptp(found, 0).max() > 0.05  # the model does tell texts apart
    pipeline = transformers.pipeline("zero-shot-classification", model=str(model.path), tokenizer=str(model.path))
    for text, shares in zip(TEXTS, found, strict=True):
        theirs = pipeline(text, list(CANDIDATES), hypothesis_template=hypothesis)
        assert dict(zip(CANDIDATES, shares.tolist(), strict=True)) == pytest.approx(
            dict(zip(theirs["labels"], theirs["scores"], strict=True)), abs=1e-5
        )


def test_long_texts_are_cut_and_the_hypothesis_stays_whole(yard: Yard, tmp_path: Path) -> None:
    model = artifact(yard, "model", nli(tmp_path / "m"))
    task = ZeroShotClassification(settings())
    loaded = models.load(task, model, None, torch.float32)
    (item,) = task.prepare([{"text": "good film " * 60}], loaded.encoder, 24)
    assert item.truncated
    assert item.size == 24 * len(CANDIDATES)
    end = loaded.tokenizer("This example is dull acting.", add_special_tokens=False)["input_ids"]
    assert item.values[0][2][-1 - len(end) : -1] == end


@pytest.mark.parametrize(
    ("rows", "why"), [({"text": None}, "the text is missing"), ({"text": " \n"}, "the text is empty"), ({"text": 7}, "the text is of type int")]
)
def test_rows_without_a_text_are_faults(yard: Yard, tmp_path: Path, rows: dict[str, Any], why: str) -> None:
    task = ZeroShotClassification(settings())
    loaded = models.load(task, artifact(yard, "model", nli(tmp_path / "m")), None, torch.float32)
    good, bad = task.prepare([{"text": "fine"}, rows], loaded.encoder, 64)
    assert not isinstance(good, str)
    assert isinstance(bad, str)
    assert bad.startswith(why)
    assert task.prepare([rows], loaded.encoder, 64) == [bad]


def test_a_hypothesis_that_leaves_no_room_is_said_with_its_number(yard: Yard, tmp_path: Path) -> None:
    task = ZeroShotClassification(settings(candidates=("good", "bad " * 30)))
    loaded = models.load(task, artifact(yard, "model", nli(tmp_path / "m")), None, torch.float32)
    with pytest.raises(Usage, match="no room") as raised:
        task.prepare([{"text": "fine"}], loaded.encoder, 32)
    assert "takes 36 tokens, of 32" in raised.value.why


@pytest.mark.parametrize("labels", [("negative", "positive"), ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_a_model_without_entailment_is_refused_by_the_names_of_its_labels(yard: Yard, tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(BadData, match="not one for zero shot") as raised:
        models.load(ZeroShotClassification(settings()), artifact(yard, "model", nli(tmp_path / "m", labels)), None, torch.float32)
    assert f"none of its labels is entailment: {', '.join(labels)}" in raised.value.why


def test_entailment_is_found_by_name_wherever_it_stands(yard: Yard, tmp_path: Path) -> None:
    task = ZeroShotClassification(settings())
    raws = [np.array([[0, 5, 1], [0, 1, 1], [0, 2, 1]], dtype=np.float32)]
    assert task.answers(raws, [], ("no", "Entailed", "neutral")).argmax() == 0
    assert task.answers(raws, [], NLI).tolist()[0] == pytest.approx([1 / 3] * 3)


def test_a_model_that_takes_no_types_of_tokens_is_given_none(yard: Yard, tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path / "m", (*WORDS, "this example is ."))
    config = transformers.DistilBertConfig(vocab_size=200, dim=32, n_layers=1, n_heads=2, hidden_dim=32, id2label=dict(enumerate(NLI)))
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "m")
    task = ZeroShotClassification(settings())
    loaded = models.load(task, artifact(yard, "model", tmp_path / "m"), None, torch.float32)
    items = task.prepare([{"text": "fine"}], loaded.encoder, 64)
    assert set(task.collate(items, loaded.encoder)) == {"input_ids", "attention_mask"}


def rows(count: int) -> str:
    """CSV of texts and their labels; row 3 has no text."""
    lines = ["text,label", *(f"{WORDS[number % 8]} film {number},{CANDIDATES[number % 3]}" for number in range(count))]
    lines[4] = f",{CANDIDATES[0]}"
    return "\n".join(lines) + "\n"


def test_infer_writes_the_candidates_with_their_shares(yard: Yard, tmp_path: Path) -> None:
    inputs = {"model": artifact(yard, "model", nli(tmp_path / "m")), "data": artifact(yard, "dataset", {"test.csv": rows(20)})}
    context = FakeContext(settings(), inputs, yard, tmp_path / "work")
    infer.run(context)
    (file,) = (context.out / "data").iterdir()
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(written) == 20
    for record in written:
        if record["row"] == 3:
            assert (record["label"], record["score"], record["scores"]) == (None, None, None)
            assert record["error"] == {"category": "data", "what": "the text is missing"}
            continue
        assert set(record["scores"]) == set(CANDIDATES)
        assert math.isclose(sum(record["scores"].values()), 1, abs_tol=1e-5)
        assert record["score"] == record["scores"][record["label"]] == max(record["scores"].values())


def test_evaluate_measures_over_the_candidates_also_against_a_model_with_other_labels(yard: Yard, tmp_path: Path) -> None:
    inputs = {
        "model": artifact(yard, "model", nli(tmp_path / "m")),
        "against": artifact(yard, "model", nli(tmp_path / "n", ("entailment", "not_entailment"), seed=5)),
        "data": artifact(yard, "dataset", {"test.csv": rows(60)}),
    }
    step = Evaluate(model="m", against="n", data="d", task="zero-shot-classification", candidates=CANDIDATES, max_length=64)
    context = FakeContext(step, inputs, yard, tmp_path / "work")
    evaluate.run(context)
    document = json.loads((context.out / "metrics.json").read_text())
    assert document["labels"] == list(CANDIDATES)
    assert np.sum(document["confusion"]) == document["rows"]["evaluated"] == 59
    longest = document["slices"][0]["parts"][-1]["name"]
    assert int(longest.rpartition(" ")[2]) <= 64, "tokens of a row with one candidate, not with all"
    predictions = [json.loads(line) for line in (context.out / "predictions.jsonl").read_text().splitlines()]
    right = sum(record["true"] == record["predicted"] for record in predictions)
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(right / 59)
    other = sum(record["true"] == record["against"] for record in predictions)
    assert document["metrics"]["accuracy"]["difference"]["value"] == pytest.approx((right - other) / 59)


def test_labels_that_are_no_candidates_are_told(yard: Yard, tmp_path: Path) -> None:
    inputs = {
        "model": artifact(yard, "model", nli(tmp_path / "m")),
        "data": artifact(yard, "dataset", {"test.csv": "text,label\nfine,wet\ngood,dry\n"}),
    }
    step = Evaluate(model="m", data="d", task="zero-shot-classification", candidates=CANDIDATES, max_length=64)
    with pytest.raises(BadData, match="labels of the data") as raised:
        evaluate.run(FakeContext(step, inputs, yard, tmp_path / "work"))
    assert "dry, wet" in raised.value.why


def test_many_candidates_make_shorter_windows() -> None:
    assert [ZeroShotClassification(settings(candidates=tuple(map(str, range(count))))).window for count in (2, 100, 5000)] == [2048, 40, 1]


def test_it_is_made_by_its_name() -> None:
    assert tasks.of("zero-shot-classification", settings()).name == "zero-shot-classification"
