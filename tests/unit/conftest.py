"""The unit tier: network, torch and real time are off, here and in every process that a unit test starts (off/sitecustomize.py)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

GUARD = Path(__file__).with_name("off") / "sitecustomize.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unit_tier_off", GUARD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


off = _load()


def _wrapped() -> Generator[None, object, object]:
    path = os.pathsep.join(filter(None, [str(GUARD.parent), os.environ.get("PYTHONPATH")]))
    with off.switched_off(), patch.dict(os.environ, PYTHONPATH=path):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, object, object]:
    """Imports at the head of a unit test's module count too."""
    return (yield from _wrapped())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Each unit test, its fixtures included; pytest calls this hook for the tests of other folders too."""
    if not item.path.is_relative_to(Path(__file__).parent):
        return (yield)
    return (yield from _wrapped())
