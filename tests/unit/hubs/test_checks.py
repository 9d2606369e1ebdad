"""What a listing may hold: hostile ones beside good ones."""

from __future__ import annotations

import pytest

from modelyard import refs
from modelyard.errors import NoInput, Refused
from modelyard.hubs import HubFile, Listing

REF = refs.parse("modelscope://owner/name")
SHA = "ab" * 32


def listing(*paths: str, size: int = 1, sha256: str | None = None, kind: str = "model") -> Listing:
    return Listing(REF, kind, "main", tuple(HubFile(path, size, sha256, "1") for path in paths))


@pytest.mark.parametrize(
    "paths",
    [
        ["config.json"],
        ["b.json", "a/b/c.json", "a/b.json", "..a", "a...", "a b.txt", "é.txt", "数据/训练.csv"],
        ["/".join(["d"] * 31 + ["f"])],
    ],
)
def test_good_names_are_taken_in_order(paths):
    assert [file.path for file in listing(*paths).files] == sorted(paths)


@pytest.mark.parametrize(
    "paths",
    [
        ["../escape"],
        ["a/../../escape"],
        ["a/.."],
        [".."],
        ["/etc/passwd"],
        ["a//b"],
        ["a/"],
        ["./a"],
        [""],
        ["a\\b"],
        ["a\0b"],
        ["a\nb"],
        ["a\x7fb"],
        ["a\x85b"],
        ["a\udcffb"],
        ["x" * 256],
        ["/".join(["d"] * 200 + ["f"])],
        ["/".join(["x" * 200] * 6)],
        ["Config.json", "config.json"],
        ["a/x", "A/y"],
        ["straße", "STRASSE"],
        ["\u00e9.txt", "e\u0301.txt"],
        ["a", "a/b"],
        ["a/b", "A"],
        ["a", "a"],
    ],
)
def test_unsafe_names_are_refused(paths):
    with pytest.raises(Refused) as caught:
        listing(*paths, "good.json")
    assert caught.value.where == str(REF)


@pytest.mark.parametrize("sha256", ["", "ab", "ab" * 20, "AB" * 32, "zz" * 32, "ab" * 32 + "\n", "../" + "a" * 61])
def test_hashes_are_64_lower_case_hex_digits(sha256):
    with pytest.raises(Refused, match="sha256"):
        listing("a", sha256=sha256)
    assert listing("a", sha256=SHA).files[0].sha256 == SHA


@pytest.mark.parametrize("size", [-1, 2**50 + 1])
def test_sizes_are_bounded(size):
    with pytest.raises(Refused):
        listing("a", size=size)


def test_the_number_of_files_is_bounded():
    with pytest.raises(Refused, match="too many"):
        listing(*(f"{number}.json" for number in range(100_001)))


def test_an_empty_listing_is_an_error():
    with pytest.raises(NoInput):
        listing()


def test_the_digest_moves_with_kind_path_size_and_identity_only():
    base = listing("a", "b", sha256=SHA)
    assert base.digest == Listing(refs.parse("hf://other/place@v1"), "model", "v1", base.files[::-1]).digest
    later = Listing(REF, "model", "main", tuple(HubFile(file.path, file.size, file.sha256, "2") for file in base.files))
    assert later.digest == base.digest, "where there is a hash, the version says nothing"
    others = [
        listing("a", "c", sha256=SHA),
        listing("a", "b", size=2, sha256=SHA),
        listing("a", "b", sha256="cd" * 32),
        listing("a", "b"),
        listing("a", sha256=SHA),
    ]
    others += [listing("a", "b", sha256=SHA, kind="dataset")]
    assert len({base.digest, *(other.digest for other in others)}) == len(others) + 1


def test_a_version_is_never_taken_for_a_hash():
    by_hash = Listing(REF, "model", "main", (HubFile("a", 1, SHA, "1"),))
    by_version = Listing(REF, "model", "main", (HubFile("a", 1, None, SHA),))
    assert by_hash.digest != by_version.digest


def test_a_record_is_the_listing_again_and_is_checked_again():
    original = listing("a", "b/c", sha256=SHA)
    record = original.record()
    assert Listing.from_record(record) == original
    record["files"][0][0] = "../a"
    with pytest.raises(Refused):
        Listing.from_record(record)


def test_the_record_of_a_path_is_the_listing_again():
    original = Listing(refs.parse("/data/x.csv"), "dataset", "", (HubFile("x.csv", 3, None, "17"),))
    assert Listing.from_record(original.record()) == original
