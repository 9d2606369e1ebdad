"""The demo asks its own hub or nobody."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_a_hub_that_does_not_start_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setitem(sys.modules, "demo_hub", ModuleType("demo_hub"))  # needs what a job needs
    import demo

    monkeypatch.setattr(demo, "MODELYARD", [sys.executable, "-c", "raise SystemExit(66)"])
    with pytest.raises(SystemExit) as ended, demo.served(tmp_path, tmp_path / "token"):
        pytest.fail("it went on without a hub")
    assert ended.value.code == 66
