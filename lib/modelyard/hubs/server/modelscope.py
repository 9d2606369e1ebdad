"""The face of ModelScope: its REST surface as its own SDK speaks it, over a source of repositories.

Two prefixes: /openapi/v1 answers {"success", "request_id", "data"} and names errors by a word, /api/v1 answers {"Code", "Success", "Message",
"RequestId", "Data"} and names them by a number. The default branch is called `master` here. Every listed file carries its sha256 and, as
`Revision`, the commit that the listing is of, so that a client can ask for exactly that again.

Not there: AIGC models, studios, collections, deleting (the real hub refuses that to tokens), and its address book of mirrors (404, which the SDK
takes for none).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from email import message_from_bytes
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, NoSpace, Refused, Usage
from modelyard.hubs.server.auth import COOKIE, USER, Auth
from modelyard.hubs.server.face import Face, as_object, kind_of, send, upload_address
from modelyard.hubs.source import BRANCH, Commit, Entry, Repo, Source
from modelyard.refs import RefKind
from modelyard.yard.manifest import MAX_FILES

BRANCH_HERE = "master"

MAX_PAGE = 1000
MAX_OBJECTS = 1000
PRIVATE, PUBLIC = 1, 5
"""Visibility on the wire; 3, for members of an organisation, is private here."""

BAD_TOKEN = 10010103009
TAKEN: dict[RefKind, int] = {"model": 10010101001, "dataset": 10020101001}
"""Codes that the SDK knows: a token that is wrong, a name that is taken."""

_WORDS = {400: "InputParameterError", 401: "InvalidAuthentication", 403: "OperationNotAllowed", 404: "ResourceNotFound", 409: "DuplicateEntity"}
_FILTERS = ("task", "license")


def routes(source: Source, auth: Auth) -> list[BaseRoute]:
    """All routes of this face."""
    face = _ModelScope(source, auth)
    one = "/{kind}/{owner}/{name}"
    table: list[tuple[str, str, Callable[..., Any]]] = [
        ("GET", "/openapi/v1/users/me", face.read(face.me)),
        ("GET", "/openapi/v1/{kind}", face.read(face.search)),
        ("GET", f"/openapi/v1{one}", face.read(face.detail)),
        ("POST", "/api/v1/login", face.ask(face.login)),
        ("GET", "/api/v1/{kind}", face.read(face.list_all)),
        ("POST", "/api/v1/{kind}", face.write(face.create)),
        ("GET", f"/api/v1{one}", face.read(face.about)),
        ("GET", f"/api/v1{one}/revisions", face.read(face.revisions)),
        ("GET", f"/api/v1{one}/repo/files", face.read(face.files)),
        ("GET", f"/api/v1{one}/repo/tree", face.read(face.files)),
        ("GET", f"/api/v1{one}/repo", face.read(face.download)),
        ("POST", f"/api/v1{one}/repo/tag", face.write(face.tag)),
        ("POST", f"/api/v1/repos{one}/info/lfs/objects/batch", face.write(face.batch)),
        ("POST", f"/api/v1/repos{one}/commit/{{branch:path}}", face.write(face.commit)),
    ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


class _ModelScope(Face):
    """The endpoints."""

    def __init__(self, source: Source, auth: Auth) -> None:
        super().__init__(source, auth, _answer)

    # --- who, and what there is ------------------------------------------------------------------------------------------------------------

    def me(self, request: Request) -> Response:
        """The user of a token: there is one."""
        if not self.auth.trusted(request):
            return _open_error(401, "the token is not the hub's" if self.auth.offered(request) else "a token is needed")
        return _opened({"username": USER, "nickname": USER, "email": ""})

    def login(self, request: Request, body: bytes) -> Response:  # noqa: ARG002  # an endpoint
        """Exchange the token for the cookie; it is the token itself."""
        token = as_object(body).get("AccessToken")
        if not isinstance(token, str) or not self.auth.knows(token):
            return _error(400, "the access token is invalid or expired", BAD_TOKEN)
        response = _data({"AccessToken": "", "Username": USER, "Email": ""})
        response.set_cookie(COOKIE, token, httponly=True, samesite="lax")
        return response

    def search(self, request: Request) -> Response:
        """Repositories by words, owner, task and licence; one page of them."""
        kind, query = kind_of(request), request.query_params
        for key in query:
            if key.startswith("filter.") and key.removeprefix("filter.") not in _FILTERS:
                raise Usage(f"{key!r} is no filter of this hub", remedy=f"known are {', '.join(_FILTERS)}")
        found = [repo for repo in self.listed(request, kind) if _matches(repo, query)]
        found.sort(key=lambda repo: repo.id)
        if query.get("sort") == "last_modified":
            found.sort(key=lambda repo: repo.updated, reverse=True)
        else:
            found.sort(key=lambda repo: repo.downloads, reverse=True)
        page, size = _number(query, "page_number", 1, MAX_FILES), _number(query, "page_size", 10, MAX_PAGE)
        shown = [self._meta(repo) for repo in found[(page - 1) * size : page * size]]
        return _opened({f"{kind}s": shown, "total_count": len(found), "page_number": page, "page_size": size})

    def list_all(self, request: Request) -> Response:
        """The older listing: by owner alone."""
        kind, query = kind_of(request), request.query_params
        found = [repo for repo in self.listed(request, kind) if _matches(repo, {"owner": query.get("owner", "")})]
        page, size = _number(query, "PageNumber", 1, MAX_FILES), _number(query, "PageSize", 50, MAX_PAGE)
        shown = [_legacy(repo) for repo in found[(page - 1) * size : page * size]]
        return _data(shown, TotalCount=len(found), PageNumber=page, PageSize=size)

    def detail(self, request: Request) -> Response:
        """What is known of one repository; of a gated one, without the token too."""
        return _opened(self._meta(self._shown(request)))

    def about(self, request: Request) -> Response:
        """The same, in the older form."""
        return _data(_legacy(self._shown(request)))

    # --- files -----------------------------------------------------------------------------------------------------------------------------

    def revisions(self, request: Request) -> Response:
        """Branches and tags, with the time of their commits."""
        repo = self._repo(request)
        until = _number(request.query_params, "EndTime", 2**53, 2**53)
        sides = []
        for names in (self.source.branches(repo), self.source.tags(repo)):
            dated = [(name, _seconds(self.source.commit(repo, commit).at)) for name, commit in names.items()]
            sides.append([{"Revision": _outward(name), "CreatedAt": at} for name, at in dated if at <= until])
        return _data({"RevisionMap": {"Branches": sides[0], "Tags": sides[1]}})

    def files(self, request: Request) -> Response:
        """The files of a revision: all below Root, or with Recursive=False one level; data sets in pages."""
        query = request.query_params
        commit = self._commit(request, self._repo(request))
        root = query.get("Root", "").strip("/")
        entries: list[Entry | str] = list(commit.below(root))
        if root and not entries:
            raise NoInput(f"there is no folder {root[:200]!r}", remedy="list the files")
        if query.get("Recursive", "False").lower() != "true":
            entries = _level(entries, root)
        if "PageNumber" in query:
            page, size = _number(query, "PageNumber", 1, MAX_FILES), _number(query, "PageSize", 200, MAX_FILES)
            entries = entries[(page - 1) * size : page * size]
        at = _seconds(commit.at)
        return _data({"Files": [_file(entry, commit.id, at) for entry in entries]})

    def download(self, request: Request) -> Response:
        """The bytes of one file."""
        repo = self._repo(request)
        commit, path = self._commit(request, repo), request.query_params.get("FilePath", "")
        entry = commit.find(path)
        if entry is None:
            raise NoInput(f"{repo.id} has no file {path!r}", where=f"revision {commit.id}", remedy="list the files")
        if request.method == "GET" and entry is commit.files[0]:
            self.source.count(repo)
        return send(request, entry, {"etag": f'"{entry.sha256}"', "x-linked-etag": entry.sha256, "x-repo-commit": commit.id})

    # --- writing ---------------------------------------------------------------------------------------------------------------------------

    def create(self, request: Request, body: bytes) -> Response:
        """Make a repository: models are described in JSON, data sets in a form."""
        kind = kind_of(request)
        form = request.headers.get("content-type", "")
        given = _form(form, body) if form.startswith("multipart/") else as_object(body)
        owner, name = _text(given, "Path" if "Path" in given else "Owner"), _text(given, "Name")
        store = self.source.writer()
        if store.find(kind, owner, name):
            return _error(409, f"{kind} {owner}/{name} already exists", TAKEN[kind])
        private, gated = str(given.get("Visibility", PRIVATE)) != str(PUBLIC), str(given.get("ProtectedMode", "")) == "1"
        repo = store.create(
            kind,
            owner,
            name,
            private=private and not gated,
            gated=gated,
            licence=str(given.get("License") or "")[:100] or None,
            description=str(given.get("Description") or given.get("ChineseName") or ""),
        )
        return _data(_legacy(repo))

    def batch(self, request: Request, body: bytes) -> Response:
        """Which contents are to be uploaded, and to where."""
        self._repo(request)
        store, objects = self.source.writer(), as_object(body).get("objects")
        if not isinstance(objects, list) or len(objects) > MAX_OBJECTS or not all(isinstance(item, dict) for item in objects):
            raise Usage("no list of objects", why=f"at most {MAX_OBJECTS} are taken at once", remedy="send oid and size of each")
        answers = []
        for item in objects:
            oid, size = _text(item, "oid"), item.get("size")
            if not isinstance(size, int) or isinstance(size, bool):
                raise Usage("an object has no size", where=oid[:80], remedy="send it in bytes")
            href = upload_address(request, self.auth, oid, size)
            answers.append({"oid": oid, "size": size, "actions": {} if store.has_blob(oid, size) else {"upload": {"href": href}}})
        return _data({"objects": answers})

    def commit(self, request: Request, body: bytes) -> Response:
        """One commit: files that come in the body, files that were uploaded, files to delete."""
        repo, given, store = self._repo(request), as_object(body), self.source.writer()
        actions = given.get("actions")
        if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
            raise Usage("the commit has no list of actions", remedy="send one")
        adds, deletes = dict[str, str](), list[str]()
        for action in actions:
            path = _text(action, "path")
            match action.get("action"):
                case "delete":
                    deletes.append(path.rstrip("/"))
                case "create" | "update" if action.get("type") == "lfs":
                    sha256 = adds[path] = _text(action, "sha256")
                    if not store.has_blob(sha256, action.get("size")):
                        raise NoInput(f"the content of {path!r} was not uploaded", where=repo.id, remedy="upload it first, in the announced size")
                case "create" | "update":
                    content = _content(action, path)
                    adds[path] = hashlib.sha256(content).hexdigest()
                    store.put_blob([content], adds[path], len(content))
                case other:
                    raise Usage(f"{other!r} is no action", where=repo.id, remedy="send create, update or delete")
        made = store.change(repo, request.path_params["branch"], adds, deletes, str(given.get("commit_message") or "upload"))
        return _data({"CommitId": made.id, "Revision": made.id, "CommitMessage": made.message})

    def tag(self, request: Request, body: bytes) -> Response:
        """Keep a revision under a name that does not move."""
        repo, given, store = self._repo(request), as_object(body), self.source.writer()
        name, target = _text(given, "TagName"), self.source.commit(repo, str(given.get("Ref") or BRANCH))
        if self.source.tags(repo).get(name, target.id) != target.id:
            return _error(409, f"tag {name!r} already exists at another commit")
        store.tag(repo, name, target.id)
        return _data({"TagName": name, "Revision": name, "CommitId": target.id})

    # --- shared ----------------------------------------------------------------------------------------------------------------------------

    def _repo(self, request: Request) -> Repo:
        return self.readable(request, kind_of(request), request.path_params["owner"], request.path_params["name"])

    def _shown(self, request: Request) -> Repo:
        """A repository whose description may be shown: a gated one's may."""
        repo = self.source.repo(kind_of(request), request.path_params["owner"], request.path_params["name"])
        if repo.private:
            self.auth.check_read(request, repo)
        return repo

    def _commit(self, request: Request, repo: Repo) -> Commit:
        return self.source.commit(repo, request.query_params.get("Revision") or None)

    def _meta(self, repo: Repo) -> dict[str, Any]:
        return {
            "id": repo.id,
            "display_name": repo.name,
            "description": repo.description,
            "license": repo.licence or "",
            "tasks": [repo.task] if repo.task else [],
            "tags": [],
            "downloads": repo.downloads,
            "likes": 0,
            "created_at": _zulu(repo.created),
            "last_modified": _zulu(repo.updated),
            "private": repo.private,
            "gated": repo.gated,
            "login_required": repo.guarded,
            "file_size": self.source.size(repo) or 0,
        }


# --- requests ----------------------------------------------------------------------------------------------------------------------------------


def _matches(repo: Repo, query: Mapping[str, str]) -> bool:
    return (
        repo.matches(query.get("search", ""))
        and query.get("owner", "").casefold() in ("", repo.owner.casefold())
        and query.get("filter.task", "").casefold() in ("", repo.task or "")
        and query.get("filter.license", "").casefold() in ("", repo.licence or "")
    )


def _number(query: Mapping[str, str], key: str, default: int, most: int) -> int:
    text = query.get(key) or str(default)
    if not (text.isascii() and text.isdigit()) or len(text) > 17 or not 1 <= int(text) <= most:
        raise Usage(f"{key} is {text[:40]!r}", why=f"a number from 1 to {most} is expected", remedy="correct it")
    return int(text)


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    if isinstance(value, str) and value:
        return value
    raise Usage(f"{key} is missing", remedy="send it as text")


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The plain fields of a multipart form."""
    parsed = message_from_bytes(b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n" + body)
    if not parsed.is_multipart():
        raise Usage("the form cannot be read", remedy="send multipart/form-data")
    fields = {}
    for part in parsed.walk():
        name, payload = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode("utf-8", "replace")
    return fields


def _content(action: Mapping[str, Any], path: str) -> bytes:
    text, size = action.get("content"), action.get("size")
    if not isinstance(text, str):
        raise Usage(f"{path!r} has no content", remedy="send it in base64")
    try:
        content = base64.b64decode(text, validate=True) if action.get("encoding") == "base64" else text.encode()
    except (binascii.Error, ValueError) as error:
        raise Usage(f"the content of {path!r} is no base64", remedy="send it in base64") from error
    sha256 = action.get("sha256") or None
    if size not in (None, len(content)) or sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise Corrupt(f"the content of {path!r} is not what was announced", why=f"{len(content)} bytes instead of {size}", remedy="send it again")
    return content


# --- answers -----------------------------------------------------------------------------------------------------------------------------------


def _answer(request: Request, failure: Failure, status: int) -> Response:
    said = f"{failure.what}: {failure.why}" if failure.why and isinstance(failure, NoPermission | Usage | Refused | Corrupt) else failure.what
    if isinstance(failure, NoInput) and failure.remedy:
        said = f"{said} ({failure.remedy})"  # the name that was meant
    if isinstance(failure, NoSpace):
        said = "the hub's volume is full"
    return _open_error(status, said) if request.url.path.startswith("/openapi/") else _error(status, said)


def _data(data: Any, **beside: Any) -> JSONResponse:
    return JSONResponse({"Code": 200, "Success": True, "Message": "success", "RequestId": uuid4().hex, "Data": data, **beside})


def _error(status: int, message: str, code: int | None = None) -> Response:
    body = {"Code": code or status, "Success": False, "Message": message, "RequestId": uuid4().hex, "Data": None}
    return JSONResponse(body, status)


def _opened(data: Any) -> Response:
    return JSONResponse({"success": True, "request_id": uuid4().hex, "data": data})


def _open_error(status: int, message: str) -> Response:
    return JSONResponse({"success": False, "request_id": uuid4().hex, "code": _WORDS.get(status, "InternalError"), "message": message}, status)


def _legacy(repo: Repo) -> dict[str, Any]:
    """A repository in the older form. Id: a number, as there; the same for the same name."""
    return {
        "Id": zlib.crc32(repo.below.encode()),
        "Path": repo.owner,
        "Owner": repo.owner,
        "Name": repo.name,
        "Visibility": PRIVATE if repo.guarded else PUBLIC,
        "License": repo.licence or "",
        "Description": repo.description,
        "Downloads": repo.downloads,
        "CreatedAt": _seconds(repo.created),
        "LastModified": _seconds(repo.updated),
        "Tasks": [{"Name": repo.task}] if repo.task else [],
        "Tags": [],
        "ProtectedMode": 1 if repo.gated else 2,
    }


def _level(entries: list[Entry | str], root: str) -> list[Entry | str]:
    """The files directly below the root, and the paths of the folders there."""
    start = len(root) + 1 if root else 0
    level: dict[str, Entry | str] = {}
    for entry in entries:
        path = entry if isinstance(entry, str) else entry.path
        head, _, rest = path[start:].partition("/")
        level.setdefault(path[:start] + head, path[:start] + head if rest else entry)
    return list(level.values())


def _file(entry: Entry | str, revision: str, at: int) -> dict[str, Any]:
    path = entry if isinstance(entry, str) else entry.path
    common = {"Name": path.rpartition("/")[2], "Path": path, "Revision": revision, "CommittedDate": at}
    if isinstance(entry, str):
        return {**common, "Type": "tree", "Size": 0, "Sha256": ""}
    return {**common, "Type": "blob", "Size": entry.size, "Sha256": entry.sha256, "IsLFS": False}


def _outward(name: str) -> str:
    return BRANCH_HERE if name == BRANCH else name


def _seconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp()) if iso else 0


def _zulu(iso: str) -> str:
    return iso.replace("+00:00", "Z")
