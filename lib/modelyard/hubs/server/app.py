"""The server: one application with both faces, and how it runs.

`make_app(source, secret)` joins `modelscope.routes(source, auth)` and `huggingface.routes(source, auth)` (each `-> list[BaseRoute]`; they share
`face.Face`) with the one place where uploads arrive. Their paths do not meet: ModelScope's are under /api/v1 and /openapi/v1.

Reads need no token, and without one the hub takes no writes: therefore any address may be bound, with or without a token. What is in the folder is
public to whoever reaches the port, except for repositories marked private or gated. TLS is for a proxy in front of it.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelyard.errors import Failure, NoInput, Usage
from modelyard.hubs.server import huggingface, modelscope
from modelyard.hubs.server.auth import Auth, read_token
from modelyard.hubs.server.face import upload_routes
from modelyard.hubs.source import Source
from modelyard.hubs.store import Store
from modelyard.hubs.yards import YardSource, is_yard
from modelyard.refs import RefKind
from modelyard.yard import Yard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BACKLOG = 1024

DRAIN_SECONDS = 10
"""How long requests that are under way may take after SIGTERM."""


def run(folder: Path, host: str, port: int, token_file: Path | None, *, tell: Callable[[str], None], note: Callable[[str], None], log: bool) -> None:
    """Serve a hub's folder or a yard until SIGTERM or SIGINT.

    tell: takes the address, once it can be connected to. note: takes what a person should know. log: one line per request on stderr.
    """
    source = open_source(folder)
    secret = read_token(token_file, note) if token_file else None
    bound = listen(host, port)
    if isinstance(source, YardSource):
        note("a yard is served read-only")
    elif secret is None:
        note("read-only: uploads, private and gated repositories need --token-file")
    app = make_app(source, secret, to_stderr if log else None)
    if isinstance(source, Store):
        threading.Thread(target=look_through, args=(source, note), daemon=True).start()
    tell(address(bound))
    serve(app, bound)


def open_source(folder: Path) -> Source:
    """What a folder holds: a yard, or a hub's repositories. Raises NoInput where there is no folder."""
    if not folder.is_dir():
        raise NoInput(
            f"{folder} is no folder", where="modelyard hub serve", remedy=f"mkdir -p {folder}, and put repositories into it as OWNER/NAME/…"
        )
    if is_yard(folder):
        return YardSource(Yard.open(folder, write=False))
    store = Store(folder.absolute())
    store.sweep()
    return store


def look_through(source: Store, note: Callable[[str], None]) -> None:
    """Hash what was not hashed yet, before the first client waits for it, and say which repositories cannot be served."""
    for kind in get_args(RefKind):
        for owner, name in source.names(kind):
            try:
                if repo := source.find(kind, owner, name):
                    source.commit(repo)
            except Failure as failure:
                note(f"{kind} {owner}/{name} cannot be served: {failure}")


def make_app(source: Source, secret: str | None, log: Callable[[str], None] | None = None) -> ASGIApp:
    """The application. secret: the token; log: takes one line per request, without its query."""
    auth = Auth(secret)
    routes = [
        Route("/healthz", _healthy, methods=["GET"]),
        *upload_routes(source, auth),
        *modelscope.routes(source, auth),
        *huggingface.routes(source, auth),
    ]
    app = Starlette(routes=routes)
    return _AccessLog(app, log) if log else app


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to already: they wait for the first answer. port 0: any free one. Raises Usage where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio does not switch Nagle's delays off
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise Usage(f"{host}:{port} cannot be bound", why=error.strerror or str(error), remedy="choose another --host or --port") from error
    return bound


def address(bound: socket.socket) -> str:
    """`http://host:port` of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)

    def end(*_: object) -> None:
        server.should_exit = True

    for ending in (signal.SIGTERM, signal.SIGINT):
        # For a signal that comes before uvicorn listens for it; and it raises it again when it has drained: to have been stopped is no failure.
        signal.signal(ending, end)
    server.run(sockets=[bound])


def to_stderr(line: str) -> None:
    """Write one line of the access log."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


async def _healthy(_: Request) -> Response:  # not in a thread: they may all be waiting for a hash
    return JSONResponse({"status": "ok"})


class _AccessLog:
    """One line per request: method, path, status, bytes of the body, seconds."""

    def __init__(self, app: ASGIApp, log: Callable[[str], None]) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, size = time.monotonic(), 0, 0

        async def noted(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = scope["path"].encode("unicode_escape").decode("ascii")
            self._log(f"{scope['method']} {path} {status or 'aborted'} {size} {time.monotonic() - began:.3f}s")
