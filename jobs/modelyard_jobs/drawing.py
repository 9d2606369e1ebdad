"""Boxes drawn on an image with their labels and scores, as a PNG; what was found beside what is true.

A class is told by the text at its box; its colour and the dashes of its line only help the eye. Lines are framed in black with white between the
dashes, and text stands on its class's colour, so that both can be read on any image. Small images are enlarged, so that there is room for text.
Labels with letters that Pillow's own font lacks are written by their number.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from modelyard_jobs.metrics.boxes import Boxes

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the panel."""

LARGEST = 800
"""Pixels of a panel's longer side at most."""
SMALLEST = 320
"""Pixels of a panel's longer side at least."""

# Okabe and Ito's colours for all kinds of colour vision. 7 colours and 4 kinds of line: no two of the first 28 classes have both in common.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_DASHES: tuple[tuple[int, ...], ...] = ((1 << 20,), (14, 7), (5, 5), (18, 5, 5, 5))
_WHITE_TEXT = frozenset({"#0072b2", "#d55e00", "#009e73"})
_FONT = 13
_HEAD = 22
_GAP = 8
_LINE = 3


@dataclass(frozen=True)
class Panel:
    """One copy of the image with some boxes. scored: whether their scores are written too."""

    heading: str
    boxes: Boxes
    scored: bool


def draw(image: Image.Image, panels: Sequence[Panel], labels: Sequence[str]) -> bytes:
    """PNG of the panels side by side. Boxes are in pixels of `image`; what is outside of it is not drawn."""
    longest = max(image.size)
    # Enlarged by a whole number: pixels stay what they are.
    factor = -(-SMALLEST // longest) if longest < SMALLEST else min(1.0, LARGEST / longest)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    shown = image.convert("RGB").resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)
    font = ImageFont.load_default(_FONT)
    width = max(shown.width, *(int(font.getlength(panel.heading)) + _GAP for panel in panels))
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, shown.height + _HEAD), "white")
    for place, panel in enumerate(panels):
        left = place * (width + _GAP)
        ImageDraw.Draw(sheet).text((left + 2, 3), panel.heading, fill="black", font=font)
        copy = shown.copy()
        _draw_boxes(ImageDraw.Draw(copy), panel, factor, labels, font)
        sheet.paste(copy, (left, _HEAD))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _draw_boxes(pen: ImageDraw.ImageDraw, panel: Panel, factor: float, labels: Sequence[str], font: Any) -> None:
    width, height = pen.im.size
    written: list[Rectangle] = []
    texts = []
    found = panel.boxes
    # The surest last: it lies over the others.
    for place in found.scores.argsort(kind="stable"):
        x, y, wide, high = (float(side) * factor for side in found.boxes[place])
        box = (max(x, 0.0), max(y, 0.0), min(x + wide, width - 1.0), min(y + high, height - 1.0))
        if box[0] > box[2] or box[1] > box[3]:
            continue
        label = int(found.labels[place])
        colour = _COLOURS[label % len(_COLOURS)]
        _frame(pen, box, colour, _DASHES[label % len(_DASHES)])
        text = labels[label] if labels[label].isascii() else f"class {label}"
        texts.append((box, text + f" {found.scores[place]:.2f}" * panel.scored + " (crowd)" * bool(found.crowd[place]), colour))
    for box, text, colour in reversed(texts):
        _write(pen, box, text, colour, font=font, written=written)


def _frame(pen: ImageDraw.ImageDraw, box: Rectangle, colour: str, dashes: Sequence[int]) -> None:
    left, top, right, bottom = box
    pen.rectangle((left - 1, top - 1, max(right + 1, left), max(bottom + 1, top)), outline="black", width=_LINE + 2)
    pen.rectangle(box, outline="white", width=_LINE)
    for start, end, lying in ((left, right, True), (top, bottom, False)):
        at, turn = start, 0
        while at <= end:
            until = min(end, at + dashes[turn % len(dashes)] - 1)
            if turn % 2 == 0:
                for near, far in ((box[lying], box[lying] + _LINE - 1), (box[lying + 2] - _LINE + 1, box[lying + 2])):
                    pen.rectangle((at, min(near, far), until, far) if lying else (min(near, far), at, far, until), fill=colour)
            at, turn = until + 1, turn + 1


def _write(pen: ImageDraw.ImageDraw, box: Rectangle, text: str, colour: str, *, font: Any, written: list[Rectangle]) -> None:
    """Put the text at the first place by the box that is free: above it, inside at the top, below it, inside at the bottom."""
    width, height = pen.im.size
    long, high = font.getlength(text) + 6, _FONT + 5
    left = max(0.0, min(box[0], width - long - 1))
    tops = (box[1] - high, box[1], box[3], box[3] - high)
    spots = [(left, top, left + long, top + high) for top in tops if 0 <= top <= height - high - 1] or [(left, 0.0, left + long, float(high))]
    spot = next((spot for spot in spots if not any(_touch(spot, other) for other in written)), spots[0])
    written.append(spot)
    pen.rectangle(spot, fill=colour, outline="black")
    pen.text((spot[0] + 3, spot[1] + 2), text, fill="white" if colour in _WHITE_TEXT else "black", font=font)


def _touch(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
