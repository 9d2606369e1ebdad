"""The engine over a runner that computes nothing: which rows go together, what happens where the device has no room, what is prepared ahead."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import DeviceOom, Yielded
from modelyard.steps import Infer
from modelyard.yard import Yard
from modelyard_jobs import engine, infer
from modelyard_jobs.tasks.text import NO_TOKEN
from modelyard_jobs.tasks.text_classification import TextClassification
from tests.steps.fake import FakeContext, artifact

LABELS = ["even", "odd"]


class Words:
    """An encoder: a word is a token, which is its number."""

    limit = 512
    pad = 0

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def texts(self, texts: Any, max_length: int, pairs: Any = None) -> tuple[list[list[int]], list[bool]]:
        if "broken" in texts:
            raise RuntimeError("the tokenizer broke")
        self.seen.append((texts[0], threading.current_thread().name))
        ids = [[int(word) for word in text.split()] for text in texts]
        return [row[:max_length] for row in ids], [len(row) > max_length for row in ids]


class Room:
    """A runner on a device with room for so many padded tokens, which says `odd` of rows whose first number is odd."""

    name = "stub"
    labels = LABELS

    def __init__(self, room: int = 1 << 30, device: str = "cpu") -> None:
        self.room, self.device, self.encoder = room, device, Words()
        self.task = TextClassification(Infer(model="m", data="d"))
        self.ran: list[int] = []
        self.refused: list[int] = []

    def raws(self, items: Any) -> list[Any]:
        slots = len(items) * max(item.size for item in items)
        if slots > self.room:
            self.refused.append(slots)
            raise engine.OutOfMemory("no room")
        self.ran.append(slots)
        return [np.array([1.0, 0.0] if item.values[0] % 2 == 0 else [0.0, 1.0], dtype=np.float32) for item in items]


def rows(count: int, words: int = 4) -> list[str]:
    return [" ".join([str(number)] * (1 + number % words)) for number in range(count)]


def answered(made: engine.Engine, texts: list[str]) -> list[int]:
    found = made.answer(made.prepare([{"text": text} for text in texts]), lambda _: None)
    assert not any(found.faults)
    return [int(place) for place in np.asarray(found.answers).argmax(1)]


def test_a_batch_without_room_is_halved_and_asked_no_more_often_than_needed() -> None:
    runner = Room(room=100)
    made = engine.Engine(runner, runner.task, 256, 1600)
    assert answered(made, rows(2000)) == [number % 2 for number in range(2000)]
    assert max(runner.ran) <= 100
    assert all(second < first for first, second in itertools.pairwise(runner.refused[:4])), "each is smaller, until one fits"
    assert len(runner.refused) < 12, "what was raised and refused again is not tried at every turn"
    assert made.budget.lowest >= 25


def test_the_budget_is_raised_again_when_there_is_room_again() -> None:
    runner = Room(room=100)
    made = engine.Engine(runner, runner.task, 256, 800)
    answered(made, rows(200))
    assert made.budget.tokens <= 100
    runner.room = 1 << 30
    before = len(runner.ran)
    assert answered(made, rows(20000)) == [number % 2 for number in range(20000)]
    assert made.budget.tokens == 800
    assert max(runner.ran[before:]) > 700
    assert made.speed()["token_budget"] == 800
    assert made.speed()["refused"] == len(runner.refused)


def test_a_row_without_room_is_an_end_with_a_name() -> None:
    runner = Room(room=3)
    made = engine.Engine(runner, runner.task, 256, 64)
    with pytest.raises(DeviceOom, match="one row of 4 tokens"):
        answered(made, rows(10))
    runner.task.encoder = "image"
    with pytest.raises(DeviceOom, match="one image of 4 patches of 16 x 16 pixels") as raised:
        answered(made, rows(10))
    assert "max_length" not in raised.value.remedy


def test_a_text_without_a_token_is_a_fault() -> None:
    class Silent(Words):
        def texts(self, texts: Any, max_length: int, pairs: Any = None) -> tuple[list[list[int]], list[bool]]:
            return [[] if text == "-" else [1] for text in texts], [False] * len(texts)

    runner = Room()
    runner.encoder = Silent()
    made = engine.Engine(runner, runner.task, 256, 64)
    found = made.answer(made.prepare([{"text": "-"}, {"text": "1"}, {"text": "-"}]), lambda _: None)
    assert found.faults.tolist() == [NO_TOKEN, "", NO_TOKEN]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes (context, what runs in it) for `infer` over some texts by a runner; windows of ten rows."""
    yard = Yard.open(tmp_path / "yard")
    model = artifact(yard, "model", {"config.json": '{"architectures": ["BertForSequenceClassification"]}'})
    monkeypatch.setattr(TextClassification, "window", 10)

    def make(runner: Room, texts: list[str], key: str = "ab" * 32, attempt: str = "run-r1.step.1", **settings: Any) -> FakeContext:
        monkeypatch.setattr(engine, "_runner", lambda *_: runner)
        inputs = {"model": model, "data": artifact(yard, "dataset", {"a.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts)})}
        return FakeContext(Infer(model="m", data="d", **settings), inputs, yard, tmp_path / attempt, key=key, attempt=attempt)

    return make


def said(context: FakeContext) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.read_text().splitlines()]


def test_what_was_refused_is_written_down_and_changes_no_answer(prepared: Any) -> None:
    roomy, tight = Room(), Room(room=8)
    contexts = []
    for number, runner in enumerate((roomy, tight)):
        contexts.append(prepared(runner, rows(55), key=f"{number:064x}", token_budget=32))
        infer.run(contexts[-1])
    assert said(contexts[0]) == said(contexts[1])
    assert "token_budget" not in contexts[0].decisions, "as set, and never in question"
    assert contexts[1].decisions["token_budget"] <= 8
    assert contexts[1].details["speed"]["refused"] == len(tight.refused) > 0


def test_who_computed_nothing_has_padded_nothing(prepared: Any) -> None:
    infer.run(prepared(Room(), rows(25)))
    again = prepared(Room(), rows(25), attempt="run-r1.step.2")
    infer.run(again)
    speed = again.details["speed"]
    assert {name: speed[name] for name in ("rows", "tokens", "rows_per_second", "padding")} == {
        "rows": 0,
        "tokens": 0,
        "rows_per_second": 0.0,
        "padding": 0.0,
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_rows_are_prepared_ahead_for_an_accelerator_alone(prepared: Any, device: str) -> None:
    runner = Room(device=device)
    context = prepared(runner, rows(45))
    infer.run(context)
    assert [record["row"] for record in said(context)] == list(range(45))
    assert [record["label"] for record in said(context)] == [LABELS[number % 2] for number in range(45)]
    assert [text.split()[0] for text, _ in runner.encoder.seen] == ["0", "10", "20", "30", "40"]
    assert {thread.startswith("prepare") for _, thread in runner.encoder.seen} == {device == "cuda"}
    assert context.decisions["prefetch"] is (device == "cuda")


def test_no_more_than_one_window_is_prepared_ahead(prepared: Any) -> None:
    runner = Room(device="cuda")
    context = prepared(runner, rows(100))
    splits = infer.data.read(context.inputs["data"], context.scratch / "rows")
    made = engine.Engine(runner, runner.task, 256, 512)
    parts = engine.parts(context, made, splits["train"], {"text": "text"}, range(100))
    for number in range(3):
        assert next(parts).rows.tolist() == list(range(10 * number, 10 * number + 10))
        assert len(runner.encoder.seen) <= number + 2
    parts.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_fails_while_rows_are_prepared_fails_the_step_after_what_came_before(prepared: Any, device: str) -> None:
    context = prepared(Room(device=device), [*rows(25), "broken"])
    with pytest.raises(RuntimeError, match="the tokenizer broke"):
        infer.run(context)
    assert context.checkpoints.mine() == ["part-000000", "part-000001"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_stop_is_obeyed_between_batches_and_the_rest_is_done_later(prepared: Any, device: str) -> None:
    runner = Room(device=device)
    context = prepared(runner, rows(45))
    raws = runner.raws

    def stop(items: Any) -> list[Any]:
        context.stop.requested = len(runner.ran) >= 2
        return raws(items)

    runner.raws = stop  # type: ignore[method-assign]
    with pytest.raises(Yielded):
        infer.run(context)
    kept = context.checkpoints.mine()
    assert kept
    assert len(kept) < 5
    # What is kept already is no reason to go on.
    early = prepared(Room(device=device), rows(45), attempt="run-r1.step.9")
    early.stop.requested = True
    with pytest.raises(Yielded):
        infer.run(early)
    assert not list((early.out / "data").iterdir())
    again = Room(device=device)
    rest = prepared(again, rows(45), attempt="run-r1.step.2")
    infer.run(rest)
    assert [record["row"] for record in said(rest)] == list(range(45))
    assert rest.details["speed"]["rows"] == 45 - 10 * len(kept)
