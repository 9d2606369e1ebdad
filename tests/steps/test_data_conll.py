"""Files of words in lines, through data.read."""

from __future__ import annotations

import pytest

from modelyard.errors import BadData, NoInput
from modelyard.yard import Yard
from modelyard_jobs import data
from tests.steps.fake import artifact

NEWS = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\nPeter NNP I-NP B-PER\nBlackburn NNP I-NP I-PER\n"
ROWS = [{"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}, {"tokens": ["Peter", "Blackburn"], "tags": ["B-PER", "I-PER"]}]
TABS = "New York\tB-LOC\nis\tO\n\n\n# \tO\n"


@pytest.fixture
def read(tmp_path):
    yard = Yard.open(tmp_path / "yard")
    return lambda files: dict(data.read(artifact(yard, "dataset", files), tmp_path / "cache"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("news.conll", NEWS),
        ("a.bio", NEWS.replace("\n", "\r\n")),
        ("a.iob", "\ufeff" + NEWS),
        ("a.IOB2", NEWS.rstrip("\n")),
        ("a.txt", NEWS),
        ("a.tsv", NEWS.replace(" ", "\t")),
        ("a.conll", NEWS.replace("\n\n", "\n \t\n\n\n")),
    ],
)
def test_forms_of_one_file_give_the_same_rows(read, name, content):
    assert read({name: content})["train"][:] == {"tokens": [row["tokens"] for row in ROWS], "tags": [row["tags"] for row in ROWS]}


def test_between_tabs_a_word_may_have_blanks(read):
    assert read({"a.conll": TABS})["train"][:] == {"tokens": [["New York", "is"], ["# "]], "tags": [["B-LOC", "O"], ["O"]]}


def test_splits_by_name_and_files_side_by_side(read):
    found = read({"train.txt": NEWS, "valid.txt": NEWS, "test/a.txt": NEWS, "test/b.conll": TABS, "README.txt": "About.\n\nWords in lines.\n"})
    assert {name: len(rows) for name, rows in found.items()} == {"train": 2, "validation": 2, "test": 4}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "text\tlabel\na\t1\n\nb\t0\n"),  # a table with a blank line
        ("a.tsv", "word\ttag\nEU\tB-ORG\n"),
    ],
)
def test_a_table_is_still_a_table(read, name, content):
    assert read({name: content})["train"].column_names == content.splitlines()[0].split("\t")


@pytest.mark.parametrize("content", ["Some words.\n\nAnd more.\n", "", "word O", "\x00\xff" * 100, "a" * 100000])
def test_other_texts_are_no_rows(read, content):
    with pytest.raises(NoInput):
        read({"notes.txt": content})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.conll: the file has no rows"),
        ("\n\n-DOCSTART- O\n", "a.conll: the file has no rows"),
        ("EU B-ORG\nrejects\n", "a.conll:2: the line has no tag"),
        ("EU\tB-ORG\nrejects\t\n", "a.conll:2: the line has no tag"),
        ("EU\tB-ORG\nrejects O\n", "a.conll:2: the line has no tag"),
        ("EU NNP B-ORG\nrejects O\n", "a.conll:2: the line has 2 fields, and those before it have 3"),
        (b"EU B-ORG\n\nh\xe9 O\n", "a.conll:3: the file cannot be read: byte 0xe9 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00", "a.conll:1: the file cannot be read"),
    ],
)
def test_bad_files_are_named_with_their_line(read, content, message):
    with pytest.raises(BadData) as caught:
        read({"a.conll": content})
    assert message in str(caught.value)
    assert "/yard/" not in str(caught.value)


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u2028", "\x85", "\x0b"])
@pytest.mark.parametrize("between", [" ", "\t"])
def test_other_white_space_than_a_blank_is_part_of_a_word(read, space, between):
    rows = read({"a.conll": f"10{space}000{between}B-X\n{space}{between}O\nmen{between}O\n"})["train"]
    assert rows[0] == {"tokens": [f"10{space}000", space, "men"], "tags": ["B-X", "O", "O"]}


def test_a_long_file_is_not_held_in_memory(read):
    rows = read({"a.conll": "word B-X\n" * 50 + "\n" + "word O\n\n" * 20000})["train"]
    assert len(rows) == 20001
    assert rows.cache_files  # mapped from there
    assert rows[0]["tags"] == ["B-X"] * 50
