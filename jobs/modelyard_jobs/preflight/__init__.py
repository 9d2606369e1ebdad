"""preflight: would the pipeline of this run work here? A verdict and a reason for each thing that it needs, before anything costs an hour.

row.py         a row, and which failed row names the step's failure
subject.py     the pipeline, what it asks for, and what of it is in the yard already
software.py    Python, packages, torch, the provider of ONNX Runtime that is really in use; ask.py asks the heavy libraries, each in a process
devices.py     accelerators, their memory, the driver
room.py        threads, memory, shared memory, the yard's volume and its space
hubs.py        hubs, tokens, refs
gates.py       what a gate needs

The result is {"verdict": of the worst row, "rows": all of them}; a failed row makes the step fail, after all were looked at. Nothing is fetched or
kept: beside the volume's probe, which cleans up after itself, nothing is written. What cannot be looked at is a row too, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from modelyard.errors import Failure, Yielded
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.preflight import devices, gates, hubs, room, software
from modelyard_jobs.preflight.devices import Accelerators
from modelyard_jobs.preflight.row import Row, Verdict, first_failed, worst
from modelyard_jobs.preflight.subject import Subject

__all__ = ["run"]

Check = Callable[[Subject, Accelerators], Iterator[Row]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "python": lambda subject, _: software.python(subject),
        "packages": lambda subject, _: software.packages(subject),
        "torch": software.torch,
        "onnxruntime": software.onnxruntime,
        "devices": lambda _, accelerators: devices.devices(accelerators),
        "driver": lambda _, accelerators: devices.driver(accelerators),
        "threads": lambda subject, _: room.threads(subject),
        "memory": lambda subject, _: room.memory(subject),
        "shm": lambda subject, _: room.shm(subject),
        "volume": lambda subject, _: room.volume(subject),
        "disk": lambda subject, _: room.disk(subject),
        "hubs": lambda subject, _: hubs.rows(subject),
        "gates": lambda subject, _: gates.rows(subject),
    }
)
"""In the order of the table."""


def run(context: Context) -> Produced:
    """Look at everything. Raises the failure of the failed row that comes first by row.FIRST."""
    subject = Subject.of(context)
    accelerators = Accelerators(subject)
    rows: list[Row] = []
    for done, (name, check) in enumerate(CHECKS.items()):
        context.progress(done, len(CHECKS), "checks")
        rows += _rows(name, check, subject, accelerators)
    context.progress(len(CHECKS), len(CHECKS), "checks")
    context.result({"verdict": worst(rows), "rows": [row.record() for row in rows]})
    for row in rows:
        if row.verdict is not Verdict.OK:
            context.log.warning("not as needed", **row.record())
    if first := first_failed(rows):
        raise _with_others(first, [other.check for other in rows if other.failure and other is not first])
    return Produced()


def _rows(name: str, check: Check, subject: Subject, accelerators: Accelerators) -> list[Row]:
    """The rows of a check, and one more for the failure that ended it. What is no Failure is an error of ours, and is raised."""
    rows: list[Row] = []
    try:
        for row in check(subject, accelerators):
            rows.append(row)  # noqa: PERF402  # those before a failure are kept
    except Yielded:
        raise
    except Failure as failure:
        rows.append(Row.of(name, failure))
    return rows


def _with_others(row: Row, others: list[str]) -> Failure:
    failure = row.error()
    if others:
        failure.why = f"{failure.why}; failed too: {', '.join(others)}" if failure.why else f"failed too: {', '.join(others)}"
    return failure
