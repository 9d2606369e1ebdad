"""What a repository's card says: hostile ones beside good ones."""

from __future__ import annotations

import json

import pytest

from modelyard.errors import Usage
from modelyard.hubs import card

BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 20)}]}}\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("---\nlicense: MIT\npipeline_tag: fill-mask\n---\n# bert\n\nA small one.\n", card.Card("mit", "fill-mask", "A small one.")),
        ("---\r\nlicense: other\r\nlicense_name: mine\r\nlanguage: [EN, no]\r\n---\r\n", card.Card("mine", languages=("en", "no"))),
        ("No front matter.\n", card.Card(description="No front matter.")),
        ("---\nlicense: 2024-99-99\n---\n", card.Card("2024-99-99")),
        ("---\n- a list\n---\nText.\n", card.Card(description="Text.")),
        ("---\na: [\n---\n", card.Card()),
        ("---\na: " + "[" * 5000 + "\n---\n", card.Card()),
        ("---\n" + BOMB + "---\n", card.Card()),
        ("---\nlicense: " + "x" * card.LARGEST + "\n---\n", card.Card()),
        ("---" + "\n" * (card.LARGEST - 3), card.Card(description="---")),
        ('---\nlicense: "\\ud800"\n---\n', card.Card("?")),
    ],
)
def test_what_a_readme_says(readme, expected):
    assert card.read({"README.md": readme.encode()}.get) == expected


def test_a_description_that_no_answer_could_hold():
    found = card.read({"configuration.json": json.dumps({"task": "fill\ud800mask"}).encode()}.get)
    assert found.task == "fill?mask"


@pytest.mark.parametrize("matter", ["a: [", "- a", BOMB, "a: 1\na: 2", "x" * (card.LARGEST + 1)])
def test_front_matter_that_is_refused(matter):
    with pytest.raises(Usage):
        card.front_matter(f"---\n{matter}\n---\n")
