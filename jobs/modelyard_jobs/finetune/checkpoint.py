"""What a training run is, at the boundary between two optimizer steps: enough to go on as if nothing had happened.

    weights.safetensors    parameters that are trained, and kept buffers, by name, float32
    optimizer.safetensors  <parameter>/<quantity>
    state.json             Progress, the scaler, the generators of torch, of the device, of numpy and of python, and the parameters of the run

The learning rate is a function of the step and the order one of seed and epoch, so neither has state. Safetensors and JSON: reading runs no code.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run is. Epochs are counted from 0 while they run; `epoch` of them are finished."""

    micro: int
    """Rows of one forward pass; what is left of `batch_size` after memory ran out."""
    step: int = 0
    """Optimizer steps over all epochs. Those of the present epoch are all done: its validation is due."""
    epoch: int = 0
    best_epoch: int = 0
    """1 for the first; 0: none was measured."""
    best_value: float = 0.0
    best_loss: float = 0.0
    window: list[float] = field(default_factory=list)
    """Losses of the steps that the log has not got yet."""
    curve: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    trained: int = 0
    """Rows over all epochs."""
    tokens: int = 0
    padded: int = 0
    """Tokens with padding."""
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds of those in which batches were made and moved to the device."""
    validated: float = 0.0
    """Seconds spent on validation, not part of `seconds`."""
    resumed: list[int] = field(default_factory=list)
    """Steps from which a later attempt went on."""


@dataclass(frozen=True)
class Machinery:
    """What changes from step to step, beside the progress."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Any
    device: str


class Moment:
    """What a forward pass changes, as it is now: generators, and the model's own counts and averages. `restore` makes the pass undone."""

    def __init__(self, device: str, buffers: Iterable[torch.Tensor] = ()) -> None:
        self.host = torch.get_rng_state()
        self.device = torch.cuda.get_rng_state() if device == "cuda" else None
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]

    def restore(self) -> None:
        """Make everything as it was."""
        set_generators(self.host, self.device)
        for buffer, value in self._buffers:
            buffer.copy_(value)


def set_generators(host: torch.Tensor, device: torch.Tensor | None) -> None:
    """Go on with random numbers from there."""
    torch.set_rng_state(host)
    if device is not None:
        torch.cuda.set_rng_state(device)


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that belong to the model's state; others are made anew with the model."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


def write(folder: Path, machinery: Machinery, progress: Progress, run: Mapping[str, Any]) -> None:
    """Write all of it into the empty `folder`. run: the parameters that a run must share to go on from here."""
    write_weights(folder, machinery.model)
    quantities = {}
    for name, parameter in machinery.model.named_parameters():
        for quantity, value in machinery.optimizer.state.get(parameter, {}).items():
            quantities[f"{name}/{quantity}"] = value.contiguous()
    save_file(quantities, folder / OPTIMIZER)
    now = Moment(machinery.device)
    generators = {"torch": now.host, "device": now.device, "numpy": np.random.get_state(legacy=False), "python": random.getstate()}
    state = {"run": run, "progress": asdict(progress), "scaler": machinery.scaler.state_dict(), "generators": generators}
    (folder / STATE).write_text(json.dumps(state, default=lambda numbers: numbers.tolist()), encoding="utf-8")


def look(folder: Path, run: Mapping[str, Any]) -> Progress | None:
    """How far the checkpoint's run had come; None when it is that of another run."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return Progress(**state["progress"]) if state["run"] == json.loads(json.dumps(run)) else None


def restore(folder: Path, machinery: Machinery) -> None:
    """Put back what `write` wrote, the progress excepted."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    read_weights(folder, machinery.model)
    parameters = dict(machinery.model.named_parameters())
    for key, value in load_file(folder / OPTIMIZER).items():
        name, _, quantity = key.rpartition("/")
        # Where the weight is: a model may lie on several devices.
        machinery.optimizer.state[parameters[name]][quantity] = value.to(parameters[name].device)
    if state["scaler"]:
        machinery.scaler.load_state_dict(state["scaler"])
    generators = state["generators"]
    set_generators(*(generators[name] and torch.tensor(generators[name], dtype=torch.uint8) for name in ("torch", "device")))
    np.random.set_state(generators["numpy"])
    version, words, gauss = generators["python"]
    random.setstate((version, tuple(words), gauss))


def write_weights(folder: Path, model: nn.Module) -> None:
    """The weights alone: what the best epoch is kept as."""
    save_file({name: value.detach().contiguous() for name, value in _tensors(model).items()}, folder / WEIGHTS)


def read_weights(folder: Path, model: nn.Module) -> None:
    """The reverse of `write_weights`, in place."""
    saved = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, value in _tensors(model).items():
            value.copy_(saved[name])


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, and therefore all that is saved of a model; tied parameters once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad} | buffers(model)
