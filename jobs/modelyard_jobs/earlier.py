"""Whether one more attempt at a step is in vain: what the attempts before it, in the same run, have left behind.

Nothing is known here of why a step fails; only that its time is used up, that three in a row got nowhere, or that the last one filled its memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard.errors import Deadline, NoProgress
from modelyard.quantities import format_bytes, format_seconds
from modelyard.yard.runs import Attempt
from modelyard_jobs import crashes

FRUITLESS = 3
"""Attempts without progress after which another one is not begun."""


class Earlier:
    """The attempts before one."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempts = [other for other in attempt.run.attempts(attempt.step) if other.number < attempt.number]

    @property
    def ended_well(self) -> bool:
        """Whether the last one did: then this one does not go on with anything, somebody asks for the same again."""
        return bool(self._attempts) and self._attempts[-1].ended() == "ok"

    def left(self, limit: float) -> float:
        """What they have left of the step's running time, in seconds. Raises Deadline: nothing."""
        spent = sum(attempt.seconds() for attempt in self._attempts)
        if spent >= limit:
            what, why = f"{format_seconds(spent)} of running time are used", f"time_limit is {format_seconds(limit)}"
            raise Deadline(what, why=why, remedy="raise time_limit")
        return limit - spent

    def got_on(self, saved: Mapping[str, Sequence[str]], log: str, *, fetched: bool = False) -> None:
        """Raises NoProgress: the last ones ended, however, without anything saved.

        saved: attempt -> what there is of it; log: where to look. fetched: they had their inputs to fetch first. Then those that did not come to
        their own work are not judged here: whether they got on with that is known of the fetch's attempts.
        """
        recent = [attempt for attempt in self._attempts if not fetched or attempt.last_sample()][-FRUITLESS:]
        if len(recent) == FRUITLESS and not any(saved.get(attempt.id) or attempt.ended() == "ok" for attempt in recent):
            why = "; ".join(f"attempt {attempt.number}: {attempt.ended()}" for attempt in recent)
            raise NoProgress(f"{FRUITLESS} attempts ended without progress", why=why, remedy=f"see {log}")

    def fitted(self, limit: int | None) -> None:
        """Raises HostOom: the last one was near today's memory limit when it was killed, and nobody was left to say so."""
        if not self._attempts or not limit:
            return
        last = self._attempts[-1]
        used = (last.last_sample() or {}).get("used", 0)
        if last.outcome() is None and used >= crashes.NEAR_LIMIT * limit:
            raise crashes.host_oom(used, limit, f"attempt {last.number} was killed without a word at {format_bytes(used)}")
