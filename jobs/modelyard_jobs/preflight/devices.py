"""Accelerators: those that the pipeline asks for, those that are here, their memory, and whether the driver is new enough for torch's CUDA.

Three witnesses: the device nodes (modelyard.devices), the driver (its library, nvidia-smi), and torch after a small sum on each device. What
torch says decides, since torch is what computes; the others say why.
"""

from __future__ import annotations

import csv
import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard import keys
from modelyard.devices import NVIDIA, Probe, probe
from modelyard.errors import NoAccelerator
from modelyard.quantities import format_bytes
from modelyard_jobs.preflight.ask import NoAnswer, ask
from modelyard_jobs.preflight.row import Row
from modelyard_jobs.preflight.subject import Subject

_QUERY = ("nvidia-smi", "--query-gpu=index,name,driver_version,memory.total,memory.free", "--format=csv,noheader,nounits")
_SMI_WITHIN = 30.0
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Device:
    """One device. total, free: bytes."""

    index: int
    name: str
    total: int
    free: int

    def __str__(self) -> str:
        return f"{self.index}: {self.name}, {format_bytes(self.total)}, {format_bytes(self.free)} free"


@dataclass(frozen=True)
class Smi:
    """What nvidia-smi says. problem: why it says nothing, or nothing that can be read."""

    driver: str = ""
    devices: tuple[Device, ...] = ()
    problem: str = ""


class Accelerators:
    """The accelerators that a subject asks for and those that are here; each witness is asked once, when a row needs it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.asking = {name: asked for name, asked in subject.resources.items() if asked.gpus}
        """Steps that ask for accelerators."""
        self.strict = [name for name, asked in self.asking.items() if asked.fallback != "cpu"]
        """Those of them that may not run on the CPU instead."""
        self.count = max((asked.gpus for asked in self.asking.values()), default=0)

    @cached_property
    def seen(self) -> Probe:
        """The device nodes."""
        return probe(NVIDIA)

    @cached_property
    def smi(self) -> Smi:
        """nvidia-smi."""
        return read_smi()

    @cached_property
    def torch(self) -> Mapping[str, Any] | NoAnswer:
        """What torch says (ask.py), or why it does not."""
        if keys.installed_versions()["torch"] == "absent":
            return NoAnswer("torch is not installed")
        try:
            return ask("torch")[0]
        except NoAnswer as silent:
            return silent

    @property
    def built(self) -> str | None:
        """The CUDA that torch was built for; None where it has none, or is not there."""
        return None if isinstance(self.torch, NoAnswer) else self.torch["cuda"]

    @cached_property
    def usable(self) -> tuple[list[Device], str]:
        """(the devices that work, why there are no more of them)."""
        if not self.seen.count:
            return [], self.seen.evidence
        if keys.installed_versions()["torch"] == "absent":
            return list(self.smi.devices), self.smi.problem or "as nvidia-smi says; torch is not installed"
        if isinstance(self.torch, NoAnswer):
            return [], f"torch cannot be imported: {self.torch}"
        said = [(Device(index, one["name"], one["total"], one["free"]), one["works"]) for index, one in enumerate(self.torch["devices"])]
        wrong = [device for device, works in said if not works]
        why = str(self.torch["error"]) or ("; ".join(f"{device} gave a wrong sum" for device in wrong)) or self.seen.evidence
        return [device for device, works in said if works], why


def driver(accelerators: Accelerators) -> Iterator[Row]:
    """The driver and its CUDA, against the CUDA that torch was built for. No row where there is no device, and none has to be.

    Within a major version of CUDA a newer toolkit runs on an older driver: https://docs.nvidia.com/deploy/cuda-compatibility/.
    """
    if not accelerators.strict and not accelerators.seen.count:
        return
    smi, soft = accelerators.smi, not accelerators.strict
    version, cuda = smi.driver or kernel_module(), driver_cuda()
    built = accelerators.built
    needed = f"one for CUDA {built.partition('.')[0]} or newer, torch's being {built}" if built else "any: torch has no CUDA to match it with"
    found = f"{version or 'of unknown version'}, " + (f"for CUDA {cuda[0]}.{cuda[1]}" if cuda else "its CUDA unknown")
    if not version and not cuda:
        reason = smi.problem or "neither libcuda.so.1 nor nvidia-smi is here"
        remedy = "install the driver; in a container, let the runtime bring it in (NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        yield Row.bad("driver", NoAccelerator, soft=soft, found="none", needed=needed, reason=reason, remedy=remedy)
    elif built and cuda and cuda[0] < int(built.partition(".")[0]):
        reason = f"torch is built for CUDA {built}, the driver knows up to {cuda[0]}.{cuda[1]}"
        remedy = f"a newer driver, or torch built for CUDA {cuda[0]}"
        yield Row.bad("driver", NoAccelerator, soft=soft, found=found, needed=needed, reason=reason, remedy=remedy)
    elif smi.problem:
        yield Row.bad("driver", NoAccelerator, soft=True, found=found, needed=needed, reason=smi.problem, remedy="look at nvidia-smi on this machine")
    else:
        yield Row("driver", found, needed, "by the driver's own library" if cuda else "by nvidia-smi or the kernel's module")


def devices(accelerators: Accelerators) -> Iterator[Row]:
    """The devices that work, against how many are asked for."""
    usable, why = accelerators.usable
    found = "; ".join(map(str, usable)) or "none"
    if not accelerators.count:
        yield Row("devices", found, "none", why if not usable else "no step asks for one")
        return
    needed = f"{accelerators.count} {NVIDIA.name} for {', '.join(accelerators.asking)}"
    if len(usable) >= accelerators.count:
        yield Row("devices", found, needed, "a sum was computed on each" if accelerators.seen.count else "")
        return
    strict = accelerators.strict
    reason = f"{len(usable)} of {accelerators.count} are usable: {why}"
    reason += "" if strict else "; fallback is cpu: these steps will run on the CPU, and more slowly"
    remedy = "run where there is one, or set `fallback: cpu` under resources" if strict else ""
    yield Row.bad("devices", NoAccelerator, soft=not strict, found=found, needed=needed, reason=reason, remedy=remedy)


def read_smi(command: tuple[str, ...] = _QUERY) -> Smi:
    """Ask nvidia-smi, where it is there."""
    tool = shutil.which(command[0])
    if tool is None:
        return Smi(problem="there is no nvidia-smi")
    try:
        done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, errors="replace", timeout=_SMI_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        return Smi(problem=f"nvidia-smi gave no answer within {_SMI_WITHIN:g} s")
    if done.returncode:
        return Smi(problem=f"nvidia-smi ended with {done.returncode}: {((done.stdout + done.stderr).strip().splitlines() or ['without a word'])[0]}")
    return parse_smi(done.stdout)


def parse_smi(text: str) -> Smi:
    """The devices in nvidia-smi's lines `index, name, driver, MiB in all, MiB free`; `problem` names the first line that is none."""
    found, drivers = [], []
    for row in csv.reader(filter(None, map(str.strip, text.splitlines())), skipinitialspace=True):
        try:
            index, name, version, total, free = row
            found.append(Device(int(index), name, int(total) << 20, int(free) << 20))
            drivers.append(version)
        except ValueError:
            return Smi(drivers[0] if drivers else "", tuple(found), f"a line of nvidia-smi cannot be read: {', '.join(row)[:100]!r}")
    return Smi(drivers[0], tuple(found)) if found else Smi(problem="nvidia-smi names no device")


def driver_cuda() -> tuple[int, int] | None:
    """(major, minor) of the newest CUDA that the driver knows, by its own library; None without it.

    Rule: cuDriverGetVersion gives 1000 * major + 10 * minor, and may be called before cuInit.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        return None
    return version.value // 1000, version.value % 1000 // 10


def kernel_module(path: Path = _KERNEL_MODULE) -> str:
    """The driver's version as its kernel module says it; empty without one."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"Module\b.*?\s(\d+\.\d+(?:\.\d+)*)\s", text)
    return match[1] if match else ""
