"""Fetching from a folder hub: alone, eight at once, killed, stopped, with wrong and hostile content, with a fault at every operation."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard import hubs, refs
from modelyard.errors import Corrupt, Failure, NoInput, NoSpace, Refused, Unavailable, VolumeFailed, Yielded
from modelyard.hubs import Listing, fetching, local
from modelyard.hubs.selection import fetch_key, select
from modelyard.order import Order
from modelyard.run.pipeline import first_status
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Resources
from modelyard.yard import Action, Artifact, Yard, files
from modelyard_jobs import fetch
from modelyard_jobs.context import Context, Stop

MIB = 1 << 20
REF = "modelscope://owner/model"
_numbers = itertools.count(1)


class Place:
    """A hub with one model, a yard, and attempts at fetching the one into the other, as the frame makes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "hub/owner/model"
        self.hubs = {"modelscope": str(root / "hub")}
        self.reads = root / "reads"
        self.said: list[Any] = []
        root.mkdir(parents=True, exist_ok=True)
        self.reads.touch()

    def put(self, content: dict[str, bytes], sums: bool = True) -> Place:
        for path, data in content.items():
            (self.model / path).parent.mkdir(parents=True, exist_ok=True)
            (self.model / path).write_bytes(data)
        if sums:
            lines = [f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in content.items()]
            (self.model / "SHA256SUMS").write_text("".join(lines))
        return self

    @property
    def yard(self) -> Yard:
        """The yard, opened with a clock on which every lease has expired at the second look."""
        return Yard.open(self.root / "yard", clock=itertools.count(0.0, 31.0).__next__)

    def listing(self) -> Listing:
        return hubs.resolve(refs.parse(REF), "model", self.hubs)

    def attempt(
        self, listing: Listing | None = None, yard: Yard | None = None, trust: tuple[str, ...] = (), forced: bool = False, stop: Stop | None = None
    ) -> Artifact:
        """One attempt: what the frame does around `fetch.run`, without its processes."""
        yard = yard or self.yard
        listing = listing or self.listing()
        key = fetch_key(select(listing, trust))
        action = yard.actions.get(key)
        if action and not forced and (found := yard.artifacts.find(action.artifact)):
            return found
        name = f"run.fetch.{os.getpid()}-{next(_numbers)}"
        with yard.staging(name) as staging:
            context = Context(
                settings=Fetch(model=REF, trust=trust),
                inputs={},
                out=staging.files,
                scratch=self.root,
                yard=yard,
                key=key,
                run="run",
                attempt=name,
                device="cpu",
                threads=1,
                listing=listing,
                forced=forced,
                hubs=self.hubs,
                stop=stop or Stop(),
                send=self.said.append,
            )
            produced = fetch.run(context)
            if produced.existing:
                return yard.artifacts.get(produced.existing)
            artifact = yard.artifacts.commit(staging, produced.kind, produced.format, produced.known)
        yard.actions.put(key, Action(key=key, verb="fetch", artifact=artifact.digest))
        yard.checkpoints(key, name).clear()
        yard.leases.end(key)
        return artifact

    def key(self) -> str:
        return fetch_key(select(self.listing()))

    def bytes_read(self) -> int:
        """Bytes that all processes read from the hub's files since the last call."""
        total = sum(int(line) for line in self.reads.read_text().split())
        self.reads.write_text("")
        return total

    def content(self, artifact: Artifact) -> dict[str, bytes]:
        return {entry.path: (artifact.path / entry.path).read_bytes() for entry in artifact.files}

    def committed(self) -> list[str]:
        return sorted(os.listdir(self.root / "yard/artifacts")) if (self.root / "yard/artifacts").is_dir() else []

    def check(self) -> None:
        """Every artifact is what its name says."""
        yard = Yard.open(self.root / "yard")
        for digest in self.committed():
            assert yard.artifacts.verify(digest) == []
        for action in yard.actions.list():
            assert yard.artifacts.verify(action.artifact) == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose hub counts what is read from it, in every process that is forked from here."""
    place = Place(tmp_path)
    original = local.read_file

    def counted(*arguments: Any) -> Iterator[bytes]:
        for chunk in original(*arguments):
            files.append(place.reads, f"{len(chunk)}\n".encode())
            yield chunk

    monkeypatch.setattr(local, "read_file", counted)
    monkeypatch.setattr(fetching, "LOOK_EVERY", 0.01)
    return place


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes without repetition, so that a piece in a wrong place shows."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a fork of this process; its id. It ends with 0, with its failure's exit code, or with 99."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        work()
        code = 0
    except Failure as failure:
        code = failure.exit_code
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_model_is_fetched_verified_and_found_again(place: Place) -> None:
    content = {"config.json": b"{}", "sub/vocab.txt": b"a\n", "model.safetensors": noise(3 * MIB), "empty.txt": b""}
    place.put({**content, "pytorch_model.bin": b"pickle", "modeling.py": b"code"})
    artifact = place.attempt()
    assert (artifact.kind, artifact.format) == ("model", "safetensors")
    assert place.content(artifact) == content
    assert place.bytes_read() == sum(map(len, content.values()))
    decided = next(message for message in place.said if message["type"] == "decide")
    assert decided["name"] == "files left out"
    assert [line.split(":")[0] for line in decided["value"]] == ["modeling.py", "pytorch_model.bin"]
    progress = [message for message in place.said if message["type"] == "progress"]
    assert (progress[-1]["done"], progress[-1]["unit"]) == (sum(map(len, content.values())), "bytes")
    assert place.attempt().digest == artifact.digest
    assert place.bytes_read() == 0
    assert not (place.root / "yard/checkpoints" / place.key()).exists()
    assert os.listdir(place.root / "yard/staging") == []


def test_without_known_hashes_the_artifact_is_the_same(place: Place) -> None:
    place.put({"config.json": b"{}", "model.safetensors": noise(MIB)})
    with_sums = place.attempt()
    (place.model / "SHA256SUMS").unlink()
    assert place.attempt().digest == with_sums.digest
    assert len(Yard.open(place.root / "yard").actions.list()) == 2


def test_forced_reads_again(place: Place) -> None:
    place.put({"model.safetensors": noise(MIB)})
    first = place.attempt()
    assert place.attempt(forced=True).digest == first.digest
    assert place.bytes_read() == 2 * MIB


def test_who_finishes_first_may_clear_the_parts_of_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put({"config.json": b"{}", "model.safetensors": noise(MIB)})
    original = fetching.Fetching.run
    first: list[bool] = []
    Yard.open(place.root / "yard")
    (place.root / "yard/leases").rmdir()
    (place.root / "yard/leases").write_text("without leases nobody waits for anybody")

    def overtaken(work: fetching.Fetching) -> fetching.Fetched:
        if first:
            return original(work)
        first.append(True)  # whoever comes in here is the one that is overtaken
        place.attempt(yard=Yard.open(place.root / "yard"))
        raise VolumeFailed("a part is gone")

    monkeypatch.setattr(fetching.Fetching, "run", overtaken)
    artifact = place.attempt()
    assert place.committed() == [artifact.digest]
    monkeypatch.setattr(fetching.Fetching, "run", lambda _: (_ for _ in ()).throw(VolumeFailed("the disk")))
    with pytest.raises(VolumeFailed, match="the disk"):
        place.attempt(forced=True)


@pytest.mark.parametrize("leases", [True, False])
def test_eight_at_once(place: Place, leases: bool) -> None:
    size = (300 if leases else 24) * MIB
    place.put({"config.json": b"{}"}, sums=False)
    with (place.model / "model.safetensors").open("wb") as weights:
        weights.writelines(noise(MIB, number) for number in range(size // MIB))
    yard = Yard.open(place.root / "yard")
    if not leases:
        (place.root / "yard/leases").rmdir()
        (place.root / "yard/leases").write_text("a file cannot hold leases, whoever runs this test")
    pids = [forked(lambda: place.attempt(yard=yard)) for _ in range(8)]
    assert [ended(pid) for pid in pids] == [0] * 8
    assert len(place.committed()) == 1
    place.check()
    if leases:
        assert place.bytes_read() == size + 2
        assert os.listdir(place.root / "yard/leases") == []
    assert os.listdir(place.root / "yard/staging") == []


def test_a_file_with_a_wrong_hash_is_corrupt_and_not_committed(place: Place) -> None:
    place.put({"config.json": b"{}", "model.safetensors": noise(MIB)})
    (place.model / "model.safetensors").write_bytes(noise(MIB, 1))
    with pytest.raises(Corrupt, match="sha256") as caught:
        place.attempt()
    assert caught.value.exit_code == 76
    assert "SHA256SUMS" in caught.value.remedy
    assert place.committed() == []
    (place.model / "model.safetensors").write_bytes(noise(MIB))
    place.attempt()
    place.check()


def test_a_file_that_changed_after_the_listing_is_corrupt(place: Place) -> None:
    place.put({"model.safetensors": noise(MIB)}, sums=False)
    listing = place.listing()
    place.put({"model.safetensors": noise(MIB, 1)}, sums=False)
    os.utime(place.model / "model.safetensors", ns=(1, 1))
    with pytest.raises(Corrupt, match="changed"):
        place.attempt(listing)
    assert place.committed() == []


@pytest.mark.parametrize("more", [0, 5])
def test_a_hub_that_gives_another_number_of_bytes_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    place.put({"model.safetensors": b"12345678"}, sums=False)
    monkeypatch.setattr(local, "read_file", lambda *_: iter([b"1234", b"5" * more]))
    with pytest.raises(Corrupt, match="size"):
        place.attempt()
    assert place.committed() == []


def test_hostile_and_missing_repositories(place: Place) -> None:
    with pytest.raises(NoInput):
        place.attempt()
    place.model.mkdir(parents=True)
    with pytest.raises(NoInput, match="no files"):
        place.attempt()
    place.put({"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(Refused, match="pickles"):
        place.attempt()
    assert place.committed() == []
    trusted = place.attempt(trust=("pickle",))
    assert trusted.format == "pickle"
    assert any(message.get("name") == "trusted" for message in place.said)
    (place.model / "link.json").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="symbolic link"):
        place.attempt()
    record = {"ref": REF, "kind": "model", "revision": "main", "files": [["../x.safetensors", 1, None, "1"]]}
    with pytest.raises(Refused, match="x.safetensors"):
        Listing.from_record(record)
    assert place.committed() == [trusted.digest]


def test_a_volume_that_is_too_small_is_refused_before_a_byte_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put({"model.safetensors": noise(3 * MIB)})
    volume = os.statvfs(place.root)
    fields = [*volume]
    fields[1], fields[4] = 1024, 2048  # f_frsize, f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    with pytest.raises(NoSpace, match="3 MiB are to be written, 2 MiB are free") as caught:
        place.attempt()
    assert "gc" in caught.value.remedy
    assert place.bytes_read() == 0
    assert place.committed() == []


class Paused:
    """A hub's reads that, after so many bytes of a large file in all, do something instead of going on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, act: Callable[[], None]) -> None:
        original, left = local.read_file, [after]

        def read(*arguments: Any) -> Iterator[bytes]:
            for chunk in original(*arguments):
                yield chunk
                left[0] -= len(chunk)
                if left[0] == 0:
                    act()

        monkeypatch.setattr(local, "read_file", read)


def kill_after(place: Place, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """An attempt that is killed when it has read so many bytes."""
    with monkeypatch.context() as patch:
        Paused(patch, after, lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert ended(forked(place.attempt)) == -signal.SIGKILL
    assert place.bytes_read() == after


@pytest.mark.parametrize("sums", [True, False])
def test_a_killed_fetch_goes_on_from_the_last_sync(place: Place, monkeypatch: pytest.MonkeyPatch, sums: bool) -> None:
    monkeypatch.setattr(fetching, "KEEP_EVERY", 2 * MIB)
    content = {"a.safetensors": noise(3 * MIB, 1), "b.safetensors": noise(8 * MIB, 2)}
    place.put(content, sums)
    kill_after(place, monkeypatch, 8 * MIB)  # all of a, 5 of b, 4 of them synced
    artifact = place.attempt()
    assert place.bytes_read() == 4 * MIB
    assert place.content(artifact) == content
    place.check()


def test_a_fetch_that_is_killed_again_and_again_comes_to_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "KEEP_EVERY", MIB)
    content = {"model.safetensors": noise(6 * MIB)}
    place.put(content)
    for _ in range(3):
        kill_after(place, monkeypatch, 2 * MIB)
    assert place.content(place.attempt()) == content
    assert place.bytes_read() == 0
    place.check()


@pytest.mark.parametrize("damage", ["part", "short", "whole"])
@pytest.mark.parametrize("sums", [True, False])
def test_damaged_parts_are_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch, damage: str, sums: bool) -> None:
    monkeypatch.setattr(fetching, "KEEP_EVERY", 2 * MIB)
    content = {"a.safetensors": noise(MIB, 1), "b.safetensors": noise(8 * MIB, 2)}
    place.put(content, sums)
    kill_after(place, monkeypatch, 6 * MIB)
    kept = {path.name.split("-")[0]: path for path in (place.root / "yard/checkpoints").glob("*/*/*")}
    assert sorted(kept) == ["00000", "00001"]
    match damage:
        case "part":
            with kept["00001"].open("r+b") as part:
                part.seek(MIB)
                part.write(b"damage")
        case "short":
            os.truncate(kept["00001"], MIB)
        case "whole":
            with kept["00000"].open("r+b") as whole:
                whole.write(b"damage")
    artifact = place.attempt()
    assert place.content(artifact) == content
    assert place.bytes_read() == (5 * MIB if damage == "whole" else 8 * MIB)
    place.check()


def test_a_part_of_what_was_wrong_on_the_hub_is_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is what its record says, but the hub's file was not what its SHA256SUMS said when it was read."""
    monkeypatch.setattr(fetching, "KEEP_EVERY", 2 * MIB)
    right = noise(8 * MIB)
    place.put({"model.safetensors": right})
    (place.model / "model.safetensors").write_bytes(b"wrong" + right[5:])
    kill_after(place, monkeypatch, 5 * MIB)
    (place.model / "model.safetensors").write_bytes(right)
    assert place.content(place.attempt()) == {"model.safetensors": right}
    place.check()


def test_a_stopped_fetch_keeps_what_it_has(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"model.safetensors": noise(8 * MIB)}
    place.put(content)

    def stopped() -> None:
        stop = Stop()
        stop.install()
        Paused(monkeypatch, 5 * MIB, lambda: os.kill(os.getpid(), signal.SIGTERM))
        place.attempt(stop=stop)

    assert ended(forked(stopped)) == Yielded.exit_code
    assert place.bytes_read() == 6 * MIB, "the chunk after the signal is still taken"
    assert os.listdir(place.root / "yard/leases") == []
    assert place.content(place.attempt()) == content
    assert place.bytes_read() == 2 * MIB


def test_a_hub_that_goes_away_costs_nothing_that_was_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"model.safetensors": noise(4 * MIB)}
    place.put(content)

    def away() -> None:
        raise Unavailable("the hub is away")

    with monkeypatch.context() as patch:
        Paused(patch, 3 * MIB, away)
        with pytest.raises(Unavailable):
            place.attempt()
    place.bytes_read()
    assert place.content(place.attempt()) == content
    assert place.bytes_read() == MIB


def test_without_hard_links_a_killed_fetch_begins_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "KEEP_EVERY", MIB)
    monkeypatch.setattr(files, "link", lambda *_: False)
    content = {"a.safetensors": noise(MIB), "b.safetensors": noise(4 * MIB)}
    place.put(content)
    kill_after(place, monkeypatch, 4 * MIB)
    assert place.content(place.attempt()) == content
    place.check()


def test_another_users_whole_file_is_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"a.safetensors": noise(MIB), "b.safetensors": noise(4 * MIB)}
    place.put(content)
    kill_after(place, monkeypatch, 2 * MIB)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    artifact = place.attempt()
    assert place.content(artifact) == content
    assert place.bytes_read() == 4 * MIB
    assert (artifact.path / "a.safetensors").stat().st_nlink == 1


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A model small enough to be fetched some hundred times, in memory where there is such a place; it has parts all the same."""
    monkeypatch.setattr(local, "CHUNK", 1000)
    monkeypatch.setattr(fetching, "KEEP_EVERY", 2000)
    monkeypatch.setattr(fetching, "LOOK_EVERY", 0)
    memory = Path("/dev/shm")
    root = memory / f"modelyard-fetch-{os.getpid()}" if os.access(memory, os.W_OK) else tmp_path / "small"
    yield Place(root).put({"config.json": b"{}", "sub/vocab.txt": b"a\nb\n", "model.safetensors": noise(7500)})
    shutil.rmtree(root)


@pytest.mark.parametrize("resumed", [False, True])
def test_sigkill_at_every_operation(small: Place, monkeypatch: pytest.MonkeyPatch, resumed: bool) -> None:
    """From nothing, and of an attempt that takes over what a killed one left."""

    def killed(number: int) -> None:
        files.inject(f"kill:{number}")
        small.attempt()

    yard, template = small.root / "yard", small.root / "template"
    if resumed:
        with monkeypatch.context() as patch:
            Paused(patch, 5002, lambda: os.kill(os.getpid(), signal.SIGKILL))  # two thirds of the largest file
            assert ended(forked(small.attempt)) == -signal.SIGKILL
        assert sorted(path.name.split("-")[0] for path in yard.glob("checkpoints/*/*/*")) == ["00000", "00001"]
        yard.rename(template)
    number, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        number += 1
        if resumed:
            shutil.copytree(template, yard)
        code = ended(forked(lambda number=number: killed(number)))
        assert code in (0, -signal.SIGKILL)
        if (yard / "yard.json").exists():
            small.check()
        small.attempt()
        small.check()
        assert len(small.committed()) == 1
        shutil.rmtree(yard)
    assert number > 80


@pytest.mark.parametrize(("fault", "failure"), [("ENOSPC", NoSpace), ("EIO", None)])
def test_an_error_at_every_operation(small: Place, fault: str, failure: type[Failure] | None) -> None:
    number, failed = 0, 0
    while True:
        number += 1
        files.inject(f"{fault}:{number}")
        error = None
        try:
            small.attempt()
        except Failure as raised:
            error = raised
        harmless = next(files._count) <= number
        files.inject("")
        if error:
            failed += 1
            assert failure is None or type(error) is failure, error
        small.attempt()
        small.check()
        assert len(small.committed()) == 1
        shutil.rmtree(small.root / "yard")
        if harmless:
            break
    assert failed > 60


def test_eight_frames_at_once(place: Place) -> None:
    """The same by the real frame: eight processes with a child each, none of which knows of the others."""
    place.put({"config.json": b"{}", "model.safetensors": noise(40 * MIB)})
    yard = Yard.open(place.root / "yard")
    step, listing = Fetch(model=REF), place.listing()
    attempts, processes = [], []
    for number in range(8):
        run = yard.runs.create(f"r{number}-0-r1", {}, first_status(f"r{number}-0-r1", Pipeline(f"r{number}", {"step": step})))
        attempt = run.new_attempt("step")
        order = Order(
            run=run.id,
            step="step",
            attempt=attempt.number,
            verb="fetch",
            settings=step.settings(),
            resources=Resources(),
            key=place.key(),
            listing=listing.record(),
            hubs=place.hubs,
        )
        command = [sys.executable, "-m", "modelyard_jobs", "fetch", "--order", str(attempt.write_order(order)), "--yard", str(yard.root)]
        attempts.append(attempt)
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    for process in processes:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0, output.decode()
    logs = [[json.loads(line) for line in process_log(attempt)] for attempt in attempts]
    readers = [log for log in logs if any(line["event"] == "progress" and line["done"] for line in log)]
    assert len(readers) == 1
    assert len({attempt.outcome().artifact for attempt in attempts}) == 1
    assert len(place.committed()) == 1
    place.check()


def process_log(attempt: Any) -> list[str]:
    return (attempt.path / "log.jsonl").read_text().splitlines()
