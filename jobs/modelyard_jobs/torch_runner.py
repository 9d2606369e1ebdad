"""A model in torch, as finetune or a hub leaves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from modelyard.yard import Artifact
from modelyard_jobs import dispatch, models
from modelyard_jobs.context import Context
from modelyard_jobs.engine import OutOfMemory
from modelyard_jobs.finetune.precision import has_bfloat16
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks.task import ImageEncoder, Item, Task, TextEncoder


class TorchRunner:
    """One forward pass for each batch, on one device."""

    name = "torch"

    def __init__(self, task: Task, loaded: Loaded, device: str) -> None:
        self.task, self.model, self.tokenizer, self.device = task, loaded.to(device), loaded.tokenizer, device
        self.encoder: TextEncoder | ImageEncoder = loaded.encoder
        self.labels = loaded.labels

    def raws(self, items: Sequence[Item]) -> list[Any]:
        """The task's raws of one batch."""
        return self.task.raws(self.run(self.task.collate(items, self.encoder)), items)

    def run(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs for one batch, those that the task reads."""
        mask = arrays.get("attention_mask")
        if mask is not None and mask.all():  # there is nothing to hide, and SDPA has its faster kernels then
            arrays = {name: array for name, array in arrays.items() if name != "attention_mask"}
        try:
            with torch.inference_mode():
                tensors = {name: self._moved(torch.from_numpy(array)) for name, array in arrays.items()}
                if "pixel_values" in tensors:
                    tensors["pixel_values"] = tensors["pixel_values"].to(self.model.dtype)
                found = self.outputs(tensors)
                return {name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy() for name, tensor in found.items()}
        except RuntimeError as error:
            if not dispatch.no_room(error):
                raise
            why = str(error).splitlines()[0]
        # Outside of the handler: the exception's traceback holds the tensors that are to be freed.
        torch.cuda.empty_cache()
        raise OutOfMemory(why)

    def outputs(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the task reads, of one batch on the device."""
        found = self.model(**tensors)
        return {name: getattr(found, name) for name in self.task.outputs}

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        # From pinned memory the copy goes on while the host already queues what computes.
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else tensor.to(self.device)


def load(task: Task, source: Artifact, context: Context, decide: Callable[[str, Any, str], None]) -> TorchRunner:
    """The artifact's model and what goes with it; BadData where it has no trained head."""
    dtype, reason = _dtype(context.settings.dtype, context.device)
    decide("dtype", str(dtype).removeprefix("torch."), reason)
    loaded = models.load(task, source, None, dtype, dispatch.place(context, decide))
    if task.name == "text-generation":
        from modelyard_jobs import generate

        return generate.runner(task, loaded, context)
    if task.name == "fill-mask":
        from modelyard_jobs.masked import MaskedRunner

        return MaskedRunner(task, loaded, context.device)
    return TorchRunner(task, loaded, context.device)


def _dtype(asked: str, device: str) -> tuple[torch.dtype, str]:
    if asked == "float32":
        return torch.float32, "labels and probabilities are those of the weights as they are stored, on every device"
    if asked == "auto":
        if device != "cpu" and has_bfloat16(device):
            return torch.bfloat16, "the accelerator has it, and the step allows it"
        return torch.float32, "the default where the device has no bfloat16, or is a CPU"
    return getattr(torch, asked), "asked for"
