"""A yard in a temporary folder, with a clock that only the test moves, and short ways to fill it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from modelyard.yard import Action, Artifact, Yard, files

KEYS = {name: (name * 64)[:64] for name in "abcdef"}


class Clock:
    """Monotonic seconds that stand still until a test moves them."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def yard(tmp_path: Path, clock: Clock) -> Yard:
    return Yard.open(tmp_path / "yard", write=True, clock=clock)


@pytest.fixture
def commit(yard: Yard) -> Callable[..., Artifact]:
    def make(content: Mapping[str, bytes] | bytes = b"x", key: str | None = None) -> Artifact:
        artifact = commit_to(yard, {"data.bin": content} if isinstance(content, bytes) else content)
        if key:
            yard.actions.put(key, Action(key=key, verb="fetch", artifact=artifact.digest))
        return artifact

    return make


@pytest.fixture
def inject() -> Iterator[Callable[[str], None]]:
    yield files.inject
    files.inject("")


def commit_to(yard: Yard, content: Mapping[str, bytes], attempt: str = "run.step.1") -> Artifact:
    with yard.staging(attempt) as staging:
        for path, data in content.items():
            with staging.open(path) as file:
                file.write(data)
        return yard.artifacts.commit(staging, kind="model", format="safetensors")


def age(path: Path, seconds: float) -> None:
    """Make a file, or a folder with all below it, older."""
    below = [path, *path.rglob("*")] if path.is_dir() else [path]
    for entry in below:
        status = entry.lstat()
        os.utime(entry, (status.st_atime - seconds, status.st_mtime - seconds), follow_symlinks=False)


def left_in_staging(yard: Yard) -> list[str]:
    return os.listdir(yard.root / "staging")
