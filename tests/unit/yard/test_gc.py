"""gc: what is kept, what goes to the trash, what comes back, what is swept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.yard import Action, Yard
from modelyard.yard.gc import collect

from .conftest import KEYS, age, commit_to, left_in_staging

HOUR = 3600.0
DAY = 24 * HOUR


def gc(yard: Yard):
    return yard.gc(older_than=HOUR)


def test_keeps_what_is_reached(yard: Yard, commit, monkeypatch: pytest.MonkeyPatch) -> None:
    named, before, pinned, running, young, source, old, alone = (
        commit(text.encode()).digest for text in ("named", "before", "pinned", "running", "young", "source", "old", "alone")
    )
    yard.refs.move("models/m", before, source="test")
    yard.refs.move("models/m", named, source="test")
    yard.pins.add(pinned, "why")
    monkeypatch.setattr(type(yard.runs), "live_digests", lambda self: iter([running]))
    yard.actions.put(KEYS["a"], Action(key=KEYS["a"], verb="evaluate", artifact=young, inputs={"data": source, "model": named}))
    yard.actions.put(KEYS["b"], Action(key=KEYS["b"], verb="fetch", artifact=old))
    yard.actions.put(KEYS["c"], Action(key=KEYS["c"], verb="fetch", artifact=named))
    for key in "bc":
        age(yard.root / "actions" / f"{KEYS[key]}.json", 2 * HOUR)

    planned = collect(yard, HOUR, grace=DAY)
    assert yard.gc(HOUR, dry_run=True).trashed == []
    assert sorted(planned.trashed) == sorted([old, alone])
    assert planned.forgotten == [KEYS["b"]]
    assert planned.kept == 6
    assert {artifact.digest for artifact in yard.artifacts.list()} == {named, before, pinned, running, young, source}
    assert [action.key for action in yard.actions.list()] == [KEYS["a"], KEYS["c"]]
    assert yard.refs.rollback("models/m").digest == before


def test_dry_run_changes_nothing(yard: Yard, commit) -> None:
    old = commit(b"old", key=KEYS["a"]).digest
    trashed = commit(b"trashed").digest
    yard.artifacts.discard(trashed)
    age(yard.root / "trash" / trashed, 2 * DAY)
    age(yard.root / "actions" / f"{KEYS['a']}.json", 2 * HOUR)
    (yard.root / "staging" / "left").mkdir()
    age(yard.root / "staging" / "left", 30 * DAY)
    before = sorted(yard.root.rglob("*"))
    planned = yard.gc(HOUR, dry_run=True)
    assert sorted(yard.root.rglob("*")) == before
    done = yard.gc(HOUR)
    assert (done.forgotten, done.trashed, done.deleted, done.swept, done.freed) == (
        planned.forgotten,
        planned.trashed,
        planned.deleted,
        planned.swept,
        planned.freed,
    )
    assert (done.trashed, done.deleted, done.swept) == ([old], [trashed], ["staging/left"])
    assert done.freed > 0


def test_an_action_that_answered_again_is_young(yard: Yard, commit) -> None:
    digest = commit(b"1", key=KEYS["a"]).digest
    age(yard.root / "actions" / f"{KEYS['a']}.json", 2 * HOUR)
    yard.actions.touch(KEYS["a"])
    assert gc(yard).trashed == []
    assert yard.artifacts.get(digest)


def test_the_trash_gives_back_until_the_grace_is_over(yard: Yard, commit) -> None:
    digest = commit(b"1").digest
    assert gc(yard).trashed == [digest]
    assert yard.artifacts.digests() == []
    age(yard.root / "trash" / digest, DAY / 2)
    assert gc(yard).deleted == []
    assert yard.artifacts.get(digest).path == yard.root / "artifacts" / digest / "files"  # a reader
    assert gc(yard).trashed == [digest]
    age(yard.root / "trash" / digest, DAY / 2)
    assert gc(yard).deleted == []  # the grace period began anew
    age(yard.root / "trash" / digest, DAY)
    report = gc(yard)
    assert report.deleted == [digest]
    assert yard.artifacts.find(digest) is None
    assert os.listdir(yard.root / "trash") == []


def test_a_committer_finds_it_in_the_trash(yard: Yard, commit) -> None:
    artifact = commit(b"1")
    inode = (artifact.path / "data.bin").stat().st_ino
    gc(yard)
    assert commit(b"1") == artifact
    assert (artifact.path / "data.bin").stat().st_ino == inode
    assert os.listdir(yard.root / "trash") == []


def test_an_action_put_after_the_mark_is_kept(yard: Yard, commit) -> None:
    """A committer found the artifact, gc took it away, then the action came: the next gc does not delete it."""
    digest = commit(b"1").digest
    gc(yard)
    yard.actions.put(KEYS["a"], Action(key=KEYS["a"], verb="fetch", artifact=digest))
    age(yard.root / "trash" / digest, 9 * DAY)
    assert gc(yard).deleted == []
    assert yard.artifacts.get(digest).path == yard.root / "artifacts" / digest / "files"


def test_readers_without_the_right_to_write_read_in_the_trash(yard: Yard, commit) -> None:
    digest = commit(b"1").digest
    gc(yard)
    reader = Yard.open(yard.root, write=False)
    assert (reader.artifacts.get(digest).path / "data.bin").read_bytes() == b"1"
    assert os.listdir(yard.root / "trash") == [digest]


def test_moving_a_name_brings_its_artifact_back(yard: Yard, commit) -> None:
    digest = commit(b"1").digest
    gc(yard)
    yard.refs.move("models/m", digest, source="test")
    assert yard.artifacts.digests() == [digest]


def test_twice_in_the_trash(yard: Yard, commit) -> None:
    digest = commit(b"1").digest
    yard.artifacts.discard(digest)
    (yard.root / "trash" / digest).rename(yard.root / "trash" / "aside")
    commit(b"1")
    (yard.root / "trash" / "aside").rename(yard.root / "trash" / digest)  # two committers and gc can bring this about
    assert gc(yard).trashed == [digest]
    assert os.listdir(yard.root / "trash") == [digest]
    assert yard.artifacts.verify(digest) == []


def test_half_deleted_is_never_found(yard: Yard, commit, inject) -> None:
    digest = commit({"one": b"1", "two": b"2", "three": b"3"}).digest
    yard.artifacts.discard(digest)
    for number in range(1, 40):
        if not (yard.root / "trash" / digest).exists():
            break
        inject(f"EIO:{number}")
        try:
            yard.artifacts.delete(digest)
        except Exception as error:  # noqa: BLE001
            assert type(error).__name__ == "VolumeFailed"  # noqa: PT017
        inject("")
        found = yard.artifacts.find(digest)
        assert found is None or yard.artifacts.verify(digest) == []
        if found:
            yard.artifacts.discard(digest)
    age(yard.root / "trash", 3 * DAY)
    gc(yard)
    assert os.listdir(yard.root / "trash") == []


def test_sweeps_what_nobody_writes_to(yard: Yard) -> None:
    abandoned, alive, touched = (yard.staging(f"run.step.{number}") for number in (1, 2, 3))
    for staging in (abandoned, alive, touched):
        (staging.files / "half").write_bytes(b"1")
        age(staging.folder, 8 * DAY)
    (alive.files / "half").write_bytes(b"22")
    touched.touch()
    yard.checkpoints(KEYS["a"], "run.step.1").save("step-1", lambda folder: (folder / "s").write_bytes(b"1") and None)
    yard.checkpoints(KEYS["b"], "run.step.1").save("step-1", lambda folder: (folder / "s").write_bytes(b"1") and None)
    age(yard.root / "checkpoints" / KEYS["a"], 8 * DAY)
    lease = yard.leases.acquire("listing")
    assert lease
    age(yard.root / "leases" / "listing.1", 8 * DAY)
    temporary = yard.root / "actions" / ".x.json.1234.tmp"
    temporary.write_bytes(b"torn")
    age(temporary, 8 * DAY)
    outside = yard.root.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"1")
    (abandoned.files / "link").symlink_to(outside)
    age(abandoned.folder, 8 * DAY)

    swept = gc(yard).swept
    assert sorted(swept) == sorted([f"staging/{abandoned.folder.name}", f"checkpoints/{KEYS['a']}", "leases/listing.1", "actions/.x.json.1234.tmp"])
    assert sorted(left_in_staging(yard)) == sorted([alive.folder.name, touched.folder.name])
    assert not temporary.exists()
    assert (outside / "kept").exists()


def test_only_the_volumes_clock_counts(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's idea of the time may be years off."""
    monkeypatch.setattr("time.time", lambda: 4e9)
    staging = yard.staging("run.step.1")
    assert gc(yard).swept == []
    assert staging.files.is_dir()


def test_foreign_entries_do_not_stop_it(yard: Yard, tmp_path: Path) -> None:
    for folder in ("artifacts", "trash", "staging", "checkpoints", "leases", "pins", "refs", "actions"):
        (yard.root / folder / "notes.txt").write_text("mine")
        (yard.root / folder / "own").mkdir()
    gc(yard)
    kept = commit_to(yard, {"w": b"1"})
    assert yard.artifacts.list() == [kept]
