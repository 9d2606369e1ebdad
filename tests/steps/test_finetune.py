"""The step from artifact to artifact, on a BERT of a few kilobytes."""

from __future__ import annotations

import json
import random
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modelyard.errors import BadData, NoInput, Yielded
from modelyard.steps import Finetune
from modelyard.yard import Yard
from modelyard_jobs import finetune
from modelyard_jobs.finetune import step as step_module
from modelyard_jobs.finetune.text_classification import TextClassification
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_model

LICENCE = "Apache License\n"


def reviews(count, seed=0, labels=("bad", "good")):
    chance = random.Random(seed)
    texts = []
    for number in range(count):
        label = labels[number % len(labels)]
        words = [*chance.choices(["the", "film", "was", "plot", "story", "acting"], k=chance.randint(1, 14)), label]
        chance.shuffle(words)
        texts.append({"text": " ".join(words), "label": label})
    return texts


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def yard(tmp_path):
    return Yard.open(tmp_path / "yard")


@pytest.fixture
def base(yard, tmp_path):
    folder = tiny_model(tmp_path / "base", spread=0.1)
    (folder / "LICENSE").write_text(LICENCE)
    (folder / "README.md").write_text("not part of a model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "name_or_path": "/home/somebody/base", "vocab_file": "/tmp/vocab.txt"}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "/home/somebody/base"}))
    return artifact(yard, "model", folder)


@pytest.fixture
def make(yard, base, tmp_path):
    """make(rows or files, **settings) -> context."""

    def make(rows, *, attempt=1, key="ab" * 32, **settings):
        content = rows if isinstance(rows, dict) else {"train.jsonl": jsonl(rows)}
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, **settings}
        inputs = {"model": base, "data": artifact(yard, "dataset", content)}
        return FakeContext(
            Finetune(model="m", data="d", **settings), inputs, yard, tmp_path / f"work-{attempt}-{key[:2]}", key=key, attempt=f"run-r1.t.{attempt}"
        )

    return make


def test_the_model_learns_loads_unchanged_and_says_what_was_done(make):
    context = make(reviews(200), epochs=4)
    produced = finetune.run(context)
    assert (produced.kind, produced.format) == ("model", "safetensors")
    assert sorted(files(context.out)) == ["LICENSE", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    model = AutoModelForSequenceClassification.from_pretrained(context.out).eval()
    tokenizer = AutoTokenizer.from_pretrained(context.out)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.label2id == {"bad": 0, "good": 1}
    assert model.dtype == torch.float32
    unseen = reviews(60, seed=9)
    with torch.inference_mode():
        logits = model(**tokenizer([row["text"] for row in unseen], padding=True, return_tensors="pt")).logits
    right = sum(model.config.id2label[place] == row["label"] for place, row in zip(logits.argmax(1).tolist(), unseen, strict=True))
    assert right >= 57
    assert set(context.decisions) == {"columns", "labels", "validation", "dtype", "steps", "batching", "optimizer", "threads", "best_epoch"}
    history, counts, speed = (context.details[name] for name in ("history", "rows", "speed"))
    assert counts["train"] + counts["validation"] == counts["split"] == 200
    assert 5 <= counts["validation"] <= 40
    shown = [message for message in context.said if message.get("event") == "training row"]
    assert [message["row"] for message in shown] == sorted(message["row"] for message in shown)
    assert [(message["text"], message["label"]) for message in shown] == [
        (row["text"], row["label"]) for row in (reviews(200)[message["row"]] for message in shown)
    ]
    assert sum(context.details["label_counts"].values()) == counts["train"]
    first_step = next(place for place, message in enumerate(context.said) if message.get("event") == "step")
    assert len(shown) == 3
    assert all(place < first_step for place, message in enumerate(context.said) if message.get("event") in {"training row", "labels"})
    assert len(history["validation"]) == 4
    assert [point["step"] for point in history["train"]] == list(range(1, context.decisions["steps"] + 1))
    assert history["train"][-1]["loss"] < history["train"][0]["loss"]
    best = history["validation"][context.decisions["best_epoch"] - 1]
    assert best["accuracy"] == max(entry["accuracy"] for entry in history["validation"])
    assert speed["rows_per_second"] > 0
    assert 0 <= speed["padding"] < 0.1
    assert context.details["peak_memory"]["host"] > 10**7
    assert context.details["environment"]["torch"] == torch.__version__.split("+")[0]
    json.dumps(context.details, allow_nan=False)


def test_no_file_names_a_place_of_this_machine(make, tmp_path):
    context = make(reviews(40), epochs=1)
    finetune.run(context)
    for name, content in files(context.out).items():
        assert str(tmp_path).encode() not in content, name
        assert b"/home/" not in content, name
        assert b"/tmp/" not in content, name
    assert "is_local" not in json.loads((context.out / "tokenizer_config.json").read_text())


def test_equal_inputs_give_equal_bytes_and_another_seed_does_not(make):
    contents = []
    for attempt, seed in enumerate([42, 42, 43], 1):
        torch.rand(attempt)  # what the process did before
        context = make(reviews(60), seed=seed, attempt=attempt, key=f"{attempt:02d}" * 32)
        finetune.run(context)
        contents.append(files(context.out))
    assert contents[0] == contents[1]
    assert contents[0]["model.safetensors"] != contents[2]["model.safetensors"]


def test_sigterm_within_a_pass_keeps_the_run_and_the_next_attempt_ends_as_if_nothing_had_been(make, monkeypatch):
    settings = {"accumulate": 3, "batch_size": 4, "epochs": 3}
    straight = make(reviews(60), key="01" * 32, **settings)
    finetune.run(straight)
    context = make(reviews(60), **settings)
    context.stop.install()
    passes, plain = [], TextClassification.loss

    def loss(self, model, batch):
        passes.append(threading.get_ident())
        if len(passes) == 11:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, model, batch)

    monkeypatch.setattr(TextClassification, "loss", loss)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(Yielded, match="kept at step 3"):
            finetune.run(context)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert before[0] == context.stop._on_signal
    assert len(passes) == 11
    assert files(context.out) == {}
    again = make(reviews(60), attempt=2, **settings)
    finetune.run(again)
    assert again.details["history"]["resumed"] == [3]
    assert again.details["history"]["train"] == straight.details["history"]["train"]
    assert files(again.out) == files(straight.out)


def test_resumed_under_other_settings_it_starts_over(make):
    context = make(reviews(60))
    finetune.run(context)
    assert context.checkpoints.furthest() is not None
    other = make(reviews(60), attempt=2, learning_rate=1e-3)
    finetune.run(other)
    assert other.details["history"]["resumed"] == []
    assert other.details["history"]["train"][0]["step"] == 1


def test_a_shipped_validation_split_is_used_and_its_overlap_counted(make):
    rows = reviews(50)
    context = make(
        {
            "train.jsonl": jsonl(rows),
            "validation.jsonl": jsonl([*rows[:3], *reviews(7, seed=5)]),
            "test.jsonl": "not json, and not looked at" and jsonl(rows),
        }
    )
    finetune.run(context)
    assert context.decisions["validation"] == {"rows": 10, "split": "validation"}
    assert context.details["rows"]["train"] == 50
    assert context.details["rows"]["overlap"] >= 3


def test_a_small_training_does_not_spend_itself_on_validation(make):
    context = make(reviews(400), epochs=1, train_rows=10)
    finetune.run(context)
    assert (context.details["rows"]["train"], context.details["rows"]["validation"]) == (10, 10)
    assert context.decisions["validation"]["rows"] == 10


def test_train_rows_counts_after_the_validation_split(make):
    whole, some = make(reviews(100), epochs=1), make(reviews(100), epochs=1, train_rows=30, key="02" * 32)
    finetune.run(whole)
    finetune.run(some)
    assert some.details["rows"]["train"] == 30
    assert some.details["rows"]["validation"] == whole.details["rows"]["validation"] > 0
    assert some.decisions["steps"] == 4


def test_few_rows_are_trained_on_without_validation(make, monkeypatch):
    monkeypatch.setattr(step_module, "VALIDATION", 0.0)  # as chance has it with very few
    context = make(reviews(6))
    finetune.run(context)
    assert context.decisions["validation"]["rows"] == 0
    assert context.decisions["best_epoch"] == 2
    assert context.details["history"]["validation"] == []


def test_max_steps_end_it_early(make):
    context = make(reviews(100), epochs=3, max_steps=2)
    finetune.run(context)
    assert context.details["speed"]["steps"] == 2
    assert len(context.details["history"]["validation"]) == 1


def test_rows_without_a_text_are_left_out_and_counted(make):
    rows = [*reviews(40), {"text": "", "label": "good"}, {"text": None, "label": "bad"}]
    context = make(rows, epochs=1)
    finetune.run(context)
    counts = context.details["rows"]
    assert counts["train"] + counts["validation"] == 40
    assert sum(counts["faults"].values()) == 2


def test_long_rows_are_cut_and_counted(make):
    context = make([*reviews(40), {"text": "good " * 50, "label": "good"}], epochs=1, max_length=20)
    finetune.run(context)
    assert context.details["truncated"]["train"] + context.details["truncated"]["validation"] == 1


def test_bfloat16_keeps_weights_in_float32(make):
    context = make(reviews(40), epochs=1, dtype="bfloat16")
    finetune.run(context)
    assert AutoModelForSequenceClassification.from_pretrained(context.out).dtype == torch.float32
    assert context.decisions["dtype"] in {"bfloat16", "float32"}


def test_one_class_only_is_bad_data(make):
    with pytest.raises(BadData, match="one label only"):
        finetune.run(make(reviews(20, labels=("good",))))
    rare = [*reviews(40, labels=("good",)), {"text": "awful", "label": "bad"}]
    with pytest.raises(BadData, match="all 2 training rows have the label good") as failure:
        finetune.run(make(rare, train_rows=2))
    assert "train_rows" in failure.value.remedy


def test_validation_labels_that_train_lacks_are_bad_data(make):
    with pytest.raises(BadData, match="labels"):
        finetune.run(make({"train.jsonl": jsonl(reviews(20)), "validation.jsonl": jsonl([{"text": "fine", "label": "neutral"}])}))


@pytest.mark.parametrize("settings", [{"text": "words"}, {"label": "stars"}])
def test_a_column_that_is_not_there(make, settings):
    with pytest.raises(NoInput, match="no column"):
        finetune.run(make(reviews(20), **settings))


def test_splits_may_call_their_columns_differently(make):
    held_out = [{"sentence": row["text"], "label": row["label"]} for row in [*reviews(10), *reviews(5, seed=1)]]
    context = make({"train.jsonl": jsonl(reviews(40)), "validation.jsonl": jsonl(held_out)}, epochs=1)
    finetune.run(context)
    assert (context.details["rows"]["validation"], context.details["rows"]["overlap"] >= 10) == (15, True)


def test_a_row_that_the_tokenizer_makes_nothing_of_is_left_out_and_counted(make):
    rows = [{"tokens": ["the", "film"], "tags": ["O", "B-X"]} for _ in range(20)]
    context = make([*rows[:10], {"tokens": ["\u200b"], "tags": ["O"]}, *rows[10:]], task="token-classification", epochs=1)
    finetune.run(context)
    assert context.details["truncated"]["left_out"] == {"the model's tokenizer finds nothing in its words": 1}
    assert any(message.get("event") == "rows that the model cannot take were left out" for message in context.said)
    with pytest.raises(BadData, match="no row can be trained on"):
        finetune.run(make([{"tokens": ["\u200b"], "tags": [tag]} for tag in ("O", "B-X")], task="token-classification"))


def test_without_a_train_split(make):
    with pytest.raises(NoInput, match="no split 'train'"):
        finetune.run(make({"test.jsonl": jsonl(reviews(20))}))


@pytest.mark.parametrize("own", [["good", "bad"], ["bad", "good"]])
def test_a_head_for_the_same_labels_goes_on_in_its_own_order(make, yard, tmp_path, own):
    """A head that knows bad from good must not be made to unlearn it because the rows name them in another order."""
    context = make(reviews(60), epochs=1, learning_rate=1e-9)
    context.inputs = {**context.inputs, "model": artifact(yard, "model", tiny_model(tmp_path / "own", labels=own, texts=WORDS))}
    finetune.run(context)
    model = AutoModelForSequenceClassification.from_pretrained(context.out)
    assert model.config.id2label == dict(enumerate(own))
    assert context.decisions["labels"] == own
    tuned, base = (load_file(folder / "model.safetensors")["classifier.weight"] for folder in (context.out, context.inputs["model"].path))
    torch.testing.assert_close(tuned, base, rtol=0, atol=1e-6)


def test_a_classifier_with_other_labels_gets_a_new_head(make, yard, tmp_path):
    context = make(reviews(60, labels=("bad", "fine", "great")), epochs=1)
    context.inputs = {**context.inputs, "model": artifact(yard, "model", tiny_model(tmp_path / "two", labels=["no", "yes"], texts=WORDS))}
    finetune.run(context)
    model = AutoModelForSequenceClassification.from_pretrained(context.out)
    assert model.config.id2label == {0: "bad", 1: "fine", 2: "great"}
    assert model.classifier.weight.shape == (3, 32)
