"""The gate: whether measured metrics are good enough to promote or publish a model. Pure: metrics in, verdict out.

`at_least` is compared with the value, or, where the gate says `sure`, with the lower end of the 95 % interval. `not_worse_than_champion` is a floor
under the paired difference to the other model: of the metrics that `at_least` names, else of the main one. A gate knows numbers only; that they were
measured on the model that is published is the yard's to say (yard/lineage.py), and that the other one is the champion is the step's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from modelyard.errors import Corrupt, NoInput, Refused, suggest
from modelyard.steps import Gate

POWER = 0.8
"""The chance of passing that `passing_value` answers for."""


@dataclass(frozen=True)
class Line:
    """One metric against its floor. low, high: its 95 % interval; n: the rows that it is a statement about.

    difference: value, interval and floor are of the metric less that of the champion, on the same rows.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    at_least: float
    sure: bool
    passed: bool
    difference: bool = False

    def __str__(self) -> str:
        """`accuracy 0.731 (95 % interval 0.701 to 0.759, n = 900); at least 0.8 asked for`."""
        asked = f"at least {self.at_least:g} asked for" + (" of the interval's lower end" if self.sure else "")
        what, form = (f"{self.metric} less the champion's", "+") if self.difference else (self.metric, "")
        return f"{what} {self.value:{form}.6g} (95 % interval {self.low:{form}.4g} to {self.high:{form}.4g}, n = {self.n}); {asked}"


@dataclass(frozen=True)
class Verdict:
    """What the gate said, a line per metric that it names, in its order."""

    lines: tuple[Line, ...]

    @property
    def passed(self) -> bool:
        """Whether every line passed."""
        return all(line.passed for line in self.lines)

    def record(self) -> dict[str, Any]:
        """The verdict as JSON."""
        return {"passed": self.passed, "lines": [asdict(line) for line in self.lines]}

    def enforce(self, where: str = "") -> None:
        """Raise Refused where a line did not pass: the first of them in `what`, further ones in `why`."""
        failed = [line for line in self.lines if not line.passed]
        if failed:
            lower = "raise gate.not_worse_than_champion" if failed[0].difference else f"lower gate.at_least.{failed[0].metric}"
            remedy = f"make the model better, or {lower}"
            raise Refused(f"the gate said no: {failed[0]}", where=where, why="; ".join(map(str, failed[1:])), remedy=remedy)


def judge(metrics: Mapping[str, Any], gate: Gate, where: str = "", *, main: str) -> Verdict:
    """Compare the metrics that the gate names.

    metrics: name -> {value, low, high, n, difference, …}, as metrics.json has them. main: the one that models are compared by where the gate names
    none. where: what they were read from, for messages.
    Raises NoInput: one of the gate's metrics is not among them, or was not compared with another model's; Corrupt: it has no finite value.
    """
    floors = [_line(metrics, name, floor, where, sure=gate.sure) for name, floor in gate.at_least.items()]
    least = 0.0 - (gate.not_worse_than_champion or 0.0)
    compared = [_line(metrics, name, least, where, sure=gate.sure, difference=True) for name in gate.compared(main)]
    return Verdict((*floors, *compared))


def _line(metrics: Mapping[str, Any], name: str, floor: float, where: str, *, sure: bool, difference: bool = False) -> Line:
    if name not in metrics:
        raise NoInput(f"there is no metric {name!r}", where=where, remedy=suggest(name, metrics))
    found = metrics[name]
    if difference and isinstance(found, Mapping) and found.get("difference") is None:
        why, remedy = "the model was measured alone", "give the evaluate step `against: yard://models/NAME@champion`"
        raise NoInput(f"{name} was not compared with a champion's", where=where, why=why, remedy=remedy)
    try:
        found = found["difference"] if difference else found
        value, low, high = (float(found[part]) for part in ("value", "low", "high"))
        n = int(found["n"])
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"the metric {name!r} cannot be read", where=where, why=repr(error)[:200], remedy="evaluate again") from error
    if not all(map(math.isfinite, (value, low, high))):
        raise Corrupt(f"the metric {name!r} is no number", where=where, why=f"{value}, {low}, {high}", remedy="evaluate again")
    return Line(name, value, low, high, n, floor, sure, (low if sure else value) >= floor, difference)


def passing_value(at_least: float, n: int, sure: bool = False) -> float | None:
    """The smallest true value with which a proportion, measured on n rows, passes with 80 % chance; None: no measurement of n rows can pass.

    Exact: the binomial tail from the smallest count that passes. sure: that count's Wilson interval (two-sided, 95 %) has its lower end at
    `at_least`, which is where the score test's z is 1.96 (E. B. Wilson, JASA 22 (1927), 209).
    """
    if at_least <= 0 or n < 1:
        return 0.0 if at_least <= 0 else None
    z = NormalDist().inv_cdf(0.975) if sure else 0.0
    asked = n * at_least + z * math.sqrt(n * at_least * max(0.0, 1 - at_least))
    count = max(1, math.ceil(asked - 1e-9 * n))  # what a product such as 100 * 0.07 has too much is not a row
    if count > n or (sure and at_least >= 1):
        return None
    low, high = (count - 1) / n, 1.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (low, middle) if _tail(count, n, middle) >= POWER else (middle, high)
    return high


def _tail(count: int, n: int, share: float) -> float:
    """P(X >= count) of X ~ Bin(n, share), for share > (count - 1) / n: below count the terms fall, so few of them matter."""
    at = count - 1
    term = math.exp(math.lgamma(n + 1) - math.lgamma(at + 1) - math.lgamma(n - at + 1) + at * math.log(share) + (n - at) * math.log1p(-share))
    below = 0.0
    while at >= 0 and term > 1e-16:
        below += term
        term *= at * (1 - share) / ((n - at + 1) * share)
        at -= 1
    return 1 - below
