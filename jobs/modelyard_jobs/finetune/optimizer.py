"""AdamW and its learning rate.

The rate is a function of the step alone (linear warm-up, linear decay), so that a resumed run has no scheduler to restore.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

FUSED = ("cpu", "cuda")
"""Devices whose AdamW updates all parameters in one kernel."""


def build(model: nn.Module, weight_decay: float, device: str) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`; biases and norms are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Biases, and the gains of norms of every kind, are the parameters of one dimension.
            (plain if parameter.ndim < 2 else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=device in FUSED)


def rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Learning rate of optimizer step `step` (from 0) of `total`: up to `peak` over the share `warmup`, then down, and above zero at both ends.

    A rate of zero would make the first step, or the last, a wasted pass over its rows.
    """
    rising = int(warmup * total)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * (total - step) / (total - rising)


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """The same rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = value
