"""Names that move, pins and actions: records that are put in place whole and read with suspicion."""

from __future__ import annotations

import pytest

from modelyard.errors import Corrupt, NoInput, Usage
from modelyard.yard import Action, Decision, Yard

from .conftest import KEYS


def test_a_name_moves_and_says_what_was_before(yard: Yard, commit) -> None:
    first, second = commit(b"1").digest, commit(b"2").digest
    yard.refs.move("models/m@champion", first, source="run-1")
    record = yard.refs.move("models/m@champion", second, source="run-2")
    assert (record.digest, record.source) == (second, "run-2")
    assert record.previous
    assert record.previous.digest == first
    assert record.at
    assert yard.refs.move("models/m@champion", second, source="again") == record
    assert yard.refs.list() == {"models/m@champion": record}
    assert yard.refs.get("yard://models/m@champion") == record


def test_a_name_rolls_back_as_far_as_its_history(yard: Yard, commit) -> None:
    digests = [commit(str(number).encode()).digest for number in range(8)]
    for digest in digests:
        yard.refs.move("models/m", digest, source="test")
    assert [record.digest for record in yard.refs.get("models/m@latest").history()] == digests[:3:-1]
    for digest in digests[6:3:-1]:
        back = yard.refs.rollback("models/m")
        assert (back.digest, yard.refs.get("models/m")) == (digest, back)
        assert back.source.startswith("rollback from ")
    with pytest.raises(NoInput, match="has not pointed to anything else"):
        yard.refs.rollback("models/m")


def test_a_name_never_dangles(yard: Yard, commit) -> None:
    with pytest.raises(NoInput):
        yard.refs.move("models/m", "0" * 64, source="test")
    assert yard.refs.list() == {}
    with pytest.raises(NoInput):
        yard.refs.get("models/m")


@pytest.mark.parametrize(
    "name",
    ["models/../x", "../models/x", "models/a/b", "other/x", "models/", "models/x@../y", "models/x@a/b", "/models/x", "models/.x", "models/a\\b"],
)
def test_names_are_checked(yard: Yard, commit, name: str) -> None:
    with pytest.raises(Usage):
        yard.refs.move(name, commit().digest, source="test")


TORN = {
    "empty": b"",
    "torn": b'{"digest": "ab',
    "list": b"[]",
    "binary": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "digest": b'{"digest":"../../x","at":"","source":""}',
    "number": b"9" * 10_000,
}


@pytest.mark.parametrize("data", TORN.values(), ids=TORN)
def test_foreign_records_are_corrupt(yard: Yard, commit, data: bytes) -> None:
    digest = commit(key=KEYS["a"]).digest
    yard.refs.move("models/m", digest, source="test")
    yard.pins.add(digest, "why")
    for path, read in (
        ("refs/models/m@latest.json", lambda: yard.refs.get("models/m")),
        ("refs/models/m@latest.json", yard.refs.list),
        (f"pins/{digest}.json", yard.pins.list),
        (f"actions/{KEYS['a']}.json", lambda: yard.actions.get(KEYS["a"])),
    ):
        (yard.root / path).write_bytes(data)
        with pytest.raises(Corrupt) as raised:
            read()
        assert path in raised.value.where
        with pytest.raises(Corrupt):
            yard.gc(0)
    assert yard.artifacts.find(digest)


def test_a_link_is_no_record(yard: Yard, commit, tmp_path) -> None:
    digest = commit().digest
    yard.refs.move("models/m", digest, source="test")
    path = yard.root / "refs/models/m@latest.json"
    elsewhere = tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(Exception, match="m@latest.json") as raised:
        yard.refs.get("models/m")
    assert type(raised.value).__name__ in ("Corrupt", "VolumeFailed")


def test_actions(yard: Yard, commit) -> None:
    artifact = commit(b"1")
    action = Action(
        key=KEYS["a"],
        verb="finetune",
        artifact=artifact.digest,
        settings={"epochs": 2},
        decisions={"dtype": Decision(value="float32", reason="no accelerator")},
        timings={"train": 1.5},
        details={"loss": [0.7, 0.3], "worst": "half a surrogate: \ud800"},
    )
    assert yard.actions.get(KEYS["a"]) is None
    yard.actions.put(KEYS["a"], action)
    assert yard.actions.get(KEYS["a"]) == action
    assert yard.actions.list() == [action]
    again = action.model_copy(update={"device": "cuda"})
    yard.actions.put(KEYS["a"], again)
    assert yard.actions.list() == [again]
    with pytest.raises(Usage):
        yard.actions.put(KEYS["b"], action)
    with pytest.raises(Usage):
        yard.actions.get("../../etc/passwd")
    yard.actions.forget(KEYS["a"])
    assert yard.actions.list() == []


def test_pins(yard: Yard, commit) -> None:
    digest = commit().digest
    yard.pins.add(digest, "the paper's")
    assert [(pin.digest, pin.why) for pin in yard.pins.list()] == [(digest, "the paper's")]
    with pytest.raises(NoInput):
        yard.pins.add("0" * 64, "nothing there")
    yard.pins.remove(digest)
    with pytest.raises(NoInput):
        yard.pins.remove(digest)
