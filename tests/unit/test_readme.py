"""README.md: every command of modelyard's in it is one, and every file, target and variable that it names is there."""

from __future__ import annotations

import re

import pytest

from modelyard import config
from tests.unit.documents import ROOT, check_command, typed

README = (ROOT / "README.md").read_text()
TYPED = typed(README)


@pytest.mark.parametrize("line", [line for line in TYPED if line.startswith("modelyard ")])
def test_commands_parse(line: str) -> None:
    check_command(line)


def test_targets_are_there() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) | {line.split()[1] for line in TYPED if line.startswith("make ")} <= made


def test_files_are_there() -> None:
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    named = re.findall(r"(?:examples|docs|tests)/[\w./-]+\w", README)
    assert linked
    assert [name for name in {*linked, *named} if not (ROOT / name).exists()] == []


def test_variables_are_settings() -> None:
    settings = {config.PREFIX + name.replace(".", "_").upper() for name in config.SETTINGS}
    others = {"MODELYARD_REAL_HUBS", "MODELYARD_HUBS_"}
    assert set(re.findall(r"MODELYARD_[A-Z_]+", README)) <= settings | others
