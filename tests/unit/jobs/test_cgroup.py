"""What a control group allows and has used, of both versions, as a container sees it and as a plain machine does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelyard_jobs.cgroup import Cgroup, usable_cpus

V1 = "5:memory:/pods/one\n4:cpu,cpuacct:/pods/one\n"
V2 = "0::/pods/one\n"


def group(root: Path, membership: str, files: Mapping[str, str]) -> Cgroup:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return Cgroup(root, membership)


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("quota", "threads"), [("50000 100000", 1), ("100000 100000", 1), ("250000 100000", 2), ("900000 100000", 8), ("max 100000", 8)]
)
@pytest.mark.parametrize("inside", [True, False], ids=["container", "machine"])
def test_threads_are_the_quota_rounded_down_and_at_least_one(tmp_path: Path, quota: str, threads: int, inside: bool) -> None:
    folder = "" if inside else "pods/one/"
    found = group(tmp_path, "0::/\n" if inside else V2, {f"{folder}cpu.max": quota})
    assert usable_cpus(found)[0] == threads
    first, period = quota.replace("max", "-1").split()
    old = group(tmp_path / "old", V1, {f"cpu/{folder}cpu.cfs_quota_us": first, f"cpu/{folder}cpu.cfs_period_us": period})
    assert usable_cpus(old)[0] == threads


def test_without_a_group_the_cores_count(tmp_path: Path) -> None:
    nothing = Cgroup(tmp_path)
    assert usable_cpus(nothing)[0] == 8
    assert (nothing.memory_limit(), nothing.memory_used(), nothing.oom_kills()) == (None, None, 0)


def test_memory_is_counted_without_files_that_the_kernel_would_drop(tmp_path: Path) -> None:
    new = {"memory.max": "1000", "memory.current": "900", "memory.stat": "anon 300\ninactive_file 500\nactive_file 100"}
    old = {"limit_in_bytes": "1000", "usage_in_bytes": "900", "stat": "inactive_file 1\nhierarchical_memory_limit 1000\ntotal_inactive_file 500"}
    for found in (group(tmp_path, "0::/\n", new), group(tmp_path, V1, {f"memory/memory.{name}": text for name, text in old.items()})):
        assert (found.memory_limit(), found.memory_used()) == (1000, 400)


def test_kills_of_the_kernel_are_counted(tmp_path: Path) -> None:
    assert group(tmp_path, "0::/\n", {"memory.events": "low 0\noom 2\noom_kill 3"}).oom_kills() == 3
    old = {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1"}
    assert group(tmp_path / "old", V1, old).oom_kills() == 1


def test_no_limit_is_none(tmp_path: Path) -> None:
    assert group(tmp_path, "0::/\n", {"memory.max": "max"}).memory_limit() is None
    assert group(tmp_path / "old", V1, {"memory/memory.limit_in_bytes": str(2**63 - 4096)}).memory_limit() is None
