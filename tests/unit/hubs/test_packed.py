"""Files as a stream: what comes out is what went in, and nothing but that."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.errors import Corrupt, Failure, NoInput, Refused, Usage
from modelyard.hubs import reader, resolve
from modelyard.hubs.packed import FORMAT, Open, Unpacker, into_folder, pack, stream
from modelyard.refs import PathRef

CONTENT = {"a.csv": b"1,2\n" * 1000, "b/c.csv": b"", "b/d.csv": b"x", "empty.txt": b"", "z.txt": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        file = tmp_path / "from" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "from"


def packed(folder: Path) -> bytes:
    listing = resolve(PathRef(str(folder)), "dataset", {})
    return b"".join(pack(listing, listing.files, reader(listing, {})))


def unpack(data: bytes, target: Path, size: int = 1 << 20) -> Unpacker:
    unpacker = Unpacker(lambda _: into_folder(target))
    unpacker.writelines(data[at : at + size] for at in range(0, len(data), size))
    unpacker.finish()
    return unpacker


def head(*files: object, **more: object) -> bytes:
    return json.dumps({"format": FORMAT, "source": "s", "files": files, **more}).encode() + b"\n"


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_there_and_back(folder: Path, tmp_path: Path, size: int) -> None:
    unpacker = unpack(packed(folder), tmp_path / "to", size)
    assert unpacker.whole
    assert {str(path.relative_to(tmp_path / "to")): path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file()} == CONTENT


def test_a_stream_that_breaks_off_anywhere_is_not_whole(tmp_path: Path) -> None:
    data = head(["a", 2, None], ["b", 1, None], ["empty", 0, None]) + b"aab"
    for end in range(len(data)):
        unpacker = Unpacker(lambda _: into_folder(tmp_path / str(end)))  # noqa: B023  # used within the round
        unpacker.write(data[:end])
        assert not unpacker.whole
        with pytest.raises(Corrupt, match="broke off"):
            unpacker.finish()


def test_what_is_not_wanted_is_passed_over() -> None:
    kept: dict[str, io.BytesIO] = {}

    class Kept(io.BytesIO):
        def close(self) -> None:
            pass

    def begin(_: object) -> Open:
        return lambda path: kept.setdefault(path, Kept()) if path != "a" else None

    unpacker = Unpacker(begin)
    unpacker.write(head(["a", 2, None], ["b", 3, None]) + b"aabbb")
    unpacker.finish()
    assert {name: file.getvalue() for name, file in kept.items()} == {"b": b"bbb"}


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"\x1f\x8b\x08", Usage),
        (b"{}\n", Usage),
        (b'{"format": "other/1", "files": []}\n', Usage),
        (b'{"format": "modelyard-files/1", "source": "s", "files": [["a"]]}\n', Usage),
        (b'{"files": ' + b"[" * 100_000 + b"\n", Usage),
        (head(["a", float("inf"), None]), Usage),
        (head(), NoInput),
        (head(["../a", 1, None]), Refused),
        (head(["/etc/passwd", 1, None]), Refused),
        (head(["a\\b", 1, None]), Refused),
        (head(["A", 1, None], ["a", 1, None]), Refused),
        (head(["a", 1, None], ["a/b", 1, None]), Refused),
        (head(["a", -1, None]), Refused),
        (head(["a", 2**60, None]), Refused),
        (head(["a", 1, "0"]), Refused),
        (head(["a", 1, "0" * 64]) + b"a", Corrupt),
        (head(["a", 1, None]) + b"ab", Corrupt),
    ],
)
def test_hostile_streams(tmp_path: Path, data: bytes, failure: type[Failure]) -> None:
    with pytest.raises(failure):
        unpack(data, tmp_path / "to" / "below")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] in ([], ["to/below/a"])


def test_a_list_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.hubs.packed._HEAD", 1000)
    unpacker = Unpacker(lambda _: into_folder(tmp_path))
    with pytest.raises(Usage):
        unpacker.writelines([b'{"format": "' + b"a" * 500] * 3)


def test_a_file_that_changes_while_it_is_sent(folder: Path) -> None:
    listing = resolve(PathRef(str(folder)), "dataset", {})

    class Growing:
        def read(self, _: object, file: object, offset: int = 0) -> Iterator[bytes]:
            yield b"1" * 100_000

    with pytest.raises(Corrupt, match="not as long as it was"):
        list(pack(listing, listing.files, Growing()))


@pytest.mark.parametrize("chunks", [[], [b""], [b"ab", b"", b"cdef", b"g"]])
def test_chunks_as_a_file(chunks: list[bytes]) -> None:
    assert stream(chunks).read() == b"".join(chunks)
    file, read = stream(chunks), list[bytes]()
    take: Callable[[], bytes] = lambda: file.read(3)  # noqa: E731
    while part := take():
        read.append(part)
    assert b"".join(read) == b"".join(chunks)
