"""README.md: every command of modelyard's in it is one, and every file, target and variable that it names is there."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from modelyard import config
from modelyard.cli.lazy import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TYPED = [
    line.removeprefix("$ ").split("  #")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.mark.parametrize("line", [line for line in TYPED if line.startswith("modelyard ")])
def test_commands_parse(line: str) -> None:
    words = shlex.split(re.split(r" [>|] ", line)[0])
    entry = COMMANDS[words[1]]
    command: click.Command = getattr(import_module(f"modelyard.cli.{entry.module}"), words[1])
    arguments = words[2:]
    if isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context("modelyard", arguments) as context:
        assert context.args == []


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
