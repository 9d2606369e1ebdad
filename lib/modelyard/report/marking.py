"""Labelled spans in their text: a text in pieces, each plain or a span, and whether that span is right.

A predicted span is right where a true one has the same ends and the same label, which is also how spans are counted. Of spans that overlap, the one
that begins first is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modelyard.report import shapes

WORDS, LETTERS = 90, 500
"""Of a row at most."""


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

    @property
    def alike(self) -> bool:
        """Whether both say the same."""
        return all(piece.found for piece in (*self.true, *self.predicted))


def marked(case: shapes.Case) -> Marked | None:
    """The row with its spans; None where it has none, or no text to mark them in."""
    true, predicted = _spans(case.true), _spans(case.predicted)
    units: Sequence[str] = case.words or case.text
    if true is None or predicted is None or not units:
        return None
    joint, most = (" ", WORDS) if case.words else ("", LETTERS)
    return Marked(_pieces(units, joint, most, true, predicted), _pieces(units, joint, most, predicted, true))


def _spans(value: object) -> list[shapes.Span] | None:
    if value is None or isinstance(value, str) or not isinstance(value, tuple):
        return None
    spans = [each for each in value if isinstance(each, shapes.Span)]
    return spans if len(spans) == len(value) else None


def _pieces(units: Sequence[str], joint: str, most: int, spans: Sequence[shapes.Span], others: Sequence[shapes.Span]) -> tuple[Piece, ...]:
    known = {(span.start, span.end, span.label) for span in others}
    pieces, at, end = [], 0, min(len(units), most)
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not at <= span.start < min(span.end, end):
            continue
        if span.start > at:
            pieces.append(Piece(joint.join(units[at : span.start]) + joint))
        at = min(span.end, end)
        pieces.append(Piece(joint.join(units[span.start : at]), span.label, (span.start, span.end, span.label) in known))
        if joint and at < end:
            pieces.append(Piece(joint))
    if at < end:
        pieces.append(Piece(joint.join(units[at:end])))
    return (*pieces, Piece(" …")) if end < len(units) else tuple(pieces)
