"""What evaluate and export write is what the report reads and shows; the other steps' are tests/unit/report/test_shapes.py's."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from modelyard import report
from modelyard.report import shapes
from modelyard.steps import Evaluate, Export, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, infer, tasks
from modelyard_jobs.export import int8, parity
from tests.steps.exporting import cases
from tests.steps.fake import FakeContext, artifact
from tests.unit.report import example


def compare(reference, found):
    comparison = parity.Comparison("label")
    comparison.add({"logits": reference}, {"logits": found}, None)
    return comparison.result(len(reference))


def test_parity() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    missing: list[str] = []
    found = shapes.read(shapes.Parity, asdict(compare(logits, logits + np.float32(1e-5))), "parity", missing)
    assert missing == []
    assert found
    assert (found.rows, found.answers, found.unit, found.agreement, found.tolerance) == (2, 2, "label", 1.0, 2e-4)
    assert found.max_abs == pytest.approx(1e-5, rel=0.1)


def test_int8() -> None:
    true = np.array([0, 1] * 50)
    right, wrong = np.eye(2)[true], np.eye(2)[1 - true]
    task = tasks.of("text-classification", Export(model="m", parity="d"))
    answers = {"torch": right, "onnx": right, "int8": wrong}
    verdict = int8.judge(task, true, answers, ["a", "b"], parity=compare(right, wrong), sizes=(100, 30))
    missing: list[str] = []
    found = shapes.read(shapes.Quantised, verdict, "int8", missing)
    assert missing == []
    assert found
    assert (found.kept, found.agreement, found.metric, set(found.scores)) == (False, 0.0, "accuracy", {"torch", "onnx", "int8"})
    assert found.difference
    assert found.difference.value == -1.0
    assert found.scores["int8"].n == 100
    assert found.why


SHOWN = {
    "text-classification BERT": ("Confusion matrix", "Reliability, 95 % intervals", "taken for"),
    "token-classification BERT": ("By type", "Confusion matrix of words", '<mark class="span is-', "Share of right rows by length, 95 %"),
    "zero-shot-classification BERT": ("Confusion matrix", "taken for"),
    "fill-mask BERT": ("Pseudo perplexity, 95 % intervals", "taken for", "per token"),
    "text-generation GPT-2": ("Perplexity, 95 % intervals", "that the model found least likely", "per token"),
    "image-classification ResNet": ("Confusion matrix", "data:image/png;base64,", "images (100 %) also stand in train", "taken for"),
    "object-detection YOLOS": ("Precision over recall", "data:image/png;base64,", "true boxes", "boxes: "),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases() if case.name in SHOWN])
def test_an_evaluation_of_every_task_is_on_the_page(case, tmp_path) -> None:
    yard = Yard.open(tmp_path / "yard")
    case.model(tmp_path / "model")
    rows = {f"{split}{name.removeprefix('test')}": content for split in ("test", "train") for name, content in case.rows().items()}
    rows = rows if case.task != "object-detection" else case.rows()
    inputs = {"model": artifact(yard, "model", tmp_path / "model", "safetensors"), "data": artifact(yard, "dataset", rows)}
    context = FakeContext(Evaluate(model="m", data="d", task=case.task, max_length=64, **case.settings), inputs, yard, tmp_path / "work")
    evaluate.run(context)
    made = artifact(yard, "metrics", context.out)
    build = example.Builder(yard)
    build.step("score", "evaluate", {"model": "m", "data": "d"}, made=made, details=context.details)
    page = report.render(yard, build.end())
    assert "Missing here" not in page, page[page.index("Missing here") :][:300]
    for wanted in SHOWN[case.name]:
        assert wanted in page, wanted


def test_an_inference_is_on_the_page_with_its_pictures(tmp_path) -> None:
    yard = Yard.open(tmp_path / "yard")
    (case,) = (case for case in cases() if case.name == "object-detection YOLOS")
    case.model(tmp_path / "model")
    inputs = {"model": artifact(yard, "model", tmp_path / "model", "safetensors"), "data": artifact(yard, "dataset", case.rows())}
    context = FakeContext(Infer(model="m", data="d", task=case.task, pictures=3, **case.settings), inputs, yard, tmp_path / "work")
    infer.run(context)
    build = example.Builder(yard)
    build.step("seen", "infer", {"model": "m", "data": "d", "task": case.task}, made=artifact(yard, "dataset", context.out), details=context.details)
    page = report.render(yard, build.end())
    assert "Missing here" not in page, page[page.index("Missing here") :][:300]
    assert "split test: 8 rows, 8 with an answer" in page
    assert "patches of 16 x 16 pixels a second; " in page
    assert page.count("data:image/png;base64,") == 3
