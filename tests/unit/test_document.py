"""YAML 1.2 with positions, and files that try to be more than a pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import document
from modelyard.errors import NoInput, Usage


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("1e-4", 1e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3", -3),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('"1"', "1"),
        ("1.0.0", "1.0.0"),
        ("v1", "v1"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = document.parse(f"key: {text}\n", "f.yaml").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_values_know_their_lines() -> None:
    doc = document.parse("name: a\nsteps:\n  b:\n    fetch: {trust: [pickle,\n      code]}\n", "f.yaml")
    assert doc.at(("steps", "b", "fetch", "trust", 1)) == "f.yaml:5: steps.b.fetch.trust[1]"
    assert doc.at(("steps", "b", "missing", "below")) == "f.yaml:3: steps.b.missing.below"
    assert doc.at(()) == "f.yaml:1"


def test_a_merge_key_is_a_key() -> None:
    assert document.parse("<<: {a: 1}", "f").value == {"<<": {"a": 1}}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\na: 2\n", "f.yaml:2"),
        ("a: !!python/object:os.system x", "not allowed"),
        ("a: !mine x", "not allowed"),
        ("[a", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("a: &x [*x]", "too large"),
        ("? [a]\n: 1", "a key must be a word"),
        ("a: " + "9" * 200, "too long"),
        ("a: " + "[" * 5000, "nested too deeply"),
        (BOMB, "too large"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_document_is_refused_with_its_place(text: str, part: str) -> None:
    with pytest.raises(Usage) as caught:
        document.parse(text, "f.yaml")
    assert part in f"{caught.value}"


def test_a_tab_is_named() -> None:
    with pytest.raises(Usage) as caught:
        document.parse("name: a\nsteps:\n\tb: {}\n", "f.yaml")
    assert (caught.value.where, caught.value.remedy) == ("f.yaml:3", "indent with blanks, not with tabs")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="no such file"):
        document.read(tmp_path / "none.yaml")
    with pytest.raises(NoInput, match="cannot be read"):
        document.read(tmp_path)
    big, latin = tmp_path / "big.yaml", tmp_path / "latin.yaml"
    big.write_bytes(b"a: " + b"x" * document.MAX_BYTES)
    latin.write_bytes(b"a: \xff")
    with pytest.raises(Usage, match="too large"):
        document.read(big)
    with pytest.raises(Usage, match="not UTF-8"):
        document.read(latin)
