"""The table of vendors: what an accelerator is called, and how to see one without loading a framework.

The probe looks at device nodes and at the variables that hide them, so it takes microseconds and a step whose result is reused never loads
torch. It says "not there" for certain; "there" is confirmed by the framework when the step starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vendor:
    """One row.

    device: torch's name of the device. nodes: glob of its device nodes under /dev. hidden_by: variables that list the visible ones. watch: a
    command that goes on writing `index, percent in use, MiB of memory in use`, a line per device and interval.
    """

    name: str
    device: str
    nodes: str = ""
    hidden_by: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()


_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=5")

CPU = Vendor("cpu", "cpu")
NVIDIA = Vendor("nvidia", "cuda", nodes="nvidia[0-9]*", hidden_by=("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"), watch=_NVIDIA_SMI)

VENDORS: Mapping[str, Vendor] = {vendor.name: vendor for vendor in (CPU, NVIDIA)}


def vendor_of(accelerator: str) -> Vendor:
    """The row of an accelerator as resources write it (`nvidia`, `nvidia-mig:1g.10gb`)."""
    return CPU if accelerator == "none" else VENDORS[accelerator.partition(":")[0].removesuffix("-mig")]


def parse_use(line: str) -> tuple[str, dict[str, float]] | None:
    """(index, {percent, memory in bytes}) of a line that `Vendor.watch` wrote; None for a line that is none, such as `[N/A]`."""
    try:
        index, percent, mebibytes = (part.strip() for part in line.split(","))
        return index, {"percent": float(percent), "memory": float(mebibytes) * 2**20}
    except ValueError:
        return None


@dataclass(frozen=True)
class Probe:
    """How many devices of a vendor a process can see, and the evidence."""

    count: int
    evidence: str


def probe(vendor: Vendor, environ: Mapping[str, str] = os.environ, dev: Path = Path("/dev")) -> Probe:
    """The devices of `vendor` that this process could use.

    `CUDA_VISIBLE_DEVICES` empty or -1 hides all (CUDA C Programming Guide, "CUDA Environment Variables"); NVIDIA's container runtime takes
    `none` and `void` in `NVIDIA_VISIBLE_DEVICES` to mean the same.
    """
    nodes = sorted(path.name for path in dev.glob(vendor.nodes) if path.name.lstrip("abcdefghijklmnopqrstuvwxyz").isdigit())
    if not nodes:
        return Probe(0, f"there is no {dev / vendor.nodes}")
    for variable in vendor.hidden_by:
        value = environ.get(variable)
        if value is None or value == "all":
            continue
        listed = [part for part in value.split(",") if part.strip() not in ("", "-1", "none", "void")]
        if len(listed) < len(nodes):
            return Probe(len(listed), f"{variable}={value!r} leaves {len(listed)} of {len(nodes)}")
    return Probe(len(nodes), f"{', '.join(f'{dev}/{node}' for node in nodes)}")
