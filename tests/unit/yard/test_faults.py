"""A fault at every single operation on the file system: the yard is whole after each, and doing it again succeeds.

The scenario does everything that writes: open, commit, action, ref, checkpoints, lease, pin, gc with something to trash, to delete and to sweep.
Each act that returns is told to the parent: what was told must hold whatever comes after.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.errors import Failure, NoSpace, VolumeFailed
from modelyard.yard import Action, Yard, files
from modelyard.yard.gc import collect

from .conftest import KEYS, Clock, age, commit_to, left_in_staging

DAY = 86_400.0
CONTENT = {"config.json": b"{}", "weights/1.bin": b"11", "weights/2.bin": b"22"}
ATTEMPT = "run.tuned.2"

Tell = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what is tested is order, not the disk's speed."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = memory / f"modelyard-test-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def template(folder: Path) -> Path:
    """A yard with a past: a name, an old action, something in the trash, leftovers."""
    yard = Yard.open(folder / "template")
    yard.refs.move("models/m@champion", commit_to(yard, {"w": b"before"}).digest, source="past")
    yard.actions.put(KEYS["b"], Action(key=KEYS["b"], verb="fetch", artifact=commit_to(yard, {"w": b"old"}).digest))
    age(yard.root / "actions" / f"{KEYS['b']}.json", 40 * DAY)
    trashed = commit_to(yard, {"w": b"trashed", "v": b"too"}).digest
    yard.artifacts.discard(trashed)
    age(yard.root / "trash" / trashed, 2 * DAY)
    age(yard.staging("run.tuned.1").folder, 30 * DAY)
    first = yard.checkpoints(KEYS["a"], "run.tuned.1")
    first.save("step-1", save(b"1"))
    return yard.root


def save(content: bytes) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "state").write_bytes(content)

    return fill


def scenario(root: Path, tell: Tell) -> None:
    clock = Clock()
    yard = Yard.open(root, clock=clock)
    lease = yard.leases.acquire("listing")
    if not lease:  # its holder was killed
        clock.seconds += 31
        lease = yard.leases.acquire("listing")
    assert lease
    with contextlib.ExitStack() as stack:
        stack.callback(lease.release)
        checkpoints = yard.checkpoints(KEYS["a"], ATTEMPT)
        found = checkpoints.furthest()
        for number in range(found[0] + 1 if found else 1, 4):
            checkpoints.save(f"step-{number}", save(b"%d" % number))
            tell(f"step {number}")
            checkpoints.prune(keep=2)
            lease.beat()
        artifact = commit_to(yard, CONTENT, ATTEMPT)
        tell(f"artifact {artifact.digest}")
        yard.actions.put(KEYS["a"], Action(key=KEYS["a"], verb="finetune", artifact=artifact.digest))
        tell(f"action {artifact.digest}")
        checkpoints.clear()
    yard.refs.move("models/m@champion", artifact.digest, source="run")
    tell(f"ref {artifact.digest}")
    yard.pins.add(artifact.digest, "why")
    tell(f"pin {artifact.digest}")
    yard.gc(older_than=30 * DAY)


def check(root: Path, told: list[str]) -> None:
    """Nothing is torn, nothing dangles, and all that was told holds."""
    if not (root / "yard.json").exists():
        assert told == []
        return
    yard = Yard.open(root, write=False)
    for digest in yard.artifacts.digests():
        assert yard.artifacts.verify(digest) == []
    for entry in os.listdir(root / "trash"):
        if len(entry) == 64:
            assert yard.artifacts.verify(entry) == []
    for record in yard.refs.list().values():
        assert yard.artifacts.verify(record.digest) == []
        assert record.previous is None or yard.artifacts.verify(record.previous.digest) == []
    for action in yard.actions.list():
        assert yard.artifacts.verify(action.artifact) == []
    assert all(yard.artifacts.get(pin.digest) for pin in yard.pins.list())
    for act in told:
        what, _, value = act.partition(" ")
        match what:
            case "step":
                furthest = yard.checkpoints(KEYS["a"], "other.tuned.1").furthest()
                committed = any(later.startswith("action") for later in told)
                assert committed or (furthest and furthest[0] >= int(value)), told
            case "artifact":
                assert yard.artifacts.verify(value) == []
            case "action":
                action = yard.actions.get(KEYS["a"])
                assert action
                assert action.artifact == value
            case "ref":
                assert yard.refs.get("models/m@champion").digest == value
            case "pin":
                assert value in {pin.digest for pin in yard.pins.list()}


def finish(root: Path) -> None:
    """A rerun succeeds, and a gc for which everything is old leaves nothing behind."""
    told: list[str] = []
    scenario(root, told.append)
    check(root, told)
    yard = Yard.open(root)
    collect(yard, older_than=30 * DAY, grace=-1, idle=-1)
    assert {artifact.files for artifact in yard.artifacts.list()} >= {yard.artifacts.get(told[-1].split()[1]).files}
    for emptied in ("staging", "trash", "leases", "checkpoints"):
        assert os.listdir(root / emptied) == [], emptied
    assert not list(root.rglob("*.tmp"))


def killed_at(root: Path, number: int) -> tuple[bool, list[str]]:
    """Run the scenario in a child that is killed in place of its operation `number`: whether it was, and what it told before."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 3
        try:
            files.inject(f"kill:{number}")
            scenario(root, lambda act: os.write(writer, f"{act}\n".encode()) and None)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(reader) as pipe:
        told = pipe.read().splitlines()
    assert status in (0, 9)
    return status == 9, told


def test_sigkill_at_every_operation(folder: Path, template: Path) -> None:
    number, killed, root, seen = 0, True, folder / "yard", set()
    while killed:
        number += 1
        shutil.copytree(template, root)
        killed, told = killed_at(root, number)
        check(root, told)
        finish(root)
        shutil.rmtree(root)
        seen.add(len(told))
    assert number > 150
    assert seen == set(range(7))  # a kill fell between every two acts


def test_sigkill_while_the_yard_is_made(folder: Path) -> None:
    number, told, root = 0, list[str](), folder / "yard"
    while not told:  # what comes after the first act is the other test's
        number += 1
        _, told = killed_at(root, number)
        check(root, told)
        finish(root)
        shutil.rmtree(root)
    assert number > 30


@pytest.mark.parametrize(("name", "failure"), [("ENOSPC", NoSpace), pytest.param("EIO", VolumeFailed, marks=pytest.mark.slow)])
def test_an_error_at_every_operation(folder: Path, template: Path, inject: Callable[[str], None], name: str, failure: type[Failure]) -> None:
    number, failed = 0, 0
    while True:
        number += 1
        root = folder / "yard"
        shutil.copytree(template, root)
        leftovers = set(os.listdir(root / "staging"))
        told: list[str] = []
        inject(f"{name}:{number}")
        try:
            scenario(root, told.append)
            error = None
        except Failure as raised:
            error = raised
        harmless = next(files._count) <= number
        inject("")
        check(root, told)
        if error:
            failed += 1
            assert type(error) is failure, error
            removing = any(f"into {operation})" in error.why for operation in ("remove", "unlink", "rmdir", "walk", "stat", "list"))
            assert removing or set(left_in_staging(Yard.open(root))) <= leftovers, (number, error)
        finish(root)
        shutil.rmtree(root)
        if harmless:
            break
    assert failed > 100
