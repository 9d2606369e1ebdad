"""The Hugging Face face of a served hub, by the unmodified `huggingface_hub` and its command `hf`, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from modelyard.hubs.store import Store
from tests.hubs.serving import TOKEN, write

WEIGHTS = random.Random(7).randbytes(300_000)
FILES = {"config.json": b'{"model_type": "bert"}\n', "empty.txt": b"", "model.safetensors": WEIGHTS, "sub/deep/vocab.txt": b"a\nb\n"}
PRELUDE = "from huggingface_hub import HfApi, CommitOperationAdd as Add, CommitOperationDelete as Delete\napi = HfApi()\n"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "hub/acme/bert", FILES)
    write(tmp_path / "hub/datasets/acme/movies", {"train.csv": b"text,label\ngood,1\n"})
    return tmp_path / "hub"


@pytest.fixture
def hf(served):
    """Runs `hf` with the token; gives what it says."""

    def run(*arguments, fails=False, token=TOKEN, **more):
        done = served.run("hf", *arguments, token=token, env={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_COLOR": "1", **more})
        assert (done.returncode != 0) is fails, done.stderr + done.stdout
        return done.stdout + done.stderr

    return run


@pytest.fixture
def sdk(served):
    """Runs code that ends with `result = …`, with the token; gives the result, or the name of the exception and what it says."""

    def run(code, token=TOKEN):
        wrapped = (
            f"try:\n    exec({PRELUDE + code!r})\nexcept Exception as error:\n    show([type(error).__name__, str(error)])\nelse:\n    show(result)\n"
        )
        return served.python(wrapped, token=token, env={"HF_HUB_DISABLE_PROGRESS_BARS": "1"})

    return run


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and ".cache" not in path.parts}


def mark(folder, name, **said):
    store = Store(folder)
    store.mark(store.repo("model", *name.split("/")), **said)


def ask(served, path, method="GET", body=None, token=None, **headers):
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(served.url + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


# --- reading


def test_hf_downloads_what_is_there_and_verifies_it(hf, served):
    hf("download", "acme/bert", "--local-dir", "out", token=None)
    assert content(served.home / "out") == FILES
    hf("download", "acme/movies", "--repo-type", "dataset", "--local-dir", "data", token=None)
    assert content(served.home / "data") == {"train.csv": b"text,label\ngood,1\n"}


def test_hf_cache_verify_checks_git_hashes_and_sha256_and_finds_a_changed_byte(hf, served):
    hf("download", "acme/bert")
    assert "checked: 4" in hf("cache", "verify", "acme/bert")
    for name in ("config.json", "model.safetensors"):
        blob = next((served.home / "hf/hub/models--acme--bert/snapshots").glob(f"*/{name}")).resolve()
        kept = blob.read_bytes()
        blob.write_bytes(b"X" + kept[1:])
        assert name in hf("cache", "verify", "acme/bert", fails=True)
        blob.write_bytes(kept)
    assert "checked: 4" in hf("cache", "verify", "acme/bert")


def test_a_snapshot_that_is_there_is_not_read_again(sdk, served):
    code = "from huggingface_hub import snapshot_download\nresult = snapshot_download('acme/bert')"
    first = sdk(code)
    assert content(Path(first)) == FILES
    assert sdk(code) == first
    assert sum("GET /acme/bert/resolve" in line for line in served.requests()) == len(FILES) - 1  # an empty file is not asked for


def test_repositories_are_described(sdk, folder):
    (folder / "acme/bert/README.md").write_text("---\nlicense: apache-2.0\npipeline_tag: text-classification\n---\n# Bert\nIt classifies.\n")
    info = sdk(
        "it = api.model_info('acme/bert', files_metadata=True)\n"
        "files = {s.rfilename: [s.size, s.blob_id, s.lfs and s.lfs.sha256] for s in it.siblings}\n"
        "result = [it.sha, it.private, it.gated, it.pipeline_tag, it.tags, it.last_modified.year, files]"
    )
    assert len(info[0]) == 40
    assert info[1:5] == [False, False, "text-classification", ["text-classification", "license:apache-2.0"]]
    assert info[5] >= 2024
    assert info[6]["model.safetensors"][::2] == [len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()]
    git = hashlib.sha1(b"blob %d\0" % len(FILES["config.json"]) + FILES["config.json"]).hexdigest()
    assert info[6]["config.json"] == [len(FILES["config.json"]), git, None]
    assert sdk("result = api.dataset_info('acme/movies').sha") != info[0]
    expanded = sdk("it = api.model_info('acme/bert', expand=['gated', 'usedStorage'])\nresult = [it.gated, it.used_storage, it.sha]")
    assert expanded == [False, sum(map(len, FILES.values())) + (folder / "acme/bert/README.md").stat().st_size, None]


def test_a_search_filters_sorts_and_pages(sdk, folder):
    for number in range(12):
        card = b"---\nlicense: %s\n---\n" % (b"mit" if number % 2 else b"apache-2.0")
        write(folder / f"many/net-{number:02}", {"README.md": card, "config.json": b"{}"})
    names = [f"many/net-{number:02}" for number in range(12)]
    assert sdk("result = sorted(m.id for m in api.list_models())") == ["acme/bert", *names]
    assert sdk("result = sorted(m.id for m in api.list_models(search='NET 03'))") == ["many/net-03"]
    assert sdk("result = sorted(m.id for m in api.list_models(author='many', filter='license:mit'))") == names[1::2]
    assert sdk("result = len(list(api.list_models(author='many', limit=5)))") == 5
    pages = "from huggingface_hub.utils import paginate\n"
    assert sdk(pages + "result = [m['id'] for m in paginate(api.endpoint + '/api/models', {'author': 'many', 'limit': 5}, {})]") == names
    assert sdk("result = [d.id for d in api.list_datasets(author='acme')]") == ["acme/movies"]


def test_trees_are_listed_by_folder_and_in_pages(sdk, folder):
    write(folder / "acme/wide", {f"shard/{number:04}.txt": b"" for number in range(1005)} | {"config.json": b"{}"})
    assert sdk("result = [e.path for e in api.list_repo_tree('acme/bert')]") == ["config.json", "empty.txt", "model.safetensors", "sub"]
    assert sdk("result = [e.path for e in api.list_repo_tree('acme/bert', 'sub/deep')]") == ["sub/deep/vocab.txt"]
    assert sdk("result = len(api.list_repo_files('acme/wide'))") == 1006
    found = sdk("result = [type(e).__name__ + e.path for e in api.get_paths_info('acme/bert', ['sub', 'config.json', 'none'])]")
    assert found == ["RepoFoldersub", "RepoFileconfig.json"]
    assert sdk("result = list(api.list_repo_tree('acme/bert', 'nowhere'))")[0] == "RemoteEntryNotFoundError"


RANGES = [
    ("bytes=10-19", 206, WEIGHTS[10:20]),
    ("bytes=299990-", 206, WEIGHTS[-10:]),
    ("bytes=-7", 206, WEIGHTS[-7:]),
    ("bytes=0-999999", 206, WEIGHTS),
    ("bytes=300000-", 416, b""),
    ("bytes=5-2", 416, b""),
    ("lines=1-2", 200, WEIGHTS),
]


def test_ranges(served):
    for asked, status, expected in RANGES:
        found, headers, body = ask(served, "/acme/bert/resolve/main/model.safetensors", range=asked)
        assert (found, body) == (status, expected)
        if status == 206:
            assert headers["Content-Range"].endswith(f"/{len(WEIGHTS)}")
            assert headers["Content-Length"] == str(len(expected))
        if status == 416:
            assert headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


def test_a_range_of_another_content_is_answered_with_all(served):
    etag = ask(served, "/acme/bert/resolve/main/model.safetensors", "HEAD")[1]["ETag"]
    assert len(ask(served, "/acme/bert/resolve/main/model.safetensors", **{"range": "bytes=0-0", "if-range": etag})[2]) == 1
    assert ask(served, "/acme/bert/resolve/main/model.safetensors", **{"range": "bytes=0-0", "if-range": '"other"'})[2] == WEIGHTS


def test_a_head_tells_commit_size_and_hash(served):
    sha = json.loads(ask(served, "/api/models/acme/bert")[2])["sha"]
    _, large, body = ask(served, "/acme/bert/resolve/main/model.safetensors", "HEAD")
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert (large["X-Repo-Commit"], large["X-Linked-Etag"], large["X-Linked-Size"], body) == (sha, f'"{digest}"', "300000", b"")
    assert (large["Content-Length"], large["Accept-Ranges"]) == ("300000", "bytes")
    _, small, _ = ask(served, f"/acme/bert/resolve/{sha}/config.json", "HEAD")
    assert small["X-Linked-Etag"] is None
    assert small["ETag"] == f'"{hashlib.sha1(b"blob 23%c" % 0 + FILES["config.json"]).hexdigest()}"'


ABSENT = [
    ("api.model_info('acme/brt')", "RepositoryNotFoundError", "RepoNotFound"),
    ("api.model_info('gpt2')", "RepositoryNotFoundError", "RepoNotFound"),
    ("api.model_info('acme/bert', revision='v9')", "RevisionNotFoundError", "RevisionNotFound"),
    ("api.list_repo_files('acme/bert', revision='" + "0" * 40 + "')", "RevisionNotFoundError", "RevisionNotFound"),
    ("api.hf_hub_download('acme/bert', 'none.bin')", "RemoteEntryNotFoundError", "EntryNotFound"),
    ("api.hf_hub_download('acme/bert', 'config.json', revision='v9')", "RevisionNotFoundError", "RevisionNotFound"),
    ("api.dataset_info('acme/bert')", "RepositoryNotFoundError", "RepoNotFound"),
]


def test_what_is_not_there_is_named(sdk):
    found = sdk(
        f"result = []\nfor call in {[call for call, _, _ in ABSENT]!r}:\n"
        "    try:\n        said = [str(eval(call))]\n"
        "    except Exception as error:\n        said = [type(error).__name__, error.response.headers['X-Error-Code'], str(error)]\n"
        "    result.append(said)"
    )
    assert [said[:2] for said in found] == [[error, code] for _, error, code in ABSENT]
    assert "acme/bert" in found[0][2]  # the name that was meant


# --- who


def test_the_token_is_known(sdk, hf):
    assert sdk("it = api.whoami()\nresult = [it['name'], it['auth']['accessToken']['role']]") == ["modelyard", "write"]
    assert "modelyard" in hf("auth", "whoami")
    wrong = sdk("result = api.whoami()", token="wrong-token")
    assert wrong[0] == "HfHubHTTPError"
    assert "Invalid user token" in wrong[1]
    assert "wrong-token" not in wrong[1]


@pytest.mark.parametrize("token", [None, "wrong-token"])
def test_writes_need_the_token(sdk, served, folder, token):
    create, tag = "result = str(api.create_repo('acme/new'))", "result = api.create_tag('acme/bert', tag='v1')"
    upload = "result = api.upload_file(path_or_fileobj=b'x', path_in_repo='x.txt', repo_id='acme/bert').oid"
    for code in (create, tag, upload):
        name, said = sdk(code, token=token)
        assert name == "HfHubHTTPError"
        assert "token" in said
        assert TOKEN not in said
    assert not (folder / ".modelyard/repos/models/acme/new").exists()
    assert json.loads(ask(served, "/api/models/acme/bert/refs")[2])["tags"] == []
    body = json.dumps({"name": "new", "organization": "acme"}).encode()
    assert ask(served, "/api/repos/create", "POST", body, token)[0] == (403 if token else 401)
    assert ask(served, "/api/repos/create", "POST", body, TOKEN)[0] == 200


def test_gated_repositories_are_described_to_all_and_read_with_the_token(sdk, served, folder):
    mark(folder, "acme/bert", gated=True)
    info = sdk("it = api.model_info('acme/bert')\nresult = [it.gated, it.siblings]", token=None)
    assert info == ["manual", None]
    for code in ("api.hf_hub_download('acme/bert', 'config.json')", "api.snapshot_download('acme/bert')", "api.list_repo_files('acme/bert')"):
        for token in (None, "wrong-token"):
            name, said = sdk(f"result = {code}", token=token)
            assert name == "GatedRepoError"
            assert "acme/bert is gated" in said
    assert content(Path(sdk("result = api.snapshot_download('acme/bert')"))) == FILES
    assert ask(served, "/acme/bert/resolve/main/config.json", range="bytes=0-1")[0] == 401


def test_private_repositories_are_not_listed_nor_described_without_the_token(sdk, served):
    sdk(
        "api.create_repo('acme/secret', private=True)\n"
        "result = api.upload_file(path_or_fileobj=b'x', path_in_repo='x.txt', repo_id='acme/secret').oid"
    )
    assert sdk("result = [[m.id, m.private] for m in api.list_models(search='secret')]") == [["acme/secret", True]]
    assert sdk("result = [m.id for m in api.list_models()]", token=None) == ["acme/bert"]
    for path in ("/api/models/acme/secret", "/api/models/acme/secret/tree/main", "/acme/secret/resolve/main/x.txt"):
        assert ask(served, path)[0] == 401
        assert ask(served, path, token="wrong-token")[0] == 403
        assert ask(served, path, token=TOKEN)[0] == 200
    assert sdk("result = api.snapshot_download('acme/secret')", token=None)[0] == "HfHubHTTPError"


# --- writing


def test_hf_uploads_a_folder_which_comes_back_whole(hf, sdk, served):
    write(served.home / "mine", {**FILES, "tokenizer.json": b"t" * 100_000, ".gitattributes": b"*.bin filter=lfs\n"})
    assert "/me/fresh/commit/" in hf("upload", "me/fresh", "mine", "--commit-message", "first")
    hf("download", "me/fresh", "--local-dir", "back", token=None)
    assert content(served.home / "back") == content(served.home / "mine")
    assert sdk("result = [c.title for c in api.list_repo_commits('me/fresh')]") == ["first", "created"]
    hf("upload", "me/rows", "mine/config.json", "--repo-type", "dataset", "--private")
    assert sdk("result = api.dataset_info('me/rows').private") is True


def test_a_commit_adds_replaces_and_deletes_and_the_old_one_stays(sdk):
    first = sdk("result = api.model_info('acme/bert').sha")
    operations = "[Add('config.json', b'{}'), Add('sub/new.bin', b'n' * 9), Delete('empty.txt'), Delete('sub/deep/')]"
    second = sdk(f"result = api.create_commit('acme/bert', {operations}, commit_message='change', parent_commit={first!r}).oid")
    listed = "result = {e.path: e.size for e in api.list_repo_tree('acme/bert', recursive=True, revision=%r) if hasattr(e, 'size')}"
    assert sdk(listed % second) == {"config.json": 2, "model.safetensors": 300_000, "sub/new.bin": 9}
    assert sdk(listed % first) == {path: len(data) for path, data in FILES.items()}
    old = sdk(f"result = open(api.hf_hub_download('acme/bert', 'config.json', revision={first!r})).read()")
    assert old.encode() == FILES["config.json"]
    stale = sdk(f"result = api.create_commit('acme/bert', [Add('x.txt', b'x')], commit_message='late', parent_commit={first!r}).oid")
    assert "has moved" in stale[1]


def test_uploading_the_same_again_makes_no_commit(sdk, served):
    write(served.home / "mine", FILES)
    code = "result = api.upload_folder(repo_id='acme/bert', folder_path='mine', delete_patterns='*').oid"
    assert sdk(code) == sdk("result = api.model_info('acme/bert').sha")
    assert not any("/commit/" in line for line in served.requests())


def test_folder_uploads_delete_stale_files(sdk, served):
    write(served.home / "mine", {"only.txt": b"1"})
    sdk("result = api.upload_folder(repo_id='acme/bert', folder_path='mine', delete_patterns='*').oid")
    assert sdk("result = api.list_repo_files('acme/bert')") == ["only.txt"]


def test_tags_stay_and_branches_move(sdk, served):
    first = sdk("api.create_tag('acme/bert', tag='v1.0', tag_message='one')\nresult = api.model_info('acme/bert').sha")
    sdk("api.create_branch('acme/bert', branch='dev/next', revision='v1.0')\nresult = 0")
    upload = "result = api.upload_file(path_or_fileobj=b'new', path_in_repo='config.json', repo_id='acme/bert', revision=%r).oid"
    second, other = sdk(upload % "main"), sdk(upload % "dev/next")
    refs = sdk(
        "r = api.list_repo_refs('acme/bert')\nresult = [{b.name: b.target_commit for b in r.branches}, {t.name: t.target_commit for t in r.tags}]"
    )
    assert refs == [{"main": second, "dev/next": other}, {"v1.0": first}]
    read = "result = open(api.hf_hub_download('acme/bert', 'config.json', revision=%r)).read()"
    assert sdk(read % "v1.0").encode() == FILES["config.json"]
    assert sdk(read % "dev/next") == sdk(read % "main") == "new"
    assert "409" in sdk("result = api.create_tag('acme/bert', tag='v1.0')")[1]
    assert "409" in sdk("result = api.create_branch('acme/bert', branch='main')")[1]
    assert sdk("result = api.create_branch('acme/bert', branch='main', exist_ok=True)") is None
    assert sdk(upload % "v1.0")[0] == "RevisionNotFoundError"  # a tag takes no commits
    assert sdk("result = api.create_tag('acme/bert', tag='../up')")[0] == "BadRequestError"


def test_hf_upload_makes_a_branch(hf, sdk, served):
    write(served.home / "mine", {"config.json": b"{}"})
    hf("upload", "acme/bert", "mine", "--revision", "experiment")
    assert sdk("result = open(api.hf_hub_download('acme/bert', 'config.json', revision='experiment')).read()") == "{}"


def test_create_says_when_it_is_there(sdk):
    assert sdk("result = str(api.create_repo('acme/new', repo_type='dataset'))").endswith("/datasets/acme/new")
    assert "there already" in sdk("result = str(api.create_repo('acme/new', repo_type='dataset'))")[1]
    assert sdk("result = str(api.create_repo('acme/bert', exist_ok=True))").endswith("/acme/bert")
    assert sdk("result = api.create_repo('plain').repo_id") == "modelyard/plain"
    assert "space" in sdk("result = str(api.create_repo('acme/app', repo_type='space', space_sdk='static'))")[1]
    assert sdk("result = api.upload_file(path_or_fileobj=b'x', path_in_repo='x', repo_id='acme/none')")[0] == "RepositoryNotFoundError"


def test_a_card_is_checked_before_anything_is_sent(sdk, served):
    bad = sdk("result = api.upload_file(path_or_fileobj=b'---\\na: [\\n---\\n', path_in_repo='README.md', repo_id='acme/bert').oid")
    assert bad[0] == "ValueError"
    assert not any("/commit/" in line for line in served.requests())
    good = sdk("result = api.upload_file(path_or_fileobj=b'---\\nlicense: mit\\n---\\n', path_in_repo='README.md', repo_id='acme/bert').oid")
    assert len(good) == 40


def test_xet_ends_at_an_address_that_says_what_to_set(hf, served):
    pytest.importorskip("hf_xet")
    write(served.home / "mine", {"model.safetensors": b"w" * 100})
    for what in ("mine", "mine/model.safetensors"):
        said = hf("upload", "acme/bert", what, fails=True, HF_HUB_DISABLE_XET="0")
        assert "HF_HUB_DISABLE_XET=1" in said


# --- hostile


def post(served, path, lines):
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    return ask(served, path, "POST", body, TOKEN, **{"content-type": "application/x-ndjson"})


def batch(served, data, size=None, oid=None):
    asked = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid or hashlib.sha256(data).hexdigest(), "size": size or len(data)}]}
    status, _, body = ask(served, "/acme/bert.git/info/lfs/objects/batch", "POST", json.dumps(asked).encode(), TOKEN)
    assert status == 200
    return json.loads(body)["objects"][0]


def test_an_upload_that_is_not_what_was_announced_is_refused(served, folder):
    right, wrong = b"right" * 100, b"wrong" * 100
    href = batch(served, right)["actions"]["upload"]["href"].removeprefix(served.url)
    for data in (wrong, right[:-1], right + b"x"):
        status, _, body = ask(served, href, "PUT", data)
        assert status == 422
        assert b"upload it again" in body or b"not what it should be" in body
    digest = hashlib.sha256(right).hexdigest()
    line = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": digest, "size": len(right)}}
    assert post(served, "/api/models/acme/bert/commit/main", [{"key": "header", "value": {"summary": "x"}}, line])[0] == 400
    verify = json.dumps({"oid": digest, "size": len(right)}).encode()
    assert ask(served, "/acme/bert.git/info/lfs/verify", "POST", verify, TOKEN)[0] == 400
    assert list((folder / ".modelyard/incoming").iterdir()) == []
    assert ask(served, href, "PUT", right)[0] == 200
    assert ask(served, "/acme/bert.git/info/lfs/verify", "POST", verify, TOKEN)[0] == 200
    assert "actions" not in batch(served, right)
    line["value"]["size"] += 1
    assert post(served, "/api/models/acme/bert/commit/main", [{"key": "header", "value": {"summary": "x"}}, line])[0] == 400


def test_an_upload_address_is_good_for_its_content_alone(served):
    href = batch(served, b"one")["actions"]["upload"]["href"].removeprefix(served.url)
    other = hashlib.sha256(b"two").hexdigest()
    assert ask(served, href.replace(hashlib.sha256(b"one").hexdigest(), other), "PUT", b"two")[0] in (401, 403)
    assert ask(served, href.replace("size=3", "size=4"), "PUT", b"ones")[0] in (401, 403)
    assert ask(served, href.partition("&")[0], "PUT", b"one")[0] in (401, 403)
    assert ask(served, href, "PUT", b"one")[0] == 200


UNSAFE = [
    "../up.txt",
    "a/../../up.txt",
    "/etc/up.txt",
    "a\\b.txt",
    "a//b.txt",
    "nul\0.txt",
    "",
    ".",
    "a/./b",
    "CONFIG.JSON",
    "config.json/below",
    "x" * 2000,
]


def test_paths_that_leave_or_clash_are_refused(served, folder):
    for path in UNSAFE:
        before = ask(served, "/api/models/acme/bert/tree/main?recursive=true")[2]
        add = {"key": "file", "value": {"path": path, "content": "eA==", "encoding": "base64"}}
        status, _, body = post(served, "/api/models/acme/bert/commit/main", [{"key": "header", "value": {"summary": "x"}}, add])
        assert status == 400, body
        assert b"not allowed" in body or b"clash" in body
        assert ask(served, "/api/models/acme/bert/tree/main?recursive=true")[2] == before
        assert not (folder / "acme/up.txt").exists()
        assert not (folder.parent / "up.txt").exists()


ESCAPES = [
    "/acme/bert/resolve/main/../../../hub/acme/bert/config.json",
    "/acme/bert/resolve/main/%2e%2e%2fbert%2fconfig.json",
    "/acme/bert/resolve/main//etc/passwd",
    "/acme/bert/resolve/..%2f..%2fx/config.json",
    "/..%2f/bert/resolve/main/config.json",
    "/api/models/..%2f..%2f/x/tree/main",
    "/api/models/%2e%2e/bert",
    "/.modelyard/repos/resolve/main/x",
    "/api/models/acme/bert/tree/main/..%2f..",
    "/api/spaces/acme/bert",
    "/api/models/datasets/acme",
]


def test_requests_that_leave_find_nothing(served):
    for path in ESCAPES:
        status, _, body = ask(served, path, token=TOKEN)
        assert status in (400, 404)
        assert b"model_type" not in body
        assert b"root:" not in body


UNREADABLE = [
    [{"key": "file", "value": {"path": "x", "content": "not base64!", "encoding": "base64"}}],
    [{"key": "file", "value": "x"}],
    [{"key": "explode", "value": {"path": "x"}}],
    [{"key": "lfsFile", "value": {"path": "x", "oid": "../../etc", "size": 1}}],
    [["no object"]],
    [{"key": "deletedFile", "value": {"path": "not-there"}}],
]


def test_commits_that_cannot_be_read_are_refused(served):
    for lines in UNREADABLE:
        before = ask(served, "/api/models/acme/bert")[2]
        status, _, body = post(served, "/api/models/acme/bert/commit/main", [{"key": "header", "value": {"summary": "x"}}, *lines])
        assert status in (400, 404)
        assert json.loads(body)["error"]
        assert json.loads(ask(served, "/api/models/acme/bert")[2])["sha"] == json.loads(before)["sha"]


MALFORMED = [
    ("/api/repos/create", {"type": [], "organization": "me", "name": "x"}),
    ("/acme/bert.git/info/lfs/objects/batch", {"operation": "upload", "transfers": 5, "objects": []}),
    ("/acme/bert.git/info/lfs/objects/batch", {"operation": "upload"}),
    ("/api/models/acme/bert/branch/new", {"startingPoint": 5}),
    ("/api/validate-yaml", {"content": "---\na: 2024-99-99\n---\n---\na: [\n---"}),
    ("/api/validate-yaml", {"content": "---\n" + "[" * 5000 + "\n---\n"}),
]


def test_what_is_malformed_is_the_clients_mistake(served):
    statuses = [ask(served, path, "POST", json.dumps(body).encode(), TOKEN)[0] for path, body in MALFORMED]
    assert statuses == [400, 400, 400, 404, 200, 400]


def test_a_broken_repository_does_not_hide_the_others(served, folder):
    (folder / "acme/linked").mkdir()
    (folder / "acme/linked/config.json").symlink_to("/etc/passwd")
    status, _, body = ask(served, "/api/models?expand=usedStorage")
    assert status == 200
    assert {one["id"]: bool(one["usedStorage"]) for one in json.loads(body)} == {"acme/bert": True, "acme/linked": False}


# --- killed


def kill(hub):
    hub.process.kill()
    hub.process.wait()


@pytest.mark.slow
def test_a_killed_server_keeps_what_it_has_answered_for_and_shows_nothing_torn(folder, serve, tmp_path):
    """Uploads go on while the server is killed at random moments and started again on the same port."""
    chance = random.Random(11)
    hub = serve(folder)
    port = int(hub.url.rpartition(":")[2])
    script = tmp_path / "uploads.py"
    script.write_text(
        "import hashlib, json, random, sys\n"
        "from huggingface_hub import HfApi, CommitOperationAdd as Add\n"
        "api, number = HfApi(), 0\n"
        "while True:\n"
        "    number += 1\n"
        "    content = {f'{number}.safetensors': random.Random(number).randbytes(8_000_000), f'{number}.json': b'{}' * number}\n"
        "    try:\n"
        "        made = api.create_commit('acme/bert', [Add(path, data) for path, data in content.items()], commit_message=str(number))\n"
        "    except Exception as error:\n"
        "        print(json.dumps({'failed': type(error).__name__}), flush=True)\n"
        "        continue\n"
        "    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in content.items()}\n"
        "    print(json.dumps({'commit': made.oid, 'files': hashes}), flush=True)\n"
    )
    said, incoming, torn = tmp_path / "said.jsonl", folder / ".modelyard/incoming", set()
    with said.open("w") as out, subprocess.Popen([sys.executable, script], env=hub.environ(TOKEN), stdout=out, stderr=subprocess.DEVNULL) as uploads:
        try:
            for number in range(8):
                time.sleep(chance.uniform(0.2, 1.0))
                until = time.monotonic() + 10
                while number % 2 and not any(incoming.glob("*")) and time.monotonic() < until:
                    pass  # every other time while content is on its way
                kill(hub)
                torn |= {path.name for path in incoming.glob("*")}
                hub = serve(folder, port=port)
            until = time.monotonic() + 60  # clients wait longer after each failure
            while said.read_text().count('"commit"') < 4 and time.monotonic() < until:
                time.sleep(0.2)
        finally:
            uploads.kill()
    kill(hub)
    hub = serve(folder, port=port)
    told = [json.loads(line) for line in said.read_text().splitlines() if line.endswith("}")]
    answered = [entry for entry in told if "commit" in entry]
    assert len(answered) > 3
    assert torn  # the kills did hit uploads
    head = json.loads(ask(hub, "/api/models/acme/bert")[2])["sha"]
    history = [entry["id"] for entry in json.loads(ask(hub, "/api/models/acme/bert/commits/main")[2])]
    assert history[0] == head
    for entry in answered:
        assert entry["commit"] in history
        for path, digest in entry["files"].items():
            for revision in (entry["commit"], "main"):
                status, _, body = ask(hub, f"/acme/bert/resolve/{revision}/{path}")
                assert (status, hashlib.sha256(body).hexdigest()) == (200, digest)
    for entry in json.loads(ask(hub, "/api/models/acme/bert/tree/main?recursive=true")[2]):
        if entry["type"] == "file":  # what was committed without an answer is whole too
            status, _, body = ask(hub, f"/acme/bert/resolve/main/{entry['path']}")
            assert (status, len(body)) == (200, entry["size"])
            if "lfs" in entry:
                assert hashlib.sha256(body).hexdigest() == entry["lfs"]["oid"]
