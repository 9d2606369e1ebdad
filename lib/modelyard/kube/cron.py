"""Cron expressions as Kubernetes reads them: which are taken, and at which times they tick.

Kubernetes ticks whenever the clock on the wall of the time zone shows a time that fits: an hour that daylight saving leaves out has no tick, and one
that comes twice has each of its ticks twice. Of a day of the month and a day of the week one is enough, unless one of them is `*`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from modelyard.errors import Usage


class _Field(NamedTuple):
    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field("day of the week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_ITEM = re.compile(r"(?:\*|([0-9A-Za-z]{1,3})(-[0-9A-Za-z]{1,3})?)(?:/([0-9]{1,2}))?")
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EXAMPLE = "write minute, hour, day of the month, month, day of the week, such as '0 3 * * *' for every night at three"
_OVERLAP = timedelta(hours=3)
"""More than any clock is ever turned."""
_DISORDER = 360
"""More ticks than that span holds on either side, a minute each."""


def check(text: str, where: str = "--cron") -> str:
    """The expression with single spaces. Raises Usage for one that Kubernetes would not take, or that never ticks."""

    def wrong(why: str, remedy: str = _EXAMPLE) -> Usage:
        return Usage(f"{text!r} is no cron expression", where=where, why=why, remedy=remedy)

    fields = text.split()
    if fields and fields[0].startswith("@"):
        known = _MACROS.get(fields[0].lower())
        raise wrong("words such as @daily are not taken", f"write '{known}'" if known else _EXAMPLE)
    if fields and "=" in fields[0]:
        raise wrong("a time zone does not belong into it", f"--time-zone {fields[0].partition('=')[2]} and '{' '.join(fields[1:])}'")
    if len(fields) != len(_FIELDS):
        raise wrong(f"it has {len(fields)} fields, not 5")
    if re.search(r"(?<![\d/])0?7\b", fields[4]):
        raise wrong("the days of the week are 0 (Sunday) to 6 (Saturday)")
    for field, kind in zip(fields, _FIELDS, strict=True):
        try:
            _in_full(field, kind)
        except ValueError as error:
            raise wrong(f"{field!r} is no {kind.name}") from error
    cron = " ".join(fields)
    try:
        never = next(_walls(cron, datetime(2000, 1, 1)), None) is None  # noqa: DTZ001  # a wall's clock has no zone
    except CronSimError:
        never = True  # it knows the days of the months itself
    if never:
        raise wrong("no day is like that, so it would never tick")
    return cron


def check_zone(name: str, where: str = "--time-zone") -> str:
    """The name of a time zone. Raises Usage: there is none of that name."""
    if not _zone_there(name):
        remedy = "write an IANA name, such as Europe/Berlin, Asia/Shanghai or Etc/UTC"
        raise Usage(f"{name!r} is no time zone", where=where, remedy=remedy)
    return name


def local_zone() -> str:
    """The IANA name of this machine's time zone; Etc/UTC where it cannot be known."""
    candidates = [os.environ.get("TZ", "").removeprefix(":")]
    if not candidates[0]:
        candidates.append(os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2])
        timezone = Path("/etc/timezone")
        candidates.append(timezone.read_text().strip() if timezone.is_file() else "")
    return next((name for name in candidates if _zone_there(name)), "Etc/UTC")


def next_tick(cron: str, zone: str, after: datetime) -> datetime | None:
    """The first tick after a time, in UTC."""
    place = ZoneInfo(zone)
    walls = _walls(cron, after.astimezone(place).replace(tzinfo=None) - _OVERLAP)
    found = (tick for wall in islice(walls, _DISORDER) for tick in _instants(wall, place) if tick > after)
    return min(islice(found, _DISORDER), default=None)


def last_ticks(cron: str, zone: str, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The last ticks later than `after` and not later than `until`, in UTC, the newest first, at most so many."""
    place = ZoneInfo(zone)
    first = after.astimezone(place).replace(tzinfo=None) - _OVERLAP
    walls = _walls(cron, until.astimezone(place).replace(tzinfo=None) + _OVERLAP, reverse=True)
    near = islice(takewhile(lambda wall: wall >= first, walls), limit + 2 * _DISORDER)
    found = {tick for wall in near for tick in _instants(wall, place) if after < tick <= until}
    return sorted(found, reverse=True)[:limit]


def _walls(cron: str, wall: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Times on a clock that never is turned, from there on or back."""
    return CronSim(" ".join(_in_full(field, kind) for field, kind in zip(cron.split(), _FIELDS, strict=True)), wall, reverse=reverse)


def _in_full(field: str, kind: _Field) -> str:
    """All numbers of a field, which every reader takes alike; `*` where one item of it is a plain star. Raises ValueError: it is no such field."""
    numbers, star = set[int](), False
    for item in field.split(","):
        found = _ITEM.fullmatch(item)
        if found is None:
            raise ValueError(item)
        begin, end, step = found.groups()
        first = kind.first if begin is None else _number(begin, kind)
        alone = begin is not None and step is None  # `3` is three, `3/2` goes to the end
        last = _number(end[1:], kind) if end else first if alone else kind.last
        values = range(first, last + 1, int(step or 1))
        if not values or first < kind.first or last > kind.last:
            raise ValueError(item)
        numbers.update(values)
        star = star or (begin is None and values.step == 1)
    return "*" if star else ",".join(map(str, sorted(numbers)))


def _number(text: str, kind: _Field) -> int:
    return kind.first + kind.words.index(text.lower()) if text.lower() in kind.words else int(text)


def _instants(wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """When clocks of the zone show that time: once; twice where they were turned back; never where they were put forward."""
    for fold in (0, 1):
        instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == wall:
            yield instant  # the same instant twice where the time is not ambiguous


def _zone_there(name: str) -> bool:
    try:
        return bool(name) and name != "Local" and bool(ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # a folder of zones is an OSError
        return False
