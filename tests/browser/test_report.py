"""The report as people see it: in a browser, wide and narrow, light and dark, and on paper."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from modelyard import report
from modelyard.yard import Yard
from modelyard.yard.runs import Run
from tests.unit.report import answers, example

HOSTILE = ["</text><script>document.title = 'broken'</script>", "<img src=x onerror=\"document.title='broken'\">", "W" * 300]
RUNS: dict[str, Callable[[Yard], Run]] = {
    "whole": example.whole,
    "refused": lambda yard: example.whole(yard, passed=False, overlap=40),
    "crashed": example.crashed,
    "running": example.running,
    "fifty labels": lambda yard: example.whole(yard, labels=[f"label number {place}" for place in range(50)]),
    "every task": answers.tasks,
    "hostile": lambda yard: example.whole(yard, labels=HOSTILE, texts=[*HOSTILE, "no spaces" * 100]),
}


Scheme = Literal["light", "dark"]
WHOLE: list[tuple[str, int, Scheme]] = [
    (name, width, scheme) for name in ("whole", "hostile") for width in (400, 1400) for scheme in ("light", "dark")
]
OTHERS: list[tuple[str, int, Scheme]] = [(name, *view) for name in RUNS for view in ((400, "dark"), (1400, "light"))]
VIEWS = list(dict.fromkeys([*WHOLE, *OTHERS]))


@dataclass
class Heard:
    """What a page did that it should not."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    made = {}
    for name, make in RUNS.items():
        yard = Yard.open(folder / f"{name} yard")
        made[name] = folder / f"{name}.html"
        made[name].write_text(report.render(yard, make(yard)), encoding="utf-8")
    return made


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[tuple[Page, Heard]]:
    context = browser.new_context(**options)
    page, heard = context.new_page(), Heard()
    page.on("console", lambda message: heard.console.append(message.text))
    page.on("pageerror", lambda error: heard.console.append(str(error)))
    page.on("request", lambda request: heard.requests.append(request.url))
    page.goto(file.as_uri())
    yield page, heard
    context.close()


SHOWN = """selector => [...document.querySelectorAll(selector)].filter(element => element.checkVisibility()).map(element => {
  const box = element.getBoundingClientRect();
  return {width: box.width, height: box.height, left: box.left, right: box.right, name: element.getAttribute('aria-label') || ''};
})"""
TEXT_SIZES = """() => [...document.querySelectorAll('svg.figure text')].filter(text => text.checkVisibility()).map(text => {
  const matrix = text.getScreenCTM();
  return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b);
})"""
SPILLS = """() => [...document.querySelectorAll('main > *, article, figure, .tile, p, dd, li, summary')]
  .filter(element => element.checkVisibility() && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(element => element.outerHTML.slice(0, 120))"""
SCROLL = """() => {
  const box = document.querySelector('#steps .scroll');
  box.scrollLeft = 9999;
  return [box.scrollLeft, box.scrollWidth - box.clientWidth];
}"""


@pytest.mark.parametrize(("name", "width", "scheme"), VIEWS)
def test_on_a_screen(browser: Browser, reports: dict[str, Path], tmp_path: Path, name: str, width: int, scheme: Scheme) -> None:
    with opened(browser, reports[name], viewport={"width": width, "height": 900}, color_scheme=scheme) as (page, heard):
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), "the page itself scrolls sideways"
        assert page.evaluate(SPILLS) == []
        figures, tables = page.evaluate(SHOWN, "svg.figure"), page.evaluate(SHOWN, "table")
        short = name in ("crashed", "running")
        assert len(figures) >= (3 if short else 12)
        assert len(tables) >= (2 if short else 6)
        for box in [*figures, *tables]:
            assert box["width"] > 100, box
            assert box["height"] > 20, box
        assert len([box for box in figures if box["name"].startswith("What made what")]) == 1, "one of the two drawings of the lineage"
        assert min(page.evaluate(TEXT_SIZES)) >= 8.5, "letters in a figure are too small to be read"
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", dark))) < 200) is (scheme == "dark")
        assert page.title().startswith("movie-sentiment: ")
        page.screenshot(path=tmp_path / f"{name} {width} {scheme}.png", full_page=True)
        assert (tmp_path / f"{name} {width} {scheme}.png").stat().st_size > 20_000
    assert heard.console == []
    assert [request for request in heard.requests if not request.startswith("data:")] == [reports[name].as_uri()]


def test_pictures_are_drawn_and_marks_are_no_colour_alone(browser: Browser, reports: dict[str, Path]) -> None:
    with opened(browser, reports["every task"], viewport={"width": 400, "height": 900}) as (page, heard):
        page.evaluate("document.querySelectorAll('#evaluation details').forEach(details => { details.open = true; })")
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        widths = page.evaluate(
            "[...document.querySelectorAll('.errors img')].map(image => [image.naturalWidth, image.getBoundingClientRect().width])"
        )
        assert [natural for natural, _ in widths] == [320, 320, 96, 96]
        assert all(0 < shown <= 376 for _, shown in widths)
        styles = "name => getComputedStyle(document.querySelector(`mark.is-${name}`)).borderBottomStyle"
        assert [page.evaluate(styles, name) for name in ("right", "wrong")] == ["solid", "dashed"]
    assert heard.console == []
    assert heard.requests == [reports["every task"].as_uri(), *(request for request in heard.requests if request.startswith("data:image/png"))]


def test_without_scripts_it_is_whole(browser: Browser, reports: dict[str, Path]) -> None:
    with opened(browser, reports["whole"], java_script_enabled=False, viewport={"width": 1400, "height": 900}) as (page, heard):
        assert page.get_by_text("No evaluated text also stands in train.").is_visible()
        summary = page.locator("#decisions summary").first
        reason = page.get_by_text("2 CPUs are allowed").first
        assert not reason.is_visible()
        summary.click()
        assert reason.is_visible()
    assert heard.requests == [reports["whole"].as_uri()]


def test_wide_tables_scroll_in_their_own_box(browser: Browser, reports: dict[str, Path]) -> None:
    with opened(browser, reports["whole"], viewport={"width": 400, "height": 900}) as (page, _):
        scrolled = page.evaluate(SCROLL)
        assert scrolled[0] > 50
        assert abs(scrolled[0] - scrolled[1]) <= 1
        page.locator("#steps .scroll").focus()
        assert page.evaluate("document.activeElement.className") == "scroll", "the keyboard reaches it too"


@pytest.mark.parametrize("name", RUNS)
def test_on_paper(browser: Browser, reports: dict[str, Path], tmp_path: Path, name: str) -> None:
    paper = 703  # CSS pixels between the margins of A4
    with opened(browser, reports[name], viewport={"width": paper, "height": 1000}, color_scheme="dark") as (page, heard):
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= paper
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 30, 34)", "paper is light"
        for box in page.evaluate(SHOWN, "svg.figure"):
            assert box["right"] <= paper + 1, f"{box['name']} is cut off"
        heights = page.evaluate(
            "() => [...document.querySelectorAll('details > :not(summary)')].map(content => content.getBoundingClientRect().height)"
        )
        assert heights
        assert min(heights) > 0, "what is folded on a screen is open on paper"
        page.pdf(path=tmp_path / "report.pdf", format="A4", print_background=True)
    document = (tmp_path / "report.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", document)) >= (2 if name in ("crashed", "running") else 4)
    assert glyphs(document) > 1000
    assert heard.console == []


def glyphs(document: bytes) -> int:
    """Glyphs that the pages of a PDF show: two bytes, four hex digits each, in its content streams."""
    shown = 0
    for packed in re.findall(rb"stream\r?\n(.*?)endstream", document, re.DOTALL):
        try:
            content = zlib.decompressobj().decompress(packed)
        except zlib.error:
            continue  # a stream that is not deflated
        if b"BT" in content:
            shown += sum(len(text) // 4 for text in re.findall(rb"<([0-9A-Fa-f]+)>", content))
    return shown
