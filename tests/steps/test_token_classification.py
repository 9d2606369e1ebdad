"""Token classification from rows to metrics, on a BERT of a few kilobytes."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertConfig, BertForTokenClassification

from modelyard.errors import BadData, NoInput
from modelyard.steps import Evaluate, Finetune, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, finetune, infer
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import tiny_model, tiny_tokenizer

NAMES, TOWNS, PLAIN = ("ada", "grace", "alan", "edsger"), ("london", "paris", "oslo"), ("lives", "in", "and", "works", "near", "the", "river", "of")
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
KEYS = itertools.count(1)  # one yard for all tests: what one of them kept is not for another
WORDS = (*NAMES, *TOWNS, *PLAIN)


def sentences(count, seed=0):
    """Words with tags: names of one or two words are persons, towns are places."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        tokens, tags = list[str](), list[str]()
        for _ in range(chance.randint(1, 6)):
            kind = chance.choice("PLOO")
            words = chance.choices(NAMES, k=chance.randint(1, 2)) if kind == "P" else [chance.choice(TOWNS if kind == "L" else PLAIN)]
            tokens += words
            tags += {"P": ["B-PER", *["I-PER"] * (len(words) - 1)], "L": ["B-LOC"], "O": ["O"]}[kind]
            if kind == "P":  # names side by side would be one
                tokens.append(chance.choice(PLAIN))
                tags.append("O")
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def tagger(folder: Path, labels=tuple(LABELS), seed=0) -> Path:
    """A random model with a head for these labels."""
    tiny_tokenizer(folder, WORDS)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(folder)),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    BertForTokenClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    return Yard.open(tmp_path_factory.mktemp("tokens") / "yard")


@pytest.fixture(scope="module")
def model(yard, tmp_path_factory):
    return artifact(yard, "model", tagger(tmp_path_factory.mktemp("tagger")))


@pytest.fixture(scope="module")
def trained(yard, tmp_path_factory):
    """(context, artifact) of a model that has learnt what `sentences` are like."""
    folder = tmp_path_factory.mktemp("trained")
    base = artifact(yard, "model", tiny_model(folder / "base", texts=WORDS, spread=0.1))
    data = artifact(yard, "dataset", {"train.jsonl": jsonl(sentences(600))})
    settings = Finetune(model="m", data="d", task="token-classification", epochs=6, batch_size=8, learning_rate=4e-3)
    context = FakeContext(settings, {"model": base, "data": data}, yard, folder / "work")
    assert finetune.run(context).format == "safetensors"
    return context, artifact(yard, "model", context.out, "safetensors")


@pytest.fixture
def made(yard, model, tmp_path):
    """made(step class, files, ...) -> context, ready to run."""

    def make(step, files, *, source=None, against=None, **settings):
        number = next(KEYS)
        files = files if isinstance(files, dict) else {"test.jsonl": jsonl(files)}
        inputs = {"model": source or model, "data": artifact(yard, "dataset", files), **({"against": against} if against else {})}
        more = {"against": "c"} if against else {}
        return FakeContext(step(model="m", data="d", **more, **settings), inputs, yard, tmp_path / f"work-{number}", key=f"{number:064x}")

    return make


@pytest.fixture
def inferred(made):
    def go(files, **settings):
        context = made(Infer, files, **settings)
        assert infer.run(context).kind == "dataset"
        return context, [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.open()]

    return go


@pytest.fixture
def measured(made):
    def go(files, **settings):
        context = made(Evaluate, files, **{"max_error_rate": 1.0, **settings})
        assert evaluate.run(context).kind == "metrics"
        document = json.loads((context.out / "metrics.json").read_text())
        return context, document, [json.loads(line) for line in (context.out / "predictions.jsonl").open()]

    return go


# --- training --------------------------------------------------------------------------------------------------------------------------------


def test_the_model_learns_and_loads_unchanged(trained):
    context, made = trained
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(made.path).eval(), AutoTokenizer.from_pretrained(made.path)
    # No place has two words here: I-LOC is there because persons have an inside, and a test split may have a longer place.
    assert sorted(model.config.id2label.values()) == sorted(LABELS)
    right = total = 0
    for row in sentences(40, seed=9):
        batch = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
        with torch.inference_mode():
            best = model(**batch).logits[0].argmax(-1).tolist()
        words = batch.word_ids()
        said = [model.config.id2label[best[words.index(place)]] for place in range(len(row["tokens"]))]
        right += sum(one == other for one, other in zip(said, row["tags"], strict=True))
        total += len(said)
    assert right / total > 0.97
    history = context.details["history"]["validation"]
    assert set(history[0]) == {"epoch", "step", "loss", "f1", "precision", "recall", "token_accuracy"}
    assert max(entry["f1"] for entry in history) > 0.9
    assert context.decisions["columns"] == {"tokens": "tokens", "tags": "tags"}
    reason = next(message["reason"] for message in context.said if message["type"] == "decide" and message["name"] == "best_epoch")
    assert "F1 of spans" in reason


def test_only_first_sub_words_are_learnt_from(made, yard, tmp_path, monkeypatch):
    from modelyard_jobs.finetune.token_classification import TokenClassification

    seen = []
    plain = TokenClassification.collate

    def collate(self, rows):
        batch, count = plain(self, rows)
        seen.append((batch, count))
        return batch, count

    monkeypatch.setattr(TokenClassification, "collate", collate)
    rows = [{"tokens": ["zu", "ada", ""], "tags": ["B-LOC", "B-PER", "O"]}, {"tokens": ["qxz"], "tags": ["O"]}]
    base = artifact(yard, "model", tiny_model(tmp_path / "base", texts=WORDS))
    context = made(Finetune, {"train.jsonl": jsonl(rows * 4)}, source=base, task="token-classification", epochs=1, batch_size=8)
    finetune.run(context)
    names = context.decisions["labels"]
    for batch, count in seen:
        labels = batch["labels"]
        assert count == (labels != -1).sum()
        for ids, row in zip(batch["input_ids"].tolist(), labels.tolist(), strict=True):
            said = [names[label] if label != -1 else "" for label in row]
            # [CLS] z ##u ada [SEP], and [CLS] q ##x ##z [SEP]; "" has no token
            assert said == (["", "B-LOC", "", "B-PER", ""] if ids[1] == batch["input_ids"].max() or "B-PER" in said else ["", "O", "", "", ""])


def test_a_model_trains_to_the_same_bytes_again(made, yard, tmp_path):
    base = artifact(yard, "model", tiny_model(tmp_path / "base", texts=WORDS))
    contents = []
    for _ in range(2):
        files = {"train.jsonl": jsonl(sentences(30))}
        context = made(Finetune, files, source=base, task="token-classification", epochs=1, batch_size=8)
        finetune.run(context)
        contents.append((context.out / "model.safetensors").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O", "O"]}] * 4, "too few labels: O"),
        ([{"tokens": ["a", "b", "c"], "tags": ["O", "B-X"]}] * 4, "no row of column tokens can be used.*not as many tags as words"),
        ([{"tokens": ["a"], "tags": [0]}, {"tokens": ["b"], "tags": [1]}], "column tags holds no tags of words"),
        ([{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b"], "tags": [1]}], "column tags holds no tags of words.*mixed"),
        ([{"tokens": ["a", 1], "tags": ["O", "B-X"]}], "no row of column tokens can be used.*a word is of type int"),
        ([{"tokens": ["a", float("nan")], "tags": ["O", "B-X"]}], "no row of column tokens can be used.*a word is missing"),
        ([{"tokens": [], "tags": []}] * 3, "column tokens holds no words"),
        ([{"tokens": [1, 2], "tags": ["O", "B-X"]}] * 3, "column tokens holds no words"),
        ([{"text": "a b", "tags": ["O", "B-X"]}, {"text": "b", "tags": [{"start": 0, "end": 1, "label": "X"}]}], "column tags holds no tags.*mixed"),
    ],
)
def test_data_that_cannot_be_learnt_from(made, rows, message):
    with pytest.raises(BadData) as caught:
        finetune.run(made(Finetune, {"train.jsonl": jsonl(rows)}, task="token-classification"))
    assert re.search(message, f"{caught.value}")


def test_columns_that_are_not_there(made):
    for settings in ({"text": "words"}, {"label": "entities"}):
        with pytest.raises(NoInput, match="no column"):
            finetune.run(made(Finetune, {"train.jsonl": jsonl(sentences(4))}, task="token-classification", **settings))


# --- inference -------------------------------------------------------------------------------------------------------------------------------


def one_by_one(source, words, max_length=128):
    """Of each word label and probability as transformers gives them; None for words without a token."""
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(source.path).eval(), AutoTokenizer.from_pretrained(source.path)
    batch = tokenizer(words, is_split_into_words=True, return_tensors="pt", truncation=True, max_length=max_length)
    with torch.inference_mode():
        shares = model(**batch).logits[0].softmax(-1)
    places = batch.word_ids()
    return [
        (model.config.id2label[int(shares[places.index(word)].argmax())], float(shares[places.index(word)].max())) if word in places else None
        for word in range(len(words))
    ]


def test_spans_are_those_of_the_rows_one_by_one(inferred, trained):
    _, made = trained
    rows = sentences(50, seed=3)
    context, records = inferred(rows, source=made)
    assert context.decisions["task"] == "token-classification"
    for record, row in zip(records, rows, strict=True):
        assert set(record) == {"row", "spans", "truncated", "error"}
        expected = one_by_one(made, row["tokens"])
        joined = " ".join(row["tokens"])
        labelled = {place: span for span in record["spans"] for place in range(*span["words"])}
        for place, (label, score) in enumerate(expected):
            assert label[2:] == (labelled[place]["label"] if place in labelled else ""), (row, place)
            if place in labelled and labelled[place]["words"][1] - labelled[place]["words"][0] == 1:
                assert labelled[place]["score"] == pytest.approx(score, abs=2e-6)
        for span in record["spans"]:
            assert joined[span["start"] : span["end"]] == span["text"] == " ".join(row["tokens"][slice(*span["words"])])


def test_a_text_is_cut_into_words_and_spans_point_into_it(inferred, trained):
    text = "  Ada\tlives in\nLondon and  Alan Grace near Oslo  "
    _, (record, chinese) = inferred([{"text": text}, {"text": "李娜在london。"}], source=trained[1])
    assert [(span["label"], span["text"]) for span in record["spans"]] == [
        ("PER", "Ada"),
        ("LOC", "London"),
        ("PER", "Alan Grace"),
        ("LOC", "Oslo"),
    ]
    for span in record["spans"]:
        assert text[span["start"] : span["end"]] == span["text"]
    for span in chinese["spans"]:
        assert "李娜在london。"[span["start"] : span["end"]] == span["text"]
        assert span["end"] - span["start"] == span["words"][1] - span["words"][0] + (5 if "london" in span["text"] else 0)
    assert any("london" in span["text"] for span in chinese["spans"])


def test_words_are_cut_as_the_tokenizer_of_bert_cuts_texts(trained):
    from modelyard_jobs.tasks import words

    tokenizer = AutoTokenizer.from_pretrained(trained[1].path).backend_tokenizer
    for text in (
        "Don't. U.S.A. a_b c-d 3.5%",
        "x\u00a0y e\u0301t\u00e9",
        "\u674e\u5a1c abc\u5728def",
        "(a)[b]{c}",
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0906\u092a",
        "\u201cquoted\u201d \u2014 and \u2026",
    ):
        cut = words.of({"text": text})
        parts = [piece for word in cut.words for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(word))]
        assert parts == [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))], text
        assert [text[start:end] for start, end in cut.places] == list(cut.words)


@pytest.mark.parametrize("prefixed", [True, False])
def test_where_blanks_are_part_of_tokens_words_have_the_tokens_of_their_text(prefixed):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    from modelyard_jobs.tasks.token_classification import TokenClassification

    bytewise = ByteLevelBPETokenizer(add_prefix_space=prefixed)
    bytewise.train_from_iterator(["ada lives in london ( alan ) near oslo"] * 9, vocab_size=400)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise._tokenizer, pad_token="!")

    class Encoder:
        def words(self, rows, max_length):
            batch = tokenizer(rows, is_split_into_words=True)
            return batch["input_ids"], [batch.word_ids(place) for place in range(len(rows))], [False] * len(rows)

    text = "ada lives in london near oslo"
    items = TokenClassification(None).prepare([{"text": text}, {"tokens": text.split()}], Encoder(), 128)
    for item in items:
        assert item.values == tokenizer(text)["input_ids"]
        assert "\u0120lives" in tokenizer.convert_ids_to_tokens(item.values)
        assert item.about.of.tolist() == list(range(6))


def test_words_cut_off_are_in_no_span_and_the_row_says_so(inferred, trained):
    row = {"tokens": ["ada"] + ["river", "paris"] * 40}
    context, (record, short) = inferred([row, {"tokens": ["paris"]}], source=trained[1], max_length=12)
    assert (record["truncated"], short["truncated"]) == (True, False)
    assert max(span["words"][1] for span in record["spans"]) <= 10
    assert context.details["rows"]["truncated"] == 1


def test_rows_that_cannot_be_used_are_said_why(inferred):
    rows = [
        {"tokens": ["ada"]},
        {"tokens": "ada"},
        {"tokens": [1]},
        {"tokens": []},
        {"tokens": None},
        {"tokens": ["", " "]},
        {"tokens": ["ada", None]},
        {"tokens": ["\u200b"]},
    ]
    context, records = inferred(rows, max_error_rate=1.0)
    said = [record["error"] and record["error"]["what"] for record in records]
    assert said == [
        None,
        "the words are of type str, not a list",
        "a word is of type int, not a string",
        "it has no words",
        "the words are missing",
        "it has no words",
        "a word is missing",
        "the model's tokenizer finds nothing in its words",
    ]
    assert [record["spans"] is None for record in records] == [False, *[True] * 7]
    assert context.details["rows"]["failed"] == 7
    with pytest.raises(BadData, match="max_error_rate"):
        inferred(rows)


def test_a_million_letters(inferred):
    rows = [{"text": "ada in paris " * 77000}, {"text": "x" * 1000000}]
    _, records = inferred(rows)
    assert [record["truncated"] for record in records] == [True, False]
    assert [record["error"] for record in records] == [None] * 2


def test_one_row_and_none(inferred, measured, trained):
    _, records = inferred([{"tokens": ["ada"]}], source=trained[1])
    assert [span["label"] for span in records[0]["spans"]] == ["PER"]
    _, document, _ = measured([{"tokens": ["ada"], "tags": ["B-PER"]}], source=trained[1])
    assert (document["metrics"]["f1"]["value"], document["metrics"]["f1"]["n"]) == (1, 1)
    with pytest.raises(BadData, match="no rows"):
        inferred({"test.jsonl": ""})


def test_a_model_that_gives_no_number_has_no_spans(inferred, yard, model, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(model.path, folder)
    broken = BertForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    broken.save_pretrained(folder)
    _, records = inferred([{"tokens": ["ada"]}], source=artifact(yard, "model", folder), max_error_rate=1.0)
    assert (records[0]["spans"], records[0]["error"]["what"]) == (None, "the model gave no number")


def test_a_model_without_a_head_is_refused(inferred, yard, tmp_path):
    source = artifact(yard, "model", tiny_model(tmp_path / "base", texts=WORDS))
    with pytest.raises(BadData, match="no trained head for token classification"):
        inferred([{"tokens": ["ada"]}], source=source, task="token-classification")


# --- evaluation ------------------------------------------------------------------------------------------------------------------------------


def test_what_is_wrong_far_behind_in_a_text_is_on_the_page(measured):
    row = {"tokens": ["the"] * 100 + ["paris"], "tags": ["O"] * 100 + ["B-PER"]}
    _, document, _ = measured([row], max_length=128)
    (error,) = document["errors"]
    span = error["true"][0]
    assert span["start"] == 400
    assert error["text"][span["start"] : span["end"]] == "paris"


def test_metrics_are_seqevals_and_the_errors_are_shown(measured, model):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    rows = sentences(60, seed=5)
    context, document, predictions = measured(rows)
    said = [[label for label, _ in one_by_one(model, row["tokens"])] for row in rows]
    true = [row["tags"] for row in rows]
    for name, value in zip(("precision", "recall", "f1"), seqeval.precision_recall_fscore_support(true, said, average="micro"), strict=False):
        assert document["metrics"][name]["value"] == pytest.approx(value)
    assert document["main"] == "f1"
    assert document["metrics"]["token_accuracy"]["value"] == pytest.approx(seqeval.accuracy_score(true, said))
    f1 = document["metrics"]["f1"]
    assert f1["low"] <= f1["value"] <= f1["high"]
    assert (f1["n"], f1["interval"]) == (60, "bootstrap")
    assert [each["label"] for each in document["classes"]] == ["PER", "LOC"]
    assert document["words"]["types"] == ["PER", "LOC", "O"]
    assert np.sum(document["words"]["confusion"]) == document["words"]["evaluated"] == sum(len(row["tokens"]) for row in rows)
    assert document["words"]["cut_off"] == 0
    calibration = document["calibration"]
    assert calibration["n"] == sum(each["n"] for each in calibration["bins"]) == document["words"]["evaluated"]
    assert [record["row"] for record in predictions] == list(range(60))
    for record, row in zip(predictions, rows, strict=True):
        text = " ".join(row["tokens"])
        expected = [(kind, start, end + 1) for kind, start, end in seqeval.get_entities(row["tags"])]
        assert [(span["label"], *span["words"]) for span in record["true"]] == expected
        assert [text[span["start"] : span["end"]] for span in record["true"]] == [" ".join(row["tokens"][start:end]) for _, start, end in expected]
    for error in document["errors"]:
        assert error["true"] != error["predicted"]
        assert error["text"] == " ".join(rows[error["row"]]["tokens"])[:300]
    json.dumps(document, allow_nan=False)
    assert context.details["speed"]["rows"] == 60


def test_words_cut_off_are_missed(measured, trained):
    row = {"tokens": ["river"] * 20 + ["paris"], "tags": ["O"] * 20 + ["B-LOC"]}
    _, document, predictions = measured([row, {"tokens": ["ada"], "tags": ["B-PER"]}], source=trained[1], max_length=12)
    assert predictions[0]["true"][0]["words"] == [20, 21]
    assert [span for span in predictions[0]["predicted"] if span["words"][1] > 10] == []
    assert document["words"]["cut_off"] == 11
    assert document["metrics"]["recall"]["value"] == 0.5
    assert document["truncated"]["rows"] == 1
    assert document["calibration"]["n"] == 11


FORMS = {
    "names": lambda row: row,
    "IOB1": lambda row: {**row, "tags": [tag.replace("B-", "I-") for tag in row["tags"]]},
    "BIOES": lambda row: {
        **row,
        "tags": [
            tag.replace(*(("B-", "S-") if tag[0] == "B" else ("I-", "E-")) if not after.startswith("I-") and tag != "O" else ("", ""))
            for tag, after in zip(row["tags"], [*row["tags"][1:], "O"], strict=True)
        ],
    },
    "BMES": lambda row: {**row, "tags": [tag.replace("I-", "M-") for tag in FORMS["BIOES"](row)["tags"]]},
    "IO": lambda row: {**row, "tags": [tag[2:] or "O" for tag in row["tags"]]},
}


@pytest.mark.parametrize("form", [*FORMS, "numbers", "conll", "spans"])
def test_the_same_truth_in_other_words_gives_the_same_metrics(measured, trained, form, tmp_path):
    import datasets

    # None has places side by side, which IO cannot tell apart; some are not as the model says.
    rows = [row for row in sentences(60, seed=7) if "LOC LOC" not in " ".join(tag[2:] or "-" for tag in row["tags"])]
    for row in rows:
        row["tags"] = ["B-LOC" if tag == "O" and place == 0 and row["tags"][1:2] != ["B-LOC"] else tag for place, tag in enumerate(row["tags"])]
    _, expected, predictions = measured(rows, source=trained[1])
    assert 0.3 < expected["metrics"]["f1"]["value"] < 1
    if form == "numbers":
        declared = datasets.ClassLabel(names=["B-LOC", "B-PER", "O", "I-PER"])
        features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(declared)})
        columns = {"tokens": [row["tokens"] for row in rows], "ner_tags": [declared.str2int(row["tags"]) for row in rows]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "test.parquet")
        files = {"test.parquet": (tmp_path / "test.parquet").read_bytes()}
    elif form == "conll":
        files = {
            "test.conll": "".join("".join(f"{word} x {tag}\n" for word, tag in zip(row["tokens"], row["tags"], strict=True)) + "\n" for row in rows)
        }
    elif form == "spans":
        keys = ("start", "end", "label")
        given = [[{key: span[key] for key in keys} for span in record["true"]] for record in predictions]
        files = {"test.jsonl": jsonl({"text": " ".join(row["tokens"]), "entities": spans} for row, spans in zip(rows, given, strict=True))}
    else:
        files = {"test.jsonl": jsonl(map(FORMS[form], rows))}
    _, document, others = measured(files, source=trained[1])
    assert others == predictions
    if form == "IOB1":  # its names are the model's, which begins spans with others
        assert document["metrics"].pop("token_accuracy")["value"] < expected["metrics"].pop("token_accuracy")["value"]
    assert document["metrics"] == expected["metrics"]


def test_rows_whose_tags_do_not_fit_are_left_out_and_counted(measured, trained):
    rows = [*sentences(5), {"tokens": ["ada", "in"], "tags": ["B-PER"]}, {"tokens": ["ada"], "tags": None}, {"tokens": ["ada"], "tags": [None]}]
    _, document, _ = measured(rows, source=trained[1])
    assert document["rows"]["evaluated"] == 5
    assert document["rows"]["faults"] == {"it has not as many tags as words": 1, "the tags are missing": 1, "a word has no tag": 1}


@pytest.mark.parametrize("form", ["spans", "names"])
def test_a_text_without_a_span_counts_as_one(measured, trained, form):
    """What is found in it is wrong: left out, it would make the precision look better than it is."""
    first = {"text": "ada in paris", "tags": [{"start": 0, "end": 3, "label": "PER"}, {"start": 7, "end": 12, "label": "LOC"}]}
    first = first if form == "spans" else {**first, "tags": ["B-PER", "O", "B-LOC"]}
    found, alone = (measured([first, *more], source=trained[1]) for more in ([{"text": "grace in london", "tags": []}], []))
    assert found[1]["rows"]["evaluated"] == 2
    assert found[2][1]["true"] == []
    assert {entry["label"] for entry in found[2][1]["predicted"]} == {"PER", "LOC"}
    assert found[1]["metrics"]["precision"]["value"] < alone[1]["metrics"]["precision"]["value"] == 1


@pytest.mark.parametrize(("number", "why"), [(-100, "a word has no tag"), (7, "a tag is the number 7, and the data set declares 3 names")])
def test_numbers_that_have_no_name(measured, trained, tmp_path, number, why):
    import datasets

    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(datasets.ClassLabel(names=LABELS[:3]))})
    rows = datasets.Dataset.from_dict({"tokens": [["ada"], ["grace"]], "tags": [[1], [1]]}, features=features)
    values = rows.data.table.set_column(1, rows.data.table.schema.field("tags"), [[[1], [number]]])
    import pyarrow.parquet

    pyarrow.parquet.write_table(values.replace_schema_metadata(rows.data.table.schema.metadata), tmp_path / "test.parquet")
    files = {"test.parquet": (tmp_path / "test.parquet").read_bytes()}
    if number > 0:
        with pytest.raises(BadData, match=why):
            measured(files, source=trained[1])
    else:
        assert measured(files, source=trained[1])[1]["rows"]["faults"] == {why: 1}


@pytest.mark.parametrize(
    ("span", "why"),
    [
        ({"start": 4, "end": 90, "label": "PER"}, "a span is not inside the text"),
        ({"start": -1, "end": 3, "label": "PER"}, "a span is not inside the text"),
        ({"start": 3, "end": 3, "label": "PER"}, "a span is not inside the text"),
        ({"start": 0, "end": None, "label": "PER"}, "a span is not inside the text"),
        ({"start": 0, "end": 3, "label": None}, "a span has no label"),
        ({"start": 3, "end": 4, "label": "PER"}, "a span holds no word"),
        ({"start": 8, "end": 12, "label": "LOC"}, "two spans share a word"),
        (None, "a span is missing"),
    ],
)
def test_spans_that_do_not_fit_their_text(measured, trained, span, why):
    good = {"text": "ada in paris", "spans": [{"start": 7, "end": 12, "label": "LOC"}]}
    bad = {"text": "ada in paris", "spans": [*good["spans"], span]}
    _, document, predictions = measured([good, bad], source=trained[1])
    assert document["rows"]["faults"] == {why: 1}
    assert predictions[0]["true"] == [{"label": "LOC", "start": 7, "end": 12, "words": [2, 3]}]


def test_a_span_that_ends_inside_a_word_takes_all_of_it(measured, trained):
    _, _, predictions = measured([{"text": "ada in paris", "spans": [{"start": 0, "end": 8, "type": "LOC"}]}], source=trained[1])
    assert predictions[0]["true"] == [{"label": "LOC", "start": 0, "end": 12, "words": [0, 3]}]


def test_labels_that_the_model_does_not_know(measured, trained, yard, tmp_path):
    for number in (5, {"a": 5}):
        with pytest.raises(BadData, match="labels of the data are not the model's"):
            measured([{"text": "ada", "spans": [{"start": 0, "end": 3, "label": number}]}], source=trained[1])
    with pytest.raises(BadData, match="labels of the data are not the model's") as caught:
        measured([{"tokens": ["ada"], "tags": ["B-ORG"]}], source=trained[1])
    assert "ORG" in caught.value.why
    assert "B-PER" in caught.value.why
    nameless = artifact(yard, "model", tagger(tmp_path / "nameless", ["LABEL_0", "LABEL_1", "LABEL_2"]))
    with pytest.raises(BadData, match="have no names"):
        measured(sentences(3), source=nameless)


def test_two_models_on_the_same_rows(measured, trained, model):
    rows = sentences(60, seed=11)
    _, document, predictions = measured(rows, source=trained[1], against=model)
    _, alone, _ = measured(rows, source=model)
    assert document["against"]["metrics"]["f1"] == alone["metrics"]["f1"]
    difference = document["metrics"]["f1"]["difference"]
    assert difference["value"] == pytest.approx(document["metrics"]["f1"]["value"] - alone["metrics"]["f1"]["value"])
    assert difference["low"] > 0.3
    assert document["against"]["changed"]["fixed"] > 30
    assert "against" in predictions[0]
    _, same, _ = measured(rows, source=trained[1], against=trained[1])
    assert same["against"]["changed"] == {"fixed": 0, "broken": 0, "other": 0}
    assert same["metrics"]["f1"]["difference"]["value"] == 0
