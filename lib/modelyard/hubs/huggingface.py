"""Hugging Face, and what speaks its language, by its own SDK (`huggingface_hub`).

A ref is pinned to a commit first, and everything is listed and read at that commit. Large files have a sha256; of small ones the hub knows only
git's own hash, which stands as their version.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

from modelyard.errors import Failure, Refused, Unavailable
from modelyard.hubs.client import Client, check_upload
from modelyard.hubs.credentials import redact
from modelyard.hubs.hub import OF_THE_HUB, Access, Found, Query
from modelyard.hubs.limits import LATER, LOOK
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.transport import Http
from modelyard.refs import HubRef, RefKind, Scheme
from modelyard.yard.manifest import MAX_FILES

BRANCH = "main"
EXPAND = ["downloads", "gated", "lastModified", "private", "tags", "usedStorage"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SORTS = {"downloads": "downloads", "updated": "last_modified"}
_swapping = threading.RLock()


class HuggingFaceHub(Client):
    """The hub at an address, as `Hub` has it."""

    scheme: ClassVar[Scheme] = "hf"

    def resolve(self, ref: HubRef) -> Listing:
        """The repository's files at the commit that the ref stands for now."""
        from huggingface_hub.hf_api import RepoFile

        with self._call(str(ref)):
            commit = ref.revision if ref.is_commit else self._api.repo_info(_id(ref), revision=ref.revision, repo_type=ref.kind).sha
            if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
                raise Refused("the hub names no commit", why=f"it says {redact(str(commit))[:60]!r}", remedy=LOOK)
            listed: list[HubFile] = []
            for entry in self._api.list_repo_tree(_id(ref), recursive=True, revision=commit, repo_type=ref.kind):
                if isinstance(entry, RepoFile):
                    listed.append(_file(entry, ref))
                if len(listed) > MAX_FILES:
                    raise Refused("there are too many files in it", why=f"at most {MAX_FILES} are taken", remedy=LOOK)
            return Listing(ref, ref.kind, commit, tuple(listed))

    def search(self, query: Query) -> list[Found]:
        """Repositories that match."""
        with self._call(self.address):
            tags = [f"license:{query.licence}"] if query.licence else []
            asked: dict[str, Any] = {"search": query.words or None, "author": query.owner, "sort": _SORTS[query.sort], "limit": query.limit}
            if query.kind == "dataset":
                tags += [f"task_categories:{query.task}"] if query.task else []
                items = list(self._api.list_datasets(**asked, filter=tags or None, expand=EXPAND))
            else:
                items = list(self._api.list_models(**asked, filter=tags or None, pipeline_tag=query.task, expand=[*EXPAND, "pipeline_tag"]))
            return [one for item in items[: query.limit] if (one := _found(item, query.kind))]

    def upload(
        self,
        ref: HubRef,
        files: Mapping[str, Path],
        *,
        message: str,
        private: bool = True,
        licence: str | None = None,  # noqa: ARG002  # this hub reads it from the card
    ) -> str:
        """Make the branch hold exactly these files, in one commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.hf_api import RepoFile

        check_upload(ref, files)
        branch = ref.revision or BRANCH
        with self._call(str(ref), metadata=False):
            if not self._api.repo_exists(_id(ref), repo_type=ref.kind):
                self._api.create_repo(_id(ref), repo_type=ref.kind, private=private, exist_ok=True)
            if branch != BRANCH:
                self._api.create_branch(_id(ref), branch=branch, repo_type=ref.kind, exist_ok=True)
            entries = self._api.list_repo_tree(_id(ref), recursive=True, revision=branch, repo_type=ref.kind)
            stale = sorted({entry.path for entry in entries if isinstance(entry, RepoFile)} - files.keys() - OF_THE_HUB)
            operations = [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in sorted(files.items())),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ]
            made = self._api.create_commit(_id(ref), operations, commit_message=message, repo_type=ref.kind, revision=branch)
        return made.oid if _COMMIT.fullmatch(str(made.oid)) else branch

    def access(self) -> Access:
        """Ask the hub who we are, and what the token may do."""
        with self._call(self.address):
            if not self.http.token:
                list(self._api.list_models(limit=1))
                return Access(None)
            user = self._api.whoami()
        token = (user.get("auth") or {}).get("accessToken") or {}
        return Access(str(user.get("name") or "unknown"), {"write": True, "read": False}.get(str(token.get("role"))))

    # --- the SDK

    @cached_property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.address, token=self.http.token or False, library_name="modelyard")

    @contextmanager
    def _call(self, where: str, *, metadata: bool = True) -> Iterator[None]:
        with _carried(self.http), super()._call(where, metadata=metadata):
            yield

    def _failure(self, error: Exception, where: str) -> Failure | None:
        import httpx2
        from huggingface_hub import errors

        if isinstance(error, errors.HfHubHTTPError):
            response = error.response
            return self.http.failed(response.status_code, error.server_message or "", where, response.headers.get("X-Error-Code", ""))
        if isinstance(error, httpx2.HTTPError):
            return Unavailable("the hub does not answer", where=where, why=type(error).__name__, remedy=LATER)
        return None

    def _make_tag(self, ref: HubRef, name: str, revision: str) -> None:
        with self._call(str(ref)):
            self._api.create_tag(_id(ref), tag=name, revision=revision, repo_type=ref.kind)

    def _address_of(self, ref: HubRef, revision: str, path: str) -> str:
        folder = "datasets/" if ref.kind == "dataset" else ""
        return f"{self.address}/{folder}{_id(ref)}/resolve/{quote(revision, safe='')}/{quote(path)}"


@contextmanager
def _carried(http: Http) -> Iterator[None]:
    """Inside, the SDK's requests go by our transport. It has one client for the whole process, so it gets its own back afterwards.

    Xet, its other way to send files, is not HTTP that anybody could carry, and only its own hub speaks it.
    """
    import httpx2
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    class Carrier(httpx2.BaseTransport):
        def handle_request(self, request: Any) -> Any:
            url, sent = str(request.url), dict(request.headers)
            body = request.read() if isinstance(request.stream, httpx2.ByteStream) else cast(Iterator[bytes], request.stream)
            try:
                answer = http.answer(request.method, url, sent, body or None)
            except Unavailable as failure:
                if isinstance(body, bytes):
                    raise
                raise httpx2.ReadError(failure.what) from failure  # a file's bytes: the SDK begins to send it anew
            return httpx2.Response(answer.status, headers=answer.headers, content=answer.content)

    class Session(httpx2.Client):
        def send(self, request: Any, **options: Any) -> Any:
            if request.method == "GET" and not http.owns(str(request.url)):
                raise Refused("the hub names an address that is not its own", why=f"at {request.url.host}", remedy=LOOK)
            return super().send(request, **options)

    with _swapping:
        factory, disabled = _http._GLOBAL_CLIENT_FACTORY, constants.HF_HUB_DISABLE_XET  # what was set cannot be asked for
        set_client_factory(lambda: Session(transport=Carrier(), follow_redirects=True, timeout=None, trust_env=False))
        constants.HF_HUB_DISABLE_XET = True
        try:
            yield
        finally:
            constants.HF_HUB_DISABLE_XET = disabled
            set_client_factory(factory)


def _id(ref: HubRef) -> str:
    return f"{ref.owner}/{ref.name}"


def _file(entry: Any, ref: HubRef) -> HubFile:
    if not isinstance(entry.path, str) or not isinstance(entry.size, int) or isinstance(entry.size, bool):
        raise Refused(f"{redact(str(entry.path))[:80]!r} has no size", where=str(ref), remedy=LOOK)
    if entry.lfs:
        return HubFile(entry.path, entry.size, str(entry.lfs.sha256), "")
    if not isinstance(entry.blob_id, str) or not _COMMIT.fullmatch(entry.blob_id):
        why = f"its id is {redact(str(entry.blob_id))[:60]!r}"
        raise Refused(f"nothing identifies {redact(entry.path)[:80]!r}", where=str(ref), why=why, remedy=LOOK)
    return HubFile(entry.path, entry.size, None, f"git:{entry.blob_id}")


def _found(item: Any, kind: RefKind) -> Found | None:
    """A repository of a search, None for one that a ref cannot name (the oldest have no owner)."""
    from modelyard import refs

    try:
        ref = refs.parse(f"hf://{'datasets/' if kind == 'dataset' else ''}{item.id}")
    except Failure:
        return None
    tags = [tag for tag in item.tags or [] if isinstance(tag, str)]
    tagged = {name: next((tag.partition(":")[2] for tag in tags if tag.startswith(f"{name}:")), None) for name in ("license", "task_categories")}
    return Found(
        ref=cast(HubRef, ref),
        task=getattr(item, "pipeline_tag", None) or tagged["task_categories"],
        size=getattr(item, "used_storage", None),
        licence=tagged["license"],
        downloads=item.downloads,
        updated=f"{item.last_modified:%Y-%m-%d}" if item.last_modified else None,
        gated=bool(item.gated) if item.gated is not None else None,
        private=item.private,
    )
