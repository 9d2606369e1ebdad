"""Room: threads, memory, shared memory, the yard's volume and its free space, against what the pipeline asks for and will write.

The space that is needed is arithmetic over sizes that are known before anything is read; it is shown with its terms. Metrics and predictions are
not counted: they are small beside weights, and what they will be is not known.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from modelyard.errors import HostOom, NoSpace
from modelyard.quantities import format_bytes, parse_bytes
from modelyard.steps import Export, Finetune
from modelyard.yard import files
from modelyard.yard.layout import probe
from modelyard_jobs.cgroup import Cgroup, usable_cpus
from modelyard_jobs.preflight.row import Row
from modelyard_jobs.preflight.subject import Subject

MARGIN = 1.3
"""Space to have for each byte that is counted: what is staged beside what is committed, logs, the file system's own."""
KEPT = 2
"""Checkpoints that a training keeps."""
STATES = 3
"""A checkpoint in units of the weights: the weights, and AdamW's two averages."""
LITTLE_SHM = 1 << 30


def threads(subject: Subject) -> Iterator[Row]:
    """The cores that a step may keep busy, against what is asked for."""
    usable, reason = usable_cpus(Cgroup.current())
    host = os.cpu_count() or usable
    asked = max((asked.cpu for asked in subject.resources.values() if asked.cpu), default=None)
    found = f"{usable} of the host's {host}"
    reason += f"; libraries that count the host's cores would start {host} threads, and are told {subject.threads}" if host > usable else ""
    if asked and asked > usable:
        reason = f"{asked} are asked for; {reason}"
        remedy = f"resources: {{cpu: {usable}}}, or a larger quota"
        yield Row.bad("threads", HostOom, soft=True, found=found, needed=f"{asked} asked for", reason=reason, remedy=remedy)
    else:
        yield Row("threads", found, f"{asked} asked for" if asked else "not said", reason)


def memory(subject: Subject, group: Cgroup | None = None, meminfo: Path = Path("/proc/meminfo")) -> Iterator[Row]:
    """The control group's limit, or the machine's memory, against the memory that is asked for."""
    group = group or Cgroup.current()
    limit, used = group.memory_limit(), group.memory_used()
    total, available = _meminfo(meminfo, "MemTotal"), _meminfo(meminfo, "MemAvailable")
    asked = {name: asked.memory for name, asked in subject.resources.items() if asked.memory}
    largest = max(asked, key=lambda name: parse_bytes(asked[name] or "0"), default=None)
    wanted = parse_bytes(asked[largest] or "0") if largest else 0
    needed = f"{asked[largest]} for {largest}" if largest else "not said"
    if limit is not None:
        found = f"a limit of {format_bytes(limit)}" + (f", {format_bytes(used)} in use" if used is not None else "")
    else:
        found = f"{format_bytes(total)}, {format_bytes(available)} of it available"
    bound = min(limit or total, total)
    if wanted > bound:
        reason = f"{format_bytes(wanted)} are asked for, {format_bytes(wanted - bound)} more than there can ever be"
        remedy = "raise the limit, or ask for less: resources: {memory: …}"
        yield Row.bad("memory", HostOom, soft=False, found=found, needed=needed, reason=reason, remedy=remedy)
    elif limit is None and wanted > available:
        reason = f"{format_bytes(wanted)} are asked for; without a limit, others use what is missing"
        yield Row.bad("memory", HostOom, soft=True, found=found, needed=needed, reason=reason, remedy="end something else on this machine")
    else:
        yield Row("memory", found, needed, "the control group's limit" if limit is not None else "no limit on this process; the machine's own")


def shm(subject: Subject, folder: Path = Path("/dev/shm")) -> Iterator[Row]:  # noqa: S108  # the mount itself is meant
    """Shared memory, which only steps on several accelerators need."""
    several = sorted(name for name, asked in subject.resources.items() if asked.gpus > 1)
    needed = f"{format_bytes(LITTLE_SHM)} for {', '.join(several)}" if several else "little: no step uses more than one device"
    try:
        size = shutil.disk_usage(folder).total
    except OSError as error:
        reason = f"{folder}: {error.strerror}"
        yield Row.bad("shm", HostOom, soft=True, found="none", needed=needed, reason=reason, remedy="mount a tmpfs there")
        return
    if several and size < LITTLE_SHM:
        reason = f"devices of one node exchange data through {folder}; 64 MiB is what containers get unless told otherwise"
        remedy = "mount an emptyDir of medium Memory there, or run the container with --shm-size"
        yield Row.bad("shm", HostOom, soft=True, found=format_bytes(size), needed=needed, reason=reason, remedy=remedy)
    else:
        yield Row("shm", format_bytes(size), needed, f"size of {folder}")


def volume(subject: Subject) -> Iterator[Row]:
    """The probe that a yard's volume has passed when the yard was made, once more. Raises VolumeFailed, NoPermission, NoSpace."""
    probe(subject.yard.layout.target("staging"))
    yield Row("volume", str(subject.yard.root), "rename of folders, O_EXCL, append, permissions", "tried in the yard's staging folder")


def disk(subject: Subject) -> Iterator[Row]:
    """Free space of the yard's volume, against what the pipeline will write or what the settings ask for."""
    with files.failures(subject.yard.root):
        free = shutil.disk_usage(subject.yard.root).free
    if subject.settings.disk:
        needed, reason = parse_bytes(subject.settings.disk), f"the settings ask for {subject.settings.disk}"
    else:
        terms, unknown = _terms(subject)
        counted = sum(size for _, size in terms)
        needed = int(counted * MARGIN)
        reason = " + ".join(f"{what} {format_bytes(size)}" for what, size in terms)
        reason = f"({reason}) x {MARGIN}" if terms else "nothing large is to be written"
        reason += f"; of unknown size: {', '.join(unknown)}" if unknown else ""
    found = f"{format_bytes(free)} free"
    if free < needed:
        reason = f"{format_bytes(needed - free)} are missing: {reason}"
        remedy = "make room (modelyard yard gc), or use a larger volume"
        yield Row.bad("disk", NoSpace, soft=False, found=found, needed=format_bytes(needed), reason=reason, remedy=remedy)
    else:
        yield Row("disk", found, format_bytes(needed), reason)


def _terms(subject: Subject) -> tuple[list[tuple[str, int]], list[str]]:
    """((what, bytes) of everything large that will be written, steps whose size is not known)."""
    terms, unknown = [(subject.fetches[name].ref, selection.size) for name, selection in subject.missing.items()], []
    for name, step in subject.working.items():
        if not isinstance(step, Finetune | Export) or subject.made(name):
            continue
        weights = subject.weights(subject.pipeline.inputs(name)["model"])
        if weights is None:
            unknown.append(name)
        elif isinstance(step, Finetune):
            terms += [(f"{name}'s checkpoints {KEPT} x {STATES} x {format_bytes(weights)} =", KEPT * STATES * weights), (name, weights)]
        else:
            terms += [(name, weights + (weights // 4 if step.int8 else 0))]
    return terms, unknown


def _meminfo(path: Path, name: str) -> int:
    """Bytes of a line of /proc/meminfo; 0 where it is not there."""
    line = next((line for line in path.read_text().splitlines() if line.startswith(f"{name}:")), "0 0")
    return int(line.split()[1]) << 10
