"""Numbers and texts as people read them on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LARGE = 1e6
_JOINERS = "\u200c\u200d"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def clean(text: str, keep: str = "") -> str:
    """The text with a space for each control, mark that turns the direction of writing, and half of a pair; joiners stay: scripts need them."""
    return "".join(letter if letter.isprintable() or letter in _JOINERS or letter in keep else " " for letter in text)


def cut(text: str, letters: int) -> str:
    """At most so many letters, clean, with an ellipsis where some are gone."""
    plain = clean(text[: letters + 1])
    return plain if len(plain) <= letters else plain[: letters - 1].rstrip() + "…"


def number(value: float) -> str:
    """A number in few letters: four digits that count, no exponent where none is needed."""
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e") if "e" in text else text


def four(value: float) -> str:
    """A share or a score: four digits after the point, all of them written; a perplexity that has gone astray in few letters."""
    return f"{value:.4f}" if abs(value) < _LARGE else number(value)


def signed(value: float) -> str:
    """A difference of shares or scores: its sign, and digits as `four` has them."""
    return f"{'+' if value >= 0 else '-'}{four(abs(value))}"


def percent(value: float) -> str:
    """A share for people; what is not all is never written as 100."""
    shown = f"{value * 100:.1f}"
    return "99.9 %" if shown == "100.0" and value < 1 else f"{shown.removesuffix('.0')} %"


def small(value: float) -> str:
    """A difference: two digits that count, a power of ten where it is very small or large."""
    if value == 0 or 1e-2 <= abs(value) < 1e3:
        return f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}\u00d710" + str(int(power)).translate(_RAISED)


def plain(value: Any) -> str:
    """A JSON value in one line, without quotes and braces; of a mapping, what is set."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(each)}" for key, each in value.items() if each is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return number(value) if isinstance(value, float) else str(value)
