"""Bytes over HTTP: everything that goes to a hub or comes from it, the SDKs' own calls included, passes through here.

One place therefore holds the rules. Every call ends (limits.py): connecting, silence and a metadata call as a whole have their deadlines, and a
stream its lowest speed. What may pass (429, 5xx, a broken connection) is tried again, as `Retry-After` says within bounds, else with exponential
back-off and jitter. A token goes to the hub's own origin (scheme, host and port) and nowhere else, whoever put it into the headers. Answers are
bounded, and are not asked for compressed. Hashes are not compared here.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.errors import Corrupt, Failure, NoInput, NoPermission, Unavailable, Usage
from modelyard.hubs.connections import Body, Connections, broken, origin, redirected
from modelyard.hubs.credentials import PAGES, PUBLIC, VARIABLES, redact
from modelyard.hubs.limits import LATER, LIMITS, LOOK, AgainError, Budget, Speed, insist, retry_after
from modelyard.refs import Scheme

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

CHUNK = 1 << 20
AHEAD = 4 << 20
"""Bytes that are read from the network while those before are written, hashed and synced."""
EMPTY_EVERY = 0.5
"""Seconds without a byte after which an empty chunk says so: who reads may want to stop."""

_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_CHANGED = frozenset({412, 422})
"""What a hub says of a file that it listed, and that is another one by now."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
_EXCERPT = 4096
_SIBLINGS = {
    # Its own SDK sends a file's bytes there, and that host asks for the token.
    "https://modelscope.cn": ("https://www.modelscope.cn", "https://lfs.modelscope.cn"),
    "https://www.modelscope.cn": ("https://modelscope.cn", "https://lfs.modelscope.cn"),
}


@dataclass(frozen=True)
class Answer:
    """A hub's answer, read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Http:
    """HTTP to one hub. Any thread may use it; the budget is that of the one call that is going on."""

    def __init__(self, scheme: Scheme, address: str, token: str | None) -> None:
        """address: of the hub, without a slash at its end."""
        self.scheme = scheme
        self.address = address
        self.token = token
        self.limits = LIMITS
        self._own = {origin(address), *(origin(sibling) for sibling in _SIBLINGS.get(address, ()))}
        self._budget = Budget(self.limits)
        self._connections = Connections()

    def owns(self, url: str) -> bool:
        """Whether an address lies at the hub's own origin."""
        return origin(url) in self._own

    @contextmanager
    def call(self, *, metadata: bool = True) -> Iterator[None]:
        """What is asked inside is one call, with one budget. metadata: it sends no files."""
        self._budget = Budget(self.limits, metadata=metadata)
        yield

    # --- whole answers: what the SDKs ask

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: Body = None) -> Answer:
        """One request of an SDK and its answer, a redirect or an error included; the SDK makes of it what it does.

        A body that cannot be sent twice is sent once. Raises Unavailable, Refused, Corrupt (not JSON where the hub itself was asked for something).
        """
        whole, safe = body is None or isinstance(body, bytes), method != "POST"
        until = self._budget.ask()

        def once() -> Answer:
            response = self._exchange(method, url, headers, body=body, until=until if whole else None, silence=self._budget.silence)
            try:
                end = until if whole else time.monotonic() + self._budget.silence
                answer = Answer(response.status, dict(response.headers), b"".join(self._whole(response, end)))
            finally:
                response.release_conn()
            if answer.status in (_AGAIN if safe else (429, 503)):
                raise AgainError(self._unavailable(answer.status, answer.headers), retry_after(answer.headers), reached=not whole)
            return answer

        answer = insist(once, self.limits, until, repeat=whole and safe)
        if method == "GET" and answer.status == 200 and self.owns(url):
            _check_json(answer, self.address)
        return answer

    def _whole(self, response: BaseHTTPResponse, until: float) -> Iterator[bytes]:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Corrupt("the hub's answer is compressed, which nobody asked for", where=self.address, remedy=LOOK)
        with broken(self.address):
            while chunk := response.read1(CHUNK):
                self._budget.take(len(chunk))
                if time.monotonic() >= until:
                    raise Unavailable("the hub answers too slowly", where=self.address, remedy=LATER)
                yield chunk

    # --- streams: files

    def read(self, url: str, offset: int, size: int, where: str) -> Iterator[bytes]:
        """The bytes of a file of `size` bytes from `offset` on; a stream that breaks is gone on with.

        Raises Corrupt: the hub has another size; Unavailable: too slow, or broken again and again; NoPermission, NoInput, Refused.
        """
        at, fruitless, speed = offset, 0, Speed(self.limits, where)
        while True:
            response, skip = self._open(url, at, size, where)
            began = at
            try:
                with broken(where):
                    for chunk in self._stream(response, skip, speed):
                        at += len(chunk)
                        if at > size:
                            raise _other_size(where, size, f"more than {size}")
                        yield chunk
                if at == size:
                    return
                raise AgainError(Unavailable("the connection was cut", where=where, remedy=LATER))
            except AgainError as error:
                fruitless = 0 if at > began else fruitless + 1
                if fruitless >= self.limits.attempts:
                    raise error.failure from error
                time.sleep(self.limits.back_off(fruitless))
            finally:
                response.close()

    def _stream(self, response: BaseHTTPResponse, skip: int, speed: Speed) -> Iterator[bytes]:
        """The body without its first `skip` bytes."""
        while chunk := response.read1(CHUNK):
            speed.count(len(chunk))
            if skip < len(chunk):
                yield chunk[skip:] if skip else chunk
            skip = max(0, skip - len(chunk))

    def _open(self, url: str, at: int, size: int, where: str) -> tuple[BaseHTTPResponse, int]:
        """An answer with the file's bytes, and how many of them come before byte `at`."""
        target = url
        for _ in range(self.limits.redirects + 1):
            response = insist(lambda target=target: self._begin(target, at), self.limits)  # type: ignore[misc]
            if response.status not in _REDIRECTS:
                break
            response.close()
            target = redirected(target, response.headers.get("Location", ""), where)
        else:
            raise Unavailable(f"the hub leads on and on, more than {self.limits.redirects} times", where=where, remedy=LOOK)
        try:
            return response, self._first(response, at, size, where)
        except Failure:
            response.close()
            raise

    def _first(self, response: BaseHTTPResponse, at: int, size: int, where: str) -> int:
        """How many bytes of the answer come before byte `at` of the file. Raises what the answer says instead of bytes."""
        if response.status == 416:
            raise _other_size(where, size, f"at most {at}")
        if response.status not in (200, 206):
            text = b""
            with suppress(AgainError), broken(where):
                text = response.read1(_EXCERPT)
            failure = self.failed(response.status, text.decode("utf-8", "replace"), where, response.headers.get("X-Error-Code", ""))
            if response.status in _CHANGED:
                why = failure.why
                raise Corrupt("it is not what was listed any more", where=where, why=why, remedy="run again: the ref is resolved anew")
            raise failure
        first, length = 0, response.length_remaining
        if response.status == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != at:
                raise Corrupt("the hub gives another part of the file than was asked for", where=where, remedy=LOOK)
            if match[3] not in ("*", str(size)):
                raise _other_size(where, size, match[3])
            first = at
        if length is not None and length != size - first:
            raise _other_size(where, size, str(first + length))
        return at - first

    def _begin(self, url: str, at: int) -> BaseHTTPResponse:
        headers = {"Range": f"bytes={at}-"} if at else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
            if self.scheme == "modelscope":  # some of its addresses look at the one, some at the other
                headers["Cookie"] = f"m_session_id={self.token}"
        response = self._exchange("GET", url, headers, body=None, until=time.monotonic() + self.limits.request, silence=self.limits.silence)
        if response.status in _AGAIN:
            response.close()
            raise AgainError(self._unavailable(response.status, response.headers), retry_after(response.headers))
        return response

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], *, body: Body, until: float | None, silence: float) -> BaseHTTPResponse:
        """One request, with the token where it may go."""
        own = self.owns(url)
        sent = {name: value for name, value in headers.items() if own or name.lower() not in _CREDENTIALS}
        sent = {name: value for name, value in sent.items() if name.lower() != "accept-encoding"} | {"Accept-Encoding": "identity"}
        where = self.address if own else origin(url)[1]
        return self._connections.send(method, url, sent, body, connect=self.limits.connect, silence=silence, until=until, where=where)

    # --- failures

    def failed(self, status: int, text: str, where: str, code: str = "") -> Failure:
        """The failure that a status of 400 or more is. text: what the hub says, in any form. code: its own word for it."""
        why = f"the hub says {status}{f': {said}' if (said := _excerpt(text)) else ''}"
        told = f"{code} {text[:_EXCERPT]}".lower()
        if status in _AGAIN or status >= 500:
            return Unavailable("the hub does not answer", where=where, why=why, remedy=LATER)
        if status == 404:
            what = "there is no such revision" if code == "RevisionNotFound" else "the hub has no such thing"
            remedy = f"check the name and the revision; if it is private, set {VARIABLES[self.scheme][0]}"
            return NoInput(what, where=where, why=why, remedy=remedy)
        if status in (401, 403):
            page = PAGES[self.scheme] if self.address in PUBLIC[self.scheme] else "the hub's owner"
            remedy = f"set {VARIABLES[self.scheme][0]} to a token that may do this (from {page})"
            if "gated" in told:
                remedy = f"ask for access on its page at {self.address}, then {remedy}"
                return NoPermission("it is gated: its owner lets in whom he knows", where=where, why=why, remedy=remedy)
            if self.token:
                return NoPermission("the hub refuses the token", where=where, why=why, remedy=remedy)
            return NoPermission("the hub asks for a token", where=where, why=why, remedy=f"check the name: it may also not exist; {remedy}")
        return Usage("the hub does not accept this", where=where, why=why, remedy="correct what it names")

    def _unavailable(self, status: int, headers: Mapping[str, str]) -> Unavailable:
        after = retry_after(headers)
        asked = f", and asks to wait {after:.0f} s" if after is not None else ""
        return Unavailable("the hub does not answer", where=self.address, why=f"the hub says {status}{asked}", remedy=LATER)


def ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, read by a thread of their own, so that the network does not wait for the disk; an empty one where none comes for a while.

    All that has come is handed over at once: passing a chunk from thread to thread costs more than reading it.
    """
    change = threading.Condition()
    ready: list[bytes] = []
    ended: list[BaseException | None] = []  # one entry once the chunks are at their end: why, None where there are no more
    waiting, over = 0, False

    def pump() -> None:
        nonlocal waiting
        error: BaseException | None = None
        try:
            for chunk in chunks:
                with change:
                    while waiting >= AHEAD and not over:
                        change.wait()
                    if over:
                        return
                    ready.append(chunk)
                    waiting += len(chunk)
                    change.notify()
        except BaseException as raised:  # noqa: BLE001  # the one who reads raises it
            error = raised
        with change:
            ended.append(error)
            change.notify()

    threading.Thread(target=pump, name="read ahead", daemon=True).start()
    try:
        while True:
            with change:
                if not ready and not ended:
                    change.wait(EMPTY_EVERY)
                batch, last = ready, list(ended)
                ready, waiting = [], 0
                change.notify()
            yield from batch
            if last:
                if last[0]:
                    raise last[0]
                return
            if not batch:
                yield b""
    finally:
        with change:
            over = True
            change.notify()


def _other_size(where: str, listed: int, got: str) -> Corrupt:
    why, remedy = f"{listed} bytes were listed, the hub has {got}", "run again: the ref is resolved anew"
    return Corrupt("it has another size than it was listed with", where=where, why=why, remedy=remedy)


def _check_json(answer: Answer, where: str) -> None:
    try:
        json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        page = answer.content[:64].lstrip().startswith(b"<")
        why = "a web page came where data was asked for" if page else "it is not JSON"
        remedy = "check the hub's address; a proxy or a login page may answer in its place"
        raise Corrupt("the hub's answer cannot be read", where=where, why=why, remedy=remedy) from error


def _excerpt(text: str) -> str:
    """What a server says, in one short line; tokens are taken out before it is cut, or a part of one would stay."""
    with suppress(ValueError, RecursionError):
        tree = json.loads(text)
        if isinstance(tree, dict):
            text = str(next((tree[key] for key in ("error", "Message", "message", "Msg") if tree.get(key)), text))
    if text.lstrip().startswith("<"):
        return ""
    return " ".join(re.sub(r"[^\x20-\x7e\u00a0-\uffff]+", " ", redact(text)).split())[:200]
