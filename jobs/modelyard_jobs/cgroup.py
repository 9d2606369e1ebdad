"""What the control group of this process allows and has used: CPU quota, memory limit, kills. Version 1 and 2, read from files.

Inside a container the group's own files are at the root of the mount; on a plain machine they are under the path that /proc/self/cgroup
names. Rule: https://docs.kernel.org/admin-guide/cgroup-v2.html and …/cgroup-v1/{memory,sched-bwc}.html.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 60
"""Version 1 writes a number near 2^63 for "no limit"."""


@dataclass(frozen=True)
class Cgroup:
    """The group of a process. root: where the cgroup file systems are mounted; membership: text of /proc/self/cgroup."""

    root: Path = Path("/sys/fs/cgroup")
    membership: str = ""

    @classmethod
    def current(cls) -> Cgroup:
        """The group of this process."""
        try:
            return cls(membership=Path("/proc/self/cgroup").read_text())
        except OSError:
            return cls()

    def cpus(self) -> float | None:
        """CPU seconds per second that the quota allows; None without a quota."""
        text = self._read("", "cpu.max")
        quota, period = text.split() if text else (self._read("cpu", "cpu.cfs_quota_us"), self._read("cpu", "cpu.cfs_period_us"))
        if not quota or not period or quota in ("max", "-1"):
            return None
        return int(quota) / int(period)

    def memory_limit(self) -> int | None:
        """Bytes; None without a limit."""
        text = self._read("", "memory.max") or self._read("memory", "memory.limit_in_bytes")
        return int(text) if text.isdigit() and int(text) < UNLIMITED else None

    def memory_used(self) -> int | None:
        """Bytes in use now by the whole group, without the files that the kernel would drop first: they fill any limit, and kill nobody."""
        text = self._read("", "memory.current") or self._read("memory", "memory.usage_in_bytes")
        if not text.isdigit():
            return None
        parts = _counts(self._read("", "memory.stat") or self._read("memory", "memory.stat"))
        return max(0, int(text) - parts.get("total_inactive_file", parts.get("inactive_file", 0)))

    def oom_kills(self) -> int:
        """Processes of the group that the kernel has killed at the memory limit so far."""
        text = self._read("", "memory.events") or self._read("memory", "memory.oom_control")
        return _counts(text).get("oom_kill", 0)

    def _read(self, controller: str, name: str) -> str:
        folders = [self.root / controller / path.lstrip("/") for path in self._paths(controller)]
        for folder in (*folders, self.root / controller):
            try:
                return (folder / name).read_text().strip()
            except OSError:
                continue
        return ""

    def _paths(self, controller: str) -> list[str]:
        """Paths of the group in the hierarchy of a controller ('' is version 2)."""
        rows = [line.split(":", 2) for line in self.membership.splitlines()]
        return [row[2] for row in rows if len(row) == 3 and controller in row[1].split(",")]


def _counts(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    return {words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) == 2 and words[1].isdigit()}


def usable_cpus(group: Cgroup) -> tuple[int, str]:
    """Threads that this process can keep busy, and why: the quota, rounded down, else the CPUs that it may run on."""
    allowed = len(os.sched_getaffinity(0))
    quota = group.cpus()
    if quota is not None and quota < allowed:
        return max(1, int(quota)), f"the CPU quota is {quota:g}"
    return allowed, f"{allowed} CPUs are allowed, without a quota"
