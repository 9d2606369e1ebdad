"""Evaluations of every task on the page: curves, slices, spans in their text, boxes and thumbnails as pictures of the page itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from modelyard import report
from modelyard.report import pictures, shapes
from modelyard.report.marking import LETTERS, Piece, marked
from modelyard.report.pictures import Album
from modelyard.yard import Yard
from tests.unit.report import answers, example
from tests.unit.report.test_page import Page, rendered, sealed

HOSTILE = '"><script>alert(1)</script>'


def page(yard: Yard, document: dict[str, Any], files: dict[str, bytes] | None = None) -> Page:
    build = example.Builder(yard)
    made = build.artifact("metrics", {"metrics.json": json.dumps(document).encode(), **(files or {})})
    build.step("score", "evaluate", {"model": "m", "data": "d"}, made=made)
    return rendered(yard, build.end())


def sources(found: Page) -> list[str]:
    return [value for name, value in found.attributes if name == "src"]


def test_a_run_of_every_task(yard: Yard) -> None:
    found = rendered(yard, answers.tasks(yard))
    sealed(found)
    assert "Missing here" not in found.text
    for wanted in (
        "f1 · spans 0.8610",  # the head says what models are compared by
        "map · boxes 0.4100",
        "log likelihood · language -2.6530",
        "accuracy · images",
    ):
        assert wanted in found.text, wanted


def test_spans_are_marked_in_their_text(yard: Yard) -> None:
    found = page(yard, answers.spans())
    sealed(found)
    assert found.tags.count("mark") == 3 + 3 + 1
    for wanted in (
        "true Send it to Ada Lovelace PERSON , 12 St James Square STREET missed , London CITY missed by Friday <b>noon</b> please",
        "predicted Send it to Ada Lovelace PERSON , 12 St James STREET wrong Square, London by Friday DATE wrong <b>noon</b> please",
        "Ada lives in London CITY missed .",
        "By type",
        "Share of right rows by length, 95 %",
        "A text is right where all of its spans are found, and no others.",
        "1 to 8 tokens",
        "STREET 120 118 0.7900",
    ):
        assert wanted in found.text, wanted


def test_words_are_counted_by_their_true_and_their_predicted_type(yard: Yard) -> None:
    found = page(yard, answers.spans())
    assert "Confusion matrix of words" in found.text
    assert "Words, and their share of the true type's words." in found.text
    assert "17 words were cut off: spans in them count as missed" in found.text
    assert "STREET taken for CITY: 9 (1.6 %)" in found.text
    assert "520" in found.text
    assert "91.2 %" in found.text


def test_words_that_are_longer_than_the_page_wants_are_cut() -> None:
    case = shapes.Case.model_validate(
        {"row": 0, "text": "x" * 5000, "true": [answers.span(1, 4000, "A"), answers.span(4500, 4600, "B")], "predicted": [answers.span(1, 4000, "A")]}
    )
    found = marked(case)
    assert found
    assert [piece.kind for piece in found.true] == ["plain", "plain", "wrong", "plain", "plain"]
    assert [len(piece.text) for piece in found.true] == [2, 100, 100, LETTERS - 200, 2], "what is wrong is on the page"
    assert found.predicted == (Piece("… "), Piece("x" * LETTERS), Piece(" …"))
    long = shapes.Case.model_validate({"row": 0, "text": "x" * 5000, "true": [answers.span(1, 4000, "A")], "predicted": []})
    found = marked(long)
    assert found
    assert found.true == (Piece("x"), Piece("x" * (LETTERS - 1), "A", found=False), Piece(" …"))


@pytest.mark.parametrize(("start", "end"), [(3, 3), (-1, 2), (5, 2), (99, 120)])
def test_a_span_that_is_none_is_left_out(start: int, end: int) -> None:
    found = marked(shapes.Case.model_validate({"row": 0, "text": "a b c", "true": [answers.span(start, end, "A")], "predicted": []}))
    assert found
    assert found.true == (Piece("a b c"),)


def test_spans_that_overlap_are_marked_once() -> None:
    spans = [answers.span(0, 3, "A"), answers.span(2, 5, "B")]
    found = marked(shapes.Case.model_validate({"row": 0, "text": "a b c", "true": spans, "predicted": spans}))
    assert found
    assert [(piece.text, piece.label) for piece in found.true] == [("a b", "A"), (" c", "")]


def test_boxes_are_shown_as_pictures_of_the_page(yard: Yard) -> None:
    scene = answers.picture()
    found = page(yard, answers.detection(), {answers.HOME: scene, "pictures/000000.png": scene})
    sealed(found)
    assert len(sources(found)) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources(found))
    assert "row 7: boxes: 1 true and 2 predicted" in [value for name, value in found.attributes if name == "alt"]
    assert "tokens" not in found.text, "images are not cut"
    for wanted in (
        "with most missed and most wrong boxes",
        "Precision over recall",
        "A box is found where one of its label overlaps it by half.",
        "boot 90 41 0.5200",
        "AP50",
    ):
        assert wanted in found.text, wanted


def test_a_language_model_has_its_perplexity_on_a_scale_of_its_own(yard: Yard) -> None:
    found = page(yard, answers.language())
    sealed(found)
    for wanted in (
        "Perplexity, 95 % intervals over 200 rows",
        "Metrics, 95 % intervals over 200 rows",
        "Share of right rows by length, 95 %",
        "the 1 that the model found least likely",
        "loss 6.815 per token, 12 tokens row 4",
        "Zyzzyva & <i>quux</i>",
    ):
        assert wanted in found.text, wanted


def test_differences_in_other_units_have_scales_of_their_own(yard: Yard) -> None:
    document = answers.language()
    for metric, less in zip(document["metrics"].values(), (0.2, -3.1, 0.01), strict=True):
        metric["difference"] = answers.around(less, abs(less) / 10, 200)
    document["against"] = {"digests": {"model": "a1" * 32, "against": "b2" * 32}, "metrics": document["metrics"]}
    found = page(yard, document)
    assert "Better than the other model: log likelihood +0.2000" in found.text
    assert found.text.count("Differences on the same rows, 95 % intervals") == 3
    assert found.text.count("Less is better.") == 1
    names = [value for name, value in found.attributes if name == "aria-label" and value.startswith("Differences of") and "with" in value]
    assert [name.partition(" with")[0] for name in names] == [
        "Differences of log likelihood of score",
        "Differences of token accuracy of score",
        "Differences of perplexity of score",
    ]


def test_a_model_that_has_gone_astray_has_a_page_that_can_be_read(yard: Yard) -> None:
    document = answers.language()
    astray = {**answers.around(1e304, 1e303, 200), "difference": answers.around(-1e304, 1e303, 200)}
    document["metrics"]["perplexity"] = astray
    document["against"] = {"digests": {"model": "a1" * 32, "against": "b2" * 32}, "metrics": {"perplexity": astray}}
    found = page(yard, document)
    assert "perplexity 1e+304 9e+303 to 1.1e+304" in found.text
    assert not re.search(r"\d{20}\.", found.text)


def test_a_masked_token_is_shown_with_its_loss(yard: Yard) -> None:
    document = answers.language() | {"task": "fill-mask"}
    document["errors"] = [{"row": 2, "text": "the cat sat", "true": ["cat"], "predicted": ["dog"], "loss": 6.25}]
    found = page(yard, document)
    assert "cat taken for dog loss 6.25 per token row 2 the cat sat" in found.text
    assert "A text is right where each hidden token was the likeliest in its place." in found.text


def test_images_have_thumbnails_and_probabilities_their_reliability(yard: Yard) -> None:
    found = page(yard, answers.images(), {f"pictures/{place}.png": answers.picture((96, 96)) for place in range(2)})
    sealed(found)
    assert len(sources(found)) == 2
    for wanted in (
        "No evaluated image also stands in train.",
        "Worst errors: the 2 that the model was surest of",
        "Its probabilities are not how often it is right: expected calibration error 0.1410 (0.1210 to 0.1610, 95 %).",
        "Reliability, 95 % intervals",
        "0.80 to 0.90 320 0.8500 0.7000",
        "Accuracy by shop, 95 %",
        "<south>",
    ):
        assert wanted in found.text, wanted


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("pictures/../metrics.json", b"\x89PNG\r\n\x1a\n", "it is no picture of the artifact"),
        ("/etc/passwd", b"", "it is no picture of the artifact"),
        ("https://evil.example/x.png", b"", "it is no picture of the artifact"),
        ("pictures/a.png", b"<svg onload='alert(1)'/>", "it is neither PNG nor JPEG"),
        ("pictures/a.png", b"\x89PNG\r\n\x1a\n" + bytes(pictures.LARGEST), "are taken at most"),
    ],
)
def test_what_is_no_picture_is_not_shown(yard: Yard, path: str, data: bytes, why: str) -> None:
    document = answers.detection()
    document["errors"] = [{**document["errors"][0], "picture": path}]
    found = page(yard, document, {"pictures/a.png": data or b"x"})
    sealed(found)
    assert sources(found) == []
    assert why in found.text
    assert "boxes: 1 true and 2 predicted" in found.text, "the row is there without it"


def test_pictures_are_bounded_in_number_and_size(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"pictures/{place}.png" for place in range(40)]
    files = {name: b"\x89PNG\r\n\x1a\n" + bytes([place]) * 1000 for place, name in enumerate(names)}
    made = example.Builder(yard).artifact("metrics", files)
    missing: list[str] = []
    album = Album(missing)
    assert list(album.of("score", made, names)) == names[: pictures.OF_STEP]
    assert missing == []
    album.room = 2500
    assert list(album.of("score", made, names[:4])) == names[:2]
    assert [line.partition(": ")[2].partition(" is not")[0] for line in missing] == ["the picture pictures/2.png", "the picture pictures/3.png"]
    monkeypatch.setattr(pictures, "OF_STEP", 1)
    assert list(Album([]).of("score", made, names)) == names[:1]


def test_an_inference_says_how_fast_it_was_and_shows_its_pictures(yard: Yard) -> None:
    build = example.Builder(yard)
    pictures = {f"pictures/{row}.png": answers.picture() for row in (0, 9, 10, *range(100, 112))}
    made = build.artifact("dataset", {"data/test-00000-of-00001.jsonl": b"{}", **pictures})
    details = {
        "rows": {"split": "test", "rows": 400, "failed": 3, "truncated": 7, "faults": {HOSTILE: 3}},
        "speed": {"rows": 400, "rows_per_second": 812.25, "tokens_per_second": 20100.0, "generated_per_second": 512.5, "padding": 0.043},
    }
    build.step("seen", "infer", {"model": "m", "data": "d"}, made=made, details=details)
    found = rendered(yard, build.end())
    sealed(found)
    for wanted in (
        "split test: 400 rows, 397 with an answer",
        f"without one: 3 rows, {HOSTILE}",
        "7 rows were cut",
        "812.2 rows, 20,100 tokens a second; 512 tokens generated a second; 4.3 % of what was computed was padding",
    ):
        assert wanted in found.text, wanted
    assert len(sources(found)) == 12
    assert [value for name, value in found.attributes if name == "alt"][:4] == [f"row {row} with its answer" for row in (0, 9, 10, 100)]


@pytest.mark.parametrize(
    ("task", "row", "unit"), [("token-classification", "text", "tokens"), ("object-detection", "image", "patches of 16 x 16 pixels")]
)
def test_what_a_training_is_told_about_is_named_by_its_task(yard: Yard, task: str, row: str, unit: str) -> None:
    build = example.Builder(yard)
    train = [{"step": step, "loss": 1.0, "lr": 1e-4} for step in range(3)]
    details = {
        "history": {"train": train},
        "rows": {"split": 90, "train": 80, "validation": 10},
        "speed": {"rows_per_second": 5.0, "tokens_per_second": 980.0},
    }
    made = build.artifact("model", {"model.safetensors": b"x"})
    build.step("tuned", "finetune", {"model": "m", "data": "d", "task": task}, made=made, details=details)
    found = rendered(yard, build.end())
    assert f"No validation {row} stands in the rows that were trained on." in found.text
    assert f"5.0 rows, 980 {unit} a second" in found.text


def test_hostile_texts_of_every_task(yard: Yard) -> None:
    document: Any = json.loads(json.dumps([answers.spans(), answers.detection(), answers.language(), answers.images()]))
    build = example.Builder(yard)
    for place, each in enumerate(document):
        each["labels"] = [HOSTILE] * len(each["labels"])
        for case in each["errors"]:
            case |= {"text": HOSTILE, "picture": HOSTILE}
            for side in ("true", "predicted"):
                found = case.get(side)
                case[side] = [{**one, "label": HOSTILE, "category": HOSTILE} for one in found] if isinstance(found, list) else HOSTILE
        if "words" in each:
            each["words"]["types"] = [HOSTILE] * len(each["words"]["types"])
        for one in [*each.get("classes", []), *each.get("curves", [])]:
            one["label"] = HOSTILE
        for one in each.get("slices", []):
            one |= {"by": HOSTILE, "unit": HOSTILE, "metric": HOSTILE}
            one["parts"][0]["name"] = HOSTILE
        each["main"], each["metrics"] = HOSTILE, {HOSTILE: next(iter(each["metrics"].values()))}
        build.step(f"score-{place}", "evaluate", {}, made=build.artifact("metrics", {"metrics.json": json.dumps(each).encode()}))
    text = report.render(yard, build.end())
    sealed(Page(text))
    assert "<script" not in text
    assert text.count("alert(1)") > 20


def test_a_number_that_is_none_in_a_curve_is_said(yard: Yard) -> None:
    document = answers.detection()
    document["curves"][0]["precision"][3] = float("nan")
    found = page(yard, document)
    assert re.search(r"Missing here: score: metrics.json: not in a form that this report reads \(curves.0.precision.3", found.text)


def test_curves_that_colours_cannot_tell_apart_are_dashed(yard: Yard) -> None:
    found = page(yard, answers.detection())
    classes = [value for name, value in found.attributes if name == "class"]
    assert classes.count("s1 line dashed") == 2, "the fourth curve and its key"
    assert classes.count("s2 line dashed") == 2
    assert classes.count("s3 line dashed") == 0
