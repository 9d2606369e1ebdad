"""A hub that lies: both faces' listing and download over real sockets, with a lie in the place of any answer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
OWNER = "owner/model"


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it; what is wrong about it is the test's."""

    path: Any
    size: Any
    sha256: Any


@dataclass
class LyingHub:
    """Serves `files` as the model (and data set) owner/model, unless `lie` does something else. Use as a context manager.

    lie: called with the handler and what is asked for ("list" or "file"); True: it has answered. listed: in place of the true listing.
    asked: path and headers of each request.
    """

    files: dict[str, bytes]
    lie: Callable[[Handler, str], object] = lambda handler, what: False
    listed: list[Listed] | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    pause: float = 0.0
    """Seconds before each MiB that is taken."""
    large: str = ""
    """Where large files are to be sent; "": here."""

    def __enter__(self) -> Self:
        hub = self

        class Bound(Handler):
            hub_of = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.over = threading.Event()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def hubs(self) -> dict[str, str]:
        return {"modelscope": self.address, "huggingface": self.address}

    def entries(self) -> list[Listed]:
        return self.listed if self.listed is not None else [Listed(path, len(data), sha256(data)) for path, data in self.files.items()]

    def tokens(self) -> list[str]:
        """Every header that may hold a token, of every request."""
        names = ("authorization", "cookie", "proxy-authorization")
        return [value for _, headers in self.asked for name, value in headers.items() if name.lower() in names]


class Handler(BaseHTTPRequestHandler):
    """One request to a lying hub."""

    protocol_version = "HTTP/1.1"
    hub_of: LyingHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, parts = self.hub_of, urlsplit(self.path)
        hub.asked.append((self.path, dict(self.headers)))
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        steps = unquote(parts.path).strip("/").split("/")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            if "resolve" in steps:
                self.file("/".join(steps[steps.index("resolve") + 2 :]))
            elif steps[-1] == "repo":
                self.file(self.query["FilePath"])
            elif steps[:2] == ["api", "v1"] and steps[-1] in ("files", "tree"):
                self.list(self.modelscope)
            elif "tree" in steps:
                self.list(self.huggingface)
            elif steps[0] == "api":
                self.list(lambda: {"id": OWNER, "sha": COMMIT})
            else:
                self.json({"error": "no such route"}, 404)

    def do_POST(self) -> None:
        """What an upload asks, as far as the place for its large files and a commit."""
        hub = self.hub_of
        hub.asked.append((self.path, dict(self.headers)))
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}") if "commit" not in self.path else self.drain()
        if self.path.endswith("/batch"):
            objects = [{**one, "actions": {"upload": {"href": f"{hub.large or hub.address}/blob/{one['oid']}"}}} for one in asked["objects"]]
            self.json({"objects": objects, "Data": {"objects": objects}})
        elif "preupload" in self.path:
            self.json({"files": [{"path": one["path"], "uploadMode": "lfs", "shouldIgnore": False} for one in asked["files"]]})
        else:
            self.json({"url": OWNER, "commitUrl": f"{hub.address}/{OWNER}/commit/{COMMIT}", "commitOid": COMMIT, "Data": {"CommitId": COMMIT}})

    def do_PUT(self) -> None:
        self.hub_of.asked.append((self.path, dict(self.headers)))
        self.drain()
        if not self.hub_of.lie(self, "sent"):
            self.text(b"")

    def drain(self) -> dict[str, Any]:
        """Read the request's body and forget it."""
        left = int(self.headers["Content-Length"])
        while left:
            self.hub_of.over.wait(self.hub_of.pause)
            left -= len(self.rfile.read(min(left, 1 << 20)))
        return {}

    def list(self, answer: Callable[[], Any]) -> None:
        if not self.hub_of.lie(self, "list"):
            self.json(answer())

    def modelscope(self) -> dict[str, Any]:
        files = [{"Path": one.path, "Size": one.size, "Sha256": one.sha256, "Type": "blob", "Revision": COMMIT} for one in self.hub_of.entries()]
        return {"Code": 200, "Success": True, "Data": {"Files": files if self.query.get("PageNumber", "1") == "1" else []}}

    def huggingface(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": one.path,
                "size": one.size,
                "oid": "a" * 40,
                "lfs": {"oid": one.sha256, "size": one.size, "pointerSize": 134},
            }
            for one in self.hub_of.entries()
        ]

    def file(self, path: str) -> None:
        if self.hub_of.lie(self, "file"):
            return
        data = self.hub_of.files.get(path)
        if data is None:
            self.json({"error": "no such file"}, 404)
            return
        self.bytes(data)

    def json(self, tree: Any, status: int = 200, **headers: str) -> None:
        self.text(json.dumps(tree).encode(), status, **{"Content-Type": "application/json", **headers})

    def text(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.hub_of.sent += len(body)

    def bytes(self, data: bytes, *, upto: int | None = None, ranges: bool = True) -> None:
        """A file, or the part of it that is asked for. upto: the connection is cut after so many bytes of the answer."""
        asked = self.headers.get("Range", "") if ranges else ""
        first = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        body = data[first:][:upto]
        self.wfile.write(body)
        self.hub_of.sent += len(body)
        if upto is not None:
            self.hang_up()

    def drip(self, data: Iterable[bytes], every: float) -> None:
        """Without a length, piece by piece, as long as somebody listens."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in data:
            self.wfile.write(piece)
            if self.hub_of.over.wait(every):
                break
        self.hang_up()

    def drip_head(self, every: float) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.hub_of.over.wait(every):
            self.wfile.write(b"x")

    def silence(self) -> None:
        self.hub_of.over.wait(60)
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
