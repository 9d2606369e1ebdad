"""Opening a yard, what the operating system refuses, and a volume that cannot hold a yard."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, NoSpace, VolumeFailed
from modelyard.yard import Yard, files, layout

from .conftest import commit_to, left_in_staging

ROOT = os.geteuid() == 0


def test_open_makes_the_layout_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard.open(tmp_path / "deep" / "yard")
    assert sorted(os.listdir(yard.root)) == sorted([*layout.FOLDERS, "yard.json"])
    assert left_in_staging(yard) == []
    monkeypatch.setattr(layout, "probe", lambda staging: pytest.fail("probed again"))
    Yard.open(yard.root)
    assert Yard.open(str(yard.root), write=False).artifacts.list() == []


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoInput):
        Yard.open(tmp_path / "none", write=False)
    with pytest.raises(NoInput):
        Yard.open(tmp_path, write=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("marker", [b"", b"{", b"[]", b'{"format": 2}', b"\xff", b"[" * 100_000])
def test_another_versions_yard(yard: Yard, marker: bytes) -> None:
    (yard.root / "yard.json").write_bytes(marker)
    with pytest.raises(Corrupt):
        Yard.open(yard.root)


def refuse(number: int) -> Callable[..., object]:
    def refused(*args: object, **kwargs: object) -> object:
        raise OSError(number, os.strerror(number))

    return refused


LACKS: dict[str, tuple[str, object]] = {
    "rename of folders": ("os.rename", refuse(errno.EXDEV)),
    "rename at all": ("os.rename", refuse(errno.ENOSYS)),
    "a rename that keeps others' content": ("modelyard.yard.files.rename", lambda source, target: "done"),
    "a rename that moves": ("modelyard.yard.files.rename", lambda source, target: "taken" if target.name == "b" else "done"),
    "O_EXCL": ("modelyard.yard.files.create", lambda path, data: bool(path.write_bytes(data)) or True),
    "append": ("modelyard.yard.files.append", lambda path, data: path.write_bytes(data)),
    "append at all": ("modelyard.yard.files.append", lambda path, data: files.failures(path).__enter__() and refuse(errno.ENOTSUP)()),
    "permissions": ("os.fchmod", lambda descriptor, mode: None),
    "permissions of folders": ("os.chmod", lambda path, mode: None),
}


@pytest.mark.parametrize("lack", LACKS.values(), ids=LACKS)
def test_a_volume_that_lacks_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: tuple[str, object]) -> None:
    before = os.umask(0o077)
    monkeypatch.setattr(*lack)
    try:
        with pytest.raises((VolumeFailed, OSError)) as raised:
            Yard.open(tmp_path / "yard")
    finally:
        os.umask(before)
    if isinstance(raised.value, VolumeFailed):
        assert raised.value.exit_code == 74
        assert "object stores" in raised.value.remedy
    assert not (tmp_path / "yard" / "yard.json").exists()
    assert os.listdir(tmp_path / "yard" / "staging") == []


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("ENOSPC", NoSpace),
        ("EDQUOT", NoSpace),
        ("EACCES", NoPermission),
        ("EPERM", NoPermission),
        ("EROFS", VolumeFailed),
        ("EIO", VolumeFailed),
        ("ESTALE", VolumeFailed),
    ],
)
def test_each_errno_has_its_row(yard: Yard, inject, name: str, failure: type[Failure]) -> None:
    inject(f"{name}:1")
    with pytest.raises(failure) as raised:
        files.write_atomic(yard.root / "pins" / "x", b"1")
    assert raised.value.remedy
    assert raised.value.where.startswith(str(yard.root))
    assert files.names(yard.root / "pins") == os.listdir(yard.root / "pins") == []


def test_a_fault_comes_by_the_environment(yard: Yard) -> None:
    code = f"from modelyard.yard import Yard, files; Yard.open({str(yard.root)!r}).pins.list()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(files.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
    killed = subprocess.run([os.sys.executable, "-c", code], env={**environment, "MODELYARD_FAULT": "kill:2"}, check=False)
    assert killed.returncode == -9
    failed = subprocess.run(
        [os.sys.executable, "-c", code], env={**environment, "MODELYARD_FAULT": "EIO:1"}, check=False, capture_output=True, text=True
    )
    assert "VolumeFailed" in failed.stderr


def test_readers_see_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for number in range(3):
        files.write_atomic(path, b"%d" % number, durable=False)
        assert files.read(path) == b"%d" % number
    assert files.create(path, b"x") is False
    assert files.read(path) == b"2"
    assert files.append(path, b"3")
    assert files.append(path, b"9", new=False)
    assert files.read(path) == b"239"
    assert files.append(tmp_path / "none", b"9", new=False) is False
    assert files.read(tmp_path / "none") is None
    assert files.read(path / "below") is None
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_no_file_of_ours_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "big").write_bytes(b"123")
    monkeypatch.setattr(files, "MAX_READ", 2)
    for name in ("pipe", "folder", "big"):
        with pytest.raises(Corrupt):
            files.read(tmp_path / name)
    (tmp_path / "link").symlink_to("big")
    with pytest.raises(Failure):
        files.read(tmp_path / "link")


def test_a_link_is_removed_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"1")
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "top").symlink_to(tmp_path / "kept")
    files.remove_tree(tmp_path / "tree")
    files.remove_tree(tmp_path / "top")
    files.remove_tree(tmp_path / "never-there")
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


@pytest.mark.skipif(not ROOT, reason="needs to become another user")
def test_a_yard_of_another_group_names_the_chgrp(yard: Yard, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(folder, 0o755)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                commit_to(Yard.open(yard.root), {"w": b"1"})
            except Failure as failure:
                os.write(writer, f"{failure.category} {failure.remedy}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    said = os.read(reader, 10_000).decode()
    os.close(reader)
    os.close(writer)
    assert said.startswith("no-permission ")
    assert "chgrp -R 65534" in said


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A volume of 512 KiB."""
    volume = tmp_path / "volume"
    volume.mkdir()
    if not ROOT or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(volume)], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield volume
    subprocess.run(["umount", "-l", str(volume)], check=True)


def test_a_full_volume(tiny: Path) -> None:
    yard = Yard.open(tiny / "yard")
    kept = commit_to(yard, {"w": b"1"})

    def fill(folder: Path) -> None:
        (folder / "state").write_bytes(bytes(2**20))

    with pytest.raises(NoSpace):
        commit_to(yard, {"a": bytes(2**18), "b": bytes(2**18), "c": bytes(2**18)})
    with pytest.raises(NoSpace):
        yard.checkpoints("a" * 64, "run.step.1").save("step-1", fill)
    assert left_in_staging(yard) == []
    assert yard.artifacts.list() == [kept]
    assert yard.checkpoints("a" * 64, "run.step.1").furthest() is None
    assert commit_to(yard, {"a": bytes(2**18)}).size == 2**18


def test_a_read_only_volume(tiny: Path) -> None:
    yard = Yard.open(tiny / "yard")
    kept = commit_to(yard, {"w": b"1"})
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    with pytest.raises(VolumeFailed, match="read-only"):
        commit_to(Yard.open(yard.root), {"w": b"2"})
    assert Yard.open(yard.root, write=False).artifacts.get(kept.digest) == kept
    lease = yard.leases.acquire("listing")
    assert lease
    assert not lease.beat()
