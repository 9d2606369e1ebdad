from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from modelyard.errors import BadData, NoInput, Refused
from modelyard.steps import Evaluate
from modelyard.yard import Yard
from modelyard_jobs import models, tasks
from modelyard_jobs.models import length_limit
from modelyard_jobs.tasks import columns, text
from modelyard_jobs.tasks.text_classification import TextClassification
from tests.steps.fake import artifact
from tests.steps.tiny import tiny_model, tiny_tokenizer


def rows(labels, feature=None, **columns):
    features = Features({"text": Value("string"), "label": feature}) if feature else None
    return Dataset.from_dict({"text": [f"row {number}" for number in range(len(labels))], "label": labels, **columns}, features=features)


def task(**settings):
    return TextClassification(Evaluate(model="m", data="d", **settings))


def loaded(source, labels):
    found = models.load(task(), source, labels, torch.float32)
    return found.model, found.tokenizer


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
    found = task(text=text, label=label).columns(Dataset.from_list([names]), truth=True)
    assert tuple(found.items()) == (("text", expected[0]), ("label", expected[1]))


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [("txt", None, "did you mean 'text'?"), (None, "lable", "did you mean 'label'?"), ("zzz", None, "text, label, other")],
)
def test_missing_columns(text, label, message):
    with pytest.raises(NoInput) as caught:
        task(text=text, label=label).columns(Dataset.from_list([{"text": "a", "label": 1, "other": "b"}]), truth=True)
    assert message in f"{caught.value} {caught.value.remedy}"


def test_columns_that_are_not_clear():
    with pytest.raises(NoInput, match="no column is clearly the text"):
        task().columns(Dataset.from_list([{"a": "x", "b": "y"}]), truth=True)
    with pytest.raises(NoInput, match="no column is clearly the label"):
        task().columns(Dataset.from_list([{"text": "x", "score": 1}]), truth=True)


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
    assert columns.label_names(dataset, "label") == names
    assert columns.label_ids(dataset, "label", names).tolist() == ids


def test_labels_do_not_depend_on_the_order_of_rows():
    assert columns.label_names(rows(["b", "c", "a"]), "label") == columns.label_names(rows(["a", "b", "c", "a"]), "label")


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
        columns.label_names(rows(labels, feature), "label")
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
    assert columns.label_ids(rows(labels, feature), "label", model).tolist() == ids


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
        columns.label_ids(rows(labels, feature), "label", model)
    assert ", ".join(model) in str(caught.value)


def test_load_and_reload(yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"]))
    model, tokenizer = loaded(source, None)
    assert list(model.config.id2label.values()) == ["neg", "pos"]
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer("a film")["input_ids"][0] == tokenizer.cls_token_id


def test_a_headless_model_gets_a_head_or_is_refused(yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "m"))
    with pytest.raises(BadData, match=r"no trained head.*classifier") as caught:
        loaded(source, None)
    assert "finetune" in caught.value.remedy
    model, _ = loaded(source, ["a", "b", "c"])
    assert list(model.config.id2label.values()) == ["a", "b", "c"]
    assert model.classifier.weight.shape == (3, 32)


@pytest.mark.parametrize(
    ("name", "settings", "remedy"),
    [
        ("token-classification", {}, "finetune it first"),
        ("zero-shot-classification", {"candidates": ("a", "b")}, "take a model"),
        ("fill-mask", {}, "take a model"),
        ("text-generation", {}, "take a model"),
    ],
)
def test_what_finetune_cannot_make_it_is_not_told_to_make(yard, tmp_path, name, settings, remedy):
    source = artifact(yard, "model", tiny_model(tmp_path / "m"))
    with pytest.raises(BadData, match="no trained head") as caught:
        models.load(tasks.of(name, Evaluate(model="m", data="d", task=name, **settings)), source, None, torch.float32)
    assert caught.value.remedy.startswith(remedy)


def test_another_number_of_labels_is_a_new_head_and_the_same_body(yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"]))
    old, _ = loaded(source, None)
    new, _ = loaded(source, ["a", "b", "c"])
    assert new.classifier.weight.shape == (3, 32)
    assert torch.equal(old.bert.encoder.layer[1].output.dense.weight, new.bert.encoder.layer[1].output.dense.weight)
    same, _ = loaded(source, ["neg", "pos"])
    assert torch.equal(old.classifier.weight, same.classifier.weight)


def test_half_precision_weights_load_as_asked(yard, tmp_path):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(folder).half().save_pretrained(folder)
    model, _ = loaded(artifact(yard, "model", folder), None)
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
        loaded(artifact(yard, "model", folder), None)
    assert str(yard.root) not in str(caught.value)


def test_weights_of_another_model_are_no_start(yard, tmp_path):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    edit(folder, hidden_size=64)
    with pytest.raises(BadData, match="not those of the model"):
        loaded(artifact(yard, "model", folder), ["a", "b"])
    from safetensors.torch import save_file

    save_file({"something.else": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadData, match="not those of the model"):
        loaded(artifact(yard, "model", folder), ["a", "b"])


def test_safetensors_are_taken_before_a_pickle(yard, tmp_path):
    folder = tiny_model(tmp_path / "m", ["neg", "pos"])
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    loaded(artifact(yard, "model", folder), None)


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_encode_counts_what_is_cut(yard, tmp_path):
    encoder = models.load(task(), artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"])), None, torch.float32).encoder
    encoded, truncated = encoder.texts(["good film", "good " * 6, "good " * 7, ""], 8)
    assert [len(ids) for ids in encoded] == [4, 8, 8, 2]
    assert truncated == [False, False, True, False]
    assert encoder.texts([], 8) == ([], [])


def test_words_and_pairs(yard, tmp_path):
    encoder = models.load(task(), artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"])), None, torch.float32).encoder
    ids, words, truncated = encoder.words([["good", "filming"], ["good"] * 9], 8)
    assert words == [[None, 0, 1, 1, 1, 1, None], [None, 0, 1, 2, 3, 4, 5, None]]
    assert [len(row) for row in ids] == [7, 8]
    assert truncated == [False, True]
    assert encoder.words([], 8) == ([], [], [])
    ids, types, truncated = encoder.pairs(["good", "good " * 9], ["bad film"] * 2, 8)
    assert [len(row) for row in ids] == [6, 8]
    assert types == []  # its tokenizer does not say that the model takes them
    assert truncated == [False, True]
    assert encoder.pairs([], [], 8) == ([], [], [])


def test_padded_ids():
    padded = text.pad_ids([[2, 7, 3], [2, 3]], 9)
    assert padded["input_ids"].tolist() == [[2, 7, 3], [2, 3, 9]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_length_limit_of_positions(yard, tmp_path):
    model, tokenizer = loaded(artifact(yard, "model", tiny_model(tmp_path / "m", ["neg", "pos"])), None)
    assert length_limit(model, tokenizer) == 128
    tokenizer.model_max_length = 64
    assert length_limit(model, tokenizer) == 64
    tokenizer.model_max_length = 10**30
    assert length_limit(model, tokenizer) == 128


def test_length_limit_of_roberta():
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_position_embeddings=66, pad_token_id=1
    )
    model = RobertaForSequenceClassification(config).eval()
    tokenizer = type("T", (), {"model_max_length": 10**30})
    assert length_limit(model, tokenizer) == 64
    model(torch.full((1, 64), 5))  # that many do fit
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 65), 5))


def test_usable_rows():
    kept, faults = tasks.usable(task(), Dataset.from_dict({"text": ["a", None, "", " \n", "b"]}), {"text": "text"})
    assert kept.tolist() == [0, 4]
    assert faults == {"the text is missing": 1, "the text is empty": 2}
    with pytest.raises(BadData, match="int, not a string: 2 rows"):
        tasks.usable(task(), Dataset.from_dict({"text": [1, 2]}), {"text": "text"})


def test_label_ids_has_one_id_per_row_of_a_selection():
    dataset = rows(["a", "b", "c"] * 1000).select(range(2999, -1, -1))
    assert np.array_equal(columns.label_ids(dataset, "label", ["a", "b", "c"]), np.tile([2, 1, 0], 1000))


def test_faults_that_each_name_their_row_are_counted_together_beyond_a_hundred():
    faults = Counter()
    for number in range(5000):
        tasks.count(faults, f"row {number} is broken")
        tasks.count(faults, "the text is empty" if number else "row 0 is broken")
    assert faults.total() == 10000
    assert len(faults) <= 102
    assert (faults["the text is empty"], faults["row 0 is broken"]) == (4999, 2)
    assert faults[tasks.OTHER] > 4000


def test_a_configuration_of_endless_brackets(yard):
    with pytest.raises(BadData, match=r"config\.json cannot be read"):
        tasks.found(artifact(yard, "model", {"config.json": "[" * 100000}))
