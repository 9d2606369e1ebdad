from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from modelyard.errors import BadData, NoInput, Refused
from modelyard.yard import Yard
from modelyard_jobs.tasks import text_classification as task
from modelyard_jobs.tasks import text_classifier as classifier
from tests.steps.fake import artifact
from tests.steps.tiny import tiny_model, tiny_tokenizer


def rows(labels, feature=None, **columns):
    features = Features({"text": Value("string"), "label": feature}) if feature else None
    return Dataset.from_dict({"text": [f"row {number}" for number in range(len(labels))], "label": labels, **columns}, features=features)


@pytest.fixture
def yard(tmp_path):
    return Yard.open(tmp_path / "yard")


@pytest.mark.parametrize(
    ("names", "text", "label", "expected"),
    [
        ({"text": "a", "label": 1}, None, None, ("text", "label")),
        ({"Review": "a", "Sentiment": "b"}, None, None, ("Review", "Sentiment")),
        ({"words": "a", "label": 1}, None, None, ("words", "label")),
        ({"text": "a", "sentence": "b", "class": 1}, None, None, ("text", "class")),
        ({"x": "a", "y": 1}, "x", "y", ("x", "y")),
        ({"id": "7", "content": "a", "target": 1, "y": 2}, None, "y", ("content", "y")),
    ],
)
def test_columns(names, text, label, expected):
    found = task.columns(Dataset.from_list([names]), text, label)
    assert (found.text, found.label) == expected


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [("txt", None, "did you mean 'text'?"), (None, "lable", "did you mean 'label'?"), ("zzz", None, "text, label, other")],
)
def test_missing_columns(text, label, message):
    with pytest.raises(NoInput) as caught:
        task.columns(Dataset.from_list([{"text": "a", "label": 1, "other": "b"}]), text, label)
    assert message in f"{caught.value} {caught.value.remedy}"


def test_columns_that_are_not_clear():
    with pytest.raises(NoInput, match="no column is clearly the text"):
        task.columns(Dataset.from_list([{"a": "x", "b": "y"}]), None, None)
    with pytest.raises(NoInput, match="no column is clearly the label"):
        task.columns(Dataset.from_list([{"text": "x", "score": 1}]), None, None)


@pytest.mark.parametrize(
    ("labels", "feature", "names", "ids"),
    [
        ([10, 9, 10], None, ["9", "10"], [1, 0, 1]),
        (["pos", "neg", "pos"], None, ["neg", "pos"], [1, 0, 1]),
        ([True, False], None, ["False", "True"], [1, 0]),
        ([1.0, 0.0, 1.0], None, ["0", "1"], [1, 0, 1]),
        ([1, 0, 1], ClassLabel(names=["pos", "neg"]), ["pos", "neg"], [1, 0, 1]),
        ([2, 0], ClassLabel(names=["a", "b", "c"]), ["a", "b", "c"], [2, 0]),
    ],
)
def test_labels(labels, feature, names, ids):
    dataset = rows(labels, feature)
    assert task.label_names(dataset, "label") == names
    assert task.label_ids(dataset, "label", names).tolist() == ids


def test_labels_do_not_depend_on_the_order_of_rows():
    assert task.label_names(rows(["b", "c", "a"]), "label") == task.label_names(rows(["a", "b", "c", "a"]), "label")


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        (["a", None, "b", None], None, "2 of 4 rows have no label"),
        ([1.0, math.nan], None, "rows 1, counted from 0"),
        ([0, -1, 1], ClassLabel(names=["a", "b"]), "1 of 3 rows have no label"),
        ([0.5, 1.0], None, "holds no labels: its values are of type double"),
        ([["a"], ["b"]], None, "holds no labels"),
        (["a", "a"], None, "one label only: a"),
    ],
)
def test_bad_labels(labels, feature, message):
    with pytest.raises(BadData) as caught:
        task.label_names(rows(labels, feature), "label")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "feature", "model", "ids"),
    [
        ([1, 0], None, ["LABEL_0", "LABEL_1", "LABEL_2"], [1, 0]),
        ([1, 0], ClassLabel(names=["neg", "pos"]), ["LABEL_0", "LABEL_1"], [1, 0]),
        (["LABEL_1", "LABEL_0"], None, ["LABEL_0", "LABEL_1"], [1, 0]),
        ([1, 0], ClassLabel(names=["neg", "pos"]), ["pos", "neg"], [0, 1]),
        (["pos"], None, ["neg", "pos"], [1]),
        ([1, 0], None, ["0", "1"], [1, 0]),
    ],
)
def test_labels_of_a_model(labels, feature, model, ids):
    assert task.label_ids(rows(labels, feature), "label", model).tolist() == ids


@pytest.mark.parametrize(
    ("labels", "feature", "model"),
    [
        (["neg", "pos"], None, ["LABEL_0", "LABEL_1"]),
        (["neg", "pos"], None, ["bad", "good"]),
        ([0, 1], None, ["NEGATIVE", "POSITIVE"]),
        ([0, 3], None, ["LABEL_0", "LABEL_1"]),
        ([True, False], None, ["LABEL_1", "LABEL_0"]),
        ([0, 1], ClassLabel(names=["a", "b", "c"]), ["x", "y", "z"]),
    ],
)
def test_labels_that_are_not_the_models_are_both_listed(labels, feature, model):
    with pytest.raises(BadData) as caught:
        task.label_ids(rows(labels, feature), "label", model)
    assert ", ".join(model) in str(caught.value)


def test_load_and_reload(yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"]))
    model, tokenizer = classifier.load(source, None, torch.float32)
    assert classifier.model_labels(model) == ["neg", "pos"]
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer("a film")["input_ids"][0] == tokenizer.cls_token_id


def test_a_headless_model_gets_a_head_or_is_refused(yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "m"))
    with pytest.raises(BadData, match=r"no trained head.*classifier") as caught:
        classifier.load(source, None, torch.float32)
    assert "finetune" in caught.value.remedy
    model, _ = classifier.load(source, ["a", "b", "c"], torch.float32)
    assert classifier.model_labels(model) == ["a", "b", "c"]
    assert model.classifier.weight.shape == (3, 32)


def test_another_number_of_labels_is_a_new_head_and_the_same_body(yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"]))
    old, _ = classifier.load(source, None, torch.float32)
    new, _ = classifier.load(source, ["a", "b", "c"], torch.float32)
    assert new.classifier.weight.shape == (3, 32)
    assert torch.equal(old.bert.encoder.layer[1].output.dense.weight, new.bert.encoder.layer[1].output.dense.weight)
    same, _ = classifier.load(source, ["neg", "pos"], torch.float32)
    assert torch.equal(old.classifier.weight, same.classifier.weight)


def test_half_precision_weights_load_as_asked(yard, tmp_path):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(folder).half().save_pretrained(folder)
    model, _ = classifier.load(artifact(yard, "model", folder), None, torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "failure", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), BadData, "cannot be loaded.*no file named model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), BadData, "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), BadData, "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk" * 9), BadData, "cannot be loaded"),
        (lambda folder: edit(folder, model_type="nonsense", architectures=["Nonsense"]), BadData, "cannot be loaded"),
        (lambda folder: edit(folder, hidden_size=64), BadData, "has no trained head|not those of the model"),
        (lambda folder: edit(folder, problem_type="multi_label_classification"), BadData, "one label per text"),
        (
            lambda folder: edit(folder, model_type="own", auto_map={"AutoConfig": "c.C", "AutoModelForSequenceClassification": "c.M"}),
            Refused,
            "runs code",
        ),
        (lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], BadData, "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").unlink(), BadData, "cannot be loaded"),
        (lambda folder: tiny_tokenizer(folder, [f"word{number}" for number in range(900)]), BadData, "has no tokenizer that fits"),
    ],
)
def test_models_that_cannot_be_used(yard, tmp_path, change, failure, message):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    change(folder)
    with pytest.raises(failure, match=message) as caught:
        classifier.load(artifact(yard, "model", folder), None, torch.float32)
    assert str(yard.root) not in str(caught.value)


def test_weights_of_another_model_are_no_start(yard, tmp_path):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    edit(folder, hidden_size=64)
    with pytest.raises(BadData, match="not those of the model"):
        classifier.load(artifact(yard, "model", folder), ["a", "b"], torch.float32)
    from safetensors.torch import save_file

    save_file({"something.else": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadData, match="not those of the model"):
        classifier.load(artifact(yard, "model", folder), ["a", "b"], torch.float32)


def test_safetensors_are_taken_before_a_pickle(yard, tmp_path):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    classifier.load(artifact(yard, "model", folder), None, torch.float32)


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_encode_counts_what_is_cut(yard, tmp_path):
    _, tokenizer = classifier.load(artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"])), None, torch.float32)
    encoded, truncated = classifier.encode(tokenizer, ["good film", "good " * 6, "good " * 7, ""], 8)
    assert [len(ids) for ids in encoded] == [4, 8, 8, 2]
    assert truncated == [False, False, True, False]
    assert classifier.encode(tokenizer, [], 8) == ([], [])


def test_collate(yard, tmp_path):
    _, tokenizer = classifier.load(artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"])), None, torch.float32)
    padded = classifier.collate(tokenizer, [[2, 7, 3], [2, 3]])
    assert padded["input_ids"].tolist() == [[2, 7, 3], [2, 3, tokenizer.pad_token_id]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert list(classifier.collate(tokenizer, [[2, 7, 3], [2, 8, 3]])) == ["input_ids"]


def test_length_limit_of_positions(yard, tmp_path):
    model, tokenizer = classifier.load(artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"])), None, torch.float32)
    assert classifier.length_limit(model, tokenizer, 64) == 64
    assert classifier.length_limit(model, tokenizer, 512) == 128
    tokenizer.model_max_length = 10**30
    assert classifier.length_limit(model, tokenizer, 512) == 128


def test_length_limit_of_roberta():
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_position_embeddings=66, pad_token_id=1
    )
    model = RobertaForSequenceClassification(config).eval()
    tokenizer = type("T", (), {"model_max_length": 10**30})
    assert classifier.length_limit(model, tokenizer, 512) == 64
    model(torch.full((1, 64), 5))  # that many do fit
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 65), 5))


def test_usable_rows():
    kept, faults = task.usable_rows(Dataset.from_dict({"text": ["a", None, "", " \n", "b"]}), "text")
    assert kept.tolist() == [0, 4]
    assert faults == {"the text is missing": 1, "the text is empty": 2}
    with pytest.raises(BadData, match="int, not a string: 2 rows"):
        task.usable_rows(Dataset.from_dict({"text": [1, 2]}), "text")


def test_label_ids_has_one_id_per_row_of_a_selection():
    dataset = rows(["a", "b", "c"] * 1000).select(range(2999, -1, -1))
    assert np.array_equal(task.label_ids(dataset, "label", ["a", "b", "c"]), np.tile([2, 1, 0], 1000))
