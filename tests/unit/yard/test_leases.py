"""Leases: one holder, takeover by the observer's own clock, and correct without them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.errors import Usage
from modelyard.yard import Lease, Yard
from modelyard.yard.leases import TIME_TO_LIVE

from .conftest import KEYS, Clock

NAME = KEYS["a"]


@pytest.fixture
def other(yard: Yard) -> tuple[Yard, Clock]:
    """The same yard on another machine, whose clock has nothing to do with ours."""
    clock = Clock()
    clock.seconds = -5e6
    return Yard.open(yard.root, clock=clock), clock


def held(yard: Yard) -> Lease:
    lease = yard.leases.acquire(NAME)
    assert lease
    return lease


def files(yard: Yard) -> list[str]:
    return sorted(os.listdir(yard.root / "leases"))


def test_one_holder_until_it_lets_go(yard: Yard, other: tuple[Yard, Clock]) -> None:
    lease = held(yard)
    assert files(yard) == [f"{NAME}.1"]
    assert other[0].leases.acquire(NAME) is None
    assert other[0].leases.acquire(KEYS["b"])
    lease.release()
    assert held(other[0]).beat()


def test_takeover_when_the_heartbeat_stands_still(yard: Yard, other: tuple[Yard, Clock]) -> None:
    lease = held(yard)
    observer, clock = other
    assert observer.leases.acquire(NAME) is None
    for _ in range(5):  # it beats: held, however long
        clock.seconds += TIME_TO_LIVE
        assert lease.beat()
        assert observer.leases.acquire(NAME) is None
    clock.seconds += TIME_TO_LIVE
    assert observer.leases.acquire(NAME) is None
    clock.seconds += 0.5
    taken = held(observer)
    assert files(yard) == [f"{NAME}.2"]
    assert not lease.beat()  # the former holder learns of it
    lease.release()
    assert files(yard) == [f"{NAME}.2"]
    assert taken.beat()


def test_expiry_is_only_what_was_watched(yard: Yard, other: tuple[Yard, Clock]) -> None:
    held(yard)
    os.utime(yard.root / "leases" / f"{NAME}.1", (0, 0))  # no time of any other clock counts
    other[1].seconds += 1e6
    assert other[0].leases.acquire(NAME) is None


def test_one_of_many_takes_over(yard: Yard) -> None:
    held(yard)
    clocks = [Clock() for _ in range(8)]
    observers = [Yard.open(yard.root, clock=clock) for clock in clocks]
    assert [observer.leases.acquire(NAME) for observer in observers] == [None] * 8
    for clock in clocks:
        clock.seconds += 31
    with ThreadPoolExecutor(8) as pool:
        taken = [lease for lease in pool.map(lambda observer: observer.leases.acquire(NAME), observers) if lease]
    assert len(taken) == 1
    assert taken[0].beat()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"99999999999 x", b"-1", "٣ x".encode()])
def test_torn_and_foreign_content(yard: Yard, clock: Clock, content: bytes) -> None:
    (yard.root / "leases" / f"{NAME}.7").write_bytes(content)
    (yard.root / "leases" / f"{NAME}.²").write_bytes(content)
    (yard.root / "leases" / "foreign").write_bytes(content)
    assert yard.leases.acquire(NAME) is None
    clock.seconds += 31
    assert yard.leases.acquire(NAME)
    assert f"{NAME}.8" in files(yard)


@pytest.mark.parametrize("broken", ["missing", "a file"])
def test_unwritable_leases_are_no_obstacle(yard: Yard, broken: str) -> None:
    folder: Path = yard.root / "leases"
    folder.rmdir()
    if broken == "a file":
        folder.write_bytes(b"")
    leases = [held(yard), held(yard)]
    for lease in leases:
        assert not lease.beat()
        lease.release()


@pytest.mark.parametrize("error", ["EACCES", "EROFS", "ENOSPC", "EIO"])
def test_whatever_refuses_to_write_them(yard: Yard, inject, error: str) -> None:
    for number in range(1, 8):
        inject(f"{error}:{number}")
        lease = yard.leases.acquire(NAME)
        inject("")
        assert lease is not None
        lease.release()
        assert files(yard) == [] or error
    for name in files(yard):
        (yard.root / "leases" / name).unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_folder_of_somebody_else(yard: Yard, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(folder, 0o755)
    os.chmod(yard.root / "leases", 0o755)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            lease = Yard.open(yard.root).leases.acquire(NAME)
            code = 0 if lease and not lease.beat() else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert files(yard) == []


def test_names_are_checked(yard: Yard) -> None:
    for name in ("../x", "", "a/b"):
        with pytest.raises(Usage):
            yard.leases.acquire(name)
