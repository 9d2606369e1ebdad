"""What the README says is so, and what the locks promise. That generated files are fresh is `make check`'s."""

from __future__ import annotations

import ast
import io
import re
import runpy
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import create_autospec

import pytest

import modelyard
from modelyard import document, spec
from modelyard.locked import PINNED
from modelyard.run.submit import Here, Result

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language: str, page: str = "README.md") -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, language
    return found[1]


def test_the_readme_shows_the_quickstart() -> None:
    shown = spec.from_document(document.parse(block("yaml"), "README.md"), base=ROOT / "examples")
    assert shown.to_dict() == spec.load(ROOT / "examples" / "quickstart.yaml").to_dict()


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_on_a_page_builds_a_pipeline_and_asks_for_what_there_is(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names, arguments and attributes are those of the package; nothing is submitted."""
    tree = ast.parse(block("python", page))
    names = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert set(names) <= set(modelyard.__all__)
    run = create_autospec(Here, instance=True)
    run.artifact.return_value = Result("", "metrics", None, {"accuracy": {"value": 0.8125}})
    submit = create_autospec(modelyard.submit, return_value=run)
    monkeypatch.setitem(vars(modelyard), "submit", submit)
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, page, "exec"), {})
    assert submit.call_args.args[0].inputs("score") == {"model": "tuned", "data": "reviews"}
    assert printed.getvalue() == "0.8125\n"


def test_the_readmes_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)`|^\$ make ([a-z-]+)", README, re.MULTILINE))
    assert {"".join(pair) for pair in named} <= targets
    assert named


def test_pins_are_the_locks_and_a_lock_without_one_version_is_refused() -> None:
    pin = runpy.run_path(str(ROOT / "requirements" / "pin.py"))
    lock = (ROOT / "requirements" / "jobs-default.txt").read_text()
    assert f'"torch": "{PINNED["torch"]}"' in pin["render"](lock)
    assert tuple(PINNED) == pin["CHANGE_RESULTS"]
    for broken in (lock.replace("\ntorch==", "\ntorsch=="), lock + "\ntorch==1.0 ; python_version < '3.12'\n"):
        with pytest.raises(SystemExit, match="torch"):
            pin["render"](broken)


@pytest.mark.parametrize("lock", ["dev.txt", "jobs-default.txt", "demo.txt"])
def test_locks_are_hashed_and_name_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert not re.search(r"https?://|--(?:extra-)?index|--find-links", text)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry or "==" not in entry] == []
