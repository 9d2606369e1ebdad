"""Which type the training computes in, with the reason.

Weights, gradients and optimizer stay float32 whatever is decided: a lower type is autocast's, within the forward pass. float16 takes a GradScaler,
since small gradients vanish in it; bfloat16 has float32's range and needs none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A decision. name: as torch has it."""

    name: str
    reason: str

    @property
    def scaled(self) -> bool:
        """Whether gradients need a scaler."""
        return self.name == "float16"

    def autocast(self, device: str) -> AbstractContextManager[object]:
        """What the forward pass runs in. A fresh one each time: it keeps casts of the weights, which every optimizer step makes stale."""
        return nullcontext() if self.name == "float32" else torch.autocast(device, getattr(torch, self.name))


def decide(asked: str, device: str) -> Precision:
    """The type for a step that asks for `asked` ("auto" or a name) on `device` ("cpu", "cuda")."""
    if asked == "float32":
        return Precision("float32", "asked for")
    if device == "cpu":
        if asked == "auto":
            return Precision("float32", "exact, and the default on a CPU")
        if asked == "bfloat16" and has_bfloat16("cpu"):
            return Precision("bfloat16", "asked for, and the CPU has instructions for it")
        return Precision("float32", f"{asked} was asked for, and this CPU has no instructions to train in it")
    if asked == "float16":
        return Precision("float16", "asked for; with a gradient scaler")
    if has_bfloat16(device):
        return Precision("bfloat16", "asked for" if asked == "bfloat16" else "the accelerator has it; float32's range, so no gradient scaler")
    return Precision("float16", "the accelerator has no bfloat16; with a gradient scaler")


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())  # the only question that torch answers about it
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
