"""docs/tasks.md has a section for each task, with all that its class writes, reads and measures by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

import pytest

from modelyard.steps import MEASURED, Infer, Task
from modelyard_jobs import tasks
from modelyard_jobs.metrics import language
from modelyard_jobs.tasks import fill_mask, object_detection, one_label, token_classification
from tests.unit.documents import ROOT

PAGE = (ROOT / "docs" / "tasks.md").read_text()
MAIN = {
    "text-classification": one_label.MAIN,
    "token-classification": token_classification.MAIN,
    "fill-mask": fill_mask.FillMask.main,
    "text-generation": language.MAIN,
    "object-detection": object_detection.MAIN,
}
"""Those that have metrics of their own; the others' sections say whose they have."""


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


@pytest.mark.parametrize("name", get_args(Task))
def test_a_task_has_its_section(name: str) -> None:
    text = section(name)
    candidates = ("one", "other") if name == "zero-shot-classification" else ()
    task = tasks.of(name, Infer(model="m", data="d", task=name, candidates=candidates))
    assert re.findall(r"^- \*\*(\w+)", text, re.MULTILINE)[-1] == "Not"
    for part in ("**Columns**", "**Faults**", "**infer writes**", "**Metrics**"):
        assert part in text
    written = text.partition("**infer writes**")[2].partition("\n- **")[0]
    assert [field for field in task.empty() if f"`{field}`" not in written] == []
    if name in MAIN:
        said = re.findall(r"`(\w+)`", text.partition("**Metrics**")[2].partition("\n- **")[0])
        assert said[0] == MAIN[name]
        assert [metric for metric in MEASURED[name] if not is_named(metric, said)] == [], "a gate names its metric by that name"


def is_named(metric: str, said: Sequence[str]) -> bool:
    """Whether a page says a metric's name, if only as the ending that one beside it may have instead of its own, or behind it."""
    stem, _, ending = metric.rpartition("_")
    return metric in said or (f"_{ending}" in said and bool({stem, f"{stem}_macro"} & set(said)))


def test_there_is_no_section_of_a_task_that_is_gone() -> None:
    assert set(re.findall(r"^## ([a-z]+-[a-z-]+)$", PAGE, re.MULTILINE)) == set(get_args(Task))
