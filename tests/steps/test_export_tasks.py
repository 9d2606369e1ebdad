"""Every task's models as graphs: which architectures can be exported, in the task's own terms, and that an export answers as its model does.

With MODELYARD_REGENERATE=1 the table in docs/export.md is written anew, to be read in the diff.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from modelyard.errors import BadData
from modelyard.steps import Export, Infer
from modelyard.yard import Yard
from modelyard_jobs import export, infer
from tests.steps.exporting import Case, cases
from tests.steps.fake import FakeContext, artifact

REGENERATE = os.environ.get("MODELYARD_REGENERATE") == "1"
PAGE = Path(__file__).parents[2] / "docs" / "export.md"
BEGIN, END = "<!-- architectures -->\n", "<!-- /architectures -->"
HEAD = "| task | architecture | exported | any size of | why not |\n| --- | --- | --- | --- | --- |\n"
FAST = {
    "token-classification BERT",
    "fill-mask DistilBERT",
    "zero-shot-classification BERT",
    "text-generation Llama",
    "image-classification ViT",
    "object-detection YOLOS",
}
UNITS = {"token-classification": "token", "fill-mask": "token", "text-generation": "token", "object-detection": "box"}
MAIN = {"token-classification": "f1", "fill-mask": "token_accuracy", "text-generation": "log_likelihood", "object-detection": "map"}


def told() -> dict[str, str]:
    """Task and architecture -> row, as the page has them."""
    lines = re.findall(r"^\| .*\|\n", PAGE.read_text().partition(BEGIN)[2].partition(END)[0], re.MULTILINE)[2:]
    return {" ".join(line.split(" | ")[:2]).removeprefix("| "): line for line in lines}


def row(case: Case, inputs: dict[str, list[str | int]] | None, why: str = "") -> str:
    axes = dict.fromkeys(axis for each in (inputs or {}).values() for axis in each if isinstance(axis, str))
    return f"| {case.task} | {case.architecture} | {'no' if inputs is None else 'yes'} | {', '.join(axes)} | {why.replace('|', '/')} |\n"


def write(case: Case, line: str) -> None:
    """Put a row into the page, in the order of the cases."""
    rows = {**told(), case.name: line}
    text = PAGE.read_text()
    old = text.partition(BEGIN)[2].partition(END)[0]
    PAGE.write_text(text.replace(BEGIN + old + END, BEGIN + HEAD + "".join(rows[each.name] for each in cases() if each.name in rows) + END))


@pytest.fixture
def place(tmp_path):
    return Yard.open(tmp_path / "yard"), tmp_path


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=() if case.name in FAST else pytest.mark.slow) for case in cases()])
def test_an_architecture(place, case):
    yard, folder = place
    case.model(folder / "model")
    inputs = {"model": artifact(yard, "model", folder / "model", "safetensors"), "parity": artifact(yard, "dataset", case.rows())}
    settings = Export(model="m", parity="d", task=case.task, max_length=64, int8=True, **case.settings)
    context = FakeContext(settings, inputs, yard, folder / "export")
    line = row(case, None, untraced(context))
    if any(context.out.iterdir()):
        description = json.loads((context.out / "export.json").read_text())
        line = row(case, description["inputs"])
        check(case, context, description)
        alike(case, yard, folder, artifact(yard, "model", context.out, "onnx"), inputs["model"], inputs["parity"])
    if REGENERATE:
        write(case, line)
    asked, found = (each.split(" | ")[:4] for each in (told()[case.name], line))
    assert found == asked, "docs/export.md: MODELYARD_REGENERATE=1 writes it anew"


def untraced(context: FakeContext) -> str:
    """Export; why there is no graph, where there is none."""
    try:
        export.run(context)
    except BadData as error:
        if "cannot trace" not in str(error):
            raise
        return error.why[:160]
    return ""


def check(case, context, description):
    """What was compared is what the task says, at three shapes and more."""
    parity, int8 = context.details["parity"], context.details["int8"]
    assert description["task"] == case.task
    assert parity["unit"] == UNITS.get(case.task, "label")
    assert parity["max_abs"] <= parity["tolerance"]
    assert parity["agreement"] == 1.0
    assert parity["answers"] >= parity["rows"] >= 8, "boxes over the threshold are there, too"
    assert len({json.dumps(shape) for shape in description["tried"]}) >= 3
    assert int8.get("metric", MAIN.get(case.task, "accuracy")) == MAIN.get(case.task, "accuracy")
    assert (context.out / "model_int8.onnx").exists() is int8["kept"]
    assert set(context.details["speed"]) >= {"torch", "onnx"}


def alike(case, yard, folder, exported, model, rows):
    """infer says the same of the rows under both engines."""
    if case.task == "text-generation":  # a graph without a cache measures, and does not generate
        return
    if case.task == "fill-mask":
        rows = artifact(yard, "dataset", {"test.jsonl": json.dumps({"text": "a [MASK] film"}) + "\n"})
    said = []
    for number, source in enumerate((model, exported)):
        settings = Infer(model="m", data="d", split="test", task=case.task, max_length=64, pictures=0, **case.settings)
        context = FakeContext(settings, {"model": source, "data": rows}, yard, folder / f"infer-{number}", key=f"{number:064x}")
        infer.run(context)
        said.append([json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.open()])
        assert context.decisions["engine"] == ("torch", "onnx")[number]
    assert rounded(said[0]) == rounded(said[1])


def rounded(value):
    """Without the digits of scores and boxes that two engines may differ in."""
    if isinstance(value, float):
        return pytest.approx(value, abs=2e-3)
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return {key: rounded(each) for key, each in value.items()} if isinstance(value, dict) else value


def test_the_page_has_a_row_for_each_and_no_other():
    assert list(told()) == [case.name for case in cases()]
