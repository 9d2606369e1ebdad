"""The Hugging Face face: what huggingface_hub and `hf` ask for over HTTP (as version 2.4 does), answered from the source.

Reading is huggingface_files; here are the paths, who one is, and the way of an upload: which files are large, where to PUT them, the commit.
Not here: Xet, pull requests, deleting and renaming. The way to Xet ends at an address that says what to set, because its client shows nothing of an
answer but the address that it came from.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from modelyard.errors import NoInput, NoPermission, Refused, Usage
from modelyard.hubs import card
from modelyard.hubs.server.auth import USER, Auth
from modelyard.hubs.server.face import as_object, upload_address
from modelyard.hubs.server.huggingface_files import Reading, address, answer, is_large, look_for, number, segments, taken
from modelyard.hubs.source import BRANCH, Repo, Source
from modelyard.refs import RefKind
from modelyard.yard.manifest import check_paths, is_digest

_NO_XET = "/-/this-hub-does-not-speak-xet/upload-again-with/HF_HUB_DISABLE_XET=1"


def routes(source: Source, auth: Auth) -> list[BaseRoute]:
    """All routes of this face: those below /api but /api/v1, and files at [/datasets]/OWNER/NAME/resolve/REVISION/PATH."""
    face = HuggingFace(source, auth)
    one = "/api/{kind}/{owner}/{name}"
    table: list[tuple[str, str, Callable[..., Any]]] = [
        ("GET", "/api/whoami-v2", face.read(face.whoami)),
        ("POST", "/api/validate-yaml", face.ask(face.validate)),
        ("POST", "/api/repos/create", face.write(face.create)),
        ("GET", _NO_XET, face.read(face.no_xet)),
        ("GET", "/api/{kind}", face.read(face.search)),
        ("GET", "/api/{kind}/{name}", face.read(face.ownerless)),
        ("GET", one, face.read(face.info)),
        ("GET", f"{one}/revision/{{rest:path}}", face.read(face.info)),
        ("GET", f"{one}/tree/{{rest:path}}", face.read(face.tree)),
        ("POST", f"{one}/paths-info/{{rest:path}}", face.ask(face.paths)),
        ("GET", f"{one}/refs", face.read(face.refs)),
        ("GET", f"{one}/commits/{{rest:path}}", face.read(face.history)),
        ("GET", f"{one}/auth-check", face.read(face.check)),
        ("GET", f"{one}/auth-check/write", face.read(face.check_write)),
        ("POST", f"{one}/preupload/{{rest:path}}", face.write(face.preupload)),
        ("POST", f"{one}/commit/{{rest:path}}", face.write(face.commit)),
        ("POST", f"{one}/tag/{{rest:path}}", face.write(face.tag)),
        ("POST", f"{one}/branch/{{rest:path}}", face.write(face.branch)),
        ("GET", f"{one}/xet-{{what}}-token/{{rest:path}}", face.read(face.xet)),
    ]
    for files in ("/{owner}/{name}", "/{kind}/{owner}/{name}"):
        table += [
            ("GET", f"{files}/resolve/{{rest:path}}", face.read(face.resolve)),
            ("POST", f"{files}.git/info/lfs/objects/batch", face.write(face.batch)),
            ("POST", f"{files}.git/info/lfs/verify", face.write(face.verify)),
        ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


class HuggingFace(Reading):
    """The endpoints."""

    # --- who ---------------------------------------------------------------------------------------------------------------------------------

    def whoami(self, request: Request) -> Response:
        """The user of the token: there is one."""
        if not self.auth.trusted(request):
            return answer(request, NoPermission("the token is not the hub's", remedy="set HF_TOKEN to the token of the hub"), 401)
        token = {"displayName": USER, "role": "write"}
        said = {"type": "user", "id": USER, "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token", "accessToken": token}}
        return JSONResponse(said)

    def check(self, request: Request) -> Response:
        """Whether the repository may be read."""
        self.open_repo(request)
        return JSONResponse({})

    def check_write(self, request: Request) -> Response:
        """Whether it may be written."""
        self.open_repo(request)
        self.auth.check_write(request)
        return JSONResponse({})

    # --- uploads -----------------------------------------------------------------------------------------------------------------------------

    def create(self, request: Request, body: bytes) -> Response:
        """Make a repository; public unless the client says otherwise."""
        asked = as_object(body)
        if asked.get("type") not in (None, "model", "dataset"):
            raise Usage(f"this hub has no {asked['type']!r}", why="there are models and data sets", remedy="say model or dataset")
        kind: RefKind = asked.get("type") or "model"
        owner, name = str(asked.get("organization") or USER), str(asked.get("name", ""))
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        made = {"url": address(request, Repo(kind, owner, name)), "name": f"{owner}/{name}"}
        if self.source.find(kind, owner, name):
            said = f"the {kind} {owner}/{name} is there already"
            return JSONResponse(made | {"error": said}, HTTPStatus.CONFLICT, {"x-error-message": said})
        self.source.writer().create(kind, owner, name, private=private)
        return JSONResponse(made)

    def preupload(self, request: Request, body: bytes) -> Response:
        """How each of these files is to be sent, and what is there now."""
        repo, commit = self.open_commit(request)
        self._branch(repo, request)
        files = as_object(body).get("files")
        if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
            raise Usage("there are no files in it", remedy='send {"files": [{"path": …, "size": …}]}')
        sizes = {str(file.get("path", "")): number(str(file.get("size")), 0) for file in files}
        if sizes:
            check_paths(sizes)
        answers: list[dict[str, Any]] = []
        for path, size in sizes.items():
            there = commit.find(path)
            mode = "lfs" if is_large(path, size) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | ({"oid": self.name_of(there)} if there else {}))
        return JSONResponse({"files": answers})

    def batch(self, request: Request, body: bytes) -> Response:
        """Where large files are to be PUT; those that are stored already, nowhere."""
        repo = self.open_repo(request)
        asked = as_object(body)
        transfers, objects = asked.get("transfers", ["basic"]), asked.get("objects")
        if asked.get("operation") != "upload" or not isinstance(transfers, list) or "basic" not in transfers:
            raise Usage("only uploads by the basic transfer are taken", remedy="set HF_HUB_DISABLE_XET=1, and upload again")
        if not isinstance(objects, list):
            raise Usage("there are no objects in it", remedy="send oid and size of each")
        store, verify = self.source.writer(), f"{address(request, repo)}.git/info/lfs/verify"
        answers: list[dict[str, Any]] = []
        for item in objects:
            oid, size = (str(item.get("oid")), number(str(item.get("size")), -1)) if isinstance(item, dict) else ("", -1)
            href = upload_address(request, self.auth, oid, size)
            actions = (
                {} if store.has_blob(oid, size) else {"actions": {"upload": {"href": href, "header": {}}, "verify": {"href": verify, "header": {}}}}
            )
            answers.append({"oid": oid, "size": size} | actions)
        return JSONResponse({"transfer": "basic", "objects": answers}, media_type="application/vnd.git-lfs+json")

    def verify(self, request: Request, body: bytes) -> Response:
        """Whether an upload has arrived."""
        self.open_repo(request)
        asked = as_object(body)
        self._uploaded("the object", asked)
        return JSONResponse({})

    def commit(self, request: Request, body: bytes) -> Response:
        """One commit: what is added, what is deleted, by lines of JSON."""
        repo = self.open_repo(request)
        if request.query_params.get("create_pr"):
            raise Usage("this hub has no pull requests", remedy="commit to a branch")
        branch = self._branch(repo, request)
        header, adds, deletes = self._operations(body)
        message = "\n\n".join(str(part) for part in (header.get("summary"), header.get("description")) if part)
        look_for(request, "EntryNotFound")
        done = self.source.writer().change(repo, branch, adds, deletes, message, expected=header.get("parentCommit"))
        return JSONResponse({"success": True, "commitOid": done.id, "commitUrl": f"{address(request, repo)}/commit/{done.id}"})

    def tag(self, request: Request, body: bytes) -> Response:
        """Keep a revision under a name."""
        repo, commit = self.open_commit(request)
        name = str(as_object(body).get("tag", ""))
        return self._named(repo, name, lambda: self.source.writer().tag(repo, name, commit.id))

    def branch(self, request: Request, body: bytes) -> Response:
        """Make a branch."""
        repo, name = self.open_repo(request), segments(request)[5]
        if name in self.source.branches(repo):
            return taken(name)
        look_for(request, "RevisionNotFound")
        start = self.source.commit(repo, str(as_object(body or b"{}").get("startingPoint") or BRANCH))
        return self._named(repo, name, lambda: self.source.writer().branch(repo, name, start.id))

    def validate(self, _: Request, body: bytes) -> Response:
        """Whether a card's front matter can be read."""
        try:
            found = card.front_matter(str(as_object(body).get("content", "")))
        except Usage as failure:
            return JSONResponse({"errors": [{"message": str(failure)}], "warnings": []}, HTTPStatus.BAD_REQUEST)
        return JSONResponse({"errors": [], "warnings": [] if found is not None else [{"message": "there is no front matter in the card"}]})

    def xet(self, request: Request) -> Response:
        """Lead a Xet client to the address that says what to do."""
        return RedirectResponse(f"{str(request.base_url).rstrip('/')}{_NO_XET}", HTTPStatus.FOUND)

    def no_xet(self, _: Request) -> Response:
        """That address."""
        raise Usage("this hub does not speak Xet", remedy="set HF_HUB_DISABLE_XET=1, and upload again")

    # --- parts of uploads ----------------------------------------------------------------------------------------------------------------------

    def _branch(self, repo: Repo, request: Request) -> str:
        """The branch that a request names. Raises NoPermission: nothing is written here; NoInput: it is no branch."""
        self.source.writer()
        name = "".join(segments(request)[5:6])
        look_for(request, "RevisionNotFound")
        known = self.source.branches(repo)
        if name not in known and name != "master":
            raise NoInput(f"{repo.id} has no branch {name!r}", remedy=f"known are {', '.join(known)}")
        return name

    def _named(self, repo: Repo, name: str, give: Callable[[], None]) -> Response:
        try:
            give()
        except Usage:
            if name not in self.source.tags(repo) and name not in self.source.branches(repo):
                raise
            return taken(name)
        return JSONResponse({})

    def _operations(self, body: bytes) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """Header, path -> sha256 of what is added, what is deleted, from a commit's lines. What comes in the lines themselves is stored."""
        header: dict[str, Any] = {}
        contents: dict[str, bytes] = {}
        adds: dict[str, str] = {}
        deletes: list[str] = []
        for line in filter(None, body.split(b"\n")):
            item = as_object(line)
            key, value = item.get("key"), item.get("value")
            if not isinstance(value, dict) or (key != "header" and not isinstance(value.get("path"), str)):
                raise Usage("a line of the commit cannot be used", why=repr(line[:80]), remedy='send {"key": …, "value": {"path": …}}')
            if key == "header":
                header = value
            elif key == "file":
                contents[value["path"]] = _decoded(value)
                adds[value["path"]] = hashlib.sha256(contents[value["path"]]).hexdigest()
            elif key == "lfsFile":
                adds[value["path"]] = self._uploaded(value["path"], value)
            elif key in ("deletedFile", "deletedFolder"):
                deletes.append(value["path"].rstrip("/") + ("/" if key == "deletedFolder" else ""))
            else:
                raise Usage(f"a commit has no {key!r}", remedy="send header, file, lfsFile, deletedFile, deletedFolder")
        if adds:
            check_paths(adds)
        for path, data in contents.items():
            self.source.writer().put_blob([data], adds[path], len(data))
        return header, adds, deletes

    def _uploaded(self, path: str, asked: Mapping[str, Any]) -> str:
        """The sha256 of stored content. size: where the client says none, it copies a file of the hub."""
        oid, size = str(asked.get("oid", "")), asked.get("size")
        if not is_digest(oid) or not self.source.writer().has_blob(oid, size if isinstance(size, int) else None):
            raise Usage(f"the content of {path!r} was not uploaded", why=f"there are not {size} bytes of sha256 {oid[:64]}", remedy="upload it again")
        return oid


def _decoded(value: Mapping[str, Any]) -> bytes:
    content, encoding = str(value.get("content", "")), value.get("encoding", "utf-8")
    try:
        return base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Refused(f"the content of {value['path']!r} is no {encoding}", remedy="send it as base64") from error
