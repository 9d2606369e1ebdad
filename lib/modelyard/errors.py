"""The table of failures: one class per way in which a step, a run or a command can end badly.

The exit code is a contract. The step's process exits with it, a Job's podFailurePolicy is made from the `rule` column, the driver retries by
it, and the CLI exits with it. A failure says what happened, where, why, and what to do next; it never carries a token.

Codes 64 to 78 follow sysexits.h where that has a word for the case; 124, 130, 137 and 139 are the shells' (timeout, SIGINT, SIGKILL, SIGSEGV).
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar


class Rule(StrEnum):
    """What the one who runs a step does with its exit code."""

    FAIL = "fail"  # trying again cannot help
    COUNT = "count"  # may pass: try again, at most RETRIES times
    IGNORE = "ignore"  # not the step's fault: try again, capped by no-progress only
    CLI = "cli"  # ends a command, never a step


RETRIES = 2
"""Further attempts of a step after one whose rule is `count` (a Job's backoffLimit)."""

REGISTRY: dict[str, type[Failure]] = {}
"""Category -> class, in the order of the table."""


class Failure(Exception):
    """One row of the table; raised by its subclasses only.

    what: what went wrong, one line. where: a file and line, a field path, an object, or nothing. why: the evidence.
    remedy: the next thing to do, a command where there is one.
    """

    category: ClassVar[str]
    exit_code: ClassVar[int]
    rule: ClassVar[Rule]
    meaning: ClassVar[str]

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy

    def __init_subclass__(cls, *, category: str, exit_code: int, rule: Rule, meaning: str) -> None:
        """Enter the class into the table."""
        cls.category, cls.exit_code, cls.rule, cls.meaning = category, exit_code, rule, meaning
        REGISTRY[category] = cls

    def __str__(self) -> str:
        """`where: what: why`, with the parts that there are."""
        return ": ".join(part for part in (self.where, self.what, self.why) if part)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the keyword arguments when the failure crosses a process boundary."""
        return from_record, (self.record(),)

    def record(self) -> dict[str, str]:
        """The failure as plain strings, as it is kept in outcome.json and in a termination message."""
        return {"category": self.category, "what": self.what, "where": self.where, "why": self.why, "remedy": self.remedy}


class Usage(Failure, category="usage", exit_code=64, rule=Rule.FAIL, meaning="the spec or the command line is wrong"):
    """Raised when a pipeline, a setting, a ref or a command's arguments cannot be accepted."""


class BadData(Failure, category="data", exit_code=65, rule=Rule.FAIL, meaning="the data or the model do not fit the task"):
    """Raised when rows, labels, columns' contents or a model's head do not fit what the step has to do."""


class NoInput(Failure, category="no-input", exit_code=66, rule=Rule.FAIL, meaning="a ref, file, column or run does not exist"):
    """Raised when something named is not there."""


class Unavailable(Failure, category="unavailable", exit_code=69, rule=Rule.COUNT, meaning="a hub or the cluster is not reachable"):
    """Raised when a remote side did not answer, after the retries inside."""


class Bug(Failure, category="bug", exit_code=70, rule=Rule.FAIL, meaning="an error of modelyard; the run keeps the traceback"):
    """Raised, by the frame only, in place of an exception that no row names."""


class NoSpace(Failure, category="no-space", exit_code=73, rule=Rule.FAIL, meaning="the volume is full; what was staged is removed"):
    """Raised when the volume cannot take what the step must write."""


class VolumeFailed(Failure, category="io", exit_code=74, rule=Rule.COUNT, meaning="the volume failed, or cannot do what a yard needs"):
    """Raised when the file system refuses or fails an operation for a reason other than space."""


class Yielded(Failure, category="yielded", exit_code=75, rule=Rule.IGNORE, meaning="asked to stop; what was done is kept for the next attempt"):
    """Raised when a step obeys SIGTERM."""


class Corrupt(Failure, category="corrupt", exit_code=76, rule=Rule.COUNT, meaning="content does not match its hash or its size"):
    """Raised when bytes are not the bytes that were named."""


class NoPermission(Failure, category="no-permission", exit_code=77, rule=Rule.FAIL, meaning="a token is missing or refused, or a right is missing"):
    """Raised when a hub, the cluster or the file system denies access."""


class NoAccelerator(Failure, category="no-accelerator", exit_code=78, rule=Rule.FAIL, meaning="the device asked for is not usable on this node"):
    """Raised when an accelerator was asked for, is not usable, and no fallback is allowed."""


class Deadline(Failure, category="deadline", exit_code=79, rule=Rule.FAIL, meaning="running time over `time_limit`"):
    """Raised when all attempts of a step together ran longer than its time limit."""


class DeviceOom(
    Failure, category="device-oom", exit_code=80, rule=Rule.FAIL, meaning="the device's memory is too small, also after the batch was halved"
):
    """Raised when the smallest batch that the step allows does not fit on the device."""


class Refused(Failure, category="refused", exit_code=81, rule=Rule.FAIL, meaning="the gate said no, or the content is unsafe"):
    """Raised when a gate does not pass, or when content is unsafe: a path, a symlink, a pickle or code without `trust`."""


class Idle(Failure, category="idle", exit_code=82, rule=Rule.FAIL, meaning="the accelerator was under the floor for the whole window"):
    """Raised when an accelerator that was asked for is not used."""


class HostOom(Failure, category="host-oom", exit_code=83, rule=Rule.FAIL, meaning="the memory limit was reached"):
    """Raised when the kernel killed the work at the memory limit; the remedy names the number to ask for."""


class NoProgress(Failure, category="no-progress", exit_code=84, rule=Rule.FAIL, meaning="three attempts of one run ended without new progress"):
    """Raised in place of a further attempt that would end like those before it."""


class PeerLost(Failure, category="peer-lost", exit_code=85, rule=Rule.IGNORE, meaning="another rank went away"):
    """Raised when a distributed step lost one of its ranks."""


class TimedOut(Failure, category="timed-out", exit_code=124, rule=Rule.CLI, meaning="timed out waiting"):
    """Raised when a command waited as long as it was told to."""


class Interrupted(Failure, category="interrupted", exit_code=130, rule=Rule.CLI, meaning="interrupted or cancelled"):
    """Raised when a person ended a command or a run."""


class Crashed(Failure, category="crashed", exit_code=137, rule=Rule.COUNT, meaning="killed or crashed without a name"):
    """Raised, by the one who waited for it, for a process that ended with a signal or with a code that no row has."""


def from_exit(code: int) -> type[Failure] | None:
    """The class of a process's exit code, None for 0; every code that no row has is a crash.

    code: as the shell counts it (128 + signal) or as Python does (-signal).
    """
    if code == 0:
        return None
    return _BY_EXIT.get(code, Crashed)


def from_record(record: Mapping[str, Any]) -> Failure:
    """The failure that `Failure.record` wrote down."""
    kind = REGISTRY.get(record.get("category", ""), Crashed)
    return kind(record.get("what", ""), where=record.get("where", ""), why=record.get("why", ""), remedy=record.get("remedy", ""))


def suggest(word: str, known: Iterable[str]) -> str:
    """A remedy for a word that is not known: the one that it resembles, else all of them."""
    import difflib  # late: only who has erred pays for it

    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"


def signal_name(code: int) -> str:
    """`SIGKILL` for -9 and 137, `exit 3` for 3: how a crash is named in a message."""
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit {code}"


_BY_EXIT = {failure.exit_code: failure for failure in REGISTRY.values()}
