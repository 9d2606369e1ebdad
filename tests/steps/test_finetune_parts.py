"""What the training loop is made of, each by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from modelyard.yard import Yard
from modelyard_jobs.finetune import export, optimizer, precision
from modelyard_jobs.finetune.order import Order, split
from modelyard_jobs.metrics import classification
from tests.steps.fake import artifact
from tests.steps.tiny import tiny_tokenizer


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(3, 200, 1003)


def test_every_epoch_is_a_permutation_of_all_rows(lengths):
    order = Order(lengths, 16, 42, "d")
    for epoch in range(4):
        batches = order.epoch(epoch)
        assert len(batches) == order.steps == 63
        assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
        assert sorted({len(batch) for batch in batches}) == [1003 % 16, 16]


@pytest.mark.parametrize(("seed", "epoch", "digest"), [(43, 0, "d"), (42, 1, "d"), (42, 0, "e")])
def test_order_is_a_function_of_seed_epoch_and_rows(lengths, seed, epoch, digest):
    def rows(seed, epoch, digest):
        return np.concatenate(Order(lengths, 16, seed, digest).epoch(epoch)).tolist()

    assert rows(42, 0, "d") == rows(42, 0, "d")
    assert rows(42, 0, "d") != rows(seed, epoch, digest)


def test_batches_hold_rows_of_like_length_and_come_in_any_order_of_length(lengths):
    batches = Order(lengths, 16, 42, "d").epoch(0)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.05 * lengths.sum()
    longest = [lengths[batch].max() for batch in batches]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


@pytest.mark.parametrize(
    ("most_rows", "most_tokens", "expected"),
    [
        (8, 10**9, [[3, 1, 4, 0, 2]]),
        (2, 10**9, [[3, 1], [4, 0], [2]]),
        (8, 20, [[3, 1], [4, 0], [2]]),  # 3 + 5 -> 10, 9 + 9 -> 18; 30 alone exceeds the bound
        (8, 1, [[3], [1], [4], [0], [2]]),
    ],
)
def test_split_keeps_its_bounds_and_every_row(most_rows, most_tokens, expected):
    lengths = np.array([9, 5, 30, 3, 9])
    assert [part.tolist() for part in split(np.array([4, 3, 2, 1, 0]), lengths, most_rows, most_tokens)] == expected


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 0.9), (10, 0.0), (100, 0.1), (7, 0.5)])
def test_rate_rises_then_falls_and_wastes_no_step(total, warmup):
    rates = [optimizer.rate(step, total, 2e-5, warmup) for step in range(total)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(2e-5)
    assert all(rate > 0 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak == int(warmup * total)


def test_biases_and_norms_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    model[0].weight.requires_grad_(False)  # a frozen weight is not the optimizer's
    decayed, plain = optimizer.build(model, 0.01).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert {id(parameter) for parameter in decayed["params"]} == {id(model[1].weight)}
    assert {id(parameter) for parameter in plain["params"]} == {id(model[1].bias), id(model[2].weight), id(model[2].bias)}


@pytest.mark.parametrize(
    ("asked", "device", "has", "name", "why"),
    [
        ("auto", "cpu", True, "float32", "default on a CPU"),
        ("float32", "cuda", True, "float32", "asked for"),
        ("bfloat16", "cpu", True, "bfloat16", "asked for"),
        ("bfloat16", "cpu", False, "float32", "bfloat16 was asked for"),
        ("float16", "cpu", True, "float32", "float16 was asked for"),
        ("auto", "cuda", True, "bfloat16", "no gradient scaler"),
        ("auto", "cuda", False, "float16", "has no bfloat16"),
        ("bfloat16", "cuda", False, "float16", "has no bfloat16"),
        ("float16", "cuda", True, "float16", "with a gradient scaler"),
    ],
)
def test_dtype_is_decided_with_a_reason(monkeypatch, asked, device, has, name, why):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: has)
    decided = precision.decide(asked, device)
    assert decided.name == name
    assert why in decided.reason
    assert decided.scaled == (name == "float16")


@pytest.mark.parametrize("seed", range(4))
def test_macro_f1_is_scikit_learns(seed):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, 4, 30), random.integers(1, 6, 30)
    counts = classification.confusion(truth, predicted, 6)
    found = classification.scores(counts)["f1_macro"]
    assert found == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))


@pytest.mark.parametrize(("written", "kept"), [({}, "[SEP]"), ({"pad_token": None}, "[SEP]"), ({"pad_token": "[UNK]"}, "[UNK]")])
def test_the_token_that_was_padded_with_is_written_where_the_model_names_none(tmp_path, written, kept):
    from transformers import AutoTokenizer

    tiny_tokenizer(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.pad_token = "[SEP]"
    config = tmp_path / "base" / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("pad_token", None)
    config.write_text(json.dumps(settings | written))
    (out := tmp_path / "out").mkdir()
    (out / "config.json").write_text("{}")
    export.accompany(tokenizer, artifact(Yard.open(tmp_path / "yard"), "model", tmp_path / "base"), out)
    assert json.loads((out / "tokenizer_config.json").read_text())["pad_token"] == kept
