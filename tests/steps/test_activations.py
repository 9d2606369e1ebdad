"""Activations that are computed again: the gradients are the same, and a model whose class cannot do it is refused in words."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from modelyard.errors import BadData
from modelyard.steps import Finetune
from modelyard.yard import Yard
from modelyard_jobs import finetune
from modelyard_jobs.finetune import adapters
from modelyard_jobs.finetune import step as step_module
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_model

SIZES = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "pad_token_id": 0}


class Told:
    """A context that only remembers decisions."""

    def __init__(self) -> None:
        self.decided: dict[str, Any] = {}
        self.inputs = {"model": SimpleNamespace(digest="d" * 64)}

    def decide(self, name: str, value: Any, reason: str) -> None:
        self.decided[name] = value


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, hidden_dropout_prob=0.3))


def llama_with_adapters() -> Any:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, bos_token_id=1, eos_token_id=2))
    adapters.attach(model, 4)
    return model


def gradients(model: Any) -> tuple[dict[str, torch.Tensor], int]:
    """(the gradient of each weight that learns, forward passes of the first block's first layer), with dropout."""
    passes = []
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    layer = next(module for module in blocks[0].modules() if isinstance(module, torch.nn.Linear))
    handle = layer.register_forward_pre_hook(lambda *_: passes.append(1))
    model.train().zero_grad()
    torch.manual_seed(3)
    ids = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids).logits.logsumexp(-1).sum().backward()
    handle.remove()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}, len(passes)


@pytest.mark.parametrize("make", [bert, llama_with_adapters])
def test_gradients_are_the_same_with_and_without(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    kept, once = gradients(model)
    told = Told()
    step_module._compute_again(told, model)
    again, twice = gradients(model)
    assert (once, twice) == (1, 2)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert any(gradient.abs().max() > 0 for gradient in kept.values())
    assert told.decided == {"activation_checkpointing": True}


def test_a_class_that_cannot_is_refused_in_words() -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2)
    with pytest.raises(BadData, match="cannot compute its activations again") as raised:
        step_module._compute_again(Told(), transformers.ResNetForImageClassification(config))
    assert "ResNetForImageClassification" in raised.value.why
    assert "activation_checkpointing: false" in raised.value.remedy


def test_the_step_makes_the_same_model(tmp_path: Path) -> None:
    yard = Yard.open(tmp_path / "yard")
    chance = random.Random(0)
    rows = "".join(f"{' '.join(chance.choices(WORDS, k=6))} {word},{word}\n" for word in ("good", "bad") * 16)
    inputs = {
        "model": artifact(yard, "model", tiny_model(tmp_path / "base", spread=0.1)),
        "data": artifact(yard, "dataset", {"train.csv": "text,label\n" + rows}),
    }
    made = []
    for again in (False, True):
        step = Finetune(model="m", data="d", epochs=1, batch_size=8, learning_rate=1e-3, max_length=16, activation_checkpointing=again)
        context = FakeContext(step, inputs, yard, tmp_path / f"work-{again}", key=("cd" if again else "ab") * 32)
        finetune.run(context)
        assert ("activation_checkpointing" in context.decisions) == again
        made.append((context.out / "model.safetensors").read_bytes())
    assert made[0] == made[1]
