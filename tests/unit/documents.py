"""What the README and the pages of docs/ say to type, and where they lead."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import click

from modelyard.cli.lazy import COMMANDS, root

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def typed(text: str) -> list[str]:
    """The commands of a page's console blocks."""
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line.startswith("$ ")]
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in lines]


def mentioned(text: str) -> list[str]:
    """The commands within a page's sentences and tables, each once; what explain says in brackets behind one is no part of it."""
    found = re.findall(r"`(modelyard [a-z][^`]*)`", _prose(text))
    return list(dict.fromkeys(line.replace(r"\|", "|").partition(" (")[0].strip() for line in found))


def check_mention(line: str) -> None:
    """As check_command, of a command with words to it; of one alone, that there is such a command."""
    words = line.split()
    command: click.Command = getattr(import_module(f"modelyard.cli.{COMMANDS[words[1]].module}"), words[1])
    named = words[2:3] if isinstance(command, click.Group) else []
    if isinstance(command, click.Group) and named:
        assert named[0] in command.commands
    if len(words) > 2 + len(named):
        check_command(line)


def check_command(line: str) -> None:
    """Parse one command of modelyard's as the command line would."""
    words = shlex.split(re.split(r" [>|] ", line)[0])
    entry = COMMANDS[words[1]]
    command: click.Command = getattr(import_module(f"modelyard.cli.{entry.module}"), words[1])
    arguments = words[2:]
    if isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context("modelyard", arguments, **root.context_settings) as context:  # click keeps a command's help option from then on
        assert context.args == []


def links(text: str) -> list[tuple[str, str]]:
    """(file, anchor) of each link that stays in the repository; an empty file is the page itself."""
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", _prose(text)) if "://" not in target]
    return [(target.partition("#")[0], target.partition("#")[2]) for target in targets]


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked by."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).strip().replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, last in found.items() for number in range(last + 1)}


def _prose(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)
