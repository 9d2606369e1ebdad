"""Requests to an API server that end well, or with a failure that says what to do.

What may pass is tried again until patience ends: connections that break, 5xx, 429 and 409 as `Retry-After` says within that time, an answer that is
no JSON. Credentials that were refused are read anew once: files rotate, and plugins are run again. An API server that has just come back may not
know yet who may do what: what it refuses then is asked again, too. Certificates that do not fit are not. No token gets into a message, also when
a server echoes it.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from modelyard.errors import Failure, NoPermission, Unavailable, Usage
from modelyard.kube.cluster import Cause

if TYPE_CHECKING:
    from urllib3 import PoolManager
    from urllib3.response import BaseHTTPResponse

Result = TypeVar("Result")

CONNECT, SILENCE = 5.0, 30.0
"""Seconds to connect, and without a byte of an answer."""
PATIENCE = 60.0
"""Seconds for a request, all its attempts included."""
STREAM_SILENCE = 60.0
"""Seconds without a byte of a stream, after which its connection is given up: the network may have forgotten it."""

_SETTLING = 15.0
"""Seconds after a failure of the server in which it may refuse what it allows."""
_LONGEST_PAUSE = 5.0
_EXCERPT = 2000
_NO_SUCH_PATH = b"404 page not found"
"""How an API server, and no proxy in front of it, answers for a group of the API that it does not know, such as Kueue's."""
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_REFUSING = frozenset({400, 413, 415, 422})


@dataclass(frozen=True)
class Access:
    """How an API server is reached. headers: the credentials. tls: for connections that are not the pool's, in websocket-client's words."""

    host: str
    pool: PoolManager
    headers: Callable[[], Mapping[str, str]]
    tls: Mapping[str, Any]
    proxy: str | None = None


@dataclass(frozen=True)
class Reply:
    """An answer that was read whole. warnings: what the server has to say beside it."""

    status: int
    body: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass
class Call:
    """One thing that is asked for, however often. doing: `create jobs.batch`, for messages. expected: codes and reasons that are an answer, too."""

    doing: str
    expected: Collection[int | str] = ()
    renewed: bool = field(default=False, init=False)


class AgainError(Exception):
    """Something that may pass. failure: what it is if it does not. after: seconds that the server asks for."""

    def __init__(self, failure: Failure, after: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after


class Http:
    """One API server. Any thread may use it. load: how it is reached, as that is now."""

    def __init__(self, load: Callable[[], Access], patience: float = PATIENCE) -> None:
        self._load = load
        self._patience = patience
        self._troubled = float("-inf")
        self.access = load()

    def ask(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: str = "application/json",
    ) -> Reply:
        """The answer to a request."""

        def once() -> Reply:
            response, content = self._send(call, method, path, query=query, body=body, form=form)
            with suppress(ValueError):
                if isinstance(answer := json.loads(content), dict):
                    return Reply(response.status, answer, tuple(_warnings(response.headers.getlist("Warning"))))
            if response.status == 404 and 404 in call.expected and content.strip() == _NO_SUCH_PATH:
                return Reply(404, {})
            why = self.harmless(_excerpt(content))
            raise AgainError(Unavailable("what answers is no API server", where=self.access.host, why=why, remedy=_LATER))

        return self.insist(once)

    def stream(self, call: Call, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """The answer's pieces as they come; none where its code is one of `expected`. Raises ConnectionError where it breaks on the way."""
        from urllib3.exceptions import HTTPError

        response, _ = self.insist(lambda: self._send(call, "GET", path, query=query, stream=True))
        try:
            if 200 <= response.status < 300:
                yield from response.stream(1 << 16)
        except (HTTPError, OSError) as error:
            self._troubled = time.monotonic()
            raise ConnectionError(self.harmless(str(error))) from error
        finally:
            response.close()

    def insist(self, once: Callable[[], Result]) -> Result:
        """Do `once`, and again while it raises AgainError, until patience ends; then its failure is raised."""
        import tenacity

        until = time.monotonic() + self._patience

        def waiting(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, AgainError) and error.after is not None:
                return error.after
            return min(0.1 * 2.0**state.attempt_number, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret

        def over(state: tenacity.RetryCallState) -> bool:
            return time.monotonic() + state.upcoming_sleep >= until

        try:
            return tenacity.Retrying(retry=tenacity.retry_if_exception_type(AgainError), wait=waiting, stop=over, reraise=True)(once)
        except AgainError as error:
            raise error.failure from error

    def broken(self, error: Exception) -> AgainError | Failure:
        """What to raise for a connection that failed."""
        cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        passing = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, passing):
            what, remedy = "the API server's certificate does not fit", "look at certificate-authority and the client's certificate in the kubeconfig"
            return Unavailable(what, where=self.access.host, why=self.harmless(str(cause)), remedy=remedy)
        self._troubled = time.monotonic()
        return AgainError(Unavailable("the API server does not answer", where=self.access.host, why=self.harmless(str(error)), remedy=_LATER))

    def refused(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> AgainError | Failure:
        """What to raise for an answer that is none of the expected ones."""
        host, told = self.access.host, _status(content)
        said = self.harmless(str(told.get("message") or _excerpt(content)))
        if status == 401:
            failure: Failure = NoPermission("the cluster does not accept the credentials", where=host, why=said, remedy="log in to it again")
            if not call.renewed:
                call.renewed = True
                self.access = self._load()
                return AgainError(failure, 0.0)
        elif status == 403:
            failure = NoPermission(f"may not {call.doing}", where=host, why=said, remedy=_allowing(call.doing, said))
        elif status in _REFUSING:
            reasons = "; ".join(": ".join(filter(None, (cause.field, cause.message))) for cause in causes(told)) or said
            return Usage(f"the cluster refuses to {call.doing}", where=host, why=self.harmless(reasons), remedy="correct what it names")
        else:
            self._troubled = time.monotonic() if status >= 500 else self._troubled
            failure = Unavailable(f"the API server could not {call.doing}", where=host, why=f"{status}: {said}", remedy=_LATER)
        passes = status in _PASSING or (status in (401, 403) and time.monotonic() - self._troubled < _SETTLING)
        return AgainError(failure, _retry_after(headers)) if passes else failure

    def harmless(self, text: str) -> str:
        """A text of somebody else's, cut, and without our credentials."""
        for value in self.access.headers().values():
            for secret in (value, value.partition(" ")[2].strip()):
                text = text.replace(secret, "[token]") if len(secret) > 3 else text
        return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]} …"

    def _send(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None = None,
        form: str = "",
        stream: bool = False,
    ) -> tuple[BaseHTTPResponse, bytes]:
        """One attempt: the response, and what it says unless that is a stream. Raises AgainError or a failure."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        access = self.access
        headers = {**access.headers(), "Accept": "application/json, */*", "User-Agent": "modelyard"}
        try:
            response = access.pool.request(
                method,
                access.host + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers=headers if body is None else {**headers, "Content-Type": form},
                timeout=Timeout(connect=CONNECT, read=STREAM_SILENCE if stream else SILENCE),
                retries=False,
                preload_content=False,
            )
            good = 200 <= response.status < 300
            content = b"" if stream and good else response.read(decode_content=True)
        except (HTTPError, OSError) as error:
            raise self.broken(error) from error
        if not stream or not good:
            response.release_conn()
        if not good and not {response.status, _status(content).get("reason")} & set(call.expected):
            raise self.refused(call, response.status, response.headers, content)
        return response, content


def causes(status: Mapping[str, Any]) -> list[Cause]:
    """Why an object was refused, of a Status object: each reason with its field."""
    listed = (status.get("details") or {}).get("causes") or []
    found = [Cause(str(cause.get("field", "")), str(cause.get("message", ""))) for cause in listed if isinstance(cause, dict)]
    if found:
        return found
    message = str(status.get("message", ""))
    fields = [Cause(path, what) for what, path in _STRICT.findall(message)]
    typed = [Cause(path, message[match.start() :]) for match in _TYPE.finditer(message) for path in [match["path"]]]
    return fields + typed or ([Cause("", message)] if message else [])


_STRICT = re.compile(r'((?:unknown|duplicate) field) "([^"]+)"')
_TYPE = re.compile(r"cannot unmarshal \S+ into Go struct field \w+\.(?P<path>\S+) of type \S+")
_WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')
_LATER = "run again later; look at the context in force and at the network"


def _warnings(headers: Collection[str]) -> Iterator[str]:
    for header in headers:
        for text in _WARNING.findall(header):
            yield re.sub(r"\\(.)", r"\1", text)


def _allowing(doing: str, said: str) -> str:
    """What would allow it. Only a refusal by RBAC is about rules; admission refuses what an object holds."""
    verb, _, resource = doing.partition(" ")
    if " cannot " not in said:
        return "the namespace's policy or quota does not take it: change what its message names, or ask who owns the namespace"
    plural, _, group = resource.partition(".")
    rule = f'{{apiGroups: ["{group}"], resources: ["{plural}"], verbs: ["{verb}"]}}'
    name = "/".join(plural.split("/")[:1]) + (f".{group}" if group else "")
    subresource = f" --subresource={plural.partition('/')[2]}" if "/" in plural else ""
    return f"a Role with the rule {rule}; `kubectl auth can-i {verb} {name}{subresource}` must say yes"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _status(content: bytes) -> dict[str, Any]:
    """The Status object that a server answers with when it refuses; empty where it is none."""
    with suppress(ValueError):
        if isinstance(told := json.loads(content), dict):
            return told
    return {}


def _excerpt(content: bytes) -> str:
    return content[:200].decode(errors="replace")
