"""Numbers and texts as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.report import words


def test_cut() -> None:
    assert words.cut("abc", 3) == "abc"
    assert words.cut("abcd", 3) == "ab…"
    assert words.cut("a\nb\x00\u202ec\ud800", 9) == "a b  c "
    assert words.cut("क्\u200dष", 9) == "क्\u200dष", "joiners are part of the text"


@pytest.mark.parametrize(("value", "shown"), [(1.0, "100 %"), (0.9999, "99.9 %"), (0.5, "50 %"), (0.0015, "0.1 %"), (0.0, "0 %")])
def test_percent(value: float, shown: str) -> None:
    assert words.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown", "less"),
    [(0.5, "0.5000", "+0.5000"), (-12.25, "-12.2500", "-12.2500"), (0.0, "0.0000", "+0.0000"), (1e304, "1e+304", "+1e+304")],
)
def test_scores_and_their_differences(value: float, shown: str, less: str) -> None:
    assert (words.four(value), words.signed(value)) == (shown, less)


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0"), (1.31e-6, "1.3\u00d710⁻⁶"), (1e-4, "1\u00d710⁻⁴"), (0.5, "0.5"), (2.5e4, "2.5\u00d710⁴")])
def test_small(value: float, shown: str) -> None:
    assert words.small(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [({"a": 1, "b": None}, "a: 1"), ([1, "x"], "1, x"), (True, "yes"), (None, "none"), (0.25, "0.25"), ({"a": {"b": [2]}}, "a: b: 2")],
)
def test_plain(value: Any, shown: str) -> None:
    assert words.plain(value) == shown
