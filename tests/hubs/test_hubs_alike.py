"""One behaviour for every kind of hub: a folder, a server by either of its faces, a yard, and a yard that is served by either face."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from modelyard import hubs, refs
from modelyard.errors import Corrupt, NoInput, NoPermission, Refused, Usage
from modelyard.hubs import Query
from modelyard.hubs.credentials import VARIABLES
from modelyard.hubs.store import Store
from modelyard.yard import Yard
from tests.hubs.serving import TOKEN, write

WEIGHTS = random.Random(3).randbytes(3_000_000)
CARD = b"---\nlicense: apache-2.0\npipeline_tag: text-classification\n---\n# It\nTells good films from bad ones.\n"
FILES = {
    "README.md": CARD,
    "config.json": b'{"model_type": "bert"}\n',
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "sub/deep/vocab.txt": b"a\nb\n",
}
NEWER = {"README.md": CARD, "config.json": b'{"model_type": "bart"}\n', "model.safetensors": WEIGHTS[::-1]}

SERVERS = {"modelscope": "modelscope", "huggingface": "hf"}
WRITABLE = ("folder", *SERVERS)
ALL = (*WRITABLE, "yard", "yard by modelscope", "yard by huggingface")


@dataclass
class Place:
    """A hub of one kind. folder: what is behind it. yard: for one that is written through the yard alone."""

    name: str
    hub: hubs.Hub
    folder: object
    address: str
    yard: Yard | None
    scratch: object

    @property
    def owner(self):
        return "yard" if self.yard else "acme"

    def ref(self, name="bert", revision=None, kind="model"):
        return refs.HubRef("hf" if "huggingface" in self.name else "modelscope", kind, self.owner, name, revision)

    def put(self, files, name="bert", kind="model", **options):
        """Make the default branch hold these files."""
        if self.yard is None:
            return self.hub.upload(self.ref(name, kind=kind), self.local(files), message="a change", private=False, **options)
        with self.yard.staging("put.alike.1") as staging:
            write(staging.files, files)
            artifact = self.yard.artifacts.commit(staging, kind=kind, format="safetensors" if kind == "model" else None)
        self.yard.refs.move(f"{kind}s/{name}@latest", artifact.digest, "a test")
        return artifact.digest[:40]

    def local(self, files):
        """Path in the repository -> path of a file of this machine."""
        top = self.scratch / f"put-{random.randbytes(4).hex()}"
        write(top, files)
        return {path: top / path for path in files}

    def content(self, listing):
        return {file.path: b"".join(self.hub.read(listing, file)) for file in listing.files}

    def again(self, monkeypatch, token):
        """The same hub for somebody with another token, or none."""
        set_token(monkeypatch, token)
        scheme = self.ref().scheme
        return hubs.open_hub(scheme, {"modelscope": self.address, "huggingface": self.address})


def set_token(monkeypatch, token):
    for variable in (name for names in VARIABLES.values() for name in names):
        monkeypatch.delenv(variable, raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)


def make(name, tmp_path, serve, monkeypatch):
    set_token(monkeypatch, TOKEN)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, yard = tmp_path / "hub", None
    folder.mkdir()
    if name.startswith("yard"):
        yard = Yard.open(folder)
    address = serve(folder).url if "modelscope" in name or "huggingface" in name else str(folder)
    scheme = "hf" if "huggingface" in name else "modelscope"
    hub = hubs.open_hub(scheme, {"modelscope": address, "huggingface": address})
    return Place(name, hub, folder, address, yard, tmp_path)


@pytest.fixture(params=ALL)
def place(request, tmp_path, serve, monkeypatch):
    return make(request.param, tmp_path, serve, monkeypatch)


@pytest.fixture(params=WRITABLE)
def writable(request, tmp_path, serve, monkeypatch):
    return make(request.param, tmp_path, serve, monkeypatch)


@pytest.fixture(params=SERVERS)
def server(request, tmp_path, serve, monkeypatch):
    return make(request.param, tmp_path, serve, monkeypatch)


# --- reading


def test_files_are_listed_and_read_from_any_offset(place):
    place.put(FILES)
    listing = place.hub.resolve(place.ref())
    assert {file.path: file.size for file in listing.files} == {path: len(data) for path, data in FILES.items()}
    assert refs.HubRef("hf", "model", "a", "b", listing.revision).is_commit
    assert place.content(listing) == FILES
    weights = next(file for file in listing.files if file.path == "model.safetensors")
    assert weights.sha256 is not None
    for offset in (1, 1_048_576, len(WEIGHTS) - 1, len(WEIGHTS)):
        assert b"".join(place.hub.read(listing, weights, offset)) == WEIGHTS[offset:]
    assert max(map(len, place.hub.read(listing, weights))) <= 4 << 20


def test_data_sets_and_models_of_one_name_are_two(place):
    place.put(FILES)
    place.put({"train.csv": b"text,label\n"}, kind="dataset")
    assert [file.path for file in place.hub.resolve(place.ref(kind="dataset")).files] == ["train.csv"]
    assert len(place.hub.resolve(place.ref()).files) == len(FILES)


def test_a_commit_stays_when_the_branch_moves(place):
    place.put(FILES)
    before = place.hub.resolve(place.ref())
    place.put(NEWER)
    after = place.hub.resolve(place.ref())
    assert after.revision != before.revision
    assert after.digest != before.digest
    assert place.content(after) == NEWER
    assert place.content(before) == FILES  # listed before, read after
    pinned = place.hub.resolve(place.ref(revision=before.revision))
    assert (pinned.digest, pinned.revision) == (before.digest, before.revision)
    assert place.content(pinned) == FILES


def test_a_folder_that_people_change_is_never_read_as_something_else(tmp_path, serve, monkeypatch):
    """What lies in the folder has no old state: a listing of it gives the bytes that were listed, or Corrupt."""
    for name in WRITABLE:
        top = tmp_path / name
        top.mkdir()
        place = make(name, top, serve, monkeypatch)
        write(place.folder / "acme/bert", FILES)
        listing = place.hub.resolve(place.ref())
        assert place.content(listing) == FILES
        write(place.folder / "acme/bert", {"config.json": b'{"model_type": "bXrt"}\n'})
        changed = next(file for file in listing.files if file.path == "config.json")
        with suppress(Corrupt, NoInput):
            assert b"".join(place.hub.read(listing, changed)) == FILES["config.json"]
        for _ in range(50):  # a served folder is looked at again after a moment
            fresh = place.hub.resolve(place.ref())
            if fresh.digest != listing.digest:
                break
        assert place.content(fresh)["config.json"] == b'{"model_type": "bXrt"}\n'


def test_what_is_not_there_is_said_with_what_was_meant(place):
    place.put(FILES)
    for ref in (
        place.ref("bret"),
        place.ref("bert", "v9"),
        place.ref("bert", "0" * 40),
        place.ref(kind="dataset"),
        replace(place.ref(), owner="acne"),
    ):
        with pytest.raises(NoInput) as failure:
            place.hub.resolve(ref)
        assert failure.value.remedy
        if ref.name == "bret":
            assert f"{place.owner}/bert" in f"{failure.value} {failure.value.remedy}"


def test_searches_filter_and_are_bounded(place):
    place.put(FILES)
    place.put({"config.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"}, name="other")
    place.put({"train.csv": b"a,b\n", "README.md": b"---\nlicense: mit\ntask_categories: [text-classification]\n---\n"}, name="films", kind="dataset")

    def found(**query):
        return sorted(one.ref.name for one in place.hub.search(Query(**query)))

    assert found() == ["bert", "other"]
    assert found(words="FILMS bad") == ["bert"]
    assert found(words="nothing of that") == []
    assert found(owner=place.owner) == ["bert", "other"]
    assert found(owner="nobody") == []
    assert found(task="text-classification") == ["bert"]
    assert found(licence="mit") == ["other"]
    assert found(licence="apache-2.0", task="text-classification", words="bert") == ["bert"]
    assert found(kind="dataset", task="text-classification") == ["films"]
    assert len(place.hub.search(Query(limit=1))) == 1
    assert {one.ref.name for one in place.hub.search(Query(sort="updated"))} == {"bert", "other"}
    one = place.hub.search(Query(words="bert"))[0]
    assert one.ref == place.ref()
    assert (one.task, one.licence, one.size) == ("text-classification", "apache-2.0", sum(map(len, FILES.values())))
    assert (bool(one.gated), bool(one.private)) == (False, False)
    assert one.updated
    assert one.updated[:2] == "20"


# --- writing


def test_an_upload_replaces_everything_but_what_is_the_hubs_own(writable):
    own = {".gitattributes": b"*.safetensors filter=lfs\n"}
    first = writable.put({**FILES, **own})
    second = writable.put(NEWER)
    assert first != second
    listing = writable.hub.resolve(writable.ref())
    assert (writable.content(listing), listing.revision) == ({**NEWER, **own}, second)
    assert writable.put(NEWER) == second  # nothing changed, and nothing is said to have


def test_another_branch_is_made_and_moves_alone(writable):
    writable.put(FILES)
    branch = writable.ref(revision="dev/next")
    if writable.name == "modelscope":  # its interface has no call that makes a branch
        with pytest.raises(NoInput):
            writable.hub.upload(branch, writable.local(NEWER), message="beside")
        store = Store(writable.folder)
        repo = store.repo("model", "acme", "bert")
        store.branch(repo, "dev/next", store.commit(repo).id)
    writable.hub.upload(branch, writable.local(NEWER), message="beside", private=False)
    assert writable.content(writable.hub.resolve(branch)) == NEWER
    assert writable.content(writable.hub.resolve(writable.ref())) == FILES


def test_a_tag_does_not_move(writable):
    writable.put(FILES)
    writable.hub.tag(writable.ref(), "v1.0")
    writable.hub.tag(writable.ref(), "v1.0")  # the same again
    writable.put(NEWER)
    assert writable.content(writable.hub.resolve(writable.ref(revision="v1.0"))) == FILES
    with pytest.raises(Usage):
        writable.hub.tag(writable.ref(), "v1.0")
    assert writable.content(writable.hub.resolve(writable.ref(revision="v1.0"))) == FILES
    with pytest.raises(NoInput):
        writable.hub.tag(writable.ref("nothing"), "v1.0")


def test_unsafe_uploads_are_refused_and_leave_nothing(writable):
    file = writable.local({"file": b"x"})["file"]
    link = file.parent / "link"
    link.symlink_to(file)
    for files in ({"../up": file}, {"/etc/up": file}, {"a": file, "A": file}, {"link": link}):
        with pytest.raises(Refused):
            writable.hub.upload(writable.ref("unsafe"), files, message="x")
    with pytest.raises(Usage):
        writable.hub.upload(writable.ref("unsafe", "0" * 40), {"a": file}, message="x")
    with pytest.raises(NoInput):
        writable.hub.resolve(writable.ref("unsafe"))


def test_yards_take_no_uploads(tmp_path, serve, monkeypatch):
    for name in ALL[3:]:
        (tmp_path / name).mkdir()
        place = make(name, tmp_path / name, serve, monkeypatch)
        place.put(FILES)
        with pytest.raises(NoPermission):
            place.hub.upload(place.ref(), place.local(NEWER), message="x")
        with pytest.raises(NoPermission):
            place.hub.tag(place.ref(), "v1.0")
        assert place.content(place.hub.resolve(place.ref())) == FILES


# --- who


@pytest.mark.parametrize("token", [None, "a-wrong-token-0123"])
def test_without_the_token_nothing_is_written(server, monkeypatch, token):
    server.put(FILES)
    stranger = server.again(monkeypatch, token)
    assert server.content(server.hub.resolve(server.ref())) == FILES
    for call in (
        lambda: stranger.upload(server.ref(), server.local(NEWER), message="x"),
        lambda: stranger.upload(server.ref("fresh"), server.local(NEWER), message="x"),
        lambda: stranger.tag(server.ref(), "v1.0"),
    ):
        with pytest.raises(NoPermission) as failure:
            call()
        assert TOKEN not in str(failure.value.record())
        assert (token or "no token") not in str(failure.value.record())
    assert [(one.ref.name) for one in server.hub.search(Query())] == ["bert"]
    if token:
        with pytest.raises(NoPermission):
            stranger.access()
    else:
        assert stranger.access().user is None
    assert server.hub.access().user == "modelyard"


@pytest.mark.parametrize("token", [None, "a-wrong-token-0123"])
def test_gated_repositories_are_found_by_all_and_read_with_the_token(server, monkeypatch, token):
    server.put(FILES)
    store = Store(server.folder)
    store.mark(store.repo("model", "acme", "bert"), gated=True)
    stranger = server.again(monkeypatch, token)
    assert [(one.ref.name, one.gated) for one in stranger.search(Query())] == [("bert", True)]
    with pytest.raises(NoPermission) as failure:
        stranger.resolve(server.ref())
    assert "gated" in str(failure.value)
    listing = server.hub.resolve(server.ref())
    assert server.content(listing) == FILES
    with pytest.raises(NoPermission):
        b"".join(stranger.read(listing, listing.files[0]))


def test_private_repositories_are_for_those_with_the_token(server, monkeypatch):
    server.hub.upload(server.ref("secret"), server.local(FILES), message="x")  # private is what it is unless told otherwise
    stranger = server.again(monkeypatch, None)
    assert stranger.search(Query()) == []
    with pytest.raises((NoPermission, NoInput)):
        stranger.resolve(server.ref("secret"))
    assert [(one.ref.name, one.private) for one in server.hub.search(Query())] == [("secret", True)]
    listing = server.hub.resolve(server.ref("secret"))
    assert server.content(listing) == FILES
    with pytest.raises((NoPermission, NoInput)):
        b"".join(stranger.read(listing, listing.files[0]))


# --- from one to the other


def test_what_goes_in_by_one_face_comes_out_of_the_other(tmp_path, serve, monkeypatch):
    """Fetch by one face, publish to the other, fetch back: the same bytes, and for what has a sha256 the same sha256."""
    for there, back in (("modelscope", "huggingface"), ("huggingface", "modelscope")):
        (tmp_path / there).mkdir()
        place = make(there, tmp_path / there, serve, monkeypatch)
        write(place.folder / "acme/bert", FILES)
        fetched = place.content(place.hub.resolve(place.ref()))
        other = Place(back, hubs.open_hub(SERVERS[back], dict.fromkeys(SERVERS, place.address)), place.folder, place.address, None, tmp_path / there)
        other.put(fetched, name="copy")
        result = place.hub.resolve(place.ref("copy"))
        assert place.content(result) == other.content(other.hub.resolve(other.ref("copy"))) == FILES
        both = [
            {file.path: file.sha256 for file in hub.resolve(ref).files} for hub, ref in ((place.hub, place.ref("copy")), (other.hub, other.ref()))
        ]
        assert both[0]["model.safetensors"] == both[1]["model.safetensors"] is not None
