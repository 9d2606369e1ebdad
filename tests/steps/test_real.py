"""What real.py gives is what the tests that use it were written for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.steps import real


def test_movie_snippets_are_rated_sentences() -> None:
    rows = real.movie_snippets()
    assert len(rows) == 5242 + 5326
    assert sum(rating > 0 for _, rating in rows) == 5242
    assert rows[0][0].strip() == rows[0][0]


def test_addresses_have_a_tag_for_each_word() -> None:
    rows = real.addresses()
    assert len(rows) == 1513
    assert all(len(words) == len(tags) > 0 for words, tags in rows)
    assert rows[1] == (["3600", "West", "5th", "Ave"], ["B-AddressNumber", "B-StreetNamePreDirectional", "B-StreetName", "B-StreetNamePostType"])
    tags = Counter(tag for _, tags in rows for tag in tags)
    assert len(tags) == 51
    assert rows[0][1][2:7] == ["B-StreetName", *["I-StreetName"] * 4]


def test_fashion_has_as_many_of_each_kind() -> None:
    splits = real.fashion()
    for name, count in (("train", 6000), ("test", 1000)):
        images, labels = splits[name]
        assert images.shape == (10 * count, 28, 28)
        assert np.bincount(labels).tolist() == [count] * 10


def test_the_encoder_is_whole() -> None:
    config = json.loads((real.minilm() / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("bert", 6, 384)
    assert (real.minilm() / "model.safetensors").stat().st_size > 90_000_000


def test_the_tagger_answers_as_the_graph_that_it_was_read_from() -> None:
    import onnxruntime
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    folder = real.rampart()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    inputs = tokenizer("My name is Maria Gonzalez and I live at 42 Baker Street, Springfield, IL 62704.", return_tensors="pt")
    with torch.inference_mode():
        ours = model(**inputs).logits.numpy()
    session = onnxruntime.InferenceSession(folder / "onnx" / "model_q4.onnx")
    names = {each.name for each in session.get_inputs()}
    (theirs,) = session.run(["logits"], {name: value.numpy() for name, value in inputs.items() if name in names})
    assert np.abs(ours - theirs).max() < 1e-4
    said = {model.config.id2label[place] for place in ours[0].argmax(-1)}
    assert {"B-GIVEN_NAME", "B-SURNAME", "B-BUILDING_NUMBER", "B-CITY", "B-STATE", "B-ZIP_CODE"} <= said


@pytest.mark.slow  # half a minute where it is converted, and 2 GB
def test_the_chat_model_knows_a_capital() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real.smollm2()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        said = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(said[0])
    assert tokenizer.chat_template


def test_other_bytes_than_those_pinned_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "CACHE", tmp_path)
    monkeypatch.setattr(real, "USADDRESS", real.Package("usaddress", "0.5.16", "0" * 64, source=True))
    with pytest.raises(pytest.fail.Exception, match="HASHES|hashes"):
        real.addresses()
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_an_index_skips_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "CACHE", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(pytest.skip.Exception, match="no package index"):
        real.addresses()


def test_what_was_changed_in_the_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = real._downloaded(real.USADDRESS)
    folder = tmp_path / archive.parent.name
    folder.mkdir()
    (folder / archive.name).write_bytes(archive.read_bytes()[:-1])
    monkeypatch.setattr(real, "CACHE", tmp_path)
    with pytest.raises(AssertionError, match="not what it was"):
        real.addresses()
