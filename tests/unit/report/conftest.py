"""A yard of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard.open(tmp_path / "yard")
