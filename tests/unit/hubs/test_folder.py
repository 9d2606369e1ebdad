"""The folder hub, and paths: what is listed, what is read, what is refused."""

from __future__ import annotations

import hashlib
import os
import socket

import pytest

from modelyard import hubs, refs
from modelyard.errors import Corrupt, NoInput, Refused, Usage

MODEL = refs.parse("modelscope://owner/bert")
DATA = refs.parse("hf://datasets/owner/movies")


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "hub/owner/bert", {"config.json": b"{}", "model.safetensors": b"weights", "sub/vocab.txt": b"a\nb\n"})
    write(tmp_path / "hub/owner/bart", {"config.json": b"{}"})
    write(tmp_path / "hub/datasets/owner/movies", {"train.csv": b"text,label\n", "README.md": b"#"})
    return tmp_path / "hub"


def write(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def settings(root):
    return {"modelscope": str(root), "huggingface": str(root)}


def resolve(root, ref=MODEL):
    return hubs.resolve(ref, ref.kind, settings(root))


def read(root, listing, path, offset=0):
    file = next(file for file in listing.files if file.path == path)
    return b"".join(hubs.reader(listing, settings(root)).read(listing, file, offset))


def sums(folder, **changed):
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in sorted(folder.rglob("*")) if path.is_file()]
    (folder / "SHA256SUMS").write_text("\n".join(changed.get(line.split("  ")[1], line) for line in lines) + "\n")


def test_models_and_data_sets_are_listed_and_read(root):
    model, data = resolve(root), resolve(root, DATA)
    assert [(file.path, file.size, file.sha256) for file in model.files] == [
        ("config.json", 2, None),
        ("model.safetensors", 7, None),
        ("sub/vocab.txt", 4, None),
    ]
    assert (model.revision, model.kind, data.kind) == ("main", "model", "dataset")
    assert model.files[1].version == str((root / "owner/bert/model.safetensors").stat().st_mtime_ns)
    assert read(root, model, "sub/vocab.txt") == b"a\nb\n"
    assert read(root, model, "model.safetensors", offset=3) == b"ghts"
    assert read(root, data, "train.csv") == b"text,label\n"


@pytest.mark.parametrize("revision", ["main", "master"])
def test_the_one_revision_has_three_names(root, revision):
    assert resolve(root, refs.parse(f"{MODEL}@{revision}")).digest == resolve(root).digest


def test_another_revision_does_not_exist(root):
    with pytest.raises(NoInput, match="v2"):
        resolve(root, refs.parse(f"{MODEL}@v2"))


def test_a_missing_repository_names_its_neighbours(root):
    with pytest.raises(NoInput) as caught:
        resolve(root, refs.parse("modelscope://owner/bret"))
    assert "modelscope://owner/bert" in caught.value.remedy
    with pytest.raises(NoInput) as caught:
        resolve(root, refs.parse("hf://datasets/owner/movie"))
    assert "hf://datasets/owner/movies" in caught.value.remedy


def test_the_other_kind_is_named(root):
    with pytest.raises(NoInput) as caught:
        resolve(root, refs.parse("modelscope://owner/movies"))
    assert "modelscope://datasets/owner/movies" in caught.value.remedy


def test_a_model_owner_called_datasets_does_not_reach_the_data_sets(root):
    write(root / "datasets/owner", {"config.json": b"{}"})
    with pytest.raises(NoInput):
        resolve(root, refs.HubRef("modelscope", "model", "datasets", "owner"))


def test_an_empty_folder_is_no_repository(root):
    (root / "owner/empty").mkdir()
    (root / "owner/empty/SHA256SUMS").write_text("")
    with pytest.raises(NoInput):
        resolve(root, refs.parse("modelscope://owner/empty"))


def test_git_and_our_own_folders_are_not_listed(root):
    write(root / "owner/bert", {".git/config": b"x", ".modelyard/commits": b"x", "sub/.git/HEAD": b"x", ".gitattributes": b"x"})
    assert [file.path for file in resolve(root).files] == [".gitattributes", "config.json", "model.safetensors", "sub/vocab.txt"]


def test_sha256sums_give_hashes_and_identity(root):
    folder = root / "owner/bert"
    before = resolve(root)
    sums(folder)
    listing = resolve(root)
    assert {file.path: file.sha256 for file in listing.files} == {
        path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in ("config.json", "model.safetensors", "sub/vocab.txt")
    }
    assert listing.digest != before.digest
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert resolve(root).digest == listing.digest, "a touch changes nothing where a hash is the identity"
    assert read(root, listing, "model.safetensors") == b"weights"


@pytest.mark.parametrize("form", ["{sha} *{path}\n", "{sha}  ./{path}\n", "{SHA}  {path}\r\n"])
def test_sha256sums_in_other_forms_of_the_tool(root, form):
    sha = hashlib.sha256(b"weights").hexdigest()
    (root / "owner/bert/SHA256SUMS").write_text(form.format(sha=sha, SHA=sha.upper(), path="model.safetensors"), newline="")
    assert [file.sha256 for file in resolve(root).files] == [None, sha, None]


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        f"{'a' * 63}  config.json\n",
        f"{'a' * 40}  config.json\n",
        f"\\{'a' * 64}  a\\\\b\n",
        f"{'a' * 64}  config.json\n{'b' * 64}  config.json\n",
    ],
)
def test_sha256sums_that_cannot_be_used_are_refused(root, text):
    (root / "owner/bert/SHA256SUMS").write_text(text)
    with pytest.raises(Refused, match="SHA256SUMS line"):
        resolve(root)


def test_sha256sums_that_name_what_is_not_there_say_that_the_copy_is_not_whole(root):
    (root / "owner/bert/SHA256SUMS").write_text(f"{'a' * 64}  absent.bin\n")
    with pytest.raises(Corrupt, match="not there"):
        resolve(root)


@pytest.mark.parametrize("name", ["../bart/config.json", "/etc/passwd", "a\\b"])
def test_sha256sums_that_name_what_no_repository_may_hold_are_refused(root, name):
    (root / "owner/bert/SHA256SUMS").write_text(f"{'a' * 64}  {name}\n")
    with pytest.raises(Refused, match="not allowed"):
        resolve(root)


@pytest.mark.parametrize("link", ["sub/weights.safetensors", "folder", "dangling", "SHA256SUMS", ".git"])
def test_a_symbolic_link_refuses_the_repository(root, link):
    targets = {"folder": root / "owner/bart", ".git": root / "owner/bart", "dangling": root / "nowhere"}
    (root / "owner/bert" / link).symlink_to(targets.get(link, root / "owner/bart/config.json"))
    with pytest.raises(Refused, match="symbolic link"):
        resolve(root)


@pytest.mark.parametrize("part", ["owner/linked", "linked/bert"])
def test_a_symbolic_link_in_the_repositorys_place_is_refused(root, part):
    (root / part.removesuffix("/bert")).symlink_to(root / ("owner/bert" if part.startswith("owner") else "owner"))
    with pytest.raises(Refused, match="symbolic link"):
        resolve(root, refs.parse(f"modelscope://{part}"))


def test_a_fifo_and_a_socket_refuse_the_repository(root, tmp_path, monkeypatch):
    os.mkfifo(root / "owner/bert/pipe")
    with pytest.raises(Refused, match="special"):
        resolve(root)
    (root / "owner/bert/pipe").unlink()
    monkeypatch.chdir(root / "owner/bert")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(Refused, match="special"):
            resolve(root)


@pytest.mark.parametrize("name", ["a\\b", "a\nb", b"a\xff"])
def test_names_that_other_systems_cannot_hold_are_refused(root, name):
    path = os.path.join(os.fsencode(root / "owner/bert"), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(b"x")
    with pytest.raises(Refused):
        resolve(root)


def test_a_deep_folder_is_refused_before_it_is_walked_to_its_end(root):
    write(root / "owner/bert", {"/".join(["d"] * 40) + "/f": b"x"})
    with pytest.raises(Refused, match="deep"):
        resolve(root)


def test_a_file_that_changed_after_it_was_listed_is_corrupt(root):
    listing, path = resolve(root), root / "owner/bert/model.safetensors"
    path.write_bytes(b"longer weights")
    with pytest.raises(Corrupt, match="changed"):
        read(root, listing, "model.safetensors")
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(1, 1))
    with pytest.raises(Corrupt, match="changed"):
        read(root, listing, "model.safetensors")
    path.unlink()
    with pytest.raises(Corrupt, match="vanished"):
        read(root, listing, "model.safetensors")


def test_a_file_that_is_written_while_it_is_read_is_corrupt(root):
    listing, path = resolve(root), root / "owner/bert/model.safetensors"
    chunks = hubs.reader(listing, settings(root)).read(listing, listing.files[1])
    assert next(chunks) == b"weights"
    os.utime(path, ns=(1, 1))
    with pytest.raises(Corrupt, match="changed"):
        list(chunks)


@pytest.mark.parametrize("path", ["sub", "sub/vocab.txt", "model.safetensors"])
def test_a_link_that_is_put_in_place_after_the_listing_is_not_followed(root, path, tmp_path):
    listing = resolve(root)
    (root / "owner/bert" / path).rename(tmp_path / "moved")
    (root / "owner/bert" / path).symlink_to(tmp_path / "moved")
    with pytest.raises(Refused, match="symbolic link"):
        read(root, listing, "model.safetensors" if path == "model.safetensors" else "sub/vocab.txt")


def test_a_fifo_that_is_put_in_place_after_the_listing_does_not_block(root):
    listing, path = resolve(root), root / "owner/bert/config.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match="not a file"):
        read(root, listing, "config.json")


def test_a_path_to_a_file_is_a_repository_of_one_file(tmp_path, monkeypatch):
    write(tmp_path, {"reviews.csv": b"text,label\n"})
    monkeypatch.chdir(tmp_path)
    listing = hubs.resolve(refs.parse("./reviews.csv"), "dataset", {})
    monkeypatch.chdir("/")
    assert [file.path for file in listing.files] == ["reviews.csv"]
    assert str(listing.ref) == str(tmp_path / "reviews.csv"), "whoever reads it may stand elsewhere"
    assert b"".join(hubs.reader(listing, {}).read(listing, listing.files[0], 5)) == b"label\n"


def test_a_path_to_a_folder_is_a_repository(root, tmp_path):
    (tmp_path / "link").symlink_to(root / "owner/bert")
    direct, linked = (hubs.resolve(refs.PathRef(str(path)), "model", {}) for path in (root / "owner/bert", tmp_path / "link"))
    assert direct.digest == linked.digest == resolve(root).digest
    assert b"".join(hubs.reader(linked, {}).read(linked, linked.files[1])) == b"weights"


def test_a_missing_path_names_its_neighbours(root):
    with pytest.raises(NoInput) as caught:
        hubs.resolve(refs.PathRef(str(root / "owner/brt")), "model", {})
    assert "bert" in caught.value.remedy or "bart" in caught.value.remedy
    with pytest.raises(Refused):
        hubs.resolve(refs.PathRef("/dev/null"), "dataset", {})


@pytest.mark.parametrize("where", [{}, {"modelscope": ""}])
def test_a_hub_that_is_not_set(where):
    with pytest.raises(Usage) as caught:
        hubs.open_hub("modelscope", where)
    assert "modelscope" in caught.value.remedy


def test_a_hub_folder_that_is_not_there(tmp_path):
    with pytest.raises(NoInput):
        hubs.open_hub("hf", {"huggingface": str(tmp_path / "absent")})


def test_a_ref_of_the_other_kind_is_a_usage_error(root):
    with pytest.raises(Usage) as caught:
        hubs.resolve(DATA, "model", settings(root))
    assert caught.value.remedy == "write hf://owner/movies"
