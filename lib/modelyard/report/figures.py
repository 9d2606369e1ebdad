"""Charts as inline SVG: pure functions from numbers to a string, the same string for the same numbers.

Colours are classes that the page's stylesheet gives a value in light, dark and print; no figure says something by colour alone. Each one is an
image with a name (role, title), and what its marks stand for is written beside them. Texts from outside are escaped and cut here. Sizes are in
units of the view box, about a pixel on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from modelyard.report.words import cut, number

NARROW, WIDE = 340, 400
"""Widths of a figure that stands beside two others, and of one that stands beside one."""
LETTER = 6.4
"""Width of a letter at 12 units, a little more than the usual."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 38
_KEY = 18
"""Height of a line of a legend."""
Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """Points of one kind, by rising x.

    style: `faint` for what another series summarises; `dots`: few points that each count; `dashed`: beside another line of that colour, or to be
    compared with. spread: of each point the lower and the upper end of its interval.
    """

    name: str
    points: Sequence[Point]
    colour: int = 1
    style: Literal["line", "faint", "dots", "area", "dashed"] = "line"
    spread: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Whisker:
    """A value with its interval. floor: what it has to reach, None where nothing asks for that."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    floor: float | None = None


@dataclass(frozen=True)
class Bar:
    """A value from zero."""

    label: str
    value: float
    text: str
    colour: int = 1


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers in [low, high], `about` of them, 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def written(values: Sequence[float]) -> list[str]:
    """Ticks of one axis, all with as many digits after the point as one of them needs."""
    if any(value and not 1e-3 <= abs(value) < 1e6 for value in values):
        return [_power(value) if value else "0" for value in values]
    digits = max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in values), default=0)
    return [f"{value:.{digits}f}" for value in values]


def _power(value: float) -> str:
    """`1.2e-4`: as many digits as there are, three after the point at most."""
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """The mean of each point with those before it, at most `window` of them."""
    means: list[Point] = []
    total = 0.0
    for place, (x, y) in enumerate(points):
        total += y - (points[place - window][1] if place >= window else 0.0)
        means.append((x, total / min(place + 1, window)))
    return means


def lines(
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    y_format: Format | None = None,
    x_format: Format = number,
    bounds: tuple[float | None, float | None] = (None, None),
    limit: tuple[float, str] | None = None,
    height: int = 220,
    width: int = NARROW,
) -> str:
    """Series over a common x. y_format: default digits as needed. bounds: of y, None: as the points have it. limit: a line across, and its name."""
    points = [point for each in series for point in each.points]
    left, right = _span([point[0] for point in points])
    keys, top = _legend(series, width)
    height += top - _TOP
    low, high = _span([*(point[1] for point in points), *((limit[0],) if limit else ())], pad=0.06)
    low, high = low if bounds[0] is None else bounds[0], high if bounds[1] is None else bounds[1]
    plot = _Plot(left, right, low, high, width, height, top)
    parts = [*keys, *_axes(plot, x, x_format, y_format)]
    if limit:
        at, name = plot.y(limit[0]), escape(cut(limit[1], 40))
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="note" x="{width - _RIGHT}" y="{coordinate(float(at) - 5)}" text-anchor="end">{name}</text>')
    for each in series:
        parts += _drawn(plot, each, y_format or number, x, x_format)
    return svg(title, width, height, parts)


def whiskers(title: str, rows: Sequence[Whisker], *, x_format: Format = number, width: int = WIDE) -> str:
    """Values as dots with their intervals as lines, one below the other on one scale; a floor is a mark with its number."""
    ends = [end for row in rows for end in (row.low, row.high, row.value, *((row.floor,) if row.floor is not None else ()))]
    low, high = _span(ends, pad=0.08)
    if min(ends) >= 0 and max(ends) <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    each, top = 42, 6
    height = top + each * len(rows) + 26
    left, right = 6, width - 6

    def place(value: float) -> str:
        return coordinate(left + (value - low) / (high - low) * (right - left))

    parts = []
    base = top + each * len(rows)
    marks = ticks(low, high, 4)
    for tick, text in zip(marks, written(marks), strict=True):
        parts.append(f'<line class="grid" x1="{place(tick)}" x2="{place(tick)}" y1="{top}" y2="{base}"/>')
        x = min(max(float(place(tick)), len(text) * LETTER / 2), width - len(text) * LETTER / 2)
        parts.append(f'<text class="tick" x="{coordinate(x)}" y="{base + 16}" text-anchor="middle">{text}</text>')
    for index, row in enumerate(rows):
        y = top + each * index + 30
        shown = f"{x_format(row.value)}{' · ' + row.note if row.note else ''}"
        parts.append(f'<text class="name" x="{left}" y="{y - 13}">{titled(row.label, 34)}</text>')
        parts.append(f'<text class="value" x="{right}" y="{y - 13}" text-anchor="end">{escape(cut(shown, 40))}</text>')
        parts.append(f'<line class="rail" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        if row.floor is not None:
            parts.append(f'<path class="floor" d="M{place(row.floor)} {y - 9}v18"><title>floor {x_format(row.floor)}</title></path>')
        ends_at = "".join(f"M{place(end)} {y - 5}v10" for end in (row.low, row.high))
        parts.append(f'<path class="s1 line" d="M{place(row.low)} {y}H{place(row.high)}{ends_at}"/>')
        parts.append(f'<circle class="f1 halo" cx="{place(row.value)}" cy="{y}" r="5"/>')
    return svg(title, width, height, parts)


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each with its name and its value in words above it."""
    each, left, right = 40, 0, NARROW
    top = max((row.value for row in rows), default=0) or 1.0
    parts = []
    for index, row in enumerate(rows):
        y = each * index + 18
        length = max((right - left) * max(row.value, 0) / top, 1)
        parts.append(f'<text class="name" x="{left}" y="{y - 3}">{titled(row.label, 34)}</text>')
        parts.append(f'<text class="value" x="{right}" y="{y - 3}" text-anchor="end">{escape(cut(row.text, 34))}</text>')
        parts.append(f'<rect class="bed" x="{left}" y="{y + 3}" width="{right - left}" height="10" rx="3"/>')
        parts.append(f'<rect class="f{row.colour}" x="{left}" y="{y + 3}" width="{coordinate(length)}" height="10" rx="3"/>')
    return svg(title, NARROW, each * len(rows) + 4, parts)


# --- lines: axes, legend, marks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plot:
    left: float
    right: float
    low: float
    high: float
    width: int
    height: int
    top: int

    def x(self, value: float) -> str:
        return coordinate(_LEFT + (value - self.left) / (self.right - self.left) * (self.width - _LEFT - _RIGHT))

    def y(self, value: float) -> str:
        return coordinate(self.height - _BOTTOM - (value - self.low) / (self.high - self.low) * (self.height - self.top - _BOTTOM))


def _axes(plot: _Plot, x: str, x_format: Format, y_format: Format | None) -> list[str]:
    parts, base = [], plot.height - _BOTTOM
    marks = ticks(plot.low, plot.high, 4)
    for tick, text in zip(marks, [y_format(tick) for tick in marks] if y_format else written(marks), strict=True):
        y = plot.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{plot.width - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{coordinate(float(y) + 4)}" text-anchor="end">{escape(text)}</text>')
    parts += [
        f'<text class="tick" x="{plot.x(tick)}" y="{base + 17}" text-anchor="middle">{escape(x_format(tick))}</text>'
        for tick in ticks(plot.left, plot.right, 4)
    ]
    parts.append(f'<line class="base" x1="{_LEFT}" x2="{plot.width - _RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text class="axis" x="{plot.width - _RIGHT}" y="{plot.height - 6}" text-anchor="end">{escape(x)}</text>')
    return parts


def _legend(series: Sequence[Series], most: int) -> tuple[list[str], int]:
    """(the names with their marks, in as many lines as they need; where the plot begins below them)."""
    parts, x, line = [], float(_LEFT), 0
    for each in series:
        name = cut(each.name, 30)
        width = 21 + len(name) * LETTER + 16
        if x > _LEFT and x + width - 16 > most:
            x, line = float(_LEFT), line + 1
        y = 12 + _KEY * line
        mark = (
            f'<circle class="f{each.colour}" cx="{coordinate(x + 8)}" cy="{y}" r="4"/>'
            if each.style == "dots"
            else f'<path class="{_stroke(each)}" d="M{coordinate(x)} {y}h16"/>'
        )
        parts.append(f'{mark}<text class="legend" x="{coordinate(x + 21)}" y="{y + 4}">{escape(name)}</text>')
        x += width
    return parts, _TOP + _KEY * line


def _stroke(series: Series) -> str:
    return f"s{series.colour} line" + (f" {series.style}" if series.style in ("faint", "dashed") else "")


def _drawn(plot: _Plot, series: Series, y_format: Format, x: str, x_format: Format) -> list[str]:
    if not series.points:
        return []
    path = "M" + "L".join(f"{plot.x(a)} {plot.y(b)}" for a, b in series.points)
    stroke = f'<path class="{_stroke(series)}" d="{path}"/>'
    parts = [] if series.style == "dots" and (len(series.points) == 1 or series.spread) else [stroke]
    for (a, _), (low, high) in zip(series.points, series.spread, strict=False):
        parts.append(f'<path class="s{series.colour} line" d="M{plot.x(a)} {plot.y(low)}V{plot.y(high)}"/>')
    if series.style == "area":
        base = plot.height - _BOTTOM
        first, last = plot.x(series.points[0][0]), plot.x(series.points[-1][0])
        parts.insert(0, f'<path class="f{series.colour} fill" d="{path}L{last} {base}L{first} {base}Z"/>')
    if series.style == "dots" or len(series.points) == 1:
        for a, b in series.points:
            tip = escape(f"{series.name}: {y_format(b)} at {x} {x_format(a)}")
            parts.append(f'<circle class="f{series.colour} halo" cx="{plot.x(a)}" cy="{plot.y(b)}" r="4.5"><title>{tip}</title></circle>')
    return parts


# --- strings ---------------------------------------------------------------------------------------------------------------------------------


def _span(values: Sequence[float], pad: float = 0.0) -> tuple[float, float]:
    """The range of the values, never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low <= 1e-12 * max(abs(high), abs(low), 1e-9):
        room = abs(high) * 0.1 or 1.0
        return low - room, high + room
    return low - (high - low) * pad, high + (high - low) * pad


def titled(text: str, letters: int) -> str:
    """The text, cut; where something is gone, all of it (as far as is sensible) on hovering."""
    short = cut(text, letters)
    return escape(short) + (f"<title>{escape(cut(text, 300))}</title>" if short != text else "")


def coordinate(value: float) -> str:
    """A coordinate: two digits after the point are enough, and equal on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def svg(title: str, width: float, height: float, parts: Sequence[str], *, fixed: bool = False) -> str:
    """fixed: never drawn smaller than it is; its box scrolls instead."""
    name = escape(cut(title, 200))
    size = f' style="min-width:{coordinate(width)}px"' if fixed else ""
    box = f'viewBox="0 0 {coordinate(width)} {coordinate(height)}"{size}'
    return f'<svg class="figure" {box} role="img" aria-label="{name}"><title>{name}</title>{"".join(parts)}</svg>'
