"""The store of a hub folder: commits, branches that move, tags that stay; what is refused; and a kill at every operation."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from modelyard.errors import Corrupt, NoInput, NoSpace, Refused, Usage
from modelyard.hubs import source
from modelyard.hubs.blobs import LEFTOVER_AGE
from modelyard.hubs.source import Repo
from modelyard.hubs.store import Store
from modelyard.yard import files

MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "sub/vocab.txt": b"a\n"}


def sha(content):
    return hashlib.sha256(content).hexdigest()


def write(folder, contents):
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "hub/acme/bert", MODEL)
    write(tmp_path / "hub/datasets/acme/films", {"train.csv": b"text\n"})
    return tmp_path / "hub"


@pytest.fixture
def store(root):
    return Store(root)


@pytest.fixture
def bert(store):
    return store.repo("model", "acme", "bert")


@pytest.fixture
def mine(store):
    return store.create("model", "me", "mine", private=True, licence="MIT")


def put(store, contents):
    for content in contents.values():
        store.put_blob([content], sha(content), len(content))
    return {path: sha(content) for path, content in contents.items()}


def change(store, repo, adds, deletes=(), branch=None, **more):
    return store.change(repo, branch, put(store, adds), deletes, "a change", **more)


def tree(store, commit):
    return {entry.path: b"".join(source.read(entry)) for entry in commit.files}


# --- folders that people made ------------------------------------------------------------------------------------------------------------------


def test_what_lies_in_the_folder_is_the_first_commit(store, root, bert):
    commit = store.commit(bert)
    assert tree(store, commit) == MODEL
    assert {entry.path: entry.sha256 for entry in commit.files} == {path: sha(content) for path, content in MODEL.items()}
    assert store.branches(bert) == {"main": commit.id}
    assert store.tags(bert) == {}
    assert [repo.id for repo in store.repos("model")] == ["acme/bert"]
    assert [repo.id for repo in store.repos("dataset")] == ["acme/films"]
    assert Store(root).commit(bert, "master") == Store(root).commit(bert, commit.id) == commit
    assert store.size(bert) == commit.size == sum(map(len, MODEL.values()))


def test_its_id_is_a_function_of_its_content(root, bert, tmp_path):
    before = Store(root).commit(bert).id
    os.utime(root / "acme/bert/config.json", ns=(1, 1))
    assert Store(root).commit(bert).id == before
    write(tmp_path / "copy/other/name", MODEL)
    assert Store(tmp_path / "copy").commit(Repo("model", "other", "name")).id == before
    (root / "acme/bert/config.json").write_bytes(b"[]")
    after = Store(root).commit(bert)
    assert after.id != before
    with pytest.raises(NoInput):
        Store(root).commit(bert, before)


def test_hashes_are_kept_between_servers_and_looked_up_by_size_and_time(root, bert, monkeypatch):
    first = Store(root).commit(bert)
    read = []
    from modelyard.hubs import local

    original = local.read_file
    monkeypatch.setattr(local, "read_file", lambda *arguments: read.append(arguments[1]) or original(*arguments))
    assert Store(root).commit(bert) == first
    assert read == []
    os.utime(root / "acme/bert/config.json", ns=(1, 1))
    assert Store(root).commit(bert).id == first.id
    assert read == ["acme/bert/config.json"]


def test_a_folder_is_walked_again_after_ten_times_the_time_of_a_walk(root, bert):
    now = [0.0]
    store = Store(root, clock=lambda: now.__setitem__(0, now[0] + 1) or now[0])  # each look at the clock is a second later: a walk takes one
    first = store.commit(bert)
    (root / "acme/bert/config.json").write_bytes(b"[1]")
    assert store.commit(bert) == first
    now[0] += 10
    assert store.commit(bert).id != first.id


def test_a_file_that_changed_under_a_commit_is_corrupt(store, root, bert):
    entry = store.commit(bert).find("config.json")
    (root / "acme/bert/config.json").write_bytes(b"[]")
    os.utime(root / "acme/bert/config.json", ns=(1, 1))
    with pytest.raises(Corrupt):
        list(source.read(entry))


def test_sha256sums_are_checked(root, bert):
    (root / "acme/bert/SHA256SUMS").write_text(f"{sha(b'weights')}  model.safetensors\n")
    assert len(Store(root).commit(bert).files) == 3
    (root / "acme/bert/SHA256SUMS").write_text(f"{sha(b'other')}  model.safetensors\n")
    with pytest.raises(Corrupt, match="SHA256SUMS"):
        Store(root).commit(bert)


def test_a_folder_that_may_only_be_read_is_served_too(root, bert, monkeypatch):
    def refuse(path):
        raise files.failure(PermissionError(13, "denied"), path)

    monkeypatch.setattr(files, "make_folders", refuse)
    assert tree(Store(root), Store(root).commit(bert)) == MODEL
    assert not (root / ".modelyard").exists()


def test_the_first_change_keeps_what_lay_there(store, root, bert):
    first = store.commit(bert)
    second = change(store, bert, {"new.txt": b"new"}, ["sub/"])
    shutil.rmtree(root / "acme/bert")
    assert tree(store, store.commit(bert, first.id)) == MODEL
    assert set(tree(store, second)) == {"config.json", "model.safetensors", "new.txt"}
    assert (second.parent, store.commit(bert).id) == (first.id, second.id)
    assert [repo.id for repo in Store(root).repos("model")] == ["acme/bert"], "also without its folder"


def test_a_link_refuses_the_repository(store, root, bert):
    (root / "acme/bert/link").symlink_to("/etc/passwd")
    with pytest.raises(Refused):
        store.commit(bert)
    (root / "linked").symlink_to(root / "acme")
    with pytest.raises(Refused):
        store.find("model", "linked", "bert")
    assert [repo.id for repo in store.repos("model")] == ["acme/bert"]


# --- commits -----------------------------------------------------------------------------------------------------------------------------------


def test_a_branch_moves_and_a_tag_stays(store, mine):
    one = change(store, mine, {"a": b"1"})
    store.tag(mine, "v1", one.id)
    store.branch(mine, "dev", one.id)
    two = change(store, mine, {"a": b"2", "b": b""})
    three = change(store, mine, {}, ["a"], branch="dev")
    assert store.branches(mine) == {"main": two.id, "dev": three.id}
    assert store.tags(mine) == {"v1": one.id}
    assert tree(store, store.commit(mine, "v1")) == {"a": b"1"}
    assert tree(store, store.commit(mine)) == {"a": b"2", "b": b""}
    assert tree(store, store.commit(mine, one.id)) == {"a": b"1"}
    assert tree(store, store.commit(mine, "dev")) == {}
    store.tag(mine, "v1", one.id)
    for name, commit in (("v1", two.id), ("dev", one.id), ("main", one.id), ("master", one.id), ("a" * 40, one.id), ("../x", one.id), ("", one.id)):
        with pytest.raises(Usage):
            store.tag(mine, name, commit)
    with pytest.raises(Usage):
        store.branch(mine, "v1", one.id)
    with pytest.raises(NoInput):
        store.tag(mine, "v2", "b" * 40)
    assert store.tags(mine) == {"v1": one.id}


def test_a_change_of_nothing_is_no_commit(store, mine):
    one = change(store, mine, {"a": b"1"})
    assert change(store, mine, {"a": b"1"}) == one
    assert store.commit(mine) == one


def test_only_on_top_of_what_was_expected(store, mine):
    one = change(store, mine, {"a": b"1"})
    two = change(store, mine, {"a": b"2"}, expected=one.id)
    with pytest.raises(Usage, match="moved"):
        change(store, mine, {"a": b"3"}, expected=one.id)
    assert store.commit(mine) == two


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a\\b", "a\0", "", "a//b", "x" * 2000, "A", "a/b"])
def test_paths_that_cannot_be(store, mine, path):
    before = change(store, mine, {"a": b"1"})
    with pytest.raises(Refused):
        change(store, mine, {path: b"2"})
    assert store.commit(mine) == before


@pytest.mark.parametrize(
    ("arguments", "failure"),
    [
        ((None, {"a": "f" * 64}, ()), NoInput),
        ((None, {"a": "../../etc/passwd"}, ()), Usage),
        ((None, {}, ["absent"]), NoInput),
        ((None, {}, ["absent/"]), NoInput),
        (("nowhere", {}, ["a"]), NoInput),
        (("../x", {}, ["a"]), Usage),
    ],
)
def test_changes_that_cannot_be(store, mine, arguments, failure):
    before = change(store, mine, {"a": b"1"})
    with pytest.raises(failure):
        store.change(mine, *arguments, "no")
    assert store.commit(mine) == before


@pytest.mark.parametrize(("owner", "name"), [("..", "x"), ("a", ".."), (".modelyard", "blobs"), ("a/b", "c"), ("", "c"), ("a", "c\0")])
def test_names_that_cannot_be(store, root, owner, name):
    for call in (lambda: store.find("model", owner, name), lambda: store.create("model", owner, name, private=True)):
        with pytest.raises(Usage):
            call()
    assert not (root / ".modelyard").exists()


def test_a_repository_is_made_once(store, root, mine):
    assert (mine.private, mine.gated, mine.licence) == (True, False, "mit")
    for owner, name in (("me", "mine"), ("acme", "bert"), ("datasets", "films")):
        with pytest.raises(Usage):
            store.create("model", owner, name, private=False)
    assert store.commit(mine).files == ()
    marked = store.mark(mine, private=False, gated=True)
    assert (marked.private, marked.gated) == (False, True)
    bert = store.mark(store.repo("model", "acme", "bert"), gated=True)
    assert bert.gated
    assert tree(store, store.commit(bert)) == MODEL, "to mark it is not to commit to it"


@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800"])
def test_texts_that_cannot_be_kept(store, mine, text):
    before = change(store, mine, {"a": b"1"})
    with pytest.raises(Usage, match="text"):
        store.change(mine, None, {}, ["a"], text)
    with pytest.raises(Usage, match="text"):
        store.create("model", "me", "other", private=True, description=text)
    assert store.commit(mine) == before
    assert store.find("model", "me", "other") is None


def test_close_names_are_named(store, mine):
    with pytest.raises(NoInput) as caught:
        store.repo("model", "acme", "brt")
    assert "acme/bert" in caught.value.remedy
    store.tag(mine, "stable", store.commit(mine).id)
    with pytest.raises(NoInput) as caught:
        store.commit(mine, "stabel")
    assert "stable" in caught.value.remedy


def test_the_card_says_licence_and_task(store, mine):
    change(store, mine, {"README.md": b"---\nlicense: Apache-2.0\ntasks:\n- fill-mask\n---\n# Title\n\nWords.\n"})
    repo = store.repo("model", "me", "mine")
    assert (repo.licence, repo.task, repo.description) == ("apache-2.0", "fill-mask", "Words.")
    change(store, mine, {"README.md": b"---\nlicense: [\n---\n", "configuration.json": b'{"task": "text-classification"}'})
    repo = store.repo("model", "me", "mine")
    assert (repo.licence, repo.task) == ("mit", "text-classification")
    change(store, mine, {"README.md": b"---\n" + b"a: " + b"[" * 50_000, "configuration.json": b"[" * 60_000})
    assert store.repo("model", "me", "mine").task is None


# --- content -----------------------------------------------------------------------------------------------------------------------------------


def test_content_is_kept_only_when_it_is_what_was_announced(store, root):
    name = sha(b"content")
    for stream, size in (([b"contend"], 7), ([b"conten"], 7), ([b"content", b"s"], 7), ([b"other"], None)):
        with pytest.raises(Corrupt):
            store.put_blob(stream, name, size)
    assert not store.has_blob(name)
    assert os.listdir(root / ".modelyard/incoming") == []
    store.put_blob([b"con", b"", b"tent"], name)
    store.put_blob([b"content"], name, 7)
    assert store.has_blob(name)
    assert store.has_blob(name, 7)
    assert not store.has_blob(name, 8)
    for wrong in ("x", "A" * 64, "../" + "a" * 61):
        with pytest.raises(Usage):
            store.put_blob([b"x"], wrong)


def test_uploads_that_never_ended_are_swept_by_age(store, root):
    store.put_blob([b"1"], sha(b"1"))
    for name in ("old", "young"):
        (root / ".modelyard/incoming" / name).write_bytes(b"x")
    before = (root / ".modelyard/incoming/old").stat().st_mtime - LEFTOVER_AGE - 60
    os.utime(root / ".modelyard/incoming/old", (before, before))
    store.sweep()
    assert os.listdir(root / ".modelyard/incoming") == ["young"]


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, None, b"weights"), (3, None, b"ghts"), (2, 3, b"igh"), (7, None, b""), (0, 0, b"")])
def test_parts_of_files(store, bert, offset, length, expected):
    assert b"".join(source.read(store.commit(bert).find("model.safetensors"), offset, length)) == expected


def test_content_that_was_cut_on_the_disk_is_corrupt(store, root, mine):
    entry = change(store, mine, {"a": b"content"}).files[0]
    (root / ".modelyard/blobs" / entry.sha256).write_bytes(b"cont")
    with pytest.raises(Corrupt):
        list(source.read(entry))


# --- several writers, and faults ---------------------------------------------------------------------------------------------------------------


def test_writers_at_once_lose_nothing(root, mine):
    stores, failed = [Store(root), Store(root)], []

    def work(number):
        try:
            for index in range(10):
                change(stores[number % 2], mine, {f"{number}/{index}": b"%d" % index})
        except BaseException as error:  # noqa: BLE001  # shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    commit = Store(root).commit(mine)
    assert {entry.path for entry in commit.files} == {f"{number}/{index}" for number in range(4) for index in range(10)}
    history = 0
    while commit.parent:
        commit, history = Store(root).commit(mine, commit.parent), history + 1
    assert history == 40


def scenario(root, tell):
    store = Store(root)
    bert = store.repo("model", "acme", "bert")
    tell("first", store.commit(bert).id)
    tell("bert", change(store, bert, {"one": b"1"}).id)
    if not store.find("model", "me", "mine"):
        store.create("model", "me", "mine", private=True)
    mine = store.repo("model", "me", "mine")
    commit = change(store, mine, {"two": b"22"})
    tell("mine", commit.id)
    store.tag(mine, "v1", commit.id)
    tell("tag", commit.id)


def teller(pipe):
    return lambda what, commit: os.write(pipe, f"{what} {commit}\n".encode())


def check(root, told):
    store = Store(root)
    bert = store.repo("model", "acme", "bert")
    for repo in store.repos("model"):
        for commit in {*store.branches(repo).values(), *store.tags(repo).values()}:
            for entry in store.commit(repo, commit).files:
                assert sha(b"".join(source.read(entry))) == entry.sha256
    if "first" in told:
        assert tree(store, store.commit(bert, told["first"])) == MODEL
    if "bert" in told:
        assert tree(store, store.commit(bert)) == {**MODEL, "one": b"1"}
    if "mine" in told:
        assert tree(store, store.commit(store.repo("model", "me", "mine"), told["mine"])) == {"two": b"22"}
    if "tag" in told:
        assert store.tags(store.repo("model", "me", "mine")) == {"v1": told["tag"]}


@pytest.fixture
def memory(tmp_path):
    """In memory where there is such a place: what is tested is order, not the disk's speed."""
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    folder = place / f"modelyard-store-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    write(folder / "template/acme/bert", MODEL)
    yield folder
    shutil.rmtree(folder)


def test_sigkill_at_every_operation(memory):
    number, killed, seen, root = 0, True, set(), memory / "hub"
    while killed:
        number += 1
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(memory / "template", root)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            code = 3
            try:
                files.inject(f"kill:{number}")
                scenario(root, teller(writer))
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        status = os.waitpid(pid, 0)[1]
        with os.fdopen(reader) as pipe:
            told = dict(line.split() for line in pipe)
        assert status in (0, 9)
        killed = status == 9
        check(root, told)
        again = {}
        scenario(root, again.__setitem__)
        again.pop("first")  # the second time, it may be the second commit
        check(root, {**told, **again})
        seen.add(len(told))
    assert number > 100
    assert seen == {0, 1, 2, 3, 4}


def test_a_full_volume_says_so_and_leaves_the_repository_as_it_was(root, mine):
    failed, number, reached = 0, 0, True
    while reached:
        number, full = number + 1, False
        before = Store(root).commit(mine)
        files.inject(f"ENOSPC:{number}")
        try:
            change(Store(root), mine, {"new": b"%d" % number})
        except NoSpace:
            full = True
        finally:
            reached = next(files._count) > number
            files.inject("")
        failed += full
        after = Store(root).commit(mine)
        assert (full and after == before) or tree(Store(root), after) == {"new": b"%d" % number}, "all or nothing"
    assert failed > 10
    change(Store(root), mine, {"new": b"room again"})


def test_a_broken_repository_hides_no_other(store, root, mine):
    change(store, store.repo("model", "acme", "bert"), {"a": b"1"})
    shutil.rmtree(root / "acme/bert")
    (root / "acme/bert").symlink_to(root / "datasets/acme/films")
    write(root, {"acme/other/config.json": b"{}", "acme/linked/config.json": b"{}", ".modelyard/repos/models/acme/torn/state/1.json": b"{"})
    (root / "acme/linked/link").symlink_to("/etc/passwd")
    assert [(repo.id, store.size(repo)) for repo in store.repos("model")] == [("acme/linked", None), ("acme/other", 2), ("me/mine", 0)]
    for name, failure in (("bert", Refused), ("torn", Corrupt)):
        with pytest.raises(failure):
            store.find("model", "acme", name)
    with pytest.raises(NoInput):
        store.repo("model", "acme", "nowhere")


def test_what_lies_below_a_folder(store, mine):
    commit = change(store, mine, {"a/b": b"1", "a.txt": b"2", "a/c/d": b"3", "a0": b"4", "b": b"5"})
    below = {folder: [entry.path for entry in commit.below(folder)] for folder in ("a", "a/c", "a.txt", "b", "a/", "")}
    assert below == {"a": ["a/b", "a/c/d"], "a/c": ["a/c/d"], "a.txt": [], "b": [], "a/": [], "": ["a.txt", "a/b", "a/c/d", "a0", "b"]}
