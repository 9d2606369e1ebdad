"""ModelScope's own SDK and commands, unmodified, against a served folder; and what is not polite, by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
import urllib3

from modelyard.yard import Yard
from tests.hubs.serving import DATA, MODEL, TOKEN, WEIGHTS, write

SHA = hashlib.sha256(WEIGHTS).hexdigest()


def contents(folder):
    skipped = (".msc", ".mv", ".mdl", ".ms_upload_cache", "._____temp")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: content for path, content in files.items() if not path.startswith(skipped)}


def listing(served, repo="acme/bert", revision="master", kind="models", **more):
    query = urllib.parse.urlencode({"Revision": revision, "Recursive": "True"})
    leaf = "files" if kind == "models" else "tree"
    answer = served.request("GET", f"/api/v1/{kind}/{repo}/repo/{leaf}?{query}", **more)
    return answer.status, {file["Path"]: file for file in (answer.json()["Data"] or {"Files": []})["Files"]}


def commit(served, actions, repo="acme/bert", branch="master", token=TOKEN, message="a commit"):
    body = {"commit_message": message, "actions": actions}
    path, form = f"/api/v1/repos/models/{repo}/commit/{branch}", {"Content-Type": "application/json"}
    return served.request("POST", path, token=token, headers=form, body=json.dumps(body))


def create(path, content):
    text = base64.b64encode(content).decode()
    return {"action": "create", "path": path, "type": "normal", "size": len(content), "sha256": "", "content": text, "encoding": "base64"}


# --- reading ---------------------------------------------------------------------------------------------------------------------------------


def test_snapshot_download_gives_models_and_data_sets(served):
    found = served.python(
        "from modelscope import snapshot_download, dataset_snapshot_download\n"
        "show([snapshot_download('acme/bert'), dataset_snapshot_download('acme/films')])"
    )
    model, data = (contents(Path(path)) for path in found)
    assert model == MODEL
    assert data == DATA


def test_the_download_command(served):
    done = served.run("modelscope", "download", "--model", "acme/bert", "--local_dir", "out")
    assert done.returncode == 0, done.stderr
    assert contents(served.home / "out") == MODEL
    done = served.run("modelscope", "download", "--dataset", "acme/films", "train.csv", "--local_dir", "data")
    assert done.returncode == 0, done.stderr
    assert contents(served.home / "data") == {"train.csv": DATA["train.csv"]}
    assert served.run("modelscope", "download", "--model", "acme/nothing", "--local_dir", "none").returncode != 0


def test_search_filters_sorts_and_pages(served, folder):
    for index in range(5):
        write(folder / f"other/tiny{index}", {"config.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"})
    found = served.python("""
from modelscope_hub import HubApi
api = HubApi()
ids = lambda page: sorted(repo.repo_id for repo in page.items)
every = api.list_repos("model", page_size=100)
show({
    "all": ids(every), "total": every.total_count,
    "words": ids(api.list_repos("model", search="films small")),
    "owner": ids(api.list_repos("model", owner="acme")),
    "task": ids(api.list_repos("model", task="text-classification")),
    "licence": ids(api.list_repos("model", license="mit", page_size=50)),
    "pages": [ids(api.list_repos("model", page_size=2, page_number=page)) for page in (1, 2, 3, 4)],
    "data": ids(api.list_repos("dataset", task="text-classification")),
    "none": ids(api.list_repos("model", search="nothing like it")),
    "info": [str(getattr(api.get_repo("acme/bert", "model"), name)) for name in ("license", "downloads")],
    "there": [api.repo_exists("acme/bert", "model"), api.repo_exists("acme/none", "model"), api.repo_exists("acme/films", "dataset")],
})""")
    tiny = [f"other/tiny{index}" for index in range(5)]
    assert found["all"] == ["acme/bert", *tiny]
    assert found["total"] == 6
    assert found["words"] == found["owner"] == found["task"] == ["acme/bert"]
    assert found["licence"] == tiny
    assert [repo for page in found["pages"] for repo in page] == found["all"]
    assert [len(page) for page in found["pages"]] == [2, 2, 2, 0]
    assert found["data"] == ["acme/films"]
    assert found["none"] == []
    assert found["info"][0] == "apache-2.0"
    assert found["there"] == [True, False, True]
    assert served.request("GET", "/openapi/v1/models?filter.deploy=yes").status == 400
    assert served.request("GET", "/openapi/v1/models?page_size=0").status == 400


def test_a_listing_has_hashes_and_the_commit_that_it_is_of(served, folder):
    status, files = listing(served)
    assert status == 200
    assert {path: file["Sha256"] for path, file in files.items()} == {path: hashlib.sha256(content).hexdigest() for path, content in MODEL.items()}
    (pinned,) = {file["Revision"] for file in files.values()}
    assert len(pinned) == 40
    assert listing(served, revision=pinned) == (200, files)
    assert listing(served, revision="main") == (200, files)
    answer = served.request("GET", "/api/v1/models/acme/bert/repo/files?Revision=master&Recursive=False").json()["Data"]["Files"]
    assert {(file["Path"], file["Type"]) for file in answer} == {
        ("README.md", "blob"), ("config.json", "blob"), ("model.safetensors", "blob"), ("sub", "tree"),
    }  # fmt: skip
    answer = served.request("GET", "/api/v1/models/acme/bert/repo/files?Recursive=True&Root=sub").json()["Data"]["Files"]
    assert [file["Path"] for file in answer] == ["sub/vocab.txt"]


def test_a_data_set_of_many_files_is_listed_in_pages(served, folder):
    write(folder / "datasets/acme/many", {f"part/{index:04}.txt": b"%d" % index for index in range(450)})
    found = served.python("from modelscope_hub import HubApi\nshow([file.path for file in HubApi().list_repo_files('acme/many', 'dataset')])")
    assert found == [f"part/{index:04}.txt" for index in range(450)]
    assert sum("repo/tree" in line for line in served.requests()) == 3


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=100-", 206, 100, len(WEIGHTS)),
        ("bytes=-5", 206, len(WEIGHTS) - 5, len(WEIGHTS)),
        (f"bytes=1048570-{len(WEIGHTS) + 50}", 206, 1048570, len(WEIGHTS)),
        ("bytes=5-2", 416, 0, 0),
        (f"bytes={len(WEIGHTS)}-", 416, 0, 0),
        ("bytes=0-1,5-6", 200, 0, len(WEIGHTS)),
        ("chars=0-1", 200, 0, len(WEIGHTS)),
        ("bytes=-", 200, 0, len(WEIGHTS)),
    ],
)
def test_ranges(served, asked, status, start, end):
    path = "/api/v1/models/acme/bert/repo?Revision=master&FilePath=model.safetensors"
    answer = served.request("GET", path, headers={"Range": asked})
    head = served.request("HEAD", path, headers={"Range": asked})
    assert (answer.status, head.status) == (status, status)
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(WEIGHTS)}"
        return
    assert answer.data == WEIGHTS[start:end]
    assert answer.headers.get("content-range") == (f"bytes {start}-{end - 1}/{len(WEIGHTS)}" if status == 206 else None)
    assert answer.headers["x-linked-etag"] == head.headers["x-linked-etag"] == SHA
    assert int(head.headers["content-length"]) == end - start
    assert head.data == b""


def test_a_range_of_another_version_gives_the_whole_file(served):
    path = "/api/v1/models/acme/bert/repo?FilePath=config.json"
    same = served.request("GET", path).headers["etag"]
    assert served.request("GET", path, headers={"Range": "bytes=1-", "If-Range": same}).status == 206
    assert served.request("GET", path, headers={"Range": "bytes=1-", "If-Range": '"other"'}).data == MODEL["config.json"]


def test_the_sdk_resumes_in_the_middle(served):
    script = """
from pathlib import Path
from modelscope_hub import HubApi
Path("out").mkdir()
Path("out/model.safetensors.incomplete").write_bytes(bytes(range(256)) * 4096)
path = HubApi().download_file("acme/bert", "model", "model.safetensors", local_dir="out", expected_sha256=sys.argv[1], file_size=int(sys.argv[2]))
show(Path(path).stat().st_size)
"""
    assert served.python(script, SHA, str(len(WEIGHTS))) == len(WEIGHTS)
    sizes = [int(line.split(" ")[3]) for line in served.requests() if line.startswith("GET /api/v1/models/acme/bert/repo 206")]
    assert sizes == [len(WEIGHTS) - 2**20]


def test_what_is_not_there(served):
    base = "/api/v1/models/acme/bert"
    assert served.request("GET", f"{base}/repo?FilePath=none.txt").status == 404
    assert served.request("GET", f"{base}/repo?FilePath=config.json&Revision=v9").status == 404
    assert served.request("GET", f"{base}/repo").status == 404
    assert served.request("GET", f"{base}/repo/files?Root=nowhere").status == 404
    assert served.request("GET", "/api/v1/models/acme/none/revisions").status == 404
    assert served.request("GET", "/api/v1/studios/acme/bert/revisions").status == 404
    assert served.request("GET", "/api/v1/repos/internalAccelerationInfo").status == 404
    assert served.request("GET", "/openapi/v1/models/acme/none").json()["code"] == "ResourceNotFound"


HOSTILE = [
    "../../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "a\\..\\b",
    "sub/../config.json",
    "./config.json",
    "config.json%00",
    ".modelyard",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_paths_that_lead_elsewhere_are_not_files(served, path):
    quoted = urllib.parse.quote(path, safe="%")
    assert served.request("GET", f"/api/v1/models/acme/bert/repo?FilePath={quoted}").status == 404
    assert served.request("GET", f"/api/v1/models/acme/bert/repo?FilePath=config.json&Revision={quoted}").status in (400, 404)
    assert served.request("GET", f"/api/v1/models/{urllib.parse.quote(path, safe='')}/bert/repo?FilePath=config.json").status in (400, 404)


def test_a_link_in_the_folder_refuses_its_repository_alone(served, folder):
    (folder / "acme/linked").mkdir()
    (folder / "acme/linked/config.json").symlink_to("/etc/passwd")
    (folder / "escape").symlink_to("/")
    assert listing(served, "acme/linked")[0] == 400
    assert served.request("GET", "/api/v1/models/acme/linked/repo?FilePath=config.json").status == 400
    assert served.request("GET", "/api/v1/models/escape/etc/repo?FilePath=passwd").status in (400, 404)
    assert listing(served)[0] == 200
    assert served.request("GET", "/openapi/v1/models").json()["data"]["total_count"] == 2


# --- who may -----------------------------------------------------------------------------------------------------------------------------------


def test_login_and_who_am_i(served):
    script = """
from modelscope_hub import HubApi
from modelscope_hub.errors import HubError
names = []
for token in sys.argv[1:]:
    try:
        names.append(HubApi().login(token).username)
    except HubError as error:
        names.append(type(error).__name__)
show(names)
"""
    assert served.python(script, TOKEN, "another-token") == ["modelyard", "AuthenticationError"]
    assert served.request("GET", "/openapi/v1/users/me").status == 401
    assert served.request("GET", "/openapi/v1/users/me", token=TOKEN).json()["data"]["username"] == "modelyard"


@pytest.mark.parametrize("mark", ["private", "gated"])
def test_a_guarded_repository_needs_the_token(served, mark):
    script = """
from modelscope_hub import HubApi
from modelscope_hub.compat import snapshot_download
api = HubApi(token=sys.argv[1])
api.create_repo("acme/closed", "model", visibility="private", gated_mode=sys.argv[2] == "gated" or None)
api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="acme/closed", repo_type="model")
found = []
for number, token in enumerate([sys.argv[1], None, "a-wrong-token"]):
    try:
        snapshot_download("acme/closed", token=token, cache_dir=f"cache{number}")
        found.append("read")
    except Exception as error:
        found.append([type(error).__name__, error.response.status_code])
show(found)
"""
    assert served.python(script, TOKEN, mark) == ["read", ["HTTPError", 401], ["HTTPError", 403]]
    assert served.request("GET", "/api/v1/models/acme/closed/repo?FilePath=config.json").status == 401
    shown = [repo["id"] for repo in served.request("GET", "/openapi/v1/models?page_size=100").json()["data"]["models"]]
    assert ("acme/closed" in shown) == (mark == "gated")
    assert served.request("GET", "/openapi/v1/models/acme/closed").status == (200 if mark == "gated" else 401)
    assert served.request("GET", "/openapi/v1/models/acme/closed", token=TOKEN).json()["data"][mark] is True


WRITES = [
    ("POST", "/api/v1/models", {"Path": "acme", "Name": "new", "Visibility": 5}),
    ("POST", "/api/v1/repos/models/acme/bert/info/lfs/objects/batch", {"operation": "upload", "objects": [{"oid": "a" * 64, "size": 1}]}),
    ("POST", "/api/v1/repos/models/acme/bert/commit/master", {"commit_message": "x", "actions": [{"action": "delete", "path": "config.json"}]}),
    ("POST", "/api/v1/models/acme/bert/repo/tag", {"TagName": "v1", "Ref": "master"}),
    ("PUT", f"/-/blobs/{'a' * 64}?size=1&signature=1.x", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_writes_need_the_token(served, folder, method, path, body):
    more = {"json": body} if body else {"body": b"x"}
    assert served.request(method, path, **more).status == 401
    assert served.request(method, path, token="a-wrong-token", **more).status == 403
    assert served.request(method, path, headers={"Cookie": "m_session_id=wrong"}, **more).status == 403
    assert not (folder / ".modelyard/blobs").exists()
    assert not (folder / ".modelyard/repos/models/acme/new").exists()
    assert listing(served)[0] == 200


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_without_a_token_file_nothing_can_be_written(serve, folder, method, path, body):
    served = serve(folder, token=None)
    more = {"json": body} if body else {"body": b"x"}
    for token in (None, TOKEN, "None"):
        answer = served.request(method, path, token=token, **more)
        assert answer.status == 403
        assert b"read-only" in answer.data
        assert b"--token-file" in answer.data or b"token" in answer.data


def test_the_token_and_signatures_are_in_no_log(served):
    body = {"operation": "upload", "objects": [{"oid": SHA, "size": len(WEIGHTS)}]}
    answer = served.request("POST", "/api/v1/repos/models/acme/bert/info/lfs/objects/batch", token=TOKEN, json=body).json()
    href = answer["Data"]["objects"][0]["actions"]["upload"]["href"]
    assert served.request("PUT", href.removeprefix(served.url), body=WEIGHTS).status == 200
    served.request("GET", f"/openapi/v1/models?search={TOKEN}", token="a-wrong-token")
    log = served.log.read_text()
    assert "PUT /-/blobs/" in log
    assert TOKEN not in log
    assert "signature" not in log
    assert TOKEN not in href


# --- writing -----------------------------------------------------------------------------------------------------------------------------------


def test_the_upload_command_and_what_comes_back(served):
    write(served.home / "new", {**MODEL, "empty.txt": b""})
    done = served.run("modelscope", "upload", "acme/new", "new", ".", "--repo-type", "model", "--no-cache", token=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    done = served.run("modelscope", "download", "--model", "acme/new", "--local_dir", "back", token=TOKEN)
    assert done.returncode == 0, done.stderr
    assert contents(served.home / "back") == {**MODEL, "empty.txt": b""}
    done = served.run("modelscope", "upload", "acme/bert", "new/config.json", "other.json", "--no-cache", token="a-wrong-token")
    assert done.returncode != 0


def test_create_upload_tag_and_move(served):
    found = served.python(
        """
from modelscope_hub import HubApi
from modelscope_hub.errors import HubError
api = HubApi()
listed = lambda revision: {file.path: file.sha256 for file in api.list_repo_files("acme/mine", "model", revision=revision)}
refused = {}
def attempt(name, call):
    try:
        call()
    except HubError as error:
        refused[name] = type(error).__name__
api.create_repo("acme/mine", "model", visibility="private", license="MIT", description="mine")
attempt("again", lambda: api.create_repo("acme/mine", "model"))
api.create_repo("acme/rows", "dataset", visibility="public")
attempt("rows again", lambda: api.create_repo("acme/rows", "dataset"))
api.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id="acme/mine", repo_type="model", commit_message="first")
first = listed("master")
api.create_repo_tag("acme/mine", "model", "v1", revision="master")
api.upload_file(path_or_fileobj=b"two", path_in_repo="a.txt", repo_id="acme/mine", repo_type="model", commit_message="second")
api.upload_file(path_or_fileobj=b"x,y", path_in_repo="data.csv", repo_id="acme/rows", repo_type="dataset", commit_message="rows")
attempt("moved tag", lambda: api.create_repo_tag("acme/mine", "model", "v1", revision="master"))
api.create_repo_tag("acme/mine", "model", "v1", revision="v1")
attempt("bad tag", lambda: api.create_repo_tag("acme/mine", "model", "../v1", revision="master"))
second = listed("master")
tagged = listed("v1")
api.delete_files("acme/mine", "model", ["a.txt"])
left = listed("master")
info = api.get_repo("acme/mine", "model")
show({
    "first": first, "second": second, "tagged": tagged, "left": left, "refused": refused,
    "revisions": sorted(item["Revision"] for item in api.list_repo_revisions("acme/mine", "model")),
    "private": int(info.visibility), "licence": info.license, "rows": [file.path for file in api.list_repo_files("acme/rows", "dataset")],
})""",
        token=TOKEN,
    )
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    assert found["first"] == found["tagged"] == {"a.txt": one}
    assert found["second"] == {"a.txt": two}
    assert found["left"] == {}
    assert found["revisions"] == ["master", "v1"]
    assert found["private"] == 1
    assert found["licence"].lower() == "mit"
    assert found["rows"] == ["data.csv"]
    refused = {"again": "AlreadyExistsError", "rows again": "AlreadyExistsError", "moved tag": "AlreadyExistsError", "bad tag": "InvalidParameter"}
    assert found["refused"] == refused


def test_an_upload_to_a_folder_keeps_what_lay_there_as_its_first_commit(served, folder):
    _, before = listing(served)
    (first,) = {file["Revision"] for file in before.values()}
    assert commit(served, [create("added.txt", b"new"), {"action": "delete", "path": "sub/vocab.txt"}]).status == 200
    (folder / "acme/bert/config.json").write_bytes(b"changed behind its back")
    assert listing(served, revision=first) == (200, before)
    _, after = listing(served)
    assert set(after) == {"README.md", "added.txt", "config.json", "model.safetensors"}
    path = "/api/v1/models/acme/bert/repo?FilePath="
    assert served.request("GET", f"{path}config.json").data == MODEL["config.json"]
    assert served.request("GET", f"{path}model.safetensors&Revision={first}").data == WEIGHTS


def test_content_that_is_not_what_was_announced_is_refused(served, folder):
    body = {"operation": "upload", "objects": [{"oid": SHA, "size": len(WEIGHTS)}]}
    answer = served.request("POST", "/api/v1/repos/models/acme/bert/info/lfs/objects/batch", token=TOKEN, json=body).json()
    path = answer["Data"]["objects"][0]["actions"]["upload"]["href"].removeprefix(served.url)
    assert served.request("PUT", path, body=b"x" * len(WEIGHTS)).status == 422
    assert served.request("PUT", path, body=WEIGHTS[:-1]).status == 422
    assert served.request("PUT", path, body=WEIGHTS + b"x").status == 422
    assert served.request("PUT", path.replace("size=", "size=9"), body=WEIGHTS).status == 401, "the signature is of the size too"
    action = {"action": "create", "path": "big.bin", "type": "lfs", "size": len(WEIGHTS), "sha256": SHA, "content": "", "encoding": ""}
    assert commit(served, [action]).status == 404, "nothing of it was kept"
    assert list((folder / ".modelyard/incoming").iterdir()) == []
    assert served.request("PUT", path, body=WEIGHTS).status == 200
    assert commit(served, [{**action, "size": 1}]).status == 404
    assert commit(served, [action]).status == 200
    assert commit(served, [{**create("c.txt", b"abc"), "size": 7}]).status == 422
    assert commit(served, [{**create("c.txt", b"abc"), "content": "no base64!"}]).status == 400
    assert "c.txt" not in listing(served)[1]


def test_an_upload_that_is_broken_off_leaves_nothing(served, folder):
    body = {"operation": "upload", "objects": [{"oid": SHA, "size": len(WEIGHTS)}]}
    answer = served.request("POST", "/api/v1/repos/models/acme/bert/info/lfs/objects/batch", token=TOKEN, json=body).json()
    path = answer["Data"]["objects"][0]["actions"]["upload"]["href"].removeprefix(served.url)
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(WEIGHTS)}\r\n\r\n"
        connection.sendall(head.encode() + WEIGHTS[: 2 << 20])
    while not any("PUT" in line for line in served.requests()):
        time.sleep(0.05)
    assert list((folder / ".modelyard/incoming").iterdir()) == []
    assert "Traceback" not in served.log.read_text()
    assert served.request("PUT", path, body=WEIGHTS).status == 200, "the address is still good"


@pytest.mark.parametrize(
    "actions",
    [
        *([create(path, b"x")] for path in ["../x", "/etc/x", "a/../../x", "a\\b", "a\0b", "", "a//b", "x" * 2000, "CONFIG.json", "config.json/x"]),
        [{"action": "delete", "path": "not-there.txt"}],
        [{"action": "delete", "path": "../bert/config.json"}],
        [{"action": "chmod", "path": "config.json"}],
        [{"action": "create", "path": "a", "type": "lfs", "sha256": "../../x", "size": 1}],
        [{"action": "delete", "path": "\ud800"}],
        "nothing",
        [1],
    ],
)
def test_commits_that_cannot_be(served, folder, actions):
    before = listing(served)
    assert commit(served, actions).status in (400, 404)
    assert listing(served) == before
    assert not (folder.parent / "x").exists()


@pytest.mark.parametrize("branch", ["nowhere", "..%2f..", "v1"])
def test_commits_to_what_is_no_branch(served, branch):
    assert served.request("POST", "/api/v1/models/acme/bert/repo/tag", token=TOKEN, json={"TagName": "v1", "Ref": "master"}).status == 200
    assert commit(served, [create("a", b"x")], branch=branch).status in (400, 404)


def test_a_body_that_is_too_large_is_not_read(served):
    answer = served.request("POST", "/api/v1/login", body=b'{"AccessToken": "' + b"x" * (2 << 20) + b'"}')
    assert answer.status == 400
    assert served.request("POST", "/api/v1/login", body=b"[" * 100_000).status == 400


def test_writers_at_once_lose_nothing(serve, folder):
    first, second = serve(folder), serve(folder)  # two servers on one folder
    statuses = []

    def upload(server, name):
        statuses.extend(commit(server, [create(f"{name}/{index}.txt", f"{name}{index}".encode())]).status for index in range(6))

    threads = [threading.Thread(target=upload, args=(server, f"w{index}")) for index, server in enumerate([first, second] * 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 36
    for server in (first, second):
        assert {path for path in listing(server)[1] if path.startswith("w")} == {
            f"w{writer}/{index}.txt" for writer in range(6) for index in range(6)
        }


@pytest.mark.parametrize("operation", [30, 75, 90, 120])
def test_a_killed_server_has_kept_what_it_answered_for(serve, folder, operation):
    """The server is killed in place of one operation on the file system: in the first commit's snapshot, in an upload, in a commit, in a state."""
    served, acknowledged = serve(folder, env={"MODELYARD_FAULT": f"kill:{operation}"}), {}
    with pytest.raises(urllib3.exceptions.HTTPError):
        for index in range(20):
            content = f"{operation} {index}".encode()
            assert commit(served, [create(f"k/{index}.txt", content)]).status == 200
            acknowledged[f"k/{index}.txt"] = content
    assert served.process.wait(10) == -signal.SIGKILL
    after = serve(folder)
    files = listing(after)[1]
    expected = {**MODEL, **acknowledged}
    assert {path: file["Sha256"] for path, file in files.items() if path in expected} == {
        path: hashlib.sha256(content).hexdigest() for path, content in expected.items()
    }
    for path, file in files.items():
        content = after.request("GET", f"/api/v1/models/acme/bert/repo?FilePath={path}").data
        assert hashlib.sha256(content).hexdigest() == file["Sha256"], path
    assert commit(after, [create("after.txt", b"it goes on")]).status == 200


# --- the server itself -------------------------------------------------------------------------------------------------------------------------


def test_sigterm_ends_it_in_order_and_what_runs_is_finished(serve, folder):
    (folder / "acme/bert/large.bin").write_bytes(b"x" * (64 << 20))
    served = serve(folder)
    answer = served.request("GET", "/api/v1/models/acme/bert/repo?FilePath=large.bin", preload_content=False)
    begun = answer.read(1 << 20)
    served.process.send_signal(signal.SIGTERM)
    assert len(begun) + len(answer.read()) == 64 << 20
    assert served.process.wait(20) == 0


def test_a_yard_is_served_read_only(serve, tmp_path):
    yard = Yard.open(tmp_path / "yard")
    with yard.staging("put") as staging:
        for path, content in MODEL.items():
            with staging.open(path) as file:
                file.write(content)
        digest = yard.artifacts.commit(staging, kind="model", format="safetensors").digest
    yard.refs.move("models/films@latest", digest, source="test")
    yard.refs.move("models/films@champion", digest, source="test")
    served = serve(tmp_path / "yard")
    for revision in ("master", "champion", digest, digest[:40]):
        status, files = listing(served, "yard/films", revision)
        assert (status, set(files)) == (200, set(MODEL))
    assert listing(served, "yard/films", "none")[0] == 404
    done = served.run("modelscope", "download", "--model", "yard/films", "--revision", "champion", "--local_dir", "out")
    assert done.returncode == 0, done.stderr
    assert contents(served.home / "out") == MODEL
    answer = commit(served, [create("a", b"x")], repo="yard/films")
    assert answer.status == 403
    assert b"read-only" in answer.data
    assert not (tmp_path / "yard/.modelyard").exists()


def test_what_cannot_be_started(tmp_path, folder):
    def start(*options):
        command = [sys.executable, "-m", "modelyard", "hub", "serve", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    code, error = start(str(tmp_path / "absent"))
    assert (code, "no folder" in error) == (66, True)
    code, error = start(str(folder), "--token-file", str(tmp_path / "absent"))
    assert (code, "no file" in error) == (66, True)
    (tmp_path / "short").write_text("abc\n")
    code, error = start(str(folder), "--token-file", str(tmp_path / "short"))
    assert (code, "no token" in error, "abc" in error) == (64, True, False)
    code, error = start(str(folder), "--host", "203.0.113.1", "--port", "0")
    assert (code, "cannot be bound" in error) == (64, True)


def test_a_token_file_that_others_may_read_is_named(serve, folder, tmp_path):
    served = serve(folder)
    assert "chmod 600" not in served.log.read_text()
    token = tmp_path / "open"
    token.write_text(TOKEN)
    token.chmod(0o644)
    command = [sys.executable, "-m", "modelyard", "hub", "serve", str(folder), "--port", "0", "--token-file", str(token)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("http://")
        process.terminate()
        _, error = process.communicate(timeout=20)
    assert "chmod 600" in error
    assert TOKEN not in error


def test_downloads_are_counted(served):
    for _ in range(3):
        served.request("GET", "/api/v1/models/acme/bert/repo?FilePath=README.md")
    served.request("HEAD", "/api/v1/models/acme/bert/repo?FilePath=README.md")
    assert json.loads(served.request("GET", "/openapi/v1/models/acme/bert").data)["data"]["downloads"] == 3
