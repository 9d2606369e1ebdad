"""Checkpoints: whole or not there, furthest over all attempts, torn ones skipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import NoSpace, Refused, Usage, Yielded
from modelyard.yard import Yard

from .conftest import KEYS, left_in_staging

KEY = KEYS["a"]


def state(content: bytes) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "state.json").write_bytes(content)
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(content * 2)

    return fill


def test_furthest_over_attempts(yard: Yard) -> None:
    one, two, three = (yard.checkpoints(KEY, f"run.tuned.{number}") for number in (1, 2, 3))
    assert one.furthest() is None
    one.save("step-9", state(b"9"))
    two.save("step-100", state(b"100"))
    one.save("step-20", state(b"20"))
    one.save("best", state(b"best"))
    found = three.furthest()
    assert found
    assert found[0] == 100
    assert (found[1] / "sub" / "weights").read_bytes() == b"100100"
    assert three.attempts() == {"run.tuned.1": ["best", "step-20", "step-9"], "run.tuned.2": ["step-100"]}
    assert (three.mine(), one.mine()) == ([], ["best", "step-20", "step-9"])
    assert yard.checkpoints(KEYS["b"], "run.tuned.4").furthest() is None
    assert left_in_staging(yard) == []


TEARS: dict[str, Callable[[Path], object]] = {
    "short": lambda folder: (folder / "files/state.json").write_bytes(b""),
    "flipped": lambda folder: (folder / "files/sub/weights").write_bytes(b"2031"),
    "missing": lambda folder: (folder / "files/state.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "torn manifest": lambda folder: (folder / "manifest.json").write_bytes(b'{"kind"'),
    "beside": lambda folder: (folder / "files/more").write_bytes(b"1"),
}


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
def test_a_torn_one_is_skipped(yard: Yard, tear: Callable[[Path], object]) -> None:
    first, second = yard.checkpoints(KEY, "run.tuned.1"), yard.checkpoints(KEY, "run.tuned.2")
    first.save("step-10", state(b"10"))
    second.save("step-20", state(b"20"))
    tear(yard.root / "checkpoints" / KEY / "run.tuned.2" / "step-20")
    found = first.furthest()
    assert found
    assert found[0] == 10
    assert len(first.skipped) == 1
    assert first.skipped[0].startswith("run.tuned.2/step-20: ")
    assert second.whole("step-20") is None


def test_whole_prefers_ones_own(yard: Yard) -> None:
    mine, other = yard.checkpoints(KEY, "run.fetch.2"), yard.checkpoints(KEY, "run.fetch.1")
    assert mine.whole("file-0") is None
    other.save("file-0", state(b"other"))
    found = mine.whole("file-0")
    assert found
    assert (found / "state.json").read_bytes() == b"other"
    mine.save("file-0", state(b"mine"))
    mine.save("file-0", state(b"mine, again"))
    found = mine.whole("file-0")
    assert found
    assert (found / "state.json").read_bytes() == b"mine, again"


def test_a_checkpoint_that_fails_leaves_nothing(yard: Yard) -> None:
    checkpoints = yard.checkpoints(KEY, "run.tuned.1")

    def full(folder: Path) -> None:
        (folder / "half").write_bytes(b"1")
        raise OSError(28, "No space left on device")

    def stopped(folder: Path) -> None:
        (folder / "half").write_bytes(b"1")
        raise Yielded("stop")

    with pytest.raises(NoSpace):
        checkpoints.save("step-1", full)
    with pytest.raises(Yielded):
        checkpoints.save("step-1", stopped)
    with pytest.raises(Refused):
        checkpoints.save("step-1", lambda folder: (folder / "link").symlink_to("/etc/passwd"))
    assert checkpoints.mine() == []
    assert left_in_staging(yard) == []


def test_prune_keeps_what_somebody_would_resume_from(yard: Yard) -> None:
    old, mine = yard.checkpoints(KEY, "run.tuned.1"), yard.checkpoints(KEY, "run.tuned.2")
    for number in (10, 20, 30):
        old.save(f"step-{number}", state(b"old"))
    mine.save("step-25", state(b"mine"))
    mine.save("best", state(b"best"))
    mine.prune(keep=2)
    assert old.mine() == ["step-10", "step-20", "step-30"]
    mine.save("step-35", state(b"mine"))
    mine.save("step-40", state(b"mine"))
    mine.prune(keep=2)
    assert (old.mine(), mine.mine()) == ([], ["best", "step-35", "step-40"])
    assert left_in_staging(yard) == []


def test_clear(yard: Yard) -> None:
    one, two = yard.checkpoints(KEY, "run.tuned.1"), yard.checkpoints(KEY, "run.tuned.2")
    one.save("step-1", state(b"1"))
    two.save("step-2", state(b"2"))
    yard.checkpoints(KEYS["b"], "run.tuned.1").save("step-1", state(b"1"))
    two.clear()
    assert os.listdir(yard.root / "checkpoints") == [KEYS["b"]]
    one.save("step-3", state(b"3"))  # a second attempt of the key that is still at work is not disturbed
    assert one.mine() == ["step-3"]


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "x" * 201, "a\0"])
def test_names_are_checked(yard: Yard, name: str) -> None:
    with pytest.raises(Usage):
        yard.checkpoints(KEY, "run.tuned.1").save(name, state(b"1"))
    with pytest.raises(Usage):
        yard.checkpoints(KEY, name)
    with pytest.raises(Usage):
        yard.checkpoints("../" + KEY, "run.tuned.1")
