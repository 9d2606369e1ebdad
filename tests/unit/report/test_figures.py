"""Charts: well-formed, named, without a text that breaks out, the same for the same numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from modelyard.report import figures, matrix
from modelyard.report.figures import Bar, Series, Whisker

HOSTILE = '</svg><script>alert("1")</script>\u202e\0'
SVG = "{http://www.w3.org/2000/svg}"

CURVE = Series("loss", [(float(x), 1 / x) for x in range(1, 40)])
DRAWN = {
    "line": figures.lines("loss", [CURVE], x="step"),
    "one point": figures.lines("one", [Series("loss", [(1.0, 0.5)])], x="step"),
    "no point": figures.lines("none", [Series("loss", [])], x="step"),
    "all equal": figures.lines("flat", [Series("loss", [(1.0, 0.0), (2.0, 0.0)], style="dots")], x="step", bounds=(0.0, 1.0)),
    "area with a limit": figures.lines("memory", [Series("used", [(0.0, 1.0), (2.0, 3.0)], style="area")], x="t", limit=(4.0, HOSTILE)),
    "whiskers": figures.whiskers("metrics", [Whisker("accuracy", 0.8, 0.7, 0.9, floor=0.75), Whisker(HOSTILE, 1.0, 1.0, 1.0, HOSTILE)]),
    "bars": figures.bars("speed", [Bar(HOSTILE, 0.0, HOSTILE), Bar("b", 2.0, "2")]),
    "no bar is longer than none": figures.bars("speed", [Bar("a", 0.0, "0")]),
    "two labels": matrix.matrix("confusion", [HOSTILE, "b"], [[5, 1], [0, 0]]),
    "fifty labels": matrix.matrix(
        "confusion", [f"label {n}" for n in range(50)], [[n == m or (n + m) % 7 == 0 for m in range(50)] for n in range(50)]
    ),
}


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


@pytest.mark.parametrize("svg", DRAWN.values(), ids=DRAWN)
def test_well_formed_named_and_finite(svg: str) -> None:
    root = parsed(svg)
    assert root.get("role") == "img"
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == root.get("aria-label")
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {"svg", "title", "text", "line", "path", "circle", "rect"}
    assert not re.search(r"nan|inf", " ".join(value for element in root.iter() for value in element.attrib.values() if value != title.text))
    assert "\u202e" not in svg


@pytest.mark.parametrize("svg", DRAWN.values(), ids=DRAWN)
def test_every_mark_lies_within(svg: str) -> None:
    root = parsed(svg)
    width, height = map(float, root.get("viewBox", "").split()[2:])
    for element in root.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("y1", height), ("y2", height), ("cy", height)):
            if (value := element.get(name)) is not None:
                assert -0.01 <= float(value) <= most + 0.01, (element.tag, name, value)


def test_what_is_drawn_is_what_was_given() -> None:
    line = parsed(DRAWN["line"])
    path = next(element.get("d", "") for element in line.iter(f"{SVG}path") if element.get("d", "").count("L") > 5)
    heights = [float(pair.split()[1]) for pair in path.removeprefix("M").split("L")]
    assert len(heights) == 39
    assert heights == sorted(heights), "a loss that falls is drawn downwards"
    texts = [element.text for element in parsed(DRAWN["two labels"]).iter(f"{SVG}text")]
    assert [text for text in texts if text in ("5", "1", "0")] == ["5", "1", "0", "0"]
    assert "83.3 %" in texts


def test_a_floor_stands_where_its_value_is() -> None:
    svg = figures.whiskers("m", [Whisker("accuracy", 0.8, 0.7, 0.9, floor=0.7)], x_format=lambda value: f"{value:.2f}")
    root = parsed(svg)
    floor = next(element for element in root.iter(f"{SVG}path") if element.get("class") == "floor")
    line = next(element for element in root.iter(f"{SVG}path") if element.get("class") == "s1 line")
    assert floor.get("d", "").split()[0] == line.get("d", "").split()[0], "the lower end is at the floor"
    assert "floor 0.70" in svg


def test_of_many_labels_the_most_confused_are_drawn() -> None:
    size = 60
    counts = [[10 * (row == column) for column in range(size)] for row in range(size)]
    for place in range(40, 60):
        counts[place][(place + 1) % size] = 3
    texts = [element.text for element in parsed(matrix.matrix("c", [f"l{n}" for n in range(size)], counts)).iter(f"{SVG}text")]
    assert {f"l{n}" for n in range(40, 60)} <= set(texts)
    assert len([text for text in texts if text and re.fullmatch(r"l\d+", text)]) == 2 * matrix.DRAWN_LABELS


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.79, 0.83, [0.79, 0.8, 0.81, 0.82, 0.83]),
        (0, 126, [0, 50, 100]),
        (3, 3, [3]),
        (-1e-5, 1e-5, [-1e-5, 0, 1e-5]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert figures.ticks(low, high, 5 if high == 1 else 4 if high < 1 and low > 0 else 3) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.8, 0.805], ["0.800", "0.805"]),
        ([0, 5e-5, 1e-4], ["0", "5e-5", "1e-4"]),
        ([1e-4, 1.2e-4], ["1e-4", "1.2e-4"]),
        ([0, 2e7], ["0", "2e7"]),
        ([0, 50, 100], ["0", "50", "100"]),
        ([], []),
    ],
)
def test_ticks_of_an_axis_have_digits_alike(values: list[float], wanted: list[str]) -> None:
    assert figures.written(values) == wanted


def test_a_mean_of_the_points_before() -> None:
    assert figures.smoothed([(1, 2.0), (2, 4.0), (3, 6.0)], 2) == [(1, 2.0), (2, 3.0), (3, 5.0)]
