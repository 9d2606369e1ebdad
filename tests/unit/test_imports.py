"""What the light commands load: nothing heavy, and not more modules than today's with a little room."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEVER = {"torch", "transformers", "datasets", "kubernetes", "structlog", "numpy", "pyarrow", "huggingface_hub", "modelscope"}
COMMANDS = {
    "help": ["--help"],
    "schema": ["schema"],
    "check": ["check", str(ROOT / "examples" / "quickstart.yaml")],
    "render": ["render", str(ROOT / "examples" / "quickstart.yaml"), "--steps"],
    "a step's help": ["finetune", "--help"],
}
HELP_CEILING = 180
"""Modules after `modelyard --help`, the interpreter's own included; 142 when this was written, on Python 3.11."""

PROBE = """
import json, sys
from modelyard.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def loaded(arguments: list[str]) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code in (0, None), done.stderr
    return set(modules)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_light_commands_stay_light(arguments: list[str]) -> None:
    assert {module.partition(".")[0] for module in loaded(arguments)} & NEVER == set()


def test_help_has_a_ceiling() -> None:
    assert len(loaded(["--help"])) <= HELP_CEILING
