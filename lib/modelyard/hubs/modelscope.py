"""ModelScope, and what speaks its language, by its own SDK (`modelscope_hub`; `modelscope` itself would bring torch with it).

Its listing tells sizes and sha256 for each file, and for most the commit of a file; a commit of the whole repository is not to be had. Where all
files carry the same one, that is what they are read at, else the branch is, and their hashes say whether it moved meanwhile.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

from modelyard.errors import Failure, NoInput, Refused, Unavailable
from modelyard.hubs.client import Client, check_upload
from modelyard.hubs.credentials import redact
from modelyard.hubs.hub import OF_THE_HUB, Access, Found, Query
from modelyard.hubs.limits import LATER, AgainError, insist
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.transport import Http
from modelyard.refs import HubRef, RefKind, Scheme
from modelyard.yard import files as yard_files

BRANCH = "master"
NOWHERE = Path("/dev/null/modelyard")
"""Where the SDK would keep its own files: nothing can be made there, and it does without."""
INLINE = 64 << 10
"""Bytes up to which a file is sent within the commit; weights never are."""
ACTIONS, COMMIT_BYTES = 256, 8 << 20
"""Files and bytes of one commit, as the SDK sends them."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LARGE = (".safetensors", ".onnx", ".bin", ".pt", ".pth", ".parquet", ".arrow", ".npz", ".gz", ".zip", ".tar", ".model", ".data")
_SORTS = {"downloads": "downloads", "updated": "last_modified"}


class ModelScopeHub(Client):
    """The hub at an address, as `Hub` has it."""

    scheme: ClassVar[Scheme] = "modelscope"

    def resolve(self, ref: HubRef) -> Listing:
        """The repository's files at the ref's revision, or on its default branch."""
        branch = ref.revision or BRANCH
        with self._call(str(ref)):
            entries = self._api.legacy.list_repo_files(_id(ref), ref.kind, revision=branch)
            whole = not getattr(self._api.legacy._read_state, "listing_incomplete", False)  # it warns of this in no other way
            found = [entry for entry in entries if _text(entry, "Type") != "tree"]
            pins = {_text(entry, "Revision") for entry in found}
            pin = pins.pop() if len(pins) == 1 else ""
            revision = pin if _COMMIT.fullmatch(pin) else branch
            listed = tuple(_file(entry, ref) for entry in found)
            if not whole:
                remedy = "fetch it from another hub"
                raise Refused("the hub does not list all of its files", where=str(ref), why="it cuts lists, and a folder is too large", remedy=remedy)
            return Listing(ref, ref.kind, revision, listed)

    def search(self, query: Query) -> list[Found]:
        """Repositories that match; the hub cannot filter by size."""
        found: list[Found] = []
        with self._call(self.address):
            ask = self._api.openapi.list_datasets if query.kind == "dataset" else self._api.openapi.list_models
            filters = {"task": query.task, "license": query.licence}
            size = min(max(query.limit, 1), 50)
            for page in range(1, -(-query.limit // size) + 1):
                answer = ask(
                    search=query.words or None, owner=query.owner, sort=_SORTS[query.sort], page_number=page, page_size=size, filters=filters
                )
                items = answer.get(f"{query.kind}s") or []
                found += [one for item in items if (one := _found(item, query.kind))]
                if len(items) < size:
                    break
        return found[: query.limit]

    def upload(self, ref: HubRef, files: Mapping[str, Path], *, message: str, private: bool = True, licence: str | None = None) -> str:
        """Make the branch hold exactly these files, in one commit where they are few."""
        check_upload(ref, files)
        branch = ref.revision or BRANCH
        with self._call(str(ref), metadata=False):
            self._make(ref, private, licence)
            try:
                there = {_text(entry, "Path") for entry in self._list(ref, branch)}
            except NoInput:
                there = set()
            stale = [{"action": "delete", "path": path, "type": "normal"} for path in sorted(there - files.keys() - OF_THE_HUB)]
            commit = ""
            for actions in _commits([*self._actions(ref, files), *stale]):
                made = self._api.legacy.create_commit(_id(ref), ref.kind, actions, message, revision=branch)
                commit = str((made or {}).get("CommitId") or "") if isinstance(made, dict) else ""
        return commit if _COMMIT.fullmatch(commit) else branch

    def access(self) -> Access:
        """Ask the hub who we are."""
        with self._call(self.address):
            if not self.http.token:
                self._api.openapi.list_models(page_size=1)
                return Access(None)
            user = self._api.openapi.get_current_user() or {}
        name = next((user[key] for key in ("Username", "username", "name", "preferred_username") if user.get(key)), "")
        return Access(str(name) or "unknown")

    # --- the SDK

    @cached_property
    def _api(self) -> Any:
        """The SDK, with its requests going by our transport and its files nowhere."""
        from modelscope_hub import HubApi
        from modelscope_hub.config import HubConfig

        logging.getLogger("modelscope_hub").setLevel(logging.WARNING)  # it tells each page of a listing
        api = HubApi(HubConfig(endpoint=self.address, cache_dir=NOWHERE, config_dir=NOWHERE, token=self.http.token or ""))
        adapter = _adapter(self.http)
        for client in (api.legacy, api.openapi):
            for session in (client._session, client._read_session):  # it takes no session from outside
                session.trust_env = False  # what the environment says of proxies is the transport's to heed, and .netrc holds no token of ours
                session.mount("http://", adapter)
                session.mount("https://", adapter)
        return api

    def _failure(self, error: Exception, where: str) -> Failure | None:
        from modelscope_hub import errors
        from requests import RequestException

        if isinstance(error, errors.NetworkError | RequestException):
            return Unavailable("the hub does not answer", where=where, why=type(error).__name__, remedy=LATER)
        if isinstance(error, errors.APIError):
            named = {errors.NotExistError: 404, errors.AuthenticationError: 401, errors.PermissionDeniedError: 403}
            status = next((status for kind, status in named.items() if isinstance(error, kind)), error.status_code or 500)
            said = error.response_body if isinstance(error.response_body, dict) else {}
            text = str(next((said[key] for key in ("Message", "message", "Msg", "error") if said.get(key)), ""))
            return self.http.failed(status, text, where)
        return None

    def _list(self, ref: HubRef, branch: str) -> list[dict[str, Any]]:
        """What is on a branch. Raises NoInput where there is none."""
        from modelscope_hub.errors import NotExistError

        try:
            entries = self._api.legacy.list_repo_files(_id(ref), ref.kind, revision=branch)
        except NotExistError:
            entries = []
        return [entry for entry in entries if _text(entry, "Type") != "tree"]

    def _make(self, ref: HubRef, private: bool, licence: str | None) -> None:
        from modelscope_hub.errors import HubError, is_repo_exists_error

        try:
            self._api.create_repo(_id(ref), ref.kind, visibility="private" if private else "public", license=licence or "other")
        except HubError as error:
            if not is_repo_exists_error(error):
                raise

    def _actions(self, ref: HubRef, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
        """The commit's actions; large files are sent before they are named."""
        for name, path in sorted(files.items()):
            size = path.stat().st_size
            if size <= INLINE and not name.lower().endswith(_LARGE):
                content = base64.b64encode(path.read_bytes()).decode()
                yield {"action": "create", "path": name, "type": "normal", "size": size, "sha256": "", "content": content, "encoding": "base64"}
                continue
            sha256 = yard_files.sha256(path)
            if href := self._api.legacy.validate_blobs(_id(ref), ref.kind, [{"oid": sha256, "size": size}]).get(sha256):
                self._send(href, path, size)
            yield {"action": "create", "path": name, "type": "lfs", "size": size, "sha256": sha256, "content": "", "encoding": ""}

    def _send(self, href: str, path: Path, size: int) -> None:
        """Send a file where the hub says; the transport sees to it that no other host gets the token."""

        def once() -> None:
            try:
                with path.open("rb") as file:
                    self._api.legacy.upload_blob(href, file, size)
            except Unavailable as failure:
                raise AgainError(failure) from failure

        insist(once, self.http.limits)

    def _make_tag(self, ref: HubRef, name: str, revision: str) -> None:  # noqa: ARG002  # it may be the commit of one file: a branch it takes surely
        with self._call(str(ref)):
            self._api.create_repo_tag(_id(ref), ref.kind, name, revision=ref.revision or BRANCH)

    def _address_of(self, ref: HubRef, revision: str, path: str) -> str:
        return f"{self.address}/api/v1/{ref.kind}s/{_id(ref)}/repo?Revision={quote(revision, safe='')}&FilePath={quote(path, safe='')}"


def _adapter(http: Http) -> Any:
    """What carries a session's requests: our transport."""
    import io

    import requests.adapters
    import urllib3

    class Carrier(requests.adapters.HTTPAdapter):
        def send(self, request: Any, *_: Any, **__: Any) -> Any:
            body = request.body.encode() if isinstance(request.body, str) else request.body
            answer = http.answer(request.method, request.url, dict(request.headers), body)
            raw = urllib3.HTTPResponse(io.BytesIO(answer.content), answer.headers, answer.status, preload_content=False, decode_content=False)
            return self.build_response(request, raw)

    return Carrier()


def _id(ref: HubRef) -> str:
    return f"{ref.owner}/{ref.name}"


def _text(entry: Mapping[str, Any], key: str) -> str:
    """A field of an entry, "" where it is none that is a text."""
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _file(entry: Mapping[str, Any], ref: HubRef) -> HubFile:
    path, size, sha256 = _text(entry, "Path") or _text(entry, "Name"), entry.get("Size"), _text(entry, "Sha256").lower()
    if not isinstance(size, int) or isinstance(size, bool):
        raise Refused(f"{path!r} has no size", where=str(ref), why=f"the hub says {redact(str(size))[:40]!r}", remedy="fetch it from another hub")
    version = next((f"{key}:{entry[key]}" for key in ("Revision", "CommittedDate", "BlobId") if entry.get(key)), "")
    if not sha256 and not version:
        remedy = "fetch it from another hub"
        raise Refused(f"nothing identifies {path!r}", where=str(ref), why="it has no sha256, no revision and no date", remedy=remedy)
    return HubFile(path, size, sha256 or None, "" if sha256 else version)


def _found(item: Mapping[str, Any], kind: RefKind) -> Found | None:
    """A repository of a search, None for one that a ref cannot name."""
    from modelyard import refs

    try:
        folder = "datasets/" if kind == "dataset" else ""
        ref = refs.parse(f"modelscope://{folder}{item.get('id')}")
    except Failure:
        return None
    tasks = item.get("tasks")
    return Found(
        ref=cast(HubRef, ref),
        task=str(tasks[0]) if isinstance(tasks, list) and tasks else None,
        size=item["file_size"] if isinstance(item.get("file_size"), int) else None,
        licence=_text(item, "license") or None,
        downloads=item["downloads"] if isinstance(item.get("downloads"), int) else None,
        updated=_text(item, "last_modified")[:10] or None,
        gated=item["gated"] if isinstance(item.get("gated"), bool) else None,
        private=item["private"] if isinstance(item.get("private"), bool) else None,
    )


def _commits(actions: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The actions, in as few commits as the hub takes; at least one."""
    batch: list[dict[str, Any]] = []
    size = 0
    for action in actions:
        more = len(action.get("content", ""))
        if batch and (len(batch) >= ACTIONS or size + more > COMMIT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(action)
        size += more
    yield batch
