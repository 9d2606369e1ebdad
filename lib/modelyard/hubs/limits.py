"""When a hub is given up: the deadlines, bounds and counts of everything that is asked of one, and what is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from modelyard.errors import Failure, Refused, Unavailable

Result = TypeVar("Result")

LATER = "run again later; look at the hub's address and at the network"
LOOK = "do not use this hub, or have its owner look at it"


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes and counts. One set of constants; tests lower them."""

    connect: float = 5.0
    """To connect."""
    silence: float = 10.0
    """Without a byte."""
    request: float = 20.0
    """For a metadata request, further attempts included."""
    call: float = 120.0
    """For all requests of a metadata call, such as the pages of a listing."""
    sending: float = 300.0
    """Without a byte, and for a request, while something is uploaded: the hub may hash it before it answers."""
    attempts: int = 4
    """At one request; and in a row at going on with a broken stream that brings nothing."""
    pause: float = 0.5
    """Before the second attempt; each later one waits twice as long."""
    wait: float = 60.0
    """The longest `Retry-After` that is heeded."""
    slow: tuple[int, float] = (1024, 30.0)
    """Bytes a second, and the seconds over which they are counted: what is slower is given up."""
    redirects: int = 8
    requests: int = 1500
    """Of one metadata call."""
    answer: int = 128 << 20
    """Bytes of all answers of one call."""

    def back_off(self, number: int) -> float:
        """Seconds before one more attempt after `number` further ones, with jitter: those who failed together shall not come back together."""
        return min(self.pause * 2.0**number, 8.0) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret


LIMITS = Limits()


class AgainError(Exception):
    """Something that may pass. failure: what it is if it does not. after: seconds that the hub asks for. reached: it may have done what was asked."""

    def __init__(self, failure: Failure, after: float | None = None, *, reached: bool = False) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after
        self.reached = reached


def insist(once: Callable[[], Result], limits: Limits, until: float | None = None, *, repeat: bool = True) -> Result:
    """Do `once`, and again while it raises AgainError, as often and as long as the limits say; then its failure is raised.

    until: a monotonic clock's. repeat: also what may have reached the hub.
    """
    import tenacity

    def waiting(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, AgainError) else None
        return limits.back_off(state.attempt_number - 1) if after is None else after

    def over(state: tenacity.RetryCallState) -> bool:
        late = until is not None and time.monotonic() + state.upcoming_sleep >= until
        return late or state.upcoming_sleep > limits.wait or state.attempt_number >= limits.attempts

    def passes(error: BaseException) -> bool:
        return isinstance(error, AgainError) and (repeat or not error.reached)

    try:
        return tenacity.Retrying(retry=tenacity.retry_if_exception(passes), wait=waiting, stop=over, reraise=True)(once)
    except AgainError as error:
        raise error.failure from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a hub asks to wait, None where it does not, or says so in no way that is known."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


class Budget:
    """What one call may cost in all. metadata: it sends no files, and therefore has an end as a whole."""

    def __init__(self, limits: Limits, *, metadata: bool = True) -> None:
        self._limits = limits
        self._metadata = metadata
        self._until = time.monotonic() + limits.call
        self._requests = self._bytes = 0

    @property
    def silence(self) -> float:
        """Seconds without a byte."""
        return self._limits.silence if self._metadata else self._limits.sending

    def ask(self) -> float:
        """Count one request; when it has to be over. Raises Refused where there is no end of them."""
        self._requests += 1
        if self._metadata and self._requests > self._limits.requests:
            raise Refused("the hub's answer has no end", why=f"after {self._limits.requests} requests there is more", remedy=LOOK)
        now = time.monotonic()
        return min(now + self._limits.request, self._until) if self._metadata else now + self._limits.sending

    def take(self, count: int) -> None:
        """Count what was answered. Raises Refused where it is too much."""
        self._bytes += count
        if self._bytes > self._limits.answer:
            raise Refused("the hub's answer is too large", why=f"over {self._limits.answer} bytes", remedy=LOOK)


class Speed:
    """How fast a stream is, over all the connections that bring it."""

    def __init__(self, limits: Limits, where: str) -> None:
        self._where = where
        self._rate, self._over = limits.slow
        self._since, self._bytes = time.monotonic(), 0

    def count(self, count: int) -> None:
        """Count bytes. Raises Unavailable when they came too slowly for too long."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since >= self._over:
            if self._bytes < self._rate * (now - self._since):
                why = f"{self._bytes} bytes in {now - self._since:.0f} s"
                raise Unavailable("the hub sends too slowly", where=self._where, why=why, remedy=LATER)
            self._since, self._bytes = now, 0
