"""LoRA: adapters of low rank in a model's linear layers, trained in place of its weights and merged into them at the end (Hu et al., 2021).

A head that the task gave the model is trained whole, as are weights that the base does not have; the embedding of a language model's words is left as
it is. Without dropout, so that merging changes no answer but by rounding. Merged weights are files that everything loads; the adapters alone lie
beside them, with what was trained whole and the digest of their base.
Not covered: quantised weights, experts that are kept as one tensor for all (no linear layers), adapters that came with the model. What loads the
adapters of a model of experts must put them where adapter_config.json says: peft itself may read it as one of the time when experts were layers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from modelyard.errors import BadData

FOLDER = "adapter"
"""In the result, beside the merged weights."""


@dataclass(frozen=True)
class Adapters:
    """What was put into a model.

    targets: last parts of the names of the layers; a whole name where other layers end alike. whole: weights that learn without an adapter.
    trained: how many weights learn. reason: why these layers.
    """

    config: Any
    targets: tuple[str, ...]
    whole: tuple[str, ...]
    trained: int
    reason: str


def attach(model: Any, rank: int, new: Sequence[str] = ()) -> Adapters:
    """Put new adapters into `model`, which then answers as before; all other weights but those of a new head stand still.

    new: names of weights that are not the base's, which stand wherever the model's class has them. Raises BadData: the model has no linear layers.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    embedding = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    body, body_name = {id(module) for module in model.base_model.modules()}, f"{model.base_model_prefix}."
    named = dict(model.named_parameters(remove_duplicate=False))
    fresh = {id(named[name]) for name in new if name in named}
    whole = [name for name, weight in model.named_parameters() if id(weight) in fresh or (embedding is None and not name.startswith(body_name))]
    modules = dict(model.named_modules())
    linear = {name: module for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D)}
    inside = [name for name, module in linear.items() if id(module) in body and module is not embedding and id(module.weight) not in fresh]
    if not inside:
        raise BadData("the model has no linear layers for adapters", why=type(model).__name__, remedy="method: full")
    # Some layers are named by a number alone, as what is no linear layer is too.
    others = {_last(name) for name in modules if name not in linear}
    targets = tuple(sorted({name if _last(name) in others else _last(name) for name in inside}))
    outside = [name for name in linear if name not in inside]
    turned = isinstance(linear[inside[0]], Conv1D)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), exclude_modules=outside or None, fan_in_fan_out=turned)
    weights = sum(parameter.numel() for parameter in model.parameters())
    # In a list, so that peft does not see which model it is: for some of experts it would move the adapters of dense layers to the experts.
    inject_adapter_in_model(config, nn.ModuleList([model]))
    for name in whole:
        model.get_parameter(name).requires_grad_(True)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    covered = sum(linear[name].weight.numel() for name in inside)
    share = f"they hold {covered / weights:.0%} of the weights, and what is trained is as many as {trained / weights:.2%} of those"
    reason = f"all {len(inside)} linear layers but the head: {share}"
    return Adapters(config, targets, tuple(whole), trained, reason)


def merge(model: Any, adapters: Adapters, base: str, out: Path) -> None:
    """Write the adapters into `out`/adapter, and add them to the weights of `model`, which is then as it was before `attach`.

    base: digest of the model that they were put into.
    """
    from peft.tuners.lora import LoraLayer

    folder = out / FOLDER
    folder.mkdir()
    learnt = {name: weight for name, weight in model.named_parameters() if ".lora_" in name or name in adapters.whole}
    weights = {name.replace(".default.", "."): weight.detach().contiguous().cpu() for name, weight in learnt.items()}
    save_file({f"base_model.model.{name}": weight for name, weight in weights.items()}, folder / "adapter_model.safetensors", {"format": "pt"})
    adapters.config.base_model_name_or_path = base
    adapters.config.modules_to_save = sorted({name.rpartition(".")[0] for name in adapters.whole}) or None
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in adapters.config.to_dict().items()}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
