"""A verdict on one thing that a run on a cluster needs: yes, no, or not known, with the reason and one thing to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.errors import Failure
from modelyard.kube.survey import Unseen


@dataclass(frozen=True)
class Verdict:
    """One row. why: one line. lines: the arithmetic.

    remedy: one thing to do. needed: whether a run needs it. category, failure: of a `no`.
    """

    check: str
    verdict: Literal["ok", "no", "unknown"]
    why: str
    remedy: str = ""
    lines: tuple[str, ...] = ()
    category: str = ""
    failure: type[Failure] | None = None
    needed: bool = True

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        code = None if self.failure is None else self.failure.exit_code
        told = {"check": self.check, "verdict": self.verdict, "why": self.why, "remedy": self.remedy, "lines": list(self.lines)}
        return {**told, "category": self.category, "exit_code": code, "needed": self.needed}


def no(check: str, category: str, failure: type[Failure], why: str, remedy: str, *, lines: Sequence[str] = (), needed: bool = True) -> Verdict:
    """A run would fail, or wait, for this. category: as in `diagnosis`."""
    return Verdict(check, "no", why, remedy, tuple(lines), category, failure, needed)


def unseen(check: str, found: Unseen, remedy: str = "", *, needed: bool = True) -> Verdict:
    """It may not be looked at, or was not answered."""
    return Verdict(check, "unknown", found.why, remedy, needed=needed)
