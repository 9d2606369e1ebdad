"""Refs: what they write, and what may not enter a path or a request."""

from __future__ import annotations

import pytest

from modelyard.errors import Usage
from modelyard.refs import HubRef, PathRef, YardRef, is_step_name, parse


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("modelscope://AI-ModelScope/distilbert-base-uncased", HubRef("modelscope", "model", "AI-ModelScope", "distilbert-base-uncased")),
        ("hf://owner/name@v1.0", HubRef("hf", "model", "owner", "name", "v1.0")),
        ("hf://owner/name@refs/pr/1", HubRef("hf", "model", "owner", "name", "refs/pr/1")),
        ("modelscope://datasets/owner/imdb", HubRef("modelscope", "dataset", "owner", "imdb")),
        ("yard://models/reviews@champion", YardRef("model", "reviews", "champion")),
        ("yard://datasets/reviews@latest", YardRef("dataset", "reviews")),
        ("./reviews.csv", PathRef("./reviews.csv")),
        ("/data/reviews", PathRef("/data/reviews")),
        ("../x", PathRef("../x")),
    ],
)
def test_a_ref_reads_and_writes_itself(text: str, ref: object) -> None:
    assert parse(text) == ref
    assert str(parse(text)) == text


def test_the_alias_is_latest_unless_given() -> None:
    assert parse("yard://models/reviews") == YardRef("model", "reviews", "latest")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "reviews.csv",
        "http://host/owner/name",
        "hf://",
        "hf://name",
        "hf://a/b/c",
        "hf://owner/..",
        "hf://../name",
        "hf://owner/na%2fme",
        "hf://owner/name@",
        "hf://owner/name@../../x",
        "hf://owner/name@a//b",
        "hf://owner/name?x=1",
        "hf://owner/name#x",
        "hf://owner/na\nme",
        "hf://owner/na\0me",
        "hf://owner/" + "n" * 97,
        "hf://owner/name@" + "r" * 129,
        "hf://-owner/name",
        "hf://ówner/name",
        "yard://models/../x@y",
        "yard://metrics/x@y",
        "yard://models/x@../y",
        "yard://models",
        "./a\0b",
    ],
)
def test_what_is_no_ref_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(Usage) as caught:
        parse(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("word", "is_name"), [("reviews", True), ("a-1", True), ("./a", False), ("a.csv", False), ("A", False), ("a-", False), ("", False)]
)
def test_bare_words_are_steps(word: str, is_name: bool) -> None:
    assert is_step_name(word) is is_name
