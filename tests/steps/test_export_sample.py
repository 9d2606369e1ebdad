"""The rows of an export: chosen, prepared once, and what is true of those that are left."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.errors import BadData
from modelyard.steps import Export
from modelyard.yard import Yard
from modelyard_jobs import tasks
from modelyard_jobs.engine import Engine
from modelyard_jobs.export import sample
from modelyard_jobs.export.sample import Sample
from modelyard_jobs.pixels import Pixels
from tests.steps.exporting import LABELS, _png
from tests.steps.fake import FakeContext, artifact

PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": 8, "do_normalize": False}


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: (numbers of the images that are cut short) -> a sample of 12, in windows of 4, and what was prepared."""
    monkeypatch.setattr(sample, "WINDOW", 4)

    def make(broken: range | tuple[int, ...]) -> tuple[Sample, list[int]]:
        settings = Export(model="m", parity="d", task="image-classification", int8=True, rows=12)
        rng = np.random.default_rng(0)
        images = {f"test/{LABELS[place % 3]}/{place:03d}.png": _png(rng, 8, 8) for place in range(12)}
        images = {name: content[: len(content) // 2] if place in broken else content for place, (name, content) in enumerate(images.items())}
        inputs = {"parity": artifact(Yard.open(tmp_path / "yard"), "dataset", images)}
        context = FakeContext(settings, inputs, Yard.open(tmp_path / "yard"), tmp_path / "work")
        task = tasks.of("image-classification", settings)
        runner: Any = SimpleNamespace(encoder=Pixels(PROCESSOR, 3), labels=list(LABELS), device="cpu")
        engine, prepared = Engine(runner, task, 256, 512), list[int]()
        prepare = engine.prepare
        monkeypatch.setattr(engine, "prepare", lambda rows: (prepared.append(len(rows)), prepare(rows))[1])
        return Sample(context, task, engine), prepared

    return make


def test_what_is_true_stays_beside_its_row_where_some_cannot_be_decoded(drawn: Any) -> None:
    found, prepared = drawn((0, 5, 6))
    first = found.first(5)
    windows = list(found.windows())
    assert len(first) == 5
    assert [item for window in windows for item in window.items][:5] == first
    assert sum(prepared) == len(found.rows) == 12, "each row is prepared once"
    assert sum(len(window.items) for window in windows) == len(found.good) == 9
    for window in windows:
        assert len(window.rows) == len(window.items)
    names = [Path(row["image"]["path"] if row["image"].get("path") else row["image"]["file"]).parent.name for row in rows_of(found)]
    assert [LABELS[label] for label in found.truths()] == names
    told = found.told()
    assert (told["rows"], told["usable"], list(told["faults"].values())) == (9, 12, [3])
    assert json.dumps(told)
    assert list(found.windows()) == []


def rows_of(found: Sample) -> list[Any]:
    return [found.rows[place] for place in found.good]


def test_the_rows_that_a_graph_is_traced_with_may_come_late(drawn: Any) -> None:
    found, prepared = drawn(range(11))
    assert len(found.first(40)) == 1
    assert sum(prepared) == 12


def test_a_sample_without_a_row_that_can_be_used(drawn: Any) -> None:
    found, _ = drawn(range(12))
    with pytest.raises(BadData, match=r"split test: no row of the sample can be used: the image cannot be decoded .*: 12 rows"):
        found.first(40)
