"""The ticks of a schedule and what has come of each: those that have a Job by its run, those that never got one by what is left to tell. Pure.

That a tick was skipped is seen from a Job that was at work then; that it was missed from Kubernetes' own words, or because nothing else explains it
and the Jobs of that time are still kept. Where neither is so, only what is known is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from modelyard.errors import Refused, Usage
from modelyard.kube import cron, ends, names, schedule
from modelyard.kube.cluster import Manifest
from modelyard.quantities import format_seconds
from modelyard.yard.runs import RunState, RunStatus, StepState

GATED = frozenset({"promote", "publish"})
"""Steps that a gate may refuse."""

Prefix = Callable[[str], str]
"""The beginning of the names of a tick's runs, by the tick in UTC."""


@dataclass(frozen=True)
class Tick:
    """One tick. state: of its run (running, done, failed, cancelled, stopped; refused: by a gate), else due, skipped, missed, suspended, no job.

    run: empty where there was none. triggered: by a person. category, remedy: of a run that failed.
    """

    at: str
    state: str
    run: str = ""
    job: str = ""
    triggered: bool = False
    reason: str = ""
    category: str = ""
    remedy: str = ""

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def time_of(job: Manifest) -> datetime | None:
    """The tick that a Job is for, in UTC; None for one that somebody made without a tick, or with one that is no time: its driver says so."""
    text = _annotation(job, names.TICK) or _annotation(job, names.SCHEDULED)
    try:
        return _time(text) if text else None
    except (ValueError, OverflowError):
        return None


def expression(of: Manifest) -> tuple[str, str] | None:
    """The cron expression and the zone of a schedule; None where another hand wrote one that is not read here."""
    try:
        return cron.check(of["spec"]["schedule"]), cron.check_zone(of["spec"].get("timeZone") or "Etc/UTC")
    except Usage:
        return None


def upcoming(of: Manifest, now: datetime) -> str:
    """The next tick; empty while the schedule is suspended, or where its expression is not read here."""
    known = expression(of)
    found = cron.next_tick(*known, now) if known and not of["spec"].get("suspend") else None
    return written(found) if found else ""


def history(
    of: Manifest,
    jobs: Sequence[Manifest],
    statuses: Mapping[str, RunStatus],
    *,
    now: datetime,
    limit: int,
    events: Sequence[Manifest] = (),
    prefix: Prefix | None = None,
) -> list[Tick]:
    """The last ticks of a schedule, the newest first. jobs: its Jobs. statuses: run -> its status. events: of the CronJob."""
    made = [(time_of(job) or _time(job["metadata"]["creationTimestamp"]), job) for job in jobs]
    found = [(at, _of_job(at, job, statuses)) for at, job in made]
    known = expression(of)
    if known:
        began = max(_time(of["metadata"]["creationTimestamp"]), schedule.since(of))
        ticks = cron.last_ticks(*known, began, now, limit)
        taken = {at for at, job in made if _annotation(job, names.SCHEDULED)}
        look = _Look(of, jobs, statuses, events, prefix, now, latest=max(ticks, default=now))
        found += [(at, look.tick(at)) for at in ticks if at not in taken]
    return [tick for _, tick in sorted(found, key=lambda one: (one[0], one[1].job), reverse=True)[:limit]]


@dataclass(frozen=True)
class _Look:
    """What is known where a tick has no Job. jobs: all of the schedule. latest: tick."""

    of: Manifest
    jobs: Sequence[Manifest]
    statuses: Mapping[str, RunStatus]
    events: Sequence[Manifest]
    prefix: Prefix | None
    now: datetime
    latest: datetime

    def tick(self, at: datetime) -> Tick:
        """The tick, and the best that can be said of it."""
        begins = self.prefix(written(at)) if self.prefix else ""
        runs = [run for run in self.statuses if begins and re.fullmatch(rf"{re.escape(begins)}\d+", run)]
        runs = runs or [run for run in (self._job(at),) if run in self.statuses]  # cancelled before its driver had named it
        if runs:
            return _of_status(at, self.statuses[max(runs, key=lambda run: (len(run), run))])
        state, reason = next(self._said(at))
        return Tick(written(at), state, reason=reason)

    def _said(self, at: datetime) -> Iterator[tuple[str, str]]:
        deadline = timedelta(seconds=int(self.of["spec"].get("startingDeadlineSeconds") or 10**8))
        last = (self.of.get("status") or {}).get("lastScheduleTime")
        if last and at == _time(last):
            yield "no job", f"its Job {self._job(at)} was made, and is gone"
        pending = at == self.latest and self.now - at <= deadline
        suspended = bool(self.of["spec"].get("suspend"))
        for begin, end in schedule.suspensions(self.of):
            if begin <= at and (at < end if end else suspended):  # others may have let it go on
                yield "suspended", f"it was suspended from {written(begin)}" + (f" to {written(end)}" if end else "")
        for event in self.events:
            if event.get("reason") == "MissSchedule" and at in _times(event.get("message", "")):
                yield "missed", f"its Job could not be made within {format_seconds(deadline.total_seconds())}"
        busy = next((job for job in self.jobs if _annotation(job, names.SCHEDULED) and self._busy(job, at)), None)
        if busy:
            run = names.run_of(busy)
            yield ("due", f"as soon as {run} ends") if pending and not ends.finished(busy) else ("skipped", f"{run} was still at work")
        if suspended and all(end for _, end in schedule.suspensions(self.of)):
            yield "no job", "the schedule is suspended by other means than modelyard; since when is not known"
        for event in self.events:
            if (
                event.get("reason") == "FailedCreate"
                and at <= _time(event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]) <= at + deadline
            ):
                yield ("due" if pending else "missed"), str(event.get("message", ""))
        if pending:
            yield "due", "its Job is not made yet"
        if self._kept("Complete", "successfulJobsHistoryLimit", at) and self._kept("Failed", "failedJobsHistoryLimit", at):
            yield "missed", "nothing was at work then: the controller was away, or somebody suspended it by other means"
        yield "no job", "what ran then is not kept any more"

    def _kept(self, end: str, limit: str, at: datetime) -> bool:
        """Whether a Job of that time that ended so would still be there. Those that a person made count among the kept too."""
        began = [_time(job["metadata"]["creationTimestamp"]) for job in self.jobs if ends.finished(job) == end]
        return len(began) < int(self.of["spec"].get(limit, 0)) or min(began, default=self.now) <= at

    def _job(self, at: datetime) -> str:
        """What the CronJob controller calls the Job of a tick."""
        return f"{self.of['metadata']['name']}-{int(at.timestamp()) // 60}"

    def _busy(self, job: Manifest, at: datetime) -> bool:
        """Whether a Job was at work at that time."""
        ended = [_time(one["lastTransitionTime"]) for one in job.get("status", {}).get("conditions") or [] if one["type"] in ("Complete", "Failed")]
        return _time(job["metadata"]["creationTimestamp"]) <= at < min(ended, default=self.now + timedelta(seconds=1))


def _of_job(at: datetime, job: Manifest, statuses: Mapping[str, RunStatus]) -> Tick:
    name, run = job["metadata"]["name"], names.run_of(job)
    by_hand = names.SCHEDULED not in (job["metadata"].get("annotations") or {})
    status = statuses.get(run)
    if status is None:
        return Tick(written(at), "running", run if run != name else "", name, by_hand)
    return _of_status(at, status, name, triggered=by_hand)


def _of_status(at: datetime, status: RunStatus, job: str = "", *, triggered: bool = False) -> Tick:
    run = "" if status.run == job else status.run  # its driver has not named it
    if status.state is RunState.RUNNING and not job:
        return Tick(written(at), RunState.STOPPED.value, run, reason="its driver's Job is gone, and left no last word")
    step, failed = next(((name, step) for name, step in status.steps.items() if step.state is StepState.FAILED), ("", None))
    if status.state is RunState.FAILED and failed:
        state = "refused" if failed.category == Refused.category and failed.verb in GATED else "failed"
        reason = ": ".join(filter(None, [step, failed.what, failed.why]))
        return Tick(written(at), state, run, job, triggered, reason, failed.category, failed.remedy)
    reused = sum(one.state is StepState.REUSED for one in status.steps.values())
    reason = f"{reused} of {len(status.steps)} steps reused" if reused and status.state is RunState.DONE else ""
    return Tick(written(at), status.state.value, run, job, triggered, "; ".join(filter(None, [*status.notes, reason])))


def written(at: datetime) -> str:
    """A tick as runs are named by it: `2026-11-23T03:00:00Z`."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _annotation(of: Manifest, name: str) -> str:
    return str((of["metadata"].get("annotations") or {}).get(name, ""))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _times(message: str) -> set[datetime]:
    """Times in the words of an event, as Kubernetes writes them there: `Mon, 23 Nov 2026 03:00:00 +0000`."""
    return {parsedate_to_datetime(text).astimezone(UTC) for text in re.findall(r"\w{3}, \d{2} \w{3} \d{4} [\d:]{8} [+-]\d{4}", message)}
