"""A confusion matrix as inline SVG: true against predicted labels, in counts and in shares of the true label's rows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from modelyard.report.figures import LETTER, WIDE, coordinate, svg, titled
from modelyard.report.words import cut

DRAWN_LABELS = 50
"""Labels that are drawn at most."""
WRITTEN_LABELS = 10
"""Labels up to which counts and shares are written into the cells."""
_LABEL = 16


def matrix(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Counts of true (rows) against predicted labels (columns), coloured by their share of the row; with few labels, both are written.

    Of more than DRAWN_LABELS labels, those are drawn that take part in most errors.
    """
    shown = sorted(_most_confused(counts, DRAWN_LABELS))
    legible = len(shown) <= WRITTEN_LABELS
    longest = max(len(cut(labels[place], _LABEL)) for place in shown)
    gutter = 30 + longest * LETTER
    cell = max(46.0, min(96.0, (WIDE - gutter - 4) / len(shown))) if legible else 13.0
    upright = longest <= int(cell / LETTER)
    top = 44.0 if upright else 30 + longest * LETTER
    side = cell * len(shown)
    width, height = max(gutter + side + 4, WIDE), top + side + 46
    parts = [f'<text class="axis" x="{coordinate(gutter + side / 2)}" y="14" text-anchor="middle">predicted</text>']
    middle = top + side / 2
    parts.append(
        f'<text class="axis" x="12" y="{coordinate(middle)}" text-anchor="middle" transform="rotate(-90 12 {coordinate(middle)})">true</text>'
    )
    parts.append(f'<rect class="bed" x="{coordinate(gutter)}" y="{coordinate(top)}" width="{coordinate(side)}" height="{coordinate(side)}"/>')
    for index, place in enumerate(shown):
        x, y = gutter + index * cell + cell / 2, top + index * cell + cell / 2
        name = titled(labels[place], _LABEL)
        turned = "" if upright else f' transform="rotate(-90 {coordinate(x + 4)} {coordinate(top - 6)})"'
        at = f'x="{coordinate(x)}" text-anchor="middle"' if upright else f'x="{coordinate(x + 4)}"'
        parts.append(f'<text class="tick" x="{coordinate(gutter - 6)}" y="{coordinate(y + 4)}" text-anchor="end">{name}</text>')
        parts.append(f'<text class="tick" {at} y="{coordinate(top - 6)}"{turned}>{name}</text>')
    for row, true in enumerate(shown):
        total = sum(counts[true]) or 1
        for column, predicted in enumerate(shown):
            count = counts[true][predicted]
            if not count and not legible:
                continue
            x, y, share = gutter + column * cell, top + row * cell, count / total
            hint = f"{cut(labels[true], 40)} taken for {cut(labels[predicted], 40)}: {count} ({share * 100:.1f} %)" if row != column else ""
            tip = f"<title>{escape(hint)}</title>" if hint else ""
            area = f'x="{coordinate(x + 0.5)}" y="{coordinate(y + 0.5)}" width="{coordinate(cell - 1)}" height="{coordinate(cell - 1)}"'
            parts.append(f'<rect class="heat" {area} style="--share:{share:.3f}">{tip}</rect>')
            if legible:
                centre, line = coordinate(x + cell / 2), y + cell / 2
                parts.append(f'<text class="count" x="{centre}" y="{coordinate(line - 1)}" text-anchor="middle">{count}</text>')
                parts.append(f'<text class="share" x="{centre}" y="{coordinate(line + 14)}" text-anchor="middle">{share * 100:.1f} %</text>')
    parts += _scale(gutter, top + side + 14)
    return svg(title, width, height, parts, fixed=not legible)


def _most_confused(counts: Sequence[Sequence[int]], most: int) -> list[int]:
    wrong = [sum(row) + sum(other[place] for other in counts) - 2 * row[place] for place, row in enumerate(counts)]
    return sorted(range(len(counts)), key=lambda place: (-wrong[place], place))[:most]


def _scale(left: float, top: float) -> list[str]:
    """What the colours of a matrix mean."""
    parts = [
        f'<rect class="heat" x="{coordinate(left + 22 * place)}" y="{coordinate(top)}" width="22" height="10" style="--share:{place / 5:.3f}"/>'
        for place in range(6)
    ]
    parts.append(f'<rect class="frame" x="{coordinate(left)}" y="{coordinate(top)}" width="132" height="10"/>')
    parts.append(f'<text class="tick" x="{coordinate(left)}" y="{coordinate(top + 24)}">0 %</text>')
    parts.append(f'<text class="tick" x="{coordinate(left + 132)}" y="{coordinate(top + 24)}" text-anchor="end">100 % of the row</text>')
    return parts
