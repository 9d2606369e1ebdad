"""Where the blocks of a model lie: sizes and memories in, a Placement out, or the arithmetic of why there is none.

Plain values on both sides, so that what places a model can be asked without one, and without a framework. Blocks go over the devices in the order in
which the model computes them: a pass over rows crosses from one device to the next once. What the caller gives as one block stays on one device.
Not covered: the speed of links, several machines, what activations take (the caller gives each device's memory without their share).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from modelyard.errors import DeviceOom
from modelyard.quantities import format_bytes

HOST = "cpu"
WHOLE = ""
"""The path of a model in itself."""
MOST = 64
"""Accelerators that a step may ask for."""


@dataclass(frozen=True)
class Block:
    """What stays together. names: paths of modules or weights in the model; several where they share memory. size: bytes."""

    names: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Placement:
    """devices: device -> names of the blocks that lie there, in the order of the model; WHOLE alone for a model on one device."""

    devices: Mapping[str, tuple[str, ...]]
    reason: str

    @property
    def parted(self) -> bool:
        """Whether the model lies on more than one device, the host's memory included."""
        return len(self.devices) > 1


def place(blocks: Sequence[Block], memory: Mapping[str, int], host: int | None = None) -> Placement:
    """Lay blocks over devices.

    memory: device -> bytes that blocks may take there, in the order in which they are to be used.
    host: bytes that blocks may take in the host's memory, None where they may not lie there at all. A block of the host is computed on the first
    device, which has to keep room for the largest of them.

    Whole on the first device that it fits; else evenly over all, so that each keeps as much room as the others; else what is left over in the
    host's memory. DeviceOom says the arithmetic.
    """
    total = sum(block.size for block in blocks)
    for device, size in memory.items():
        if total <= size:
            return Placement(MappingProxyType({device: (WHOLE,)}), f"{format_bytes(total)} fit the {format_bytes(size)} of {device}")
    for percent in range(1, 101):
        laid = _fill(blocks, {device: size * percent // 100 for device, size in memory.items()})
        if not laid[HOST]:
            reason = f"{format_bytes(total)} fit no single one of {_shown(memory)}: spread over them, at most {percent} % of each"
            return _placement(laid, reason)
    if host is not None:
        first = next(iter(memory))
        # The less room is kept, the more lies on the devices; what lies on none of them is computed by nobody.
        for kept in sorted({block.size for block in blocks}):
            laid = _fill(blocks, {**memory, first: memory[first] - kept})
            sizes = [block.size for block in laid[HOST]]
            if laid[first] and max(sizes) <= kept and sum(sizes) <= host:
                reason = (
                    f"{format_bytes(total)} do not fit {_shown(memory)}: {format_bytes(sum(sizes))} in the host's memory, "
                    f"computed on {first}, which is slow"
                )
                return _placement(laid, reason)
    raise _shortage(blocks, memory, host)


def _fill(blocks: Sequence[Block], memory: Mapping[str, int]) -> dict[str, list[Block]]:
    """Device -> blocks, each device as full as the order of the blocks lets it; what is left over under HOST."""
    laid: dict[str, list[Block]] = {device: [] for device in (*memory, HOST)}
    waiting = list(blocks)
    for device, size in memory.items():
        room = size
        while waiting and waiting[0].size <= room:
            room -= waiting[0].size
            laid[device].append(waiting.pop(0))
    laid[HOST] += waiting
    return laid


def _placement(laid: Mapping[str, Sequence[Block]], reason: str) -> Placement:
    devices = {device: tuple(name for block in blocks for name in block.names) for device, blocks in laid.items() if blocks}
    return Placement(MappingProxyType(devices), reason)


def _shortage(blocks: Sequence[Block], memory: Mapping[str, int], host: int | None) -> DeviceOom:
    total, largest = sum(block.size for block in blocks), max(blocks, key=lambda block: block.size)
    left = sum(block.size for block in _fill(blocks, memory)[HOST])
    why = f"it takes {format_bytes(total)} in {len(blocks)} blocks, the largest, {largest.names[0] or 'the model'}, {format_bytes(largest.size)}; "
    why += f"there are {_shown(memory)}: {format_bytes(left)} are left over"
    remedies = []
    # Of devices like the first: those of one node are alike.
    room = next(iter(memory.values()))
    enough = next((n for n in range(len(memory) + 1, MOST + 1) if not _fill(blocks, {str(place): room for place in range(n)})[HOST]), None)
    if enough:
        remedies.append(f"resources: {{gpus: {enough}}}")
    else:
        remedies.append("accelerators with more memory")
    if host is None:
        remedies.append("cpu_offload: true, which is slow")
    else:
        why += f", and the host has {format_bytes(host)}"
        if left <= host:
            why += f", but {next(iter(memory))} no room to compute what would lie there"
    return DeviceOom("the model does not fit the accelerators", why=why, remedy=", or ".join(remedies))


def _shown(memory: Mapping[str, int]) -> str:
    return " + ".join(f"{format_bytes(size)} ({device})" for device, size in memory.items())
