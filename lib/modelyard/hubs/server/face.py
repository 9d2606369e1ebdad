"""What both faces of a served hub are made of.

Endpoints that run in threads and answer failures in their own hub's form, bodies of bounded size, the bytes of a file with ranges, and the one
place where uploads arrive. A face is thin: it reads a request, asks the source, writes an answer. It never touches the file system.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from modelyard.errors import BadData, Corrupt, Failure, NoInput, NoPermission, NoSpace, Refused, Unavailable, Usage
from modelyard.hubs.server.auth import Auth
from modelyard.hubs.source import Entry, Repo, Source, read
from modelyard.hubs.store import Store
from modelyard.refs import RefKind
from modelyard.yard.manifest import is_digest

Endpoint = Callable[[Request], Awaitable[Response]]

SMALL_BODY = 1 << 20
"""Bytes of a body that anybody may send."""

LARGE_BODY = 64 << 20
"""Bytes of a body that comes with the token: a commit with its small files in it."""

STATUS: dict[type[Failure], int] = {Usage: 400, BadData: 400, Refused: 400, Corrupt: 422, NoInput: 404, NoSpace: 507, Unavailable: 503}
"""HTTP status of a failure, else 500. NoPermission's depends on the request: see `Auth.status`."""

SILENCE = 60.0
"""Seconds without a byte after which a client that is sending a body is taken for gone."""

GONE = 499
"""For the log alone: the client went away before its body was whole."""

KINDS: dict[str, RefKind] = {"models": "model", "datasets": "dataset"}
"""The kinds, as both hubs' paths write them."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Face:
    """What the endpoints of a face share. answer: a failure and its HTTP status, in the form that this hub's clients read."""

    source: Source
    auth: Auth
    answer: Callable[[Request, Failure, int], Response]

    def read(self, function: Callable[[Request], Response]) -> Endpoint:
        """An endpoint without a body."""

        async def endpoint(request: Request) -> Response:
            return await self._guard(request, lambda: function(request))

        return endpoint

    def ask(self, function: Callable[[Request, bytes], Response]) -> Endpoint:
        """An endpoint with a small body, for anybody."""

        async def endpoint(request: Request) -> Response:
            return await self._take(request, SMALL_BODY, function)

        return endpoint

    def write(self, function: Callable[[Request, bytes], Response]) -> Endpoint:
        """An endpoint with a body, for those with the token: it is asked for before a byte is read."""

        async def endpoint(request: Request) -> Response:
            try:
                self.auth.check_write(request)
            except Failure as failure:
                return self.fail(request, failure)
            return await self._take(request, LARGE_BODY, function)

        return endpoint

    def fail(self, request: Request, failure: Failure) -> Response:
        """The answer to a request that failed."""
        status = self.auth.status(request) if isinstance(failure, NoPermission) else STATUS.get(type(failure), 500)
        return self.answer(request, failure, status)

    def readable(self, request: Request, kind: RefKind, owner: str, name: str) -> Repo:
        """A repository that the request may read. Raises NoInput, NoPermission."""
        repo = self.source.repo(kind, owner, name)
        self.auth.check_read(request, repo)
        return repo

    def listed(self, request: Request, kind: RefKind) -> list[Repo]:
        """Repositories that the request may know of: private ones with the token only."""
        trusted = self.auth.trusted(request)
        return [repo for repo in self.source.repos(kind) if trusted or not repo.private]

    async def _take(self, request: Request, limit: int, function: Callable[[Request, bytes], Response]) -> Response:
        try:
            body = await read_body(request, limit)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Failure as failure:
            return self.fail(request, failure)
        return await self._guard(request, lambda: function(request, body))

    async def _guard(self, request: Request, call: Callable[[], Response]) -> Response:
        try:
            return await run_in_threadpool(call)
        except Failure as failure:
            return self.fail(request, failure)


def kind_of(request: Request) -> RefKind:
    """The kind that the path names; paths of models' files name none. Raises NoInput."""
    plural = request.path_params.get("kind", "models")
    if plural not in KINDS:
        raise NoInput(f"this hub has no {plural[:40]!r}", remedy="there are models and datasets")
    return KINDS[plural]


# --- bodies ------------------------------------------------------------------------------------------------------------------------------------


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body of a request. Raises ClientDisconnect: nothing came for a while, as when the client's machine is gone without a word."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise ClientDisconnect from error
        if chunk is None:
            return
        yield chunk


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request, also one without a length. Raises Usage where it is larger than the limit."""
    data = bytearray()
    async for chunk in chunks(request):
        data += chunk
        if len(data) > limit:
            raise Usage("the request is too large", why=f"at most {limit} bytes are taken", remedy="send less at once")
    return bytes(data)


def as_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Usage where it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Usage("the body is no JSON", remedy="send a JSON object") from error
    if not isinstance(found, dict):
        raise Usage("the body is no JSON object", remedy="send one")
    return found


# --- files -------------------------------------------------------------------------------------------------------------------------------------


def send(request: Request, entry: Entry, headers: Mapping[str, str]) -> Response:
    """A file, or the one range of it that is asked for. headers: further ones; `etag` among them, in quotes, is what If-Range is compared with.

    Several ranges at once are answered with the whole file, which HTTP allows.
    """
    sent = {"accept-ranges": "bytes", "content-type": "application/octet-stream", **headers}
    asked = request.headers.get("range", "")
    if (condition := request.headers.get("if-range")) and condition != sent.get("etag"):
        asked = ""
    start, end = 0, entry.size
    status = 200
    if match := _RANGE.fullmatch(asked.replace(" ", "")):
        first, last = match[1], match[2]
        if first:
            start, end = int(first), min(int(last) + 1, entry.size) if last else entry.size
        elif last:
            start = max(entry.size - int(last), 0)
        if (first or last) and start >= end:
            return Response(status_code=416, headers={**sent, "content-range": f"bytes */{entry.size}"})
        if first or last:
            status = 206
            sent["content-range"] = f"bytes {start}-{end - 1}/{entry.size}"
    sent["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=sent)
    content = read(entry, start, end - start)
    begun = next(content, b"")  # before the headers are out: what cannot be opened is an answer of its own
    return StreamingResponse(itertools.chain([begun], content), status, sent)


# --- uploads -----------------------------------------------------------------------------------------------------------------------------------


def upload_address(request: Request, auth: Auth, sha256: str, size: int) -> str:
    """Where content is to be PUT, as an absolute address that needs no token for a day. Raises Usage: hash or size are none."""
    if not is_digest(sha256) or size < 0:
        raise Usage("an upload is named by its sha256 and its size", remedy="send 64 hex digits and a number")
    signature = auth.sign(f"{sha256} {size}")
    return f"{str(request.base_url).rstrip('/')}/-/blobs/{sha256}?size={size}&signature={quote(signature)}"


def upload_routes(source: Source, auth: Auth) -> list[Route]:
    """PUT of content, for both faces: hashed while it comes, kept only when it is what it was announced as."""

    async def put(request: Request) -> Response:
        try:
            await _receive(request, source, auth)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Failure as failure:
            status = auth.status(request) if isinstance(failure, NoPermission) else STATUS.get(type(failure), 500)
            body = {"Code": status, "Success": False, "Message": str(failure), "error": str(failure)}
            return Response(json.dumps(body), status, media_type="application/json")
        return Response(status_code=200)

    return [Route("/-/blobs/{sha256}", put, methods=["PUT"])]


async def _receive(request: Request, source: Source, auth: Auth) -> None:
    sha256, size = request.path_params["sha256"], request.query_params.get("size", "")
    if not is_digest(sha256) or not (size.isascii() and size.isdigit()) or len(size) > 18:
        raise NoInput("this is no address of an upload", remedy="ask for one")
    if not auth.signed(f"{sha256} {size}", request.query_params.get("signature", "")):
        auth.check_write(request)
    store: Store = source.writer()
    upload = await run_in_threadpool(store.upload, sha256, int(size))
    try:
        pending = bytearray()
        async for chunk in chunks(request):
            pending += chunk
            if len(pending) >= _BUFFER:
                await run_in_threadpool(upload.write, bytes(pending))
                pending.clear()
        await run_in_threadpool(upload.write, bytes(pending))
        await run_in_threadpool(upload.finish)
    finally:
        await run_in_threadpool(upload.__exit__, None, None, None)
