"""A folder and a yard as hubs: commits, uploads, tags and search through the protocol that every hub has."""

from __future__ import annotations

import hashlib
import os

import pytest

from modelyard import hubs, refs
from modelyard.errors import BadData, Corrupt, NoInput, NoPermission, Refused, Usage
from modelyard.hubs import Access, Query
from modelyard.hubs.folder import FolderHub
from modelyard.hubs.yards import YardHub
from modelyard.yard import Yard

MODEL = {"README.md": b"---\nlicense: mit\npipeline_tag: fill-mask\n---\nA small one.\n", "config.json": b"{}", "model.safetensors": b"weights"}


def ref(text):
    return refs.parse(text)


def write(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return {path: folder / path for path in files}


def contents(hub, listing):
    return {file.path: b"".join(hub.read(listing, file)) for file in listing.files}


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "hub/acme/bert", MODEL)
    return tmp_path / "hub"


@pytest.fixture
def hub(root):
    return FolderHub(root)


@pytest.fixture
def yard(tmp_path):
    yard = Yard.open(tmp_path / "yard")
    for alias, files in (("old", {**MODEL, "config.json": b"[]"}), ("latest", MODEL)):
        with yard.staging("put") as staging:
            for path, content in files.items():
                with staging.open(path) as file:
                    file.write(content)
            digest = yard.artifacts.commit(staging, kind="model", format="safetensors").digest
        yard.refs.move(f"models/films@{alias}", digest, source="test")
    return yard


def test_an_upload_makes_commits_that_stay(hub, tmp_path):
    target = ref("modelscope://me/mine")
    first = hub.upload(target, write(tmp_path / "one", {"a.txt": b"1", "sub/b.txt": b"2"}), message="first", licence="MIT")
    hub.tag(target, "v1")
    second = hub.upload(target, write(tmp_path / "two", {"a.txt": b"3"}), message="second")
    listing = hub.resolve(target)
    assert (listing.revision, contents(hub, listing)) == (second, {"a.txt": b"3"}), "what is not uploaded again is gone"
    assert listing.files[0].sha256 == hashlib.sha256(b"3").hexdigest()
    for name in ("v1", first):
        tagged = hub.resolve(ref(f"modelscope://me/mine@{name}"))
        assert (tagged.revision, contents(hub, tagged)) == (first, {"a.txt": b"1", "sub/b.txt": b"2"})
    assert b"".join(hub.read(listing, listing.files[0], 1)) == b""
    hub.tag(ref("modelscope://me/mine@v1"), "v1")
    with pytest.raises(Usage):
        hub.tag(target, "v1")
    with pytest.raises(NoInput, match="v2"):
        hub.resolve(ref("modelscope://me/mine@v2"))


def test_an_upload_to_a_branch_leaves_the_others(hub, tmp_path):
    main = hub.resolve(ref("modelscope://acme/bert"))
    files = write(tmp_path / "one", {"a.txt": b"1"})
    hub.upload(ref("modelscope://acme/bert@dev"), files, message="m")
    assert contents(hub, hub.resolve(ref("modelscope://acme/bert@dev"))) == {"a.txt": b"1"}
    assert contents(hub, hub.resolve(ref("modelscope://acme/bert"))) == MODEL
    assert contents(hub, main) == MODEL, "a listing from before the first commit can still be read"


def test_uploads_that_cannot_be(hub, root, tmp_path):
    target, file = ref("modelscope://me/mine"), write(tmp_path / "one", {"a.txt": b"1"})["a.txt"]
    (tmp_path / "link").symlink_to(file)
    for files, failure in (
        ({}, BadData),
        ({"../a": file}, Refused),
        ({"a": tmp_path / "link"}, Refused),
        ({"a": tmp_path}, Refused),
        ({"a": file, "A": file}, Refused),
    ):
        with pytest.raises(failure):
            hub.upload(target, files, message="m")
    with pytest.raises(Usage):
        hub.upload(ref(f"modelscope://acme/bert@{'a' * 40}"), {"a": file}, message="m")
    assert not (root / ".modelyard/repos/models/me").exists()


def test_a_file_that_is_not_the_listed_one_is_corrupt(hub, tmp_path):
    target = ref("modelscope://me/mine")
    hub.upload(target, write(tmp_path / "one", {"a.txt": b"1"}), message="m")
    listing = hub.resolve(target)
    other = hubs.HubFile("a.txt", 1, "f" * 64, "")
    with pytest.raises(Corrupt):
        list(hub.read(listing, other))


def test_search(hub, root, tmp_path):
    write(root / "acme/gpt", {"config.json": b"{}"})
    write(root / "datasets/acme/films", {"train.csv": b"text\n"})
    for name in ("bert", "gpt"):
        os.utime(root / "acme" / name, (1, 1))
    hub.upload(ref("modelscope://me/mine"), write(tmp_path / "one", MODEL), message="m", private=True)
    names = lambda **query: [str(found.ref) for found in hub.search(Query(**query))]  # noqa: E731
    bert, gpt, mine = "modelscope://acme/bert", "modelscope://acme/gpt", "modelscope://me/mine"
    assert set(names()) == {bert, gpt, mine}
    assert set(names(words="SMALL one")) == {bert, mine}
    assert names(owner="me") == [mine]
    assert set(names(task="fill-mask", licence="MIT")) == {bert, mine}
    assert names(task="other") == names(words="nothing") == []
    assert names(sort="updated")[0] == mine
    assert len(names(limit=2)) == 2
    assert names(kind="dataset") == ["modelscope://datasets/acme/films"]
    (found,) = hub.search(Query(owner="me"))
    assert (found.task, found.licence, found.size, found.private, found.gated) == ("fill-mask", "mit", sum(map(len, MODEL.values())), True, False)
    assert [str(found.ref) for found in FolderHub(root, "hf").search(Query(words="gpt"))] == ["hf://acme/gpt"]


def test_access(hub, yard):
    assert hub.access() == Access(None, writes=True)
    assert YardHub(yard.root).access() == Access(None, writes=False)


def test_a_yard_is_a_hub_of_its_names(yard):
    hub = YardHub(yard.root)
    listing = hub.resolve(ref("modelscope://yard/films"))
    digest = yard.refs.get("models/films@latest").digest
    assert contents(hub, listing) == MODEL
    assert listing.revision == digest[:40]
    for revision in ("main", "master", "latest", digest, digest[:40]):
        assert hub.resolve(ref(f"modelscope://yard/films@{revision}")).digest == listing.digest
    assert contents(hub, hub.resolve(ref("modelscope://yard/films@old")))["config.json"] == b"[]"
    (found,) = hub.search(Query(task="fill-mask"))
    assert (str(found.ref), found.licence) == ("modelscope://yard/films", "mit")
    assert hub.search(Query(kind="dataset")) == []


@pytest.mark.parametrize("text", ["yard/film", "other/films", "yard/films@champion", f"yard/films@{'a' * 64}", "datasets/yard/films"])
def test_what_a_yard_does_not_have(yard, text):
    with pytest.raises(NoInput) as caught:
        YardHub(yard.root).resolve(ref(f"modelscope://{text}"))
    if "champion" in text:
        assert "latest" in str(caught.value)
        assert "old" in str(caught.value)


def test_a_yard_takes_no_uploads(yard, tmp_path):
    hub, before = YardHub(yard.root), sorted(yard.root.rglob("*"))
    target = ref("modelscope://yard/films")
    with pytest.raises(NoPermission, match="read-only"):
        hub.upload(target, write(tmp_path / "one", {"a.txt": b"1"}), message="m")
    with pytest.raises(NoPermission, match="read-only"):
        hub.tag(target, "v1")
    assert sorted(yard.root.rglob("*")) == before


def test_without_a_latest_the_default_is_not_guessed(yard):
    yard.refs.move("models/lone@v1", yard.refs.get("models/films@old").digest, source="test")
    hub = YardHub(yard.root)
    assert len(hub.search(Query(words="lone"))) == 1
    with pytest.raises(NoInput, match="v1"):
        hub.resolve(ref("modelscope://yard/lone"))
    assert len(hub.resolve(ref("modelscope://yard/lone@v1")).files) == 3


def test_a_search_shows_what_can_be_shown(hub, root, yard):
    write(root / "acme/linked", {"config.json": b"{}"})
    (root / "acme/linked/link").symlink_to("/etc/passwd")
    assert {found.ref.name: found.size for found in hub.search(Query())} == {"bert": sum(map(len, MODEL.values())), "linked": None}
    record = yard.refs.get("models/films@latest")
    yard.refs.move("models/whole@latest", yard.refs.get("models/films@old").digest, source="test")
    manifest = yard.artifacts.get(record.digest).path.parent / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    assert [found.ref.name for found in YardHub(yard.root).search(Query())] == ["whole"]
