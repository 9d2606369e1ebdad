"""Connections: urllib3's pools, with a deadline that holds, the environment's proxies and certificates, and names for what breaks.

No redirect is followed here, and nothing is tried again.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from modelyard.errors import Refused, Unavailable
from modelyard.hubs.credentials import redact
from modelyard.hubs.limits import LATER, LOOK, AgainError

if TYPE_CHECKING:
    import urllib3
    from urllib3.response import BaseHTTPResponse

Body = bytes | Iterable[bytes] | None

PIECE = 64 << 10
"""Bytes that have to be sent within the silence."""

_state = threading.local()


class Connections:
    """The connections of one client; any thread may use them."""

    def __init__(self) -> None:
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, *, connect: float, silence: float, until: float | None, where: str
    ) -> BaseHTTPResponse:
        """Send a request, and have the head of its answer; the body is still to be read, inside `broken`.

        connect, silence: seconds. until: a monotonic clock's, for what is sent and the head as a whole; None for a body that takes as long as it
        takes, and a head that comes within the silence after it.
        Raises AgainError where that may pass, Refused where the address is none.
        """
        import urllib3

        left = silence if until is None else until - time.monotonic()
        if left <= 0:
            raise Unavailable("the hub answers too slowly", where=where, remedy=LATER)
        timeout = urllib3.Timeout(connect=min(connect, left), read=min(silence, left))
        try:
            with _bounds(until, silence), broken(where):
                return self._manager(url).urlopen(
                    method,
                    url,
                    headers=headers,
                    body=body,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=timeout,
                )
        except urllib3.exceptions.LocationValueError as error:
            raise Refused("this is no address", where=where, remedy=LOOK) from error

    def _manager(self, url: str) -> urllib3.PoolManager:
        """The pools that an address is reached by: directly, or by the proxy that the environment names."""
        import certifi
        import urllib3

        parts = urlsplit(url)
        proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        with self._lock:
            if proxy not in self._managers:
                bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where()
                manager = _proxy(proxy, bundle) if proxy else urllib3.PoolManager(ca_certs=bundle)
                manager.pool_classes_by_scheme = _watched_pools()
                self._managers[proxy] = manager
            return self._managers[proxy]


@contextmanager
def broken(where: str) -> Iterator[None]:
    """Name what breaks a connection: raises AgainError."""
    import urllib3

    errors = urllib3.exceptions
    try:
        yield
    except errors.LocationValueError:
        raise
    except (errors.HTTPError, OSError) as error:
        reached = not isinstance(error, errors.NewConnectionError | errors.ConnectTimeoutError | errors.NameResolutionError)
        silent = isinstance(error, errors.TimeoutError | TimeoutError)
        what = "the hub cannot be reached" if not reached else "the hub is silent" if silent else "the connection broke"
        why = str(getattr(error, "reason", None) or error).rpartition(": ")[2]  # what the system says, without the objects before it
        raise AgainError(Unavailable(what, where=where, why=redact(why)[:200], remedy=LATER), reached=reached) from error


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address; of what is none, the origin of nothing."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(scheme, 0)
    except ValueError:
        return "", "", 0


def redirected(url: str, location: str, where: str) -> str:
    """The address that a redirect leads to. Raises Refused: it is none of the web."""
    with suppress(ValueError):
        target = urljoin(url, location)
        if location and origin(target)[0] in ("http", "https") and origin(target)[1]:
            return target
    raise Refused("the hub leads elsewhere than to an address of the web", where=where, remedy=LOOK)


def _proxy(address: str, bundle: str) -> urllib3.ProxyManager:
    import urllib3

    parts = urlsplit(address)
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    return urllib3.ProxyManager(address, proxy_headers=urllib3.make_headers(proxy_basic_auth=user), ca_certs=bundle)


@contextmanager
def _bounds(deadline: float | None, silence: float) -> Iterator[None]:
    """What this thread sends inside, and the heads that it reads, keep these bounds."""
    _state.deadline, _state.silence = deadline, silence
    try:
        yield
    finally:
        del _state.deadline, _state.silence


def _watched_pools() -> Any:
    """urllib3's pools with connections that keep the bounds: a head that comes byte by byte never times out by itself.

    And what is sent would have the time of a connect, all bytes of a body together.
    """
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    pools = {}
    for scheme, pool in (("http", HTTPConnectionPool), ("https", HTTPSConnectionPool)):

        class Connection(pool.ConnectionCls):  # type: ignore[misc,name-defined]
            def send(self, data: bytes) -> None:
                if self.sock is None:
                    self.connect()
                for start in range(0, len(data), PIECE):
                    left = _state.silence if _state.deadline is None else min(_state.silence, _state.deadline - time.monotonic())
                    if left <= 0:
                        raise TimeoutError("the hub did not take what is sent in time")
                    self.sock.settimeout(left)
                    super().send(data[start : start + PIECE])

            def getresponse(self) -> Any:
                deadline = _state.deadline or time.monotonic() + _state.silence
                timer = threading.Timer(max(0.0, deadline - time.monotonic()), _shut, [self.sock])
                timer.daemon = True
                timer.start()
                try:
                    response = super().getresponse()
                finally:
                    timer.cancel()
                if time.monotonic() >= deadline:  # what there was of the head looks like a whole one
                    raise TimeoutError("the head of the answer did not come in time")
                return response

        pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": Connection})
    return pools


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
