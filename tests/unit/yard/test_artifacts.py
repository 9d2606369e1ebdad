"""Artifacts: commit, get, verify, races, and content that must not come in."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.errors import BadData, Corrupt, Failure, NoInput, Refused, Usage
from modelyard.yard import Action, Yard

from .conftest import commit_to, left_in_staging

ABSENT = "0" * 64


def test_digest_is_the_manifests_and_says_nothing_of_origin(yard: Yard, commit) -> None:
    artifact = commit({"b/weights.bin": b"22", "a.json": b"{}"})
    data = (yard.root / "artifacts" / artifact.digest / "manifest.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == artifact.digest
    assert json.loads(data) == {
        "kind": "model",
        "format": "safetensors",
        "files": [
            {"path": "a.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
            {"path": "b/weights.bin", "size": 2, "sha256": hashlib.sha256(b"22").hexdigest()},
        ],
    }
    assert artifact.size == 4
    assert (artifact.path / "b/weights.bin").read_bytes() == b"22"
    assert yard.artifacts.get(artifact.digest) == artifact
    assert yard.artifacts.list() == [artifact]
    assert yard.artifacts.verify(artifact.digest) == []


def test_everything_is_writable_by_the_group(yard: Yard, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with yard.staging("run.step.1") as staging:
            (staging.files / "sub").mkdir()
            (staging.files / "sub" / "by-hand").write_bytes(b"1")
            with staging.open("by-door") as file:
                file.write(b"2")
            yard.artifacts.commit(staging, "dataset")
        yard.checkpoints("a" * 64, "run.step.1").save("step-1", lambda folder: (folder / "state").write_bytes(b"3") and None)
    finally:
        os.umask(before)
    for path in (yard.root / "artifacts").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o2775 if path.is_dir() else 0o664), path
    for path in (yard.root / "checkpoints").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o2775 if path.is_dir() else 0o664), path


def test_same_content_again_is_one_artifact(yard: Yard, commit) -> None:
    first = commit(b"same")
    inode = (first.path / "data.bin").stat().st_ino
    assert commit(b"same") == first
    assert (first.path / "data.bin").stat().st_ino == inode
    assert left_in_staging(yard) == []


def test_known_hashes_are_not_read_again_and_must_have_their_file(yard: Yard) -> None:
    claimed = "1" * 64
    with yard.staging("run.step.1") as staging:
        (staging.files / "big").write_bytes(b"content")
        artifact = yard.artifacts.commit(staging, "model", known={"big": claimed})
    assert artifact.files[0].sha256 == claimed
    assert yard.artifacts.verify(artifact.digest) == [f"big: sha256 {hashlib.sha256(b'content').hexdigest()} instead of {claimed}"]
    for wrong in ("", "../x", "A" * 64):
        with pytest.raises(Usage), yard.staging("run.step.1") as staging:
            (staging.files / "big").write_bytes(b"content")
            yard.artifacts.commit(staging, "model", known={"big": wrong})
    with pytest.raises(Corrupt, match="'gone' is not there any more"), yard.staging("run.step.1") as staging:
        (staging.files / "big").write_bytes(b"content")
        yard.artifacts.commit(staging, "model", known={"gone": claimed})


def test_warm_start_reads_no_file(yard: Yard, commit, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = commit(b"content")
    (artifact.path / "data.bin").write_bytes(b"CONTENT")  # same size: get trusts it, verify does not
    assert yard.artifacts.get(artifact.digest) == artifact
    assert len(yard.artifacts.verify(artifact.digest)) == 1


@pytest.mark.parametrize(
    "damage", ["short", "missing", "link", "fifo", "torn manifest", "no manifest", "other manifest", "binary manifest", "deep manifest"]
)
def test_broken_is_corrupt_and_is_replaced_by_a_commit(yard: Yard, commit, damage: str) -> None:
    artifact = commit({"one": b"111", "two": b"222"})
    other = commit(b"other")
    manifest, file = artifact.path.parent / "manifest.json", artifact.path / "one"
    match damage:
        case "short":
            file.write_bytes(b"1")
        case "missing":
            file.unlink()
        case "link":
            file.unlink()
            file.symlink_to("two")
        case "fifo":
            file.unlink()
            os.mkfifo(file)
        case "torn manifest":
            manifest.write_bytes(manifest.read_bytes()[:50])
        case "no manifest":
            manifest.unlink()
        case "other manifest":
            manifest.write_bytes((other.path.parent / "manifest.json").read_bytes())
        case "binary manifest":
            manifest.write_bytes(b"\xff\x00")
        case "deep manifest":
            manifest.write_bytes(b"[" * 100_000)
    with pytest.raises(Corrupt):
        yard.artifacts.get(artifact.digest)
    assert yard.artifacts.find(artifact.digest) is None
    assert artifact.digest in yard.artifacts.digests()
    assert yard.artifacts.list() == [other]
    assert commit({"one": b"111", "two": b"222"}) == artifact
    assert yard.artifacts.verify(artifact.digest) == []


def test_verify_finds_what_does_not_belong(yard: Yard, commit) -> None:
    artifact = commit(b"content")
    (artifact.path / "planted.py").write_text("evil")
    assert yard.artifacts.verify(artifact.digest) == ["planted.py: not in the manifest"]


@pytest.mark.parametrize("digest", ["../../etc", "", "A" * 64, "0" * 63, "0" * 64 + "\n", "0" * 64 + "/.."])
def test_a_digest_is_checked_before_it_is_a_path(yard: Yard, digest: str) -> None:
    with pytest.raises(Usage):
        yard.artifacts.get(digest)


def test_absent(yard: Yard) -> None:
    with pytest.raises(NoInput) as raised:
        yard.artifacts.get(ABSENT)
    assert raised.value.remedy
    assert yard.artifacts.find(ABSENT) is None


HOSTILE = [
    "../up",
    "/absolute",
    "a/../b",
    "a//b",
    "./a",
    "a/.",
    "back\\slash",
    "nul\0",
    "new\nline",
    "",
    "/",
    "x" * 256,
    "/".join("d" * 40),
    "é" * 600,
    "\udcff",
]


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_hostile_names_are_refused(yard: Yard, path: str) -> None:
    with pytest.raises(Refused), yard.staging("run.step.1") as staging:
        staging.open(path)
    assert left_in_staging(yard) == []


CLASHES = [("README", "readme"), ("straße", "STRASSE"), ("caf\u00e9", "cafe\u0301"), ("Data/a", "data/b"), ("ﬁ/x", "fi/y")]


@pytest.mark.parametrize("pair", CLASHES, ids=ascii)
def test_names_that_clash_are_refused(yard: Yard, pair: tuple[str, str]) -> None:
    with pytest.raises(Refused, match="clash"):
        commit_to(yard, {pair[0]: b"1", pair[1]: b"2"})
    assert yard.artifacts.list() == []
    assert left_in_staging(yard) == []


def test_names_written_by_others_are_checked_at_commit(yard: Yard) -> None:
    for name in (b"bad\xff", b"back\\slash", b"line\nbreak"):
        with pytest.raises(Refused), yard.staging("run.step.1") as staging:
            with open(os.path.join(os.fsencode(staging.files), name), "wb"):
                pass
            yard.artifacts.commit(staging, "model")
    assert yard.artifacts.list() == []


def test_planted_links_and_devices_are_refused(yard: Yard, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    for plant in (
        lambda folder: (folder / "link").symlink_to(secret),
        lambda folder: (folder / "folder-link").symlink_to(tmp_path),
        lambda folder: os.mkfifo(folder / "pipe"),
    ):
        with pytest.raises(Refused, match="no regular file"), yard.staging("run.step.1") as staging:
            (staging.files / "good").write_bytes(b"1")
            plant(staging.files)
            yard.artifacts.commit(staging, "model")
    with pytest.raises(Refused), yard.staging("run.step.1") as staging:
        (staging.files / "sub").symlink_to(tmp_path)
        staging.open("sub/file")
    with pytest.raises(Refused), yard.staging("run.step.1") as staging:
        (staging.files / "file").symlink_to(secret)
        staging.open("file")
    assert secret.read_bytes() == b"secret"
    assert not (tmp_path / "file").exists()
    assert left_in_staging(yard) == []


def test_nothing_is_no_artifact(yard: Yard) -> None:
    with pytest.raises(BadData), yard.staging("run.step.1") as staging:
        (staging.files / "empty").mkdir()
        yard.artifacts.commit(staging, "model")


def test_a_file_is_written_once(yard: Yard) -> None:
    with yard.staging("run.step.1") as staging:
        with staging.open("a/b") as file:
            assert file.write(memoryview(b"12")) == 2
            file.write(bytearray(b"34"))
            assert not file.seekable()
            assert staging.known == {}
        assert staging.known == {"a/b": hashlib.sha256(b"1234").hexdigest()}
        with pytest.raises(Refused):
            staging.open("a/b")
        with pytest.raises(Refused):
            staging.open("a")


def test_many_commit_the_same_at_once(yard: Yard) -> None:
    def one(number: int) -> str:
        return commit_to(Yard.open(yard.root), {"w": b"content"}, f"run.step.{number}").digest

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(one, range(40)))
    assert len(digests) == 1
    assert yard.artifacts.verify(digests.pop()) == []
    assert left_in_staging(yard) == []


def test_processes_race_with_gc_between_them(yard: Yard) -> None:
    """Committers of one artifact, while gc moves it to the trash each time that no action names it: no committer ends without one."""
    children = []
    for number in range(4):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                mine, key = Yard.open(yard.root), str(number) * 64
                for round_ in range(25):
                    digest = commit_to(mine, {"w": b"content"}, f"run.step.{number}.{round_}").digest
                    mine.actions.put(key, Action(key=key, verb="fetch", artifact=digest))  # from here on, one gc at most may still take it
                    assert mine.artifacts.verify(digest) == []
                    mine.actions.forget(key)
                code = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    for _ in range(30):
        yard.gc(older_than=60)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert left_in_staging(yard) == []
    assert [yard.artifacts.verify(artifact.digest) for artifact in yard.artifacts.list()] in ([], [[]])


def test_a_reading_yard_never_writes(yard: Yard, commit) -> None:
    artifact = commit(b"1")
    reader = Yard.open(yard.root, write=False)
    assert reader.artifacts.get(artifact.digest).path == artifact.path
    before = sorted(yard.root.rglob("*"))
    for write in (
        lambda: reader.staging("run.step.1"),
        lambda: reader.refs.move("models/m", artifact.digest, "test"),
        lambda: reader.pins.add(artifact.digest, "why"),
        lambda: reader.gc(0),
        lambda: reader.checkpoints("a" * 64, "run.step.1").save("step-1", lambda folder: None),
    ):
        with pytest.raises(Usage):
            write()
    lease = reader.leases.acquire("b" * 64)
    assert lease
    assert not lease.beat()
    assert sorted(yard.root.rglob("*")) == before


def test_every_failure_has_a_remedy_or_a_reason(yard: Yard) -> None:
    for call in (
        lambda: yard.artifacts.get(ABSENT),
        lambda: yard.refs.get("models/none"),
        lambda: yard.pins.remove(ABSENT),
        lambda: yard.staging("../x"),
    ):
        with pytest.raises(Failure) as raised:
            call()
        assert raised.value.remedy
