from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from modelyard_jobs import drawing
from modelyard_jobs.drawing import Panel, draw
from modelyard_jobs.metrics.boxes import Boxes

LABELS = [f"class{place}" for place in range(40)]


def opened(png):
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def drawn(colour, boxes, size=(400, 340), labels=LABELS, scored=True):
    return opened(draw(Image.new("RGB", size, colour), [Panel("predicted", Boxes.of(*boxes), scored)], labels))[drawing._HEAD :]


def luminance(pixels):
    linear = np.where(pixels / 255 <= 0.04045, pixels / 255 / 12.92, ((pixels / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("background", ["white", "black", "#808080", "#e69f00", "#0072b2"])
@pytest.mark.parametrize("label", range(8))
def test_a_frame_stands_out_on_any_background(background, label):
    picture = drawn(background, ([[50, 100, 200, 150]], [label], [0.9]))
    across = picture[175, 45:60]  # through the left side of the frame
    bright = luminance(across)
    assert (bright.max() + 0.05) / (bright.min() + 0.05) >= 3  # what WCAG asks of lines
    assert np.abs(picture[175, 150] - picture[5, 390]).sum() == 0  # what is inside stays as it is


def test_text_stands_out_from_its_colour():
    for colour in drawing._COLOURS:
        ground = luminance(np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]))
        text = 1.0 if colour in drawing._WHITE_TEXT else 0.0
        assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) >= 3


def test_classes_differ_by_more_than_colour():
    gray = [drawn("gray", ([[50, 100, 200, 150]], [label], [0.9]), labels=[""] * 40)[:, 45:60].sum(axis=(1, 2)) for label in range(4)]
    # Along the left side: a solid line, and three kinds of dashes.
    changes = [int((np.abs(np.diff(line[110:240])) > 60).sum()) for line in gray]
    assert changes[0] == 0
    assert len(set(changes)) == 4
    looks = {(place % len(drawing._COLOURS), place % len(drawing._DASHES)) for place in range(28)}
    assert len(looks) == 28


def test_the_frame_is_where_the_box_is():
    empty = drawn("white", ([], [], []))
    picture = drawn("white", ([[100, 120, 80, 60]], [3], [0.5]), labels=[""] * 4, scored=False)
    rows, columns = (np.flatnonzero((picture != empty).any(axis=(axis, 2))) for axis in (1, 0))
    assert (columns[0], columns[-1]) == (99, 181)
    assert rows[-1] == 181
    assert (picture[140:160, 110:170] == 255).all()


def test_panels_stand_side_by_side():
    box = Boxes.of([[100, 120, 80, 60]], [0])
    picture = opened(draw(Image.new("RGB", (400, 340), "white"), [Panel("predicted", box, True), Panel("true", box, False)], LABELS))
    assert picture.shape == (340 + drawing._HEAD, 2 * 400 + drawing._GAP, 3)
    left, right = picture[drawing._HEAD + 140 :, :400], picture[drawing._HEAD + 140 :, 400 + drawing._GAP :]
    assert (left == right).all()  # below the texts, of which one has a score
    assert (left != 255).any()


@pytest.mark.parametrize(
    ("size", "shown"), [((64, 48), (320, 240)), ((28, 28), (336, 336)), ((500, 400), (500, 400)), ((4000, 1000), (800, 200)), ((9000, 1), (800, 1))]
)
def test_small_images_grow_and_large_ones_shrink(size, shown):
    assert drawn("white", ([], [], []), size=size).shape == (shown[1], shown[0], 3)


def test_boxes_follow_the_scale():
    picture = drawn("white", ([[10, 10, 20, 20]], [0], [0.5]), size=(64, 64), labels=[""], scored=False)
    rows, columns = (np.flatnonzero((picture != 255).any(axis=(axis, 2))) for axis in (1, 0))
    assert (columns[0], columns[-1], rows[-1]) == (49, 151, 151)


@pytest.mark.parametrize(
    "box", [[-50, -50, 1000, 1000], [390, 330, 50, 50], [10, 10, 0, 0], [10, 10, 1, 1], [399, 339, 1, 1], [5000, 10, 10, 10], [-90, 10, 20, 20]]
)
def test_odd_boxes_are_drawn_or_left_out(box):
    picture = drawn("white", ([box], [1], [0.5]))
    assert picture.shape == (340, 400, 3)
    outside = box[0] >= 400 or box[0] + box[2] < 0
    assert (picture == 255).all() == outside


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "1"])
def test_any_mode_of_image(mode):
    assert opened(draw(Image.new(mode, (400, 340)), [Panel("x", Boxes.of([[5, 5, 50, 50]], [0]), True)], LABELS)).shape == (362, 400, 3)


def test_texts_do_not_hide_each_other():
    boxes = [[50, 100, 200, 150], [52, 101, 200, 150], [51, 102, 200, 150]]
    written: list[drawing.Rectangle] = []
    pen = drawing.ImageDraw.Draw(Image.new("RGB", (400, 340)))
    for x, y, wide, high in boxes:
        drawing._write(pen, (x, y, x + wide, y + high), "a label 0.50", "#e69f00", font=drawing.ImageFont.load_default(13), written=written)
    assert not any(drawing._touch(one, other) for place, one in enumerate(written) for other in written[:place])


def test_a_label_that_the_font_lacks_is_named_by_its_number():
    one, other = (drawn("white", ([[50, 100, 200, 150]], [1], [0.5]), labels=["a", label]) for label in ("猫", "class 1"))
    assert (one == other).all()
