"""A command in a container over one websocket: what goes in and what comes out at the same time, in bounded memory.

Frames begin with the number of a channel (`v5.channel.k8s.io`: 0 to 2 are the standard streams, 3 says how it ended, 255 closes one). One thread
carries both directions, since two must not use a TLS connection at once. websocket-client connects and frames; a terminal is not offered.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from modelyard.errors import NoInput, Unavailable
from modelyard.kube.http import SILENCE, Call, Http

if TYPE_CHECKING:
    from websocket import WebSocket

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255

KEPT = 1 << 16
"""Bytes of stderr that are kept: the last."""

_CHUNK = 1 << 15
_LARGEST = 16 << 20
"""Bytes of one frame; an API server's have 32 KiB."""
_IDLE = 20.0
"""Seconds without a byte after which something is sent, so that nobody on the way takes the connection for forgotten."""
_LAST = 5.0
"""Seconds for the connection's end after the command's."""
_CONTINUED, _TEXT, _BINARY, _CLOSED, _PING = 0, 1, 2, 8, 9


def open_channels(http: Http, call: Call, path: str, query: Sequence[tuple[str, str]]) -> Channels:
    """One attempt at a connection, for `Http.insist`."""
    import websocket
    from urllib3 import HTTPHeaderDict

    access = http.access
    connection = websocket.WebSocket(sslopt=dict(access.tls), enable_multithread=False)
    proxy = urlsplit(access.proxy or "")
    try:
        connection.connect(  # type: ignore[no-untyped-call]
            access.host.replace("http", "ws", 1) + f"{path}?{urlencode(query)}",
            header=[f"{name}: {value}" for name, value in access.headers().items()],
            subprotocols=[PROTOCOL],
            suppress_origin=True,
            redirect_limit=0,  # it would take the token along
            timeout=SILENCE,
            http_proxy_host=proxy.hostname,
            http_proxy_port=proxy.port,
        )
    except websocket.WebSocketBadStatusException as error:
        content = (error.resp_body or b"") if isinstance(error.resp_body, bytes) else str(error.resp_body or "").encode()
        if error.status_code == 404:
            raise NoInput("the pod is gone", where=path, why=http.harmless(content.decode(errors="replace")), remedy="run again") from error
        raise http.refused(call, error.status_code, HTTPHeaderDict(error.resp_headers or {}), content) from error
    except (websocket.WebSocketException, OSError) as error:
        raise http.broken(error) from error
    return Channels(connection, f"{access.host}{path}")


class Channels:
    """The channels of a command that has begun."""

    def __init__(self, connection: WebSocket, where: str) -> None:
        self._connection = connection
        self._where = where
        self._received = bytearray()
        self._message = bytearray()
        self._closed = False

    def carry(self, stdin: BinaryIO | None, stdout: BinaryIO) -> tuple[int, bytes]:
        """Carry all there is in both directions to the command's end; (exit code, stderr). Raises Unavailable when the connection ends first."""
        sock: Any = self._connection.sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        errors, status, until = bytearray(), None, float("inf")
        pending = memoryview(b"")
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                while not self._closed and time.monotonic() < until:
                    if stdin and not pending:
                        chunk = stdin.read(_CHUNK)
                        pending = memoryview(_frame(bytes([STDIN]) + chunk if chunk else bytes([CLOSE, STDIN])))
                        stdin = stdin if chunk else None
                    sent = _send(sock, pending)
                    if sent is None:  # the command does not read any more; how it ended may still come
                        stdin, pending, sent = None, memoryview(b""), 0
                    pending = pending[sent:]
                    came = self._receive(sock)
                    for message in self._messages():
                        channel, data = message[0], message[1:]
                        if channel == STDOUT:
                            stdout.write(data)
                        elif channel == STDERR:
                            errors += data
                            del errors[:-KEPT]
                        elif channel == STATUS:
                            status, stdin, pending, until = json.loads(data), None, memoryview(b""), time.monotonic() + _LAST
                    if not (sent or came):
                        selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if pending else 0))
                        if not selector.select(_IDLE if status is None else _LAST) and not pending and status is None:
                            pending = memoryview(_frame(b"", _PING))
        except (OSError, ValueError) as error:
            if status is None:
                raise self._broken(str(error)) from error
        finally:
            self._connection.shutdown()  # type: ignore[no-untyped-call]
        if status is None:
            raise self._broken("it was closed before the command's end")
        return self._exit_code(status), bytes(errors)

    def _receive(self, sock: Any) -> bool:
        """Read what has come; whether something did."""
        try:
            data = sock.recv(_CHUNK * 2)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError):
            return False
        self._closed = not data
        self._received += data
        return True

    def _messages(self) -> Iterator[bytes]:
        """Whole messages of those that have come. Raises ValueError for what no API server sends."""
        while (frame := self._next()) is not None:
            last, opcode, data = frame
            if opcode == _CLOSED:
                self._closed = True
            elif opcode in (_CONTINUED, _TEXT, _BINARY):
                self._message += data
                if len(self._message) > _LARGEST:
                    raise ValueError("a message is too long")
                if last and self._message:
                    yield bytes(self._message)
                    self._message.clear()

    def _next(self) -> tuple[bool, int, bytes] | None:
        """The next frame: whether it is its message's last, its opcode, its bytes. None when it is not there in whole."""
        head = self._received[:10]
        if len(head) < 2:
            return None
        length, start = head[1], 2
        if length & 0x80:
            raise ValueError("a server's frame is masked")
        if length > 125:
            start = 4 if length == 126 else 10
            if len(head) < start:
                return None
            length = int.from_bytes(head[2:start], "big")
        if length > _LARGEST:
            raise ValueError("a frame is too long")
        if len(self._received) < start + length:
            return None
        data = bytes(self._received[start : start + length])
        del self._received[: start + length]
        return bool(head[0] & 0x80), head[0] & 0x0F, data

    def _exit_code(self, status: Mapping[str, Any]) -> int:
        if status.get("status") == "Success":
            return 0
        for cause in (status.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        raise Unavailable("the command could not be run", where=self._where, why=str(status.get("message", ""))[:2000], remedy="run again")

    def _broken(self, why: str) -> Unavailable:
        return Unavailable("the connection to the container broke", where=self._where, why=why, remedy="run again")


def _send(sock: Any, data: memoryview) -> int | None:
    """How many bytes were taken; None where nobody takes any more."""
    if not data:
        return 0
    try:
        return int(sock.send(data))
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError):
        return 0
    except OSError:
        return None


def _frame(data: bytes, opcode: int = _BINARY) -> bytes:
    from websocket import ABNF

    return ABNF.create_frame(data, opcode).format()
