"""A row of what preflight looked at: what was found, what is needed, a verdict, and the reason for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from modelyard.errors import Corrupt, Failure, HostOom, NoAccelerator, NoInput, NoPermission, NoSpace, Refused, Unavailable, Usage, VolumeFailed


class Verdict(StrEnum):
    """In rising order of badness."""

    OK = "ok"
    WARNING = "warning"  # the pipeline can run, yet not as it was asked, or that cannot be said
    FAILED = "failed"  # it would fail


FIRST: tuple[type[Failure], ...] = (
    NoAccelerator,
    NoSpace,
    VolumeFailed,
    Unavailable,
    NoPermission,
    HostOom,
    NoInput,
    Corrupt,
    Refused,
    Usage,
)
"""Which of several failed rows names the step's failure: what takes longest to mend comes first."""


@dataclass(frozen=True)
class Row:
    """One thing that was looked at. failure: the class with which the pipeline would fail; None where it would not."""

    check: str
    found: str
    needed: str = ""
    reason: str = ""
    remedy: str = ""
    verdict: Verdict = Verdict.OK
    failure: type[Failure] | None = None

    @classmethod
    def bad(cls, check: str, failure: type[Failure], *, soft: bool, found: str = "", needed: str = "", reason: str = "", remedy: str = "") -> Row:
        """A row that is not as it should be. soft: the pipeline can run all the same."""
        if soft:
            return cls(check, found, needed, reason, remedy, Verdict.WARNING)
        return cls(check, found, needed, reason, remedy, Verdict.FAILED, failure)

    @classmethod
    def of(cls, check: str, failure: Failure, *, needed: str = "") -> Row:
        """A row for what could not be looked at, or was refused when it was."""
        reason = ": ".join(part for part in (failure.where, failure.why) if part)
        return cls.bad(check, type(failure), soft=False, found=failure.what, needed=needed, reason=reason, remedy=failure.remedy)

    def record(self) -> dict[str, Any]:
        """The row as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "failure"}

    def error(self) -> Failure:
        """The failure that a failed row stands for."""
        kind = self.failure or Usage
        needed = f"; needed: {self.needed}" if self.needed else ""
        return kind(f"{self.check}: {self.found or 'not there'}{needed}", why=self.reason, remedy=self.remedy)


def worst(rows: list[Row]) -> Verdict:
    """The verdict of the whole."""
    return max((row.verdict for row in rows), key=list(Verdict).index, default=Verdict.OK)


def first_failed(rows: list[Row]) -> Row | None:
    """The failed row that names the failure, by `FIRST`, then by the order of the rows; None when none failed."""
    failed = [row for row in rows if row.failure]
    return min(failed, key=lambda row: FIRST.index(row.failure) if row.failure in FIRST else len(FIRST), default=None)
