"""Labelled spans in their text: a text in pieces, each plain or a span, and whether that span is right.

A predicted span is right where a true one has the same ends and the same label, which is also how spans are counted. Of spans that overlap, the one
that begins first is marked.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from modelyard.report import shapes

LETTERS = 500
"""Of a text at most: from its beginning, or from shortly before what is wrong where that lies further on."""
_BEFORE = 100


@dataclass(frozen=True)
class Piece:
    """A stretch of text. label: of a span; found: whether the other side has the same one."""

    text: str
    label: str = ""
    found: bool = True

    @property
    def kind(self) -> Literal["plain", "right", "wrong"]:
        """As the stylesheet calls it."""
        return ("right" if self.found else "wrong") if self.label else "plain"


@dataclass(frozen=True)
class Marked:
    """One text twice: with its true spans, and with those that were predicted."""

    true: tuple[Piece, ...]
    predicted: tuple[Piece, ...]


def marked(case: shapes.Case) -> Marked | None:
    """The row with its spans; None where it has none, or no text to mark them in."""
    true, predicted = _spans(case.true), _spans(case.predicted)
    if true is None or predicted is None or not case.text:
        return None
    wrong = min(true ^ predicted, key=lambda span: (span.start, span.end), default=None)
    begin = max(0, wrong.start - _BEFORE) if wrong and LETTERS < wrong.end <= len(case.text) else 0
    return Marked(_pieces(case.text, begin, true, predicted), _pieces(case.text, begin, predicted, true))


def _spans(value: object) -> set[shapes.Span] | None:
    if not isinstance(value, tuple):
        return None
    spans = {each for each in value if isinstance(each, shapes.Span)}
    return spans if spans or not value else None


def _pieces(text: str, begin: int, spans: Iterable[shapes.Span], others: Container[shapes.Span]) -> tuple[Piece, ...]:
    at, end = begin, min(len(text), begin + LETTERS)
    pieces = [Piece("… ")] if begin else []
    for span in sorted(spans, key=lambda span: (span.start, -span.end, span.label)):
        if not at <= span.start < min(span.end, end):
            continue
        if span.start > at:
            pieces.append(Piece(text[at : span.start]))
        at = min(span.end, end)
        pieces.append(Piece(text[span.start : at], span.label, span in others))
    if at < end:
        pieces.append(Piece(text[at:end]))
    return (*pieces, Piece(" …")) if end < len(text) else tuple(pieces)
