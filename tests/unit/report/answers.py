"""metrics.json of the tasks beside text classification, written by hand, and a run that has evaluated each of them."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image, ImageDraw

from modelyard.yard import Yard
from modelyard.yard.runs import Run
from tests.unit.report import example
from tests.unit.report.example import proportion

TEXT = "Send it to Ada Lovelace, 12 St James Square, London by Friday <b>noon</b> please"
HOME = "pictures/000007.png"


def around(value: float, half: float, n: int) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "interval": "bootstrap"}


def span(start: int, end: int, label: str) -> dict[str, Any]:
    return {"start": start, "end": end, "label": label, "words": [0, 1]}


def stands(part: str, label: str, text: str = TEXT) -> dict[str, Any]:
    return span(text.index(part), text.index(part) + len(part), label)


def picture(size: tuple[int, int] = (320, 200), text: str = "") -> bytes:
    image = Image.new("RGB", size, "#335577")
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 40, 120, 160), outline="#ffcc00", width=4)
    draw.rectangle((180, 30, 290, 150), outline="#66ff99", width=4)
    draw.text((40, 20), text, fill="white")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def common(task: str, main: str, metrics: dict[str, Any], n: int) -> dict[str, Any]:
    rows = {"split": n, "usable": n, "evaluated": n, "faults": {}, "seed": None}
    overlap = {"split": "train", "rows": 0, "share": 0.0}
    return {"schema": 1, "task": task, "split": "test", "main": main, "rows": rows, "labels": [], "metrics": metrics, "overlap": overlap}


def spans() -> dict[str, Any]:
    true = [stands("Ada Lovelace", "PERSON"), stands("12 St James Square", "STREET"), stands("London", "CITY")]
    predicted = [stands("Ada Lovelace", "PERSON"), stands("12 St James", "STREET"), stands("Friday", "DATE")]
    short = "Ada lives in London."
    names = ("precision", "recall", "f1", "f1_macro")
    scores = [
        {"label": label, "support": 120, "predicted": 118, **{name: proportion(value, 120) for name in names[:3]}}
        for label, value in (("CITY", 0.91), ("PERSON", 0.88), ("STREET", 0.79))
    ]
    return {
        **common("token-classification", "f1", {name: proportion(0.861, 300) for name in (*names, "token_accuracy")}, 300),
        "labels": ["O", "B-CITY", "I-CITY", "B-PERSON", "I-PERSON", "B-STREET", "I-STREET"],
        "classes": scores,
        "words": {
            "evaluated": 3000,
            "cut_off": 17,
            "types": ["CITY", "PERSON", "STREET", "O"],
            "confusion": [[280, 2, 8, 10], [0, 310, 0, 20], [9, 1, 520, 40], [4, 6, 10, 1780]],
        },
        "slices": [{"by": "length", "unit": "tokens", "metric": "right", "parts": [part("1 to 8", 190, 0.9), part("9 to 16", 110, 0.78)]}],
        "errors": [
            {"row": 17, "text": TEXT, "true": true, "predicted": predicted},
            {"row": 1, "text": short, "true": [stands("London", "CITY", short)], "predicted": []},
        ],
    }


def detection() -> dict[str, Any]:
    def curve(label: str, fall: float) -> dict[str, Any]:
        return {"label": label, "precision": [max(1 - (place / 20) ** fall, 0.0) for place in range(21)], "scores": [0.5] * 21}

    classes = [
        {"label": label, "boxes": 90, "images": 41, "ap": around(ap, 0.04, 60), "ap50": around(ap + 0.2, 0.04, 60)}
        for label, ap in (("bag", 0.41), ("boot", 0.52), ("shirt", 0.33), ("coat", 0.37), ("<hat>", 0.2))
    ]
    box = {"category": "bag", "bbox": [30, 40, 90, 120], "iscrowd": False}
    found = [{**box, "score": 0.94}, {"category": "boot", "bbox": [180, 30, 110, 120], "score": 0.71}]
    return {
        **common("object-detection", "map", {"map": around(0.41, 0.03, 60), "ap50": around(0.6, 0.03, 60), "ap75": around(0.44, 0.04, 60)}, 60),
        "labels": [each["label"] for each in classes],
        "truncated": {"rows": 0, "share": 0.0, "max_length": 256},
        "classes": classes,
        "curves": [curve(each["label"], 1.6 + place / 2) for place, each in enumerate(classes)],
        "errors": [
            {"row": 7, "picture": HOME, "true": [box], "predicted": found},
            {"row": 0, "picture": "pictures/000000.png", "true": [box, box], "predicted": []},
        ],
    }


def language() -> dict[str, Any]:
    metrics = {"log_likelihood": around(-2.653, 0.05, 200), "perplexity": around(14.2, 0.8, 200), "token_accuracy": around(0.47, 0.01, 200)}
    return {
        **common("text-generation", "log_likelihood", metrics, 200),
        "errors": [{"row": 4, "text": "Zyzzyva & <i>quux</i>", "tokens": 12, "predicted": {"loss": 6.815, "token_accuracy": 0.25}}],
        "slices": [{"by": "length", "unit": "tokens", "metric": "right", "parts": [part("1 to 32", 120, 0.11), part("33 to 64", 80, 0.09)]}],
    }


def images() -> dict[str, Any]:
    labels = ("bag", "boot", "shirt")
    bins = [
        {"low": low / 10, "high": (low + 1) / 10, "n": 40 * low, "confidence": low / 10 + 0.05, "accuracy": proportion(low / 10 - 0.1, 40 * low)}
        for low in (4, 6, 8, 9)
    ]
    found = example.evaluation(labels, texts=["", ""])
    errors = [{**each, "picture": f"pictures/{place}.png"} for place, each in enumerate(found["errors"])]
    return {
        **found,
        "schema": 1,
        "task": "image-classification",
        "main": "accuracy",
        "errors": errors,
        "calibration": {"ece": around(0.141, 0.02, 2000), "n": 2000, "bins": bins},
        "slices": [{"by": "shop", "unit": "", "metric": "accuracy", "parts": [part("north", 1400, 0.86), part("<south>", 600, 0.71)]}],
    }


def part(name: str, n: int, score: float) -> dict[str, Any]:
    return {"name": name, "n": n, "score": proportion(score, n)}


def tasks(yard: Yard) -> Run:
    """A run that evaluated one model of each task."""
    build = example.Builder(yard, "every-task-76ea1dd2d1-r1", "movie-sentiment")
    build.fetch("data", "modelscope://datasets/o/n", "dataset", 100)
    wrong = {f"pictures/{place}.png": picture((96, 96)) for place in range(2)}
    scenes = {HOME: picture(text="true yellow"), "pictures/000000.png": picture(text="true yellow")}
    for name, document, pictures in (
        ("spans", spans(), {}),
        ("boxes", detection(), scenes),
        ("language", language(), {}),
        ("images", images(), wrong),
    ):
        made = build.artifact("metrics", {"metrics.json": json.dumps(document).encode(), **pictures})
        build.step(name, "evaluate", {"model": "m", "data": "data"}, made=made)
    return build.end()
