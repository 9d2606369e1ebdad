"""A cluster in memory, and time that passes when somebody waits, for the tests of what runs on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.run import kubernetes, pipeline
from modelyard.yard import Yard

from .standin import Clock, Standin


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(kubernetes, "time", clock)
    monkeypatch.setattr(pipeline, "time", clock)
    monkeypatch.setattr(pipeline, "BEAT_EVERY", 1e-3)
    return clock


@pytest.fixture
def cluster() -> Standin:
    return Standin()


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path / "yard")
