"""The reading half of the Hugging Face face: repositories, their revisions, files and bytes.

A file is large when it has more than LARGE bytes or weights' suffix: clients see it as an LFS object, named by its sha256; the others as git blobs,
named by git's sha1. Both are facts about the content, so it does not matter which face brought a file.

Gated repositories are described to everybody, private ones to nobody without the token; the files of both are for those with the token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from modelyard.errors import BadData, Corrupt, Failure, NoInput, NoPermission, Refused, Usage
from modelyard.hubs.server.auth import USER, Auth
from modelyard.hubs.server.face import Face, as_object, kind_of, send
from modelyard.hubs.source import Commit, Entry, Repo, Source, read

LARGE = 64 << 10
PAGE = 1000
"""Entries of a page of files, or of repositories."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".onnx.data", ".parquet", ".arrow", ".npz", ".h5", ".gz", ".zip", ".tar", ".gguf")
_SORTS: dict[str, Callable[[Repo], Any]] = {
    "downloads": lambda repo: repo.downloads,
    "trendingScore": lambda repo: repo.downloads,
    "lastModified": lambda repo: repo.updated,
    "createdAt": lambda repo: repo.created,
}
_LOOKS_FOR = "looks_for"  # in a request's state: the code for what is not found at this point


class Reading(Face):
    """One method per question, and what the writing half needs too."""

    def __init__(self, source: Source, auth: Auth) -> None:
        super().__init__(source, auth, answer)

    # --- what there is -----------------------------------------------------------------------------------------------------------------------

    def search(self, request: Request) -> Response:
        """Repositories by words, owner, task and tags; a page of them."""
        asked = request.query_params
        filters = {value.casefold() for value in asked.getlist("filter")}
        author, task, sort = asked.get("author"), asked.get("pipeline_tag"), asked.get("sort", "downloads")
        if sort not in _SORTS:
            raise Usage(f"{sort!r} is nothing to sort by", remedy=f"sort by one of {', '.join(_SORTS)}")
        found = [
            repo
            for repo in self.listed(request, kind_of(request))
            if repo.matches(asked.get("search", ""))
            and author in (None, repo.owner)
            and task in (None, repo.task)
            and filters <= set(_tags(repo))
            and ("gated" not in asked or _flag(request, "gated") == repo.gated)
        ]
        found.sort(key=_SORTS[sort], reverse=asked.get("direction") != "1")
        start, size = number(asked.get("cursor"), 0), min(number(asked.get("limit"), PAGE), PAGE)
        page = [self._describe(request, repo, deep=_flag(request, "full")) for repo in found[start : start + size]]
        following = str(request.url.include_query_params(cursor=start + size)) if start + size < len(found) and size else None
        return _page(page, following)

    def info(self, request: Request) -> Response:
        """What is known of one repository, at a revision."""
        repo = self.source.repo(kind_of(request), request.path_params["owner"], request.path_params["name"])
        if repo.private:
            self.auth.check_read(request, repo)
        parts = segments(request)
        return JSONResponse(self._describe(request, repo, deep=True, revision=parts[5] if len(parts) > 5 else None))

    def ownerless(self, request: Request) -> Response:
        """A name without an owner is nobody's here."""
        name = request.path_params["name"]
        raise NoInput(f"there is no {kind_of(request)} {name!r}", why="repositories of this hub are called OWNER/NAME", remedy="name its owner too")

    def refs(self, request: Request) -> Response:
        """Branches and tags."""
        repo = self.open_repo(request)
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in self.source.branches(repo).items()]
        tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit} for name, commit in self.source.tags(repo).items()]
        return JSONResponse({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def history(self, request: Request) -> Response:
        """The commits behind a revision, newest first."""
        repo, commit = self.open_commit(request)
        listed = []
        while True:
            title, _, rest = commit.message.partition("\n")
            listed.append({"id": commit.id, "title": title, "message": rest.strip(), "date": _date(commit.at), "authors": [{"user": USER}]})
            if commit.parent is None or len(listed) == PAGE:
                return JSONResponse(listed)
            commit = self.source.commit(repo, commit.parent)

    # --- files -------------------------------------------------------------------------------------------------------------------------------

    def tree(self, request: Request) -> Response:
        """The files and folders below a folder; a page of them."""
        repo, commit = self.open_commit(request)
        path = "/".join(segments(request)[6:])
        below = f"{path.strip('/')}/" if path.strip("/") else ""
        files = commit.below(path.strip("/"))
        if not files and below:
            raise NoInput(f"there is no folder {path!r}", where=repo.id, remedy="list the files")
        recursive = _flag(request, "recursive")
        listed: list[Entry | str] = []  # a file, or the path of a folder before what is in it
        folders = set[str]()
        for entry in files:
            parts = entry.path.removeprefix(below).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = below + "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    listed.append(folder)
            if recursive or len(parts) == 1:
                listed.append(entry)
        start = number(request.query_params.get("cursor"), 0)
        page = [_folder(commit, item) if isinstance(item, str) else self._file(item) for item in listed[start : start + PAGE]]
        following = None
        if start + PAGE < len(listed):  # of this commit: the branch may move between two pages
            at = f"api/{repo.kind}s/{repo.id}/tree/{commit.id}/{quote(path, safe='')}".rstrip("/")
            following = f"{request.base_url}{at}?recursive={str(recursive).lower()}&cursor={start + PAGE}"
        return _page(page, following)

    def paths(self, request: Request, body: bytes) -> Response:
        """Those of the named files and folders that are there."""
        _, commit = self.open_commit(request)
        json_body = request.headers.get("content-type", "").startswith("application/json")
        asked = as_object(body).get("paths", []) if json_body else parse_qs(body.decode("utf-8", "replace")).get("paths", [])
        found: list[dict[str, Any]] = []
        for name in dict.fromkeys(str(path).strip("/") for path in (asked if isinstance(asked, list) else [asked])):
            if entry := commit.find(name):
                found.append(self._file(entry))
            elif name and commit.below(name):
                found.append(_folder(commit, name))
        return JSONResponse(found)

    def resolve(self, request: Request) -> Response:
        """The bytes of one file, or what they are called (HEAD)."""
        skipped = 3 if kind_of(request) == "model" else 4
        repo, commit = self.open_commit(request, skipped)
        path = "/".join(segments(request)[skipped + 1 :])
        look_for(request, "EntryNotFound")
        entry = commit.find(path)
        if entry is None:
            raise NoInput(f"there is no file {path!r}", where=f"{repo.id} at {commit.id[:12]}", remedy="list the files")
        headers = {"x-repo-commit": commit.id, "x-content-type-options": "nosniff", "etag": f'"{self.name_of(entry)}"'}
        if is_large(entry.path, entry.size):
            headers |= {"x-linked-etag": headers["etag"], "x-linked-size": str(entry.size)}
        if request.method == "GET" and entry is commit.files[0]:
            self.source.count(repo)  # once per download of a repository, however many files it has
        return send(request, entry, headers)

    # --- parts of answers ----------------------------------------------------------------------------------------------------------------------

    def open_repo(self, request: Request) -> Repo:
        """The repository that the path names, for those who may read its files."""
        return self.readable(request, kind_of(request), request.path_params["owner"], request.path_params["name"])

    def open_commit(self, request: Request, place: int = 5) -> tuple[Repo, Commit]:
        """The repository, and the commit of the revision at this place of the path, which is one escaped segment."""
        repo = self.open_repo(request)
        look_for(request, "RevisionNotFound")
        commit = self.source.commit(repo, "".join(segments(request)[place : place + 1]))
        look_for(request, "EntryNotFound")
        return repo, commit

    def _describe(self, request: Request, repo: Repo, *, deep: bool, revision: str | None = None) -> dict[str, Any]:
        expand = {name for key in ("expand", "expand[]") for name in request.query_params.getlist(key)}
        said: dict[str, Any] = {
            "_id": hashlib.sha256(repo.below.encode()).hexdigest()[:24],
            "id": repo.id,
            "author": repo.owner,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": repo.downloads,
            "likes": 0,
            "tags": _tags(repo),
            "pipeline_tag": repo.task,
            "createdAt": _date(repo.created),
            "lastModified": _date(repo.updated),
            "description": repo.description,
            "cardData": {"license": repo.licence} if repo.licence else {},
        }
        if repo.kind == "model":
            said["modelId"] = repo.id
        if "usedStorage" in expand:
            said["usedStorage"] = self.source.size(repo)
        if expand & {"sha", "siblings"} or (deep and not expand):
            look_for(request, "RevisionNotFound")
            commit = self.source.commit(repo, revision)
            said["sha"] = commit.id
            if not repo.guarded or self.auth.trusted(request):
                more = _flag(request, "blobs")
                said["siblings"] = [{"rfilename": entry.path} | (self._sibling(entry) if more else {}) for entry in commit.files]
        return {key: value for key, value in said.items() if not expand or key in expand | {"_id", "id"}}

    def _file(self, entry: Entry) -> dict[str, Any]:
        said = {"type": "file", "path": entry.path, "size": entry.size}
        if not is_large(entry.path, entry.size):
            return said | {"oid": self._git(entry)}
        pointer = _pointer(entry)
        return said | {"oid": _git(pointer), "lfs": {"oid": entry.sha256, "size": entry.size, "pointerSize": len(pointer)}}

    def _sibling(self, entry: Entry) -> dict[str, Any]:
        said = self._file(entry)
        lfs = {"lfs": {"sha256": entry.sha256, "size": entry.size, "pointerSize": said["lfs"]["pointerSize"]}} if "lfs" in said else {}
        return {"size": entry.size, "blobId": said["oid"]} | lfs

    def name_of(self, entry: Entry) -> str:
        """What clients know the content by."""
        return entry.sha256 if is_large(entry.path, entry.size) else self._git(entry)

    @cached_property
    def _git(self) -> Callable[[Entry], str]:
        return lru_cache(1 << 17)(self._hash_git)

    def _hash_git(self, entry: Entry) -> str:
        return _git(b"".join(read(entry)))


# --- answers ----------------------------------------------------------------------------------------------------------------------------------------


def answer(request: Request, failure: Failure, status: int) -> Response:
    """A failure as huggingface_hub reads it: a code and a message in headers, which it shows, and the message again as JSON."""
    if isinstance(failure, NoInput | NoPermission | Usage | Refused | BadData | Corrupt):
        said = ": ".join(part for part in (failure.what, failure.why) if part) + (f" ({failure.remedy})" if failure.remedy else "")
    else:
        said = failure.what  # the rest is about this machine
    headers = {"x-error-message": said.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")[:1000]}
    if isinstance(failure, NoInput):
        headers["x-error-code"] = getattr(request.state, _LOOKS_FOR, "RepoNotFound")
    elif isinstance(failure, NoPermission) and failure.why.endswith(" is gated"):
        headers["x-error-code"] = "GatedRepo"
    return JSONResponse({"error": said}, status, headers)


def look_for(request: Request, code: str) -> None:
    """Say what is not found if something is not found from here on: RepoNotFound, RevisionNotFound or EntryNotFound."""
    setattr(request.state, _LOOKS_FOR, code)


def _page(items: Iterable[Any], following: str | None) -> Response:
    return JSONResponse(list(items), headers={"link": f'<{following}>; rel="next"'} if following else {})


def taken(name: str) -> Response:
    """The answer to a name that is given already."""
    said = f"{name} is there already"
    return JSONResponse({"error": said}, HTTPStatus.CONFLICT, {"x-error-message": said.encode("ascii", "replace").decode()})


def address(request: Request, repo: Repo) -> str:
    """The repository's own address, as this client reaches the hub."""
    return f"{request.base_url}{repo.below}"


def _folder(commit: Commit, path: str) -> dict[str, Any]:
    """A folder. Its oid names the content below it, as git's would, but is none that git gives."""
    below = [[entry.path, entry.sha256] for entry in commit.below(path)]
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha256(json.dumps(below).encode()).hexdigest()[:40]}


def _tags(repo: Repo) -> list[str]:
    task = [repo.task if repo.kind == "model" else f"task_categories:{repo.task}"] if repo.task else []
    return [*task, *([f"license:{repo.licence}"] if repo.licence else [])]


def _date(iso: str) -> str | None:
    """The only form of a time that its clients read."""
    return f"{iso[:19]}.000Z" if iso else None


# --- questions --------------------------------------------------------------------------------------------------------------------------------------


def segments(request: Request) -> list[str]:
    """The path's parts, each unescaped by itself: a revision or a folder may hold an escaped slash."""
    return [unquote(part) for part in request.scope["raw_path"].decode("ascii", "replace").lstrip("/").split("/")]


def number(text: str | None, default: int) -> int:
    """A count that a client gives; what is none is the default."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else default


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true")


# --- content ----------------------------------------------------------------------------------------------------------------------------------------


def is_large(path: str, size: int) -> bool:
    """An empty file is never large: clients refuse to send one that way."""
    return size > LARGE or (size > 0 and path.lower().endswith(_WEIGHTS))


def _pointer(entry: Entry) -> bytes:
    """What git keeps in a large file's place. Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n".encode()


def _git(content: bytes) -> str:
    """The name that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
