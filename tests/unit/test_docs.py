"""docs/*.md: generated parts are fresh, links lead somewhere, commands parse, and every table is complete."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

from modelyard import document, errors, spec
from modelyard.kube.diagnosis import CATEGORIES
from modelyard.steps import STEPS, Resources
from tests.unit.documents import PAGES, ROOT, anchors, check_command, check_mention, links, mentioned, typed

DOCS = ROOT / "docs"
COMMANDS = [(path.name, line) for path in PAGES[1:] for line in typed(path.read_text()) if line.startswith("modelyard ")]


MENTIONED = [(path.name, line) for path in PAGES for line in mentioned(path.read_text())]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    made = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert made
    assert made.loader
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


def test_generated_parts_are_fresh(generate: ModuleType) -> None:
    assert generate.main(["--check"]) == 0, "python docs/generate.py"


def test_a_stale_part_is_told_and_mended(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "exit-codes.md"
    page.write_text("before\n<!-- generated: exit-codes -->\nold\n<!-- /generated -->\nafter\n")
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "docs/exit-codes.md is stale" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert generate.main([]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- generated: exit-codes -->\n| exit code")
    assert text.endswith("<!-- /generated -->\nafter\n")
    assert generate.main(["--check"]) == 0


def test_every_generated_part_is_used(generate: ModuleType) -> None:
    named = {name for path in DOCS.glob("*.md") for _, name, _ in generate.PART.findall(path.read_text())}
    assert named == set(generate.PARTS)


def test_everything_is_in_its_table() -> None:
    spec_page = (DOCS / "spec.md").read_text()
    assert {verb for verb in STEPS if f"### {verb}\n" in spec_page} == set(STEPS)
    settings = {name for step in STEPS.values() for name in step.model_fields if name != "resources"} | set(Resources.model_fields)
    assert {name for name in settings if f"| `{name}` |" in spec_page} == settings
    codes = (DOCS / "exit-codes.md").read_text()
    assert [name for name, kind in errors.REGISTRY.items() if f"| {kind.exit_code} | {name} |" not in codes] == []
    explain = (DOCS / "explain.md").read_text()
    assert [name for name in CATEGORIES if explain.count(f"| `{name}` |") < 1] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for file, anchor in links(path.read_text()):
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target.read_text())):
            broken.append(f"{file}#{anchor}")
    assert broken == []


def test_anchors_are_those_of_headings() -> None:
    text = "# A page\n```\n# no heading\n```\n## Two `words`, and [a link](x.md)\n## A page\n"
    assert anchors(text) == {"a-page", "two-words-and-a-link", "a-page-1"}
    assert links("[a](b.md#c) [d](#e) [f](https://g) ```\n[h](i)\n```") == [("b.md", "c"), ("", "e")]


def test_every_page_is_linked() -> None:
    linked = {(path.parent / file).resolve() for path in PAGES for file, _ in links(path.read_text()) if file}
    assert [path.name for path in PAGES[1:] if path not in linked] == []


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_parse(page: str, line: str) -> None:
    check_command(line)


@pytest.mark.parametrize(("page", "line"), MENTIONED)
def test_commands_in_sentences_parse(page: str, line: str) -> None:
    check_mention(line)


def test_a_command_that_lacks_a_word_is_found() -> None:
    assert mentioned("say `modelyard yard put ./x` or `modelyard run FILE \\| cat`, `modelyard wait RUN (soon)`") == [
        "modelyard yard put ./x",
        "modelyard run FILE | cat",
        "modelyard wait RUN",
    ]
    for wrong in ("modelyard yard put ./x", "modelyard yard gett", "modelyard run --on kubernetes", "modelyard walk"):
        with pytest.raises((click.UsageError, AssertionError, KeyError)):
            check_mention(wrong)
    for right in ("modelyard yard", "modelyard yard put", "modelyard run", "modelyard yard put ./x datasets/x"):
        check_mention(right)


@pytest.mark.parametrize("page", [path for path in PAGES if "```yaml" in path.read_text()], ids=lambda path: path.name)
def test_pipelines_are_valid(page: Path) -> None:
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL) if "steps:" in block]
    assert blocks
    for block in blocks:
        assert spec.from_document(document.parse(block, page.name)).order()
        assert yaml.safe_load(block)


def test_python_is_what_is_public() -> None:
    import modelyard

    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            compile(block, page.name, "exec")
            for names in re.findall(r"^from modelyard import (.+)$", block, re.MULTILINE):
                assert set(names.split(", ")) <= set(modelyard.__all__)
