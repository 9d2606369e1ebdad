"""AdamW and its learning rate.

The rate is a function of the step alone (linear warm-up, linear decay), so that a resumed run has no scheduler to restore.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def build(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, in one kernel for all, over the trainable parameters of `model`; biases and norms are not decayed."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Biases, and the gains of norms of every kind, are the parameters of one dimension.
    decayed, plain = ([parameter for parameter in trained if (parameter.ndim < 2) is flat] for flat in (False, True))
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


def rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Learning rate of optimizer step `step` (from 0) of `total`: up to `peak` over the share `warmup`, then down, and above zero at both ends.

    A rate of zero would make the first step, or the last, a wasted pass over its rows.
    """
    rising = int(warmup * total)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * (total - step) / (total - rising)
