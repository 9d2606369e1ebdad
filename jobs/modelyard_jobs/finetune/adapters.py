"""LoRA: adapters of low rank in a model's linear layers, trained in place of its weights and merged into them at the end (Hu et al., 2021).

A head that the task gave the model is trained whole; the embedding of a language model's words is left as it is. Without dropout, so that merging
changes no answer but by rounding. Merged weights are files that everything loads; the adapters alone lie beside them, with the digest of their base.
Not covered: quantised weights, experts that are kept as one tensor for all (no linear layers), adapters that came with the model. What loads the
adapters of a model of experts must put them where adapter_config.json says: peft itself may read it as one of the time when experts were layers.
"""

from __future__ import annotations

import json
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
    """What was put into a model. targets: last parts of the names of the layers. trained: weights that learn. reason: why these layers."""

    config: Any
    targets: tuple[str, ...]
    trained: int
    reason: str


def attach(model: Any, rank: int) -> Adapters:
    """Put new adapters into `model`, which then answers as before; all other weights but those of a new head stand still.

    Raises BadData: the model has no linear layers.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    embedding = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    body = {id(module) for module in model.base_model.modules()}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    inside = [name for name, module in linear.items() if id(module) in body and module is not embedding]
    if not inside:
        raise BadData("the model has no linear layers for adapters", why=type(model).__name__, remedy="method: full")
    targets = tuple(sorted({name.rpartition(".")[2] for name in inside}))
    outside = [name for name in linear if name not in inside]
    body_name = f"{model.base_model_prefix}."
    head = [] if embedding is not None else [parameter for name, parameter in model.named_parameters() if not name.startswith(body_name)]
    turned = isinstance(linear[inside[0]], Conv1D)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), exclude_modules=outside or None, fan_in_fan_out=turned)
    weights = sum(parameter.numel() for parameter in model.parameters())
    # In a list, so that peft does not see which model it is: for some of experts it would move the adapters of dense layers to the experts.
    inject_adapter_in_model(config, nn.ModuleList([model]))
    for parameter in head:
        parameter.requires_grad_(True)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    covered = sum(linear[name].weight.numel() for name in inside)
    share = f"they hold {covered / weights:.0%} of the weights, and what is trained is as many as {trained / weights:.2%} of those"
    reason = f"all {len(inside)} linear layers but the head: {share}"
    return Adapters(config, targets, trained, reason)


def merge(model: Any, adapters: Adapters, base: str, out: Path) -> None:
    """Write the adapters into `out`/adapter, and add them to the weights of `model`, which is then as it was before `attach`.

    base: digest of the model that they were put into.
    """
    from peft.tuners.lora import LoraLayer

    folder = out / FOLDER
    folder.mkdir()
    weights = {name.replace(".default.", "."): weight.detach().contiguous().cpu() for name, weight in model.named_parameters() if ".lora_" in name}
    save_file({f"base_model.model.{name}": weight for name, weight in weights.items()}, folder / "adapter_model.safetensors", {"format": "pt"})
    adapters.config.base_model_name_or_path = base
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in adapters.config.to_dict().items()}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
