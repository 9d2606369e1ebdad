"""The log lines of a run's steps from their pods: each once, also over connections that break and an API server that restarts.

A step writes its log to its pod's stdout and to the yard, line by line the same. What a pod cannot tell any more (it is gone, or its kubelet has
rotated lines away before they were read) is asked of the yard, through a function that the caller gives. `Once` decides what is new; it is pure.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from modelyard.errors import Failure, Unavailable
from modelyard.kube import names, runs
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.yard.runs import RunState, StepState

Answer = TypeVar("Answer")

_LOOK = 1.0
"""Seconds between two looks for further pods."""
_PAUSE = 0.5
"""Seconds before a stream that has ended is taken up again."""
_REMEMBERED = 1 << 15
"""Lines without a number that are known again; a kubelet repeats those of a second."""
_BEGUN = frozenset({StepState.RUNNING, StepState.DONE, StepState.FAILED, StepState.STOPPED})


@dataclass(frozen=True)
class Line:
    """A line of the log of an attempt at a step. attempt: 0 where it is not known. entry: what was written there."""

    step: str
    attempt: int
    entry: Mapping[str, Any]


FromYard = Callable[[], Iterable[Line]]
"""The lines of the run that the yard has."""


class Once:
    """The lines of one step, of all its pods and of the yard, each once: by its number in the attempt and the time at which it was written."""

    def __init__(self) -> None:
        self._taken: set[tuple[int, str]] = set()

    def new(self, entry: Mapping[str, Any], pod: str = "") -> bool:
        """Whether the entry has not come yet; it has now."""
        key = int(entry["seq"]), str(entry.get("at") or pod)
        if key in self._taken:
            return False
        self._taken.add(key)
        return True


class Pod:
    """What is new in the streams of one pod. since: where to begin the next one; the kubelet repeats lines from there."""

    def __init__(self, once: Once, step: str, name: str) -> None:
        self._once = once
        self._step = step
        self._name = name
        self._attempt = 0
        self._upto = 0
        self._plain: dict[tuple[str, int], None] = {}
        self._held: tuple[str, bytes] | None = None
        self.since: str | None = None
        self.missing = False
        """Whether numbers were left out: lines that the kubelet had no more."""
        self._last = False

    @property
    def ended(self) -> bool:
        """Whether the step's last line has come, and all before it."""
        return self._last and not self.missing

    def feed(self, line: bytes) -> list[Line]:
        """Take a line as the kubelet gives it, its time in front; what of it is new."""
        stamp, _, content = line.partition(b" ")
        at = stamp.decode(errors="replace")
        found = self._release()
        entry = _entry(content)
        if entry is None:  # no step's line, or half of one, which a stream that breaks ends with: the next line tells
            self._held = at, content
            return found
        self.since = at
        number = int(entry["seq"])
        if self._once.new(entry, self._name):
            if entry.get("event") == "begin" and isinstance(entry.get("attempt"), int):
                self._attempt = entry["attempt"]
            self.missing = self.missing or number > self._upto + 1
            self._last = entry.get("event") == "end"
            found.append(Line(self._step, self._attempt, entry))
        self._upto = max(self._upto, number)
        return found

    def broke(self) -> None:
        """The stream ended, and another one follows: it repeats what may have been half a line."""
        self._held = None

    def end(self) -> list[Line]:
        """The pod's last stream ended: what was held back is a line."""
        return self._release()

    def _release(self) -> list[Line]:
        """The line without a number that was held back, unless it has come before."""
        held, self._held = self._held, None
        if held is None or not held[1] or (key := (held[0], hash(held[1]))) in self._plain:
            return []
        self._plain[key] = None
        if len(self._plain) > _REMEMBERED:
            del self._plain[next(iter(self._plain))]
        self.since = held[0]
        return [Line(self._step, self._attempt, {"at": held[0], "level": "info", "event": held[1].decode(errors="replace")})]


def lines(cluster: Cluster, run: str, step: str | None = None, *, follow: bool, yard: FromYard | None = None) -> Iterator[Line]:
    """The lines of a run's steps, or of one of them: with `follow` as they come, until the run has ended; else those that there are, by time.

    yard: gives the lines that the yard has; it is asked where a pod could not tell all, and its lines come last. Raises NoInput; Unavailable when
    the API server stays away.
    """
    follow = follow and runs.look(cluster, run).status.state is RunState.RUNNING
    reading = _Reading(cluster, run, step, follow=follow)
    found = reading.go()
    if follow:
        yield from found
    else:
        yield from sorted(found, key=_at)
    if yard and reading.incomplete():
        yield from sorted(reading.rest(yard()), key=_at)


class _Reading:
    """Reads all pods of a run at once, a thread for each."""

    def __init__(self, cluster: Cluster, run: str, step: str | None, *, follow: bool) -> None:
        self._cluster = cluster
        self._run = run
        self._step = step
        self._follow = follow
        self._once: dict[str, Once] = {}
        self._queue: queue.SimpleQueue[list[Line] | Failure | None] = queue.SimpleQueue()
        self._readers: dict[str, threading.Thread] = {}
        self._whole: dict[str, str] = {}
        """Pod -> its step, where it was read to its end and nothing is missing."""
        self._seen: runs.Seen | None = None
        self._stopped = threading.Event()

    def go(self) -> Iterator[Line]:
        """New lines, until all pods that there will be are read."""
        try:
            while True:
                self._seen = seen = self._patiently(partial(runs.look, self._cluster, self._run))
                ended = seen.status.state is not RunState.RUNNING or not self._follow
                self._patiently(partial(self._begin, seen))
                until = time.monotonic() + _LOOK
                while ended and any(thread.is_alive() for thread in self._readers.values()):
                    yield from self._come(_PAUSE)
                if ended:
                    yield from self._come(0.0)
                    return
                while (left := until - time.monotonic()) > 0:
                    yield from self._come(left)
        finally:
            self._stopped.set()

    def incomplete(self) -> bool:
        """Whether a step has lines that no pod told: fewer of its pods were read to their end than it had attempts."""
        steps = self._seen.status.steps if self._seen else {}
        whole = Counter(self._whole.values())
        return any(whole[name] < step.attempt for name, step in steps.items() if step.state in _BEGUN and name in self._steps())

    def rest(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Those of the lines that have not come."""
        for line in lines:
            if self._step in (None, line.step) and ("seq" not in line.entry or self._of(line.step).new(line.entry)):
                yield line

    def _come(self, timeout: float) -> Iterator[Line]:
        """What has come, or comes in that time."""
        until = time.monotonic() + timeout
        while True:
            try:
                found = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return
            if isinstance(found, Failure):
                raise found
            yield from found or ()

    def _begin(self, seen: runs.Seen) -> None:
        """A reader for each pod that has none and has something to say."""
        found = {pod["metadata"]["name"]: pod for pod in self._cluster.list("Pod", {names.RUN: self._run, names.ROLE: "step"})}
        for step, job in seen.jobs.items():  # a Job that an earlier run began has that run's label
            if step in self._steps() and not any(_step_of(pod) == step for pod in found.values()):
                found |= {pod["metadata"]["name"]: pod for pod in self._cluster.list("Pod", {names.JOB: job})}
        for name, pod in sorted(found.items(), key=lambda item: item[1]["metadata"].get("creationTimestamp", "")):
            if name not in self._readers and _step_of(pod) in self._steps() and _begun(pod):
                thread = threading.Thread(target=self._read, args=(name, _step_of(pod)), daemon=True)
                self._readers[name] = thread
                thread.start()

    def _read(self, name: str, step: str) -> None:
        """All of one pod, to its end."""
        pod = Pod(self._of(step), step, name)
        try:
            while not self._stopped.is_set():
                last = self._patiently(partial(self._cluster.get, "Pod", name))
                over = last is None or _over(last) or not self._follow
                self._patiently(partial(self._stream, pod, name, follow=not over))
                if over:
                    self._queue.put(pod.end())
                    if pod.ended or (last is not None and not pod.missing):
                        self._whole[name] = step
                    return
                pod.broke()
                self._stopped.wait(_PAUSE)
        except Failure as failure:
            self._queue.put(failure)

    def _stream(self, pod: Pod, name: str, *, follow: bool) -> None:
        pod.broke()
        for line in self._cluster.logs(name, follow=follow, since=pod.since, container="step"):
            if found := pod.feed(line):
                self._queue.put(found)
            if self._stopped.is_set():
                return

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """The answer, waited for as long as an API server may be away."""
        until = time.monotonic() + (runs.AWAY if self._follow else 0.0)
        while True:
            try:
                return ask()
            except Unavailable:
                if time.monotonic() >= until or self._stopped.wait(_PAUSE):
                    raise

    def _of(self, step: str) -> Once:
        return self._once.setdefault(step, Once())

    def _steps(self) -> frozenset[str]:
        """The steps that are asked for."""
        known = frozenset(self._seen.status.steps) if self._seen else frozenset[str]()
        return known if self._step is None else known & {self._step}


def _entry(content: bytes) -> dict[str, Any] | None:
    """A step's line; None for anything else."""
    try:
        entry = json.loads(content)
    except ValueError:
        return None
    numbered = isinstance(entry, dict) and isinstance(entry.get("seq"), int)
    return entry if numbered else None


def _at(line: Line) -> str:
    return str(line.entry.get("at", ""))


def _step_of(pod: Manifest) -> str:
    return str(pod["metadata"].get("labels", {}).get(names.STEP, ""))


def _begun(pod: Manifest) -> bool:
    """Whether its container runs or has run."""
    states = [status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses") or []]
    return any("running" in state or "terminated" in state for state in states)


def _over(pod: Manifest) -> bool:
    """Whether its container has ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
