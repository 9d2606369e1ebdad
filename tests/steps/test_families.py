"""Open families of language models, at toy size, from their own configurations: they generate, learn, are measured, and are loaded again."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelyard.steps import Evaluate, Finetune, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, finetune
from tests.steps.chatting import FAMILIES, chat, language_model, one_by_one, runner, save
from tests.steps.fake import FakeContext, artifact

ROWS = [{"messages": chat(f"what is {number}?", "abcde"[number % 5] * 2)} for number in range(16)]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_generates_what_each_prompt_does_alone(family):
    made = runner(language_model(family, spread=0.3), Infer(model="m", data="d", max_new_tokens=12))
    # Longer than the sliding windows, and of many lengths.
    rows = [{"prompt": "ab " * count} for count in (1, 9, 3, 14, 5)] + [{"messages": chat("hello")}]
    items = made.task.prepare(rows, made.encoder, 256)
    prompts = [item.values.ids.tolist() for item in items]
    made.stops = one_by_one(made.model, prompts[:1], 12, [])[0][3:4]
    alone = one_by_one(made.model, prompts, 12, made.stops)
    assert [raw["tokens"].tolist() for raw in made.raws(items)] == alone
    assert len(alone[0]) < max(map(len, alone)) == 12  # some end, and the others go on


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_and_what_it_learnt_is_loaded_and_measured(family, method, tmp_path):
    yard = Yard.open(tmp_path / "yard")
    base = artifact(yard, "model", save(language_model(family, spread=0.1), tmp_path / "base"))
    rows = artifact(yard, "dataset", {"train.jsonl": DATA, "test.jsonl": DATA})
    settings = Finetune(
        model="m", data="d", task="text-generation", method=method, lora_rank=4, max_steps=6, batch_size=8, learning_rate=1e-2, train_rows=16
    )
    context = FakeContext(settings, {"model": base, "data": rows}, yard, tmp_path / "tuned")
    finetune.run(context)
    losses = [point["loss"] for point in context.details["history"]["train"]]
    assert losses[-1] < losses[0] - 0.1

    tuned, before = AutoModelForCausalLM.from_pretrained(context.out).eval(), AutoModelForCausalLM.from_pretrained(base.path).eval()
    assert type(tuned) is type(before)
    names = {name for name, _ in tuned.named_parameters()}
    assert names == {name for name, _ in before.named_parameters()}
    ids = AutoTokenizer.from_pretrained(context.out).apply_chat_template(chat("what is 3?", "dd"), return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert tuned(ids, labels=ids).loss < before(ids, labels=ids).loss

    asked = {"model": artifact(yard, "model", context.out, "safetensors"), "against": base, "data": rows}
    measuring = FakeContext(Evaluate(model="m", data="d", against="a"), asked, yard, tmp_path / "measured", key="cd" * 32)
    evaluate.run(measuring)
    found = json.loads((measuring.out / "metrics.json").read_text())
    assert (found["task"], found["rows"]["evaluated"]) == ("text-generation", 16)
    gained = found["metrics"]["log_likelihood"]["difference"]
    mine, theirs = (part["metrics"]["log_likelihood"]["value"] for part in (found, found["against"]))
    assert 0 < gained["low"] <= gained["value"] == pytest.approx(mine - theirs)
