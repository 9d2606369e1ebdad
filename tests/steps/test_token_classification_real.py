"""Token classification on real words and with a real model: addresses that people have labelled, and a tagger of private data."""

from __future__ import annotations

import json

import pytest

from modelyard.steps import Evaluate, Export, Finetune, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, export, finetune, infer
from tests.steps import real
from tests.steps.fake import FakeContext, artifact


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    return Yard.open(tmp_path_factory.mktemp("real") / "yard")


@pytest.fixture(scope="module")
def addresses(yard):
    rows = [{"tokens": words, "tags": tags} for words, tags in real.addresses()]
    held_out = set(range(0, len(rows), 5))
    files = {
        "train.jsonl": jsonl(row for place, row in enumerate(rows) if place not in held_out),
        "test.jsonl": jsonl(row for place, row in enumerate(rows) if place in held_out),
    }
    return artifact(yard, "dataset", files)


@pytest.mark.slow  # minutes for each seed
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_addresses_are_learnt(yard, addresses, tmp_path, seed):
    base = artifact(yard, "model", real.minilm())
    settings = Finetune(
        model="m", data="d", task="token-classification", epochs=4, batch_size=16, learning_rate=3e-4, max_length=64, seed=seed, checkpoint_every=3600
    )
    training = FakeContext(settings, {"model": base, "data": addresses}, yard, tmp_path / "training", key=f"{seed:064x}")
    finetune.run(training)
    tuned = artifact(yard, "model", training.out, "safetensors")
    measuring = FakeContext(
        Evaluate(model="m", data="d"), {"model": tuned, "data": addresses}, yard, tmp_path / "measuring", key=f"{seed + 100:064x}"
    )
    evaluate.run(measuring)
    document = json.loads((measuring.out / "metrics.json").read_text())
    assert document["metrics"]["f1"]["value"] >= 0.87
    assert document["rows"]["evaluated"] == 303
    assert document["words"]["cut_off"] == 0
    house = next(each for each in document["classes"] if each["label"] == "AddressNumber")
    assert house["f1"]["value"] > 0.9


SENTENCES = (
    "My name is Maria Gonzalez and I live at 42 Baker Street, Springfield, IL 62704.",
    "Write to jane.doe@example.com or call 555-010-1234 before Friday.",
    "Nothing private stands here.",
    "Ship it to 1600 Amphitheatre Parkway, Mountain View, CA 94043, to the attention of Robert Chen.",
)


@pytest.mark.slow
def test_the_packaged_tagger_says_the_same_under_both_engines(yard, addresses, tmp_path):
    tagger = artifact(yard, "model", real.rampart())
    texts = artifact(
        yard, "dataset", {"test.jsonl": jsonl({"text": text} for text in (*SENTENCES, *(" ".join(words) for words, _ in real.addresses()[:300])))}
    )
    said = {}
    exporting = FakeContext(Export(model="m", parity="d", rows=200), {"model": tagger, "parity": texts}, yard, tmp_path / "export", key=f"{1:064x}")
    export.run(exporting)
    exported = artifact(yard, "model", exporting.out, "onnx")
    for number, (engine, model) in enumerate({"torch": tagger, "onnx": exported}.items(), 2):
        context = FakeContext(Infer(model="m", data="d"), {"model": model, "data": texts}, yard, tmp_path / engine, key=f"{number:064x}")
        infer.run(context)
        assert context.decisions["engine"] == engine
        (file,) = (context.out / "data").iterdir()
        said[engine] = [json.loads(line) for line in file.open()]
    labels = {engine: [[(span["label"], span["text"]) for span in record["spans"]] for record in records] for engine, records in said.items()}
    assert labels["torch"] == labels["onnx"]
    assert [max((span["score"] for span in record["spans"]), default=0) for record in said["torch"]] == pytest.approx(
        [max((span["score"] for span in record["spans"]), default=0) for record in said["onnx"]], abs=1e-4
    )
    first, second, third, fourth = (dict(found) for found in labels["torch"][:4])
    assert first == {
        "GIVEN_NAME": "Maria",
        "SURNAME": "Gonzalez",
        "BUILDING_NUMBER": "42",
        "STREET_NAME": "Baker Street",
        "CITY": "Springfield",
        "STATE": "IL",
        "ZIP_CODE": "62704",
    }
    assert set(second) == {"EMAIL"}
    assert third == {}
    assert (fourth["ZIP_CODE"], fourth["SURNAME"]) == ("94043", "Chen")
    found = [{label for label, _ in spans} for spans in labels["torch"][4:]]
    true = [{tag[2:] for tag in tags} for _, tags in real.addresses()[:300]]
    numbered = [place for place, tags in enumerate(true) if "AddressNumber" in tags]
    assert sum("BUILDING_NUMBER" in found[place] for place in numbered) / len(numbered) > 0.8
