"""A model onto the visible accelerators: whole on one where it fits, else in blocks over several, in the host's memory only where the step says so.

The sizes of the blocks come from a skeleton, the model without its weights, so that nothing is loaded before it is known to have a place. Which block
goes where is modelyard.devices.place's choice, which says why, and why not; transformers then loads every weight onto its device, and accelerate
moves rows along. A block is what the model's own class says must stay whole; a class that does not say it is one block. Weights that share memory
stay together.
Not covered: tensor parallelism, quantised weights, several machines. Training never leaves weights in the host's memory: they are written there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelyard.devices import HOST, WHOLE, Block, Placement
from modelyard.devices import place as choose
from modelyard.errors import DeviceOom
from modelyard.quantities import parse_bytes
from modelyard_jobs.cgroup import Cgroup
from modelyard_jobs.context import Context

Place = Callable[[nn.Module], Placement]
"""Skeleton -> where its blocks are to lie. Raises DeviceOom."""

KEPT_FREE = 0.1
"""Share of a device's memory that is not given to weights: rows take it. As transformers' own `auto` has it."""
COPIES = {"full": 4, "lora": 1}
"""Times the memory of its weights that a model takes in training: with AdamW the gradient and two moments; of adapters they are next to nothing."""


def place(context: Context, decide: Callable[[str, Any, str], None], *, method: str | None = None) -> Place | None:
    """How the step's models are to be laid onto its device, each choice written down by `decide`; None on a CPU.

    method: of a training step, how it trains; None for steps that only read weights.
    """
    if context.device == "cpu":
        return None
    settings, copies = context.settings, COPIES[method] if method else 1
    limit = parse_bytes(settings.max_memory_per_gpu) if settings.max_memory_per_gpu else None

    def placed(skeleton: nn.Module) -> Placement:
        there = memory(context.device)
        allowed = {device: size if limit is None else min(size, limit) for device, size in there.items()}
        host = host_memory() if settings.cpu_offload and method is None else None
        try:
            found = choose([Block(block.names, block.size * copies) for block in blocks(skeleton)], allowed, host)
        except DeviceOom as error:
            raise _explained(error, limited=allowed != there, method=method, offload=settings.cpu_offload) from error
        decide("placement", _shown(found), found.reason + (f"; training takes {copies} times the weights" if copies > 1 else ""))
        return found

    return placed


def no_room(error: RuntimeError) -> bool:
    """Whether memory ran out: torch has a class of its own for an accelerator's allocator alone, not for cuBLAS nor for a processor."""
    from accelerate.utils.memory import should_reduce_batch_size  # late: it takes a second

    return isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error) or should_reduce_batch_size(error)


def options(placement: Placement) -> dict[str, Any]:
    """What `from_pretrained` is to be told. For a model on one device nothing: that is made the current one, to which whoever loads it moves it."""
    if placement.parted:
        return {"device_map": device_map(placement)}
    kind, _, number = next(iter(placement.devices)).partition(":")
    torch.get_device_module(kind).set_device(int(number))
    return {}


def device_map(placement: Placement) -> dict[str, str | int]:
    """The placement as `from_pretrained` and accelerate take it: module or weight -> device, accelerators by number."""
    return {name: _numbered(device) for device, names in placement.devices.items() for name in names}


def skeleton(auto: Any, config: Any, dtype: torch.dtype) -> nn.Module:
    """A model of that configuration without memory for its weights. auto: the class of transformers that makes it."""
    with torch.device("meta"):
        made: nn.Module = auto.from_config(copy.deepcopy(config), dtype=dtype)  # which would write the type into it
    return made


def blocks(model: nn.Module) -> list[Block]:
    """What must stay whole, in the order of the model, with the bytes of its weights and buffers."""
    from accelerate.utils import find_tied_parameters

    whole = set(getattr(model, "_no_split_modules", None) or ())
    names = list(_walk(model, "", whole)) if whole else [WHOLE]
    owner = {name: next(part for part in names if _inside(name, part)) for name, _ in _tensors(model)}
    # What shares memory goes with the one that comes first.
    leader = {part: part for part in names}
    for group in find_tied_parameters(model):
        parts = sorted({leader[owner[name]] for name in group}, key=names.index)
        leader = {part: parts[0] if first in parts else first for part, first in leader.items()}
    members: dict[str, list[str]] = {}
    for part in names:
        members.setdefault(leader[part], []).append(part)
    sizes, seen = dict.fromkeys(members, 0), set[int]()
    for name, tensor in _tensors(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            sizes[leader[owner[name]]] += tensor.numel() * tensor.element_size()
    return [Block(tuple(parts), sizes[first]) for first, parts in members.items()]


def memory(device: str) -> dict[str, int]:
    """Accelerator, as torch names it -> bytes that weights may take there now."""
    module = torch.get_device_module(device)
    module.empty_cache()  # what a model before this one has left
    return {f"{device}:{number}": int(module.mem_get_info(number)[0] * (1 - KEPT_FREE)) for number in range(module.device_count())}


def host_memory() -> int:
    """Bytes that weights may take in the host's memory now."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    free = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    group = Cgroup.current()
    limit, used = group.memory_limit(), group.memory_used()
    if limit is not None and used is not None:
        free = min(free, limit - used)
    return max(0, int(free * (1 - KEPT_FREE)))


def _walk(module: nn.Module, path: str, whole: set[str]) -> Iterator[str]:
    """Paths of the modules that stay whole or have no parts, and of the weights in between, those without memory left out."""
    if path and (type(module).__name__ in whole or not any(True for _ in module.children())):
        if next(_tensors(module), None) is not None:
            yield path
        return
    yield from (_joined(path, name) for name, _ in _tensors(module, recurse=False))
    for name, child in module.named_children():
        yield from _walk(child, _joined(path, name), whole)


def _tensors(module: nn.Module, *, recurse: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=recurse, remove_duplicate=False)
    yield from module.named_buffers(recurse=recurse, remove_duplicate=False)


def _inside(name: str, part: str) -> bool:
    return part in (WHOLE, name) or name.startswith(f"{part}.")


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _numbered(device: str) -> str | int:
    kind, _, number = device.partition(":")
    # accelerate runs what lies in the host's memory on the lowest number, and on any of several names.
    return int(number) if number and kind != "cpu" else device


def _shown(placement: Placement) -> Mapping[str, str] | str:
    if not placement.parted:
        return next(iter(placement.devices))
    return {
        "host" if device == HOST else device: names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
        for device, names in placement.devices.items()
    }


def _explained(error: DeviceOom, *, limited: bool, method: str | None, offload: bool) -> DeviceOom:
    """The failure with what this step can do about it."""
    why, remedies = error.why, error.remedy.split(", or ")
    if method:
        why += f"; {method} training takes {COPIES[method]} times the weights" if COPIES[method] > 1 else ""
        why += "; cpu_offload is for steps that only read weights" if offload else ""
        remedies = [remedy for remedy in remedies if "cpu_offload" not in remedy] + (["method: lora"] if method == "full" else [])
    if limited:
        remedies.insert(0, "a larger max_memory_per_gpu")
    return DeviceOom(error.what, why=why, remedy=", or ".join(remedies))
