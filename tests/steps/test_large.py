"""Inputs far larger than what is kept in memory, and attempts that are killed in the middle of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard import keys
from modelyard.order import Order
from modelyard.run.pipeline import first_status
from modelyard.spec import Pipeline
from modelyard.steps import Infer, Resources
from modelyard.yard import Artifact, Yard
from modelyard.yard.runs import Attempt
from modelyard_jobs import engine, infer, tasks
from tests.steps.fake import FakeContext, artifact
from tests.steps.test_engine import LABELS, Room
from tests.steps.tiny import WORDS, level, tiny_model

MIB = 1 << 20


def parquet(path: Path, count: int) -> Path:
    """Rows whose text is their number, in files of a million."""
    path.mkdir()
    for start in range(0, count, 1_000_000):
        numbers = np.arange(start, min(start + 1_000_000, count))
        table = pa.table({"text": pa.array(numbers).cast(pa.string())})
        pq.write_table(table, path / f"train-{start // 1_000_000:05d}-of-{-(-count // 1_000_000):05d}.parquet")
    return path


def kept() -> int:
    """Bytes of this process that nothing but itself can give back: VmRSS without the pages of mapped files, which the kernel drops as it likes."""
    status = Path("/proc/self/status").read_text()
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:")))


def records(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "data").iterdir()):
        with path.open() as file:
            yield from map(json.loads, file)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_from_one_to_ten_million_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole step but the model. The rows are mapped from a file, as always: its pages are the file's, and are not counted."""
    yard, total = Yard.open(tmp_path / "yard"), 10_000_000
    inputs = {
        "model": artifact(yard, "model", {"config.json": '{"architectures": ["BertForSequenceClassification"]}'}),
        "data": artifact(yard, "dataset", parquet(tmp_path / "rows", total)),
    }
    runner, seen = Room(), []
    monkeypatch.setattr(engine, "_runner", lambda *_: runner)
    context = FakeContext(Infer(model="m", data="d", token_budget=4096), inputs, yard, tmp_path / "work")
    answer = engine.Engine.answer

    def measured(self: engine.Engine, items: Any, tick: Any) -> Any:
        seen.append(kept())
        return answer(self, items, tick)

    monkeypatch.setattr(engine.Engine, "answer", measured)
    infer.run(context)
    window = tasks.of("text-classification", context.settings).window
    assert len(seen) == -(-total // window)
    million = 1_000_000 // window
    grown = max(seen[million:]) - max(seen[: million + 1])
    assert grown < 50 * MIB, f"{grown / MIB:.1f} MiB"
    number = -1
    for number, record in enumerate(records(context.out)):
        assert (record["row"], record["label"], record["error"]) == (number, LABELS[number % 2], None)
    assert number == total - 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_thousand_rows_through_a_model(tmp_path: Path) -> None:
    import torch

    from modelyard_jobs import models, torch_runner

    chance, total = random.Random(0), 200_000
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(total)]
    yard = Yard.open(tmp_path / "yard")
    inputs = {
        "model": artifact(yard, "model", level(tiny_model(tmp_path / "model", ["neg", "pos"]), texts[:50])),
        "data": artifact(yard, "dataset", {"a.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts)}),
    }
    context = FakeContext(Infer(model="m", data="d"), inputs, yard, tmp_path / "work")
    infer.run(context)
    found = list(records(context.out))
    assert [record["row"] for record in found] == list(range(total))
    assert {record["label"] for record in found} == {"neg", "pos"}
    task = tasks.of("text-classification", context.settings)
    runner = torch_runner.TorchRunner(task, models.load(task, inputs["model"], None, torch.float32), "cpu")
    for number in chance.sample(range(total), 300):
        items = task.prepare([{"text": texts[number]}], runner.encoder, 128)
        alone = task.record(task.answers(runner.raws(items), items, runner.labels)[0], runner.labels)
        assert found[number]["score"] == pytest.approx(alone["score"], abs=5e-6)
        assert found[number]["label"] == alone["label"] or alone["score"] < 0.5 + 1e-5
    speed = context.details["speed"]
    assert speed["rows"] == total
    assert speed["padding"] < 0.05


class Attempts:
    """A run of one infer in a yard, attempt after attempt, each a frame of its own."""

    def __init__(self, root: Path, model: Path, rows: str) -> None:
        self.yard = Yard.open(root)
        self.inputs: dict[str, Artifact] = {
            "model": artifact(self.yard, "model", model),
            "data": artifact(self.yard, "dataset", {"a.jsonl": rows}),
        }
        self.step = Infer(model="model", data="rows", max_length=32)
        run = self.yard.runs.create("a-0-r1", {}, first_status("a-0-r1", Pipeline("a", {"step": Infer(model="./m", data="./d")})))
        assert run
        self.run = run
        self.digests = {name: found.digest for name, found in self.inputs.items()}
        self.key = keys.action_key(self.step, self.digests, "cpu")

    def start(self) -> tuple[Attempt, subprocess.Popen[bytes]]:
        attempt = self.run.new_attempt("step")
        order = Order(
            run=self.run.id,
            step="step",
            attempt=attempt.number,
            verb="infer",
            settings=self.step.settings(),
            resources=Resources(),
            inputs=self.digests,
            key=self.key,
            forced=False,
        )
        command = [sys.executable, "-m", "modelyard_jobs", "infer", "--order", str(attempt.write_order(order)), "--yard", str(self.yard.root)]
        return attempt, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def finish(self) -> tuple[Attempt, Path]:
        """The attempt that came to its end, and its predictions."""
        attempt, process = self.start()
        process.wait(timeout=300)
        outcome = attempt.outcome()
        assert outcome
        assert (outcome.exit_code, outcome.reused) == (0, False), outcome
        return attempt, self.yard.artifacts.get(outcome.artifact).path

    def parts(self) -> set[str]:
        """Whole windows that any attempt has left."""
        return {path.name for path in (self.yard.root / "checkpoints").glob(f"{self.key}/*/part-*")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_five_times_every_row_is_there_once_in_order_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    chance = random.Random(int.from_bytes(os.urandom(4), "big"))
    count = 20 * 4096 + 100
    rows = "".join(json.dumps({"text": " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))}) + "\n" for _ in range(count))
    model = level(tiny_model(tmp_path / "model", ["neg", "pos"]), [json.loads(line)["text"] for line in rows.splitlines()[:50]])
    whole, killed = (Attempts(tmp_path / name, model, rows) for name in ("whole", "killed"))
    left: list[set[str]] = [set()]
    for _ in range(5):
        wanted = len(left[-1]) + chance.randint(1, 3)
        _, process = killed.start()
        until = time.monotonic() + 120
        while len(killed.parts()) < wanted and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.3)  # inside of a window, between two, or while one is written
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left.append(killed.parts())
        assert left[-1] > left[-2], "each attempt has to come further"
    attempt, found = killed.finish()
    assert attempt.number == 6
    resumed = next(line for line in map(json.loads, attempt.log.read_text().splitlines()) if line["event"] == "resumed")
    assert resumed["parts"] == len(left[-1])
    assert [record["row"] for record in records(found)] == list(range(count))
    assert all(record["error"] is None for record in records(found))
    expected = whole.finish()[1]
    assert {path.name: path.read_bytes() for path in (found / "data").iterdir()} == {
        path.name: path.read_bytes() for path in (expected / "data").iterdir()
    }
