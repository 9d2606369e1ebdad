from __future__ import annotations

import gc
import json
import random
import shutil
import weakref

import datasets
import numpy as np
import pytest
import torch

from modelyard.errors import BadData, NoInput
from modelyard.steps import Evaluate
from modelyard.yard import Yard
from modelyard_jobs import engine, evaluate, models
from modelyard_jobs.tasks.text_classification import TextClassification
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, level, tiny_model

LABELS = ["neg", "pos"]


def texts(n, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) for _ in range(n)]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def yard(tmp_path):
    return Yard.open(tmp_path / "yard")


@pytest.fixture
def model(yard, tmp_path):
    return artifact(yard, "model", tiny_model(tmp_path / "model", LABELS))


@pytest.fixture
def run(yard, model, tmp_path):
    def go(files, number=0, source=None, against=None, **settings):
        inputs = {"model": source or model, "data": artifact(yard, "dataset", files), **({"against": against} if against else {})}
        context = FakeContext(
            Evaluate(model="m", data="d", against="c" if against else None, **settings),
            inputs,
            yard,
            tmp_path / f"work-{number}",
            key=f"{number:064x}",
        )
        produced = evaluate.run(context)
        assert produced.kind == "metrics"
        return (
            context,
            json.loads((context.out / "metrics.json").read_text()),
            [json.loads(line) for line in (context.out / "predictions.jsonl").open()],
        )

    return go


def sorted_rows(n):
    return [{"text": text, "label": "neg" if number < n // 2 else "pos"} for number, text in enumerate(texts(n))]


def test_metrics_are_those_of_the_rows_one_by_one(run, model):
    rows = sorted_rows(120)
    _, document, predictions = run({"test.jsonl": jsonl(rows)})
    found = models.load(TextClassification(Evaluate(model="m", data="d")), model, None, torch.float32)
    classifier, tokenizer = found.model, found.tokenizer
    with torch.inference_mode():
        one_by_one = [
            classifier(**tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=128)).logits.softmax(-1)[0].tolist() for row in rows
        ]
    assert [record["row"] for record in predictions] == list(range(120))
    for record, expected, row in zip(predictions, one_by_one, rows, strict=True):
        assert record["probabilities"] == pytest.approx(expected, abs=2e-6)
        assert record["true"] == row["label"]
        assert record["predicted"] == LABELS[int(expected[1] > expected[0])]
    right = sum(record["predicted"] == record["true"] for record in predictions)
    accuracy = document["metrics"]["accuracy"]
    assert accuracy["value"] == right / 120
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["n"] == 120
    assert sum(map(sum, document["confusion"])) == 120
    assert document["baseline"]["accuracy"]["value"] == 0.5
    assert document["schema"] == evaluate.SCHEMA


def test_a_sample_of_sorted_rows_has_both_labels_and_keeps_its_rows(run):
    files = {"test.jsonl": jsonl(sorted_rows(400))}
    _, document, predictions = run(files, rows=60, seed=7)
    assert document["rows"] == {"split": 400, "usable": 400, "evaluated": 60, "faults": {}, "seed": 7}
    assert min(entry["support"] for entry in document["classes"]) > 15
    numbers = [record["row"] for record in predictions]
    assert numbers == sorted(set(numbers))
    assert [record["row"] for record in run(files, number=1, rows=60, seed=7)[2]] == numbers
    assert [record["row"] for record in run(files, number=2, rows=60, seed=8)[2]] != numbers


def test_the_same_bytes_twice_and_nothing_of_the_machine(run):
    files = {"test.jsonl": jsonl(sorted_rows(50)), "train.jsonl": jsonl(sorted_rows(10))}
    first, second = run(files)[0], run(files, number=1)[0]
    for name in ("metrics.json", "predictions.jsonl"):
        content = (first.out / name).read_bytes()
        assert content == (second.out / name).read_bytes()
        assert str(first.yard.root).encode() not in content
    assert sorted(path.name for path in first.out.iterdir()) == ["metrics.json", "predictions.jsonl"]
    assert first.details["speed"]["rows"] == 50
    assert 0 <= first.details["speed"]["padding"] < 0.5
    assert first.details["latency"]["n"] == 16


def test_interrupted_between_windows_the_next_attempt_gives_the_same(run, monkeypatch, yard, model, tmp_path):
    monkeypatch.setattr(TextClassification, "window", 16)
    files = {"test.jsonl": jsonl(sorted_rows(50))}
    whole = run(files)[0]
    classify, calls = engine.Engine.answer, []

    def fail_at_third(self, texts, tick):
        calls.append(len(texts))
        if len(calls) == 3:
            raise MemoryError
        return classify(self, texts, tick)

    monkeypatch.setattr(engine.Engine, "answer", fail_at_third)
    with pytest.raises(MemoryError):
        run(files, number=1)
    again = run(files, number=1)[0]
    assert calls == [16, 16, 16, 16, 2]
    assert (again.out / "metrics.json").read_bytes() == (whole.out / "metrics.json").read_bytes()


def test_worst_errors_are_the_surest_and_shortened(run):
    rows = [{"text": text + " film" * 100, "label": "pos"} for text in texts(30)] + [{"text": text, "label": "neg"} for text in texts(30, seed=1)]
    _, document, predictions = run({"test.jsonl": jsonl(rows)}, max_length=20)
    wrong = {record["row"]: max(record["probabilities"]) for record in predictions if record["predicted"] != record["true"]}
    assert len(wrong) > 3
    surest = [max(entry["probabilities"]) for entry in document["errors"]]
    assert surest == sorted(wrong.values(), reverse=True)[: len(surest)]
    assert all(len(entry["text"]) <= 300 for entry in document["errors"])
    assert any(entry["text"].endswith(" …") for entry in document["errors"]), "what is cut looks like it"
    assert document["truncated"]["rows"] >= 30
    assert document["truncated"]["max_length"] == 20


def test_overlap_with_train_is_counted(run):
    rows = sorted_rows(20)
    _, document, _ = run({"test.jsonl": jsonl(rows), "train.jsonl": jsonl(rows[:5])})
    assert document["overlap"]["rows"] >= 5
    assert run({"test.jsonl": jsonl(rows)}, number=1)[1]["overlap"] is None


def test_rows_without_text_are_counted_not_guessed(run):
    rows = sorted_rows(20)
    rows[3]["text"], rows[4]["text"] = None, "  "
    _, document, predictions = run({"test.jsonl": jsonl(rows)})
    assert document["rows"]["evaluated"] == document["metrics"]["accuracy"]["n"] == 18
    assert document["rows"]["faults"] == {"the text is missing": 1, "the text is empty": 1}
    assert not {3, 4} & {record["row"] for record in predictions}


def test_max_length_over_the_models_positions_is_lowered_and_said(run):
    context, document, _ = run({"test.jsonl": jsonl([{"text": "good " * 500, "label": "pos"}, {"text": "bad", "label": "neg"}])}, max_length=256)
    assert document["truncated"] == {"rows": 1, "share": 0.5, "max_length": 128}
    assert context.decisions["max_length"] == 128


def test_one_row_of_one_class(run):
    _, document, _ = run({"test.csv": "text,label\ngood,pos\n"})
    assert document["metrics"]["accuracy"]["n"] == 1
    assert document["classes"][0]["recall"] == {"value": 0.0, "low": 0.0, "high": 1.0, "n": 0, "interval": "wilson"}


@pytest.mark.parametrize(
    ("files", "settings", "failure", "message"),
    [
        ({"train.csv": "text,label\na,pos\n"}, {}, NoInput, "no split 'test'.*train"),
        ({"test.csv": "text,label\na,pos\n"}, {"label": "lable"}, NoInput, "no column 'lable'"),
        ({"test.csv": "text,label\na,good\nb,bad\n"}, {}, BadData, "bad, good; the model knows neg, pos"),
        ({"test.csv": "text,label\na,0\nb,1\n"}, {}, BadData, "0, 1; the model knows neg, pos"),
        ({"test.csv": "text,label\na,pos\nb,\n"}, {}, BadData, "1 of 2 rows have no label"),
        ({"test.jsonl": jsonl([{"text": None, "label": "pos"}, {"text": "", "label": "neg"}])}, {"text": "text"}, BadData, "column text can be used"),
    ],
)
def test_what_does_not_fit_is_refused(run, files, settings, failure, message):
    with pytest.raises(failure, match=message):
        run(files, **settings)


def test_a_headless_model_is_refused(run, yard, tmp_path):
    headless = artifact(yard, "model", tiny_model(tmp_path / "headless"))
    with pytest.raises(BadData, match="no trained head"):
        run({"test.jsonl": jsonl(sorted_rows(4))}, source=headless)


def test_a_model_that_gives_no_numbers_is_refused(run, yard, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_model(tmp_path / "broken", LABELS)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadData, match="no number for 4 of 4 rows"):
        run({"test.jsonl": jsonl(sorted_rows(4))}, source=artifact(yard, "model", folder))


@pytest.fixture
def other(yard, tmp_path):
    """Another model of the same labels, that says either of some texts."""
    return artifact(yard, "model", level(tiny_model(tmp_path / "other", LABELS, seed=5), texts(60)))


@pytest.fixture
def levelled(yard, tmp_path):
    return artifact(yard, "model", level(tiny_model(tmp_path / "levelled", LABELS), texts(60)))


def f1_macro(true, predicted):
    scores = []
    for label in range(2):
        hits = np.sum((true == label) & (predicted == label))
        scores.append(2 * hits / max(np.sum(true == label) + np.sum(predicted == label), 1))
    return np.mean(scores)


def test_two_models_on_the_same_rows_differ_as_numpy_says(run, levelled, other):
    files = {"test.jsonl": jsonl(sorted_rows(240))}
    context, document, predictions = run(files, source=levelled, against=other, rows=160, seed=3)
    places = {name: place for place, name in enumerate(LABELS)}
    true, first, second = (np.array([places[record[name]] for record in predictions]) for name in ("true", "predicted", "against"))
    assert 10 < np.sum(first != second) < 150  # the two say different things, or nothing is tested
    alone = [run(files, number=number, source=model, rows=160, seed=3) for number, model in ((1, levelled), (2, other))]
    assert [record["predicted"] for record in alone[0][2]] == [record["predicted"] for record in predictions]
    assert [record["predicted"] for record in alone[1][2]] == [record["against"] for record in predictions]
    assert [record["row"] for record in alone[1][2]] == [record["row"] for record in predictions]
    assert document["against"]["digests"] == {"model": levelled.digest, "against": other.digest}
    assert document["against"]["metrics"] == alone[1][1]["metrics"]
    for name, metric in alone[0][1]["metrics"].items():
        less = document["metrics"][name].pop("difference")
        assert document["metrics"][name] == metric
        assert less["value"] == pytest.approx(metric["value"] - alone[1][1]["metrics"][name]["value"], abs=1e-12)
        assert less["low"] < less["value"] < less["high"]
        document["metrics"][name]["difference"] = less
    rng = np.random.default_rng(11)
    draws = [rng.integers(0, 160, 160) for _ in range(4000)]
    for name, score in (("accuracy", lambda t, p: np.mean(t == p)), ("f1_macro", f1_macro)):
        drawn = [score(true[rows], first[rows]) - score(true[rows], second[rows]) for rows in draws]
        low, high = np.quantile(drawn, [0.025, 0.975])
        less = document["metrics"][name]["difference"]
        assert less["value"] == pytest.approx(score(true, first) - score(true, second), abs=1e-12)
        assert (less["low"], less["high"]) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
        assert less["n"] == 160
    fixed, broken = np.sum((first == true) & (second != true)), np.sum((first != true) & (second == true))
    assert document["against"]["changed"] == {"fixed": fixed, "broken": broken, "other": 0}
    assert (fixed - broken) / 160 == document["metrics"]["accuracy"]["difference"]["value"]
    assert context.decisions["engine"] == context.decisions["against_engine"] == "torch"
    told = [(message["done"], message["total"]) for message in context.said if message["type"] == "progress"]
    assert told[-1] == (320, 320)
    assert told == sorted(told)


def test_the_same_comparison_gives_the_same_bytes_and_turned_round_the_opposite(run, levelled, other):
    files = {"test.jsonl": jsonl(sorted_rows(80))}
    first, document, _ = run(files, source=levelled, against=other)
    second = run(files, number=1, source=levelled, against=other)[0]
    assert (first.out / "metrics.json").read_bytes() == (second.out / "metrics.json").read_bytes()
    turned = run(files, number=2, source=other, against=levelled)[1]
    assert turned["metrics"]["accuracy"]["difference"]["value"] == -document["metrics"]["accuracy"]["difference"]["value"] != 0
    changed = document["against"]["changed"]
    assert turned["against"]["changed"] == {**changed, "fixed": changed["broken"], "broken": changed["fixed"]}


def test_a_model_is_no_better_than_itself_and_runs_once(run, levelled, monkeypatch):
    loaded, load = [], engine.load
    monkeypatch.setattr(engine, "load", lambda *arguments: loaded.append(arguments) or load(*arguments))
    _, document, predictions = run({"test.jsonl": jsonl(sorted_rows(60))}, source=levelled, against=levelled)
    assert len(loaded) == 1
    for metric in document["metrics"].values():
        assert (metric["difference"]["value"], metric["difference"]["low"], metric["difference"]["high"]) == (0.0, 0.0, 0.0)
    assert document["against"]["changed"] == {"fixed": 0, "broken": 0, "other": 0}
    assert all(record["against"] == record["predicted"] for record in predictions)


def test_the_first_model_is_gone_before_the_second_is_loaded(run, levelled, other, monkeypatch):
    runners, load = [], engine.load

    def watched(*arguments):
        gc.collect()
        assert [runner() for runner in runners] == [None] * len(runners)
        found = load(*arguments)
        runners.append(weakref.ref(found))
        return found

    monkeypatch.setattr(engine, "load", watched)
    run({"test.jsonl": jsonl(sorted_rows(20))}, source=levelled, against=other)
    assert len(runners) == 2


def test_labels_in_another_order_are_the_same_labels(run, yard, levelled, tmp_path):
    from safetensors.torch import load_file, save_file

    turned = tmp_path / "turned"
    shutil.copytree(levelled.path, turned)
    config = json.loads((turned / "config.json").read_text())
    config |= {"id2label": {"0": "pos", "1": "neg"}, "label2id": {"pos": 0, "neg": 1}}
    (turned / "config.json").write_text(json.dumps(config))
    weights = load_file(turned / "model.safetensors")
    flipped = {name: value.flip(0).contiguous() if name.startswith("classifier.") else value for name, value in weights.items()}
    save_file(flipped, turned / "model.safetensors", metadata={"format": "pt"})
    _, document, _ = run({"test.jsonl": jsonl(sorted_rows(60))}, source=levelled, against=artifact(yard, "model", turned))
    assert len({*document["against"]["digests"].values()}) == 2
    assert document["metrics"]["accuracy"]["difference"]["value"] == 0.0
    assert document["against"]["changed"] == {"fixed": 0, "broken": 0, "other": 0}


@pytest.mark.parametrize("labels", [["neg", "positive"], ["neg", "neutral", "pos"]])
def test_models_of_different_labels_are_not_compared(run, yard, levelled, tmp_path, labels):
    stranger = artifact(yard, "model", tiny_model(tmp_path / "stranger", labels))
    with pytest.raises(BadData, match="different labels") as refused:
        run({"test.jsonl": jsonl(sorted_rows(20))}, source=levelled, against=stranger)
    assert refused.value.exit_code == 65
    assert stranger.digest in refused.value.where
    assert ", ".join(labels) in refused.value.why


def test_interrupted_in_the_second_model_the_first_is_not_run_again(run, levelled, other, monkeypatch):
    monkeypatch.setattr(TextClassification, "window", 16)
    files = {"test.jsonl": jsonl(sorted_rows(40))}
    whole = run(files, source=levelled, against=other)[0]
    classify, calls = engine.Engine.answer, []

    def fail_at_fifth(self, texts, tick):
        calls.append(len(texts))
        if len(calls) == 5:
            raise MemoryError
        return classify(self, texts, tick)

    monkeypatch.setattr(engine.Engine, "answer", fail_at_fifth)
    with pytest.raises(MemoryError):
        run(files, number=1, source=levelled, against=other)
    again = run(files, number=1, source=levelled, against=other)[0]
    assert calls == [16, 16, 8, 16, 16, 16, 8]
    for name in ("metrics.json", "predictions.jsonl"):
        assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_of_two_models_rows_that_only_one_can_answer_are_counted_and_left_out(run, levelled, other, monkeypatch):
    prepare, encoders = TextClassification.prepare, []

    def choosy(self, rows, encoder, max_length):
        encoders.extend([] if encoder in encoders else [encoder])
        unable = {texts(60)[place]: f"model {number} cannot" for number, place in ((0, 3), (1, 7), (1, 8))}
        mine = f"model {encoders.index(encoder)} cannot"
        return [mine if unable.get(row["text"]) == mine else item for row, item in zip(rows, prepare(self, rows, encoder, max_length), strict=True)]

    monkeypatch.setattr(TextClassification, "prepare", choosy)
    files = {"test.jsonl": jsonl(sorted_rows(60))}
    _, document, predictions = run(files, source=levelled, against=other)
    assert [record["row"] for record in predictions] == [row for row in range(60) if row not in {3, 7, 8}]
    assert document["rows"]["evaluated"] == document["metrics"]["accuracy"]["n"] == document["against"]["metrics"]["accuracy"]["n"] == 57
    assert document["rows"]["faults"] == {"model 0 cannot": 1, "model 1 cannot": 2}
    encoders.clear()
    with pytest.raises(BadData, match="3 of 60 rows") as refused:
        run(files, number=1, source=levelled, against=other, max_error_rate=0.04)
    assert "model 1 cannot: 2" in refused.value.why


def test_two_labels_of_one_name_stay_two(run, yard, tmp_path):
    """As the cranes of ImageNet: what the other model says of the second is not what it says of the first."""
    twice = ["crane", "pos", "crane"]
    first, second = (artifact(yard, "model", level(tiny_model(tmp_path / str(seed), twice, seed=seed), texts(60))) for seed in (0, 5))
    files = {"test.jsonl": jsonl([{"text": text, "label": "crane"} for text in texts(60)])}
    alone = run(files, source=second)[1]["metrics"]["accuracy"]["value"]
    document = run(files, number=1, source=first, against=second)[1]
    assert 0 < alone < 1
    assert document["against"]["metrics"]["accuracy"]["value"] == alone


def test_rows_that_fail_late_have_no_latency(run, levelled, monkeypatch):
    prepare = TextClassification.prepare
    monkeypatch.setattr(
        TextClassification,
        "prepare",
        lambda self, rows, *more: ["late" if row["text"] == "bad" else item for row, item in zip(rows, prepare(self, rows, *more), strict=True)],
    )
    rows = [*sorted_rows(18), {"text": "bad", "label": "neg"}]
    context, _, _ = run({"test.jsonl": jsonl(rows[::-1])}, source=levelled)
    assert context.details["latency"]["n"] == engine.TIMED - 1


def test_a_slice_by_a_declared_label_says_its_names(run, tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Value("string"), "shop": datasets.ClassLabel(names=["north", "south"])}
    )
    rows = {"text": texts(12), "label": LABELS * 6, "shop": [0, 0, 1, -1] * 3}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test.parquet")
    _, document, _ = run({"test.parquet": (tmp_path / "test.parquet").read_bytes()}, slice_by="shop")
    assert [(part["name"], part["n"]) for part in document["slices"][1]["parts"]] == [("north", 6), ("south", 3), ("None", 3)]
