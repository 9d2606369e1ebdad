"""What every step runs in: a light supervisor, with the work in a child process.

In order: read the order, choose the device, look for the result under the key of what is really here, look at what came before (deadline, no
progress, out of memory), start the child, keep its log, progress and memory, pass on SIGTERM, commit what it made, write the action, and leave
one outcome. Because the work is in a child, a crash of it is an outcome with a name like any other.

After SIGTERM the frame ends with 0 or 75 and with nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from modelyard import keys
from modelyard.devices import CPU, Vendor, parse_use, probe, vendor_of
from modelyard.errors import Bug, Crashed, Deadline, Failure, HostOom, NoAccelerator, NoProgress, Yielded, from_exit, from_record, signal_name
from modelyard.hubs.credentials import VARIABLES, redact_all
from modelyard.order import Order, Outcome, termination_message
from modelyard.quantities import format_bytes, format_seconds
from modelyard.steps import Reuse
from modelyard.yard import Action, Decision, Staging, Yard
from modelyard.yard.runs import Attempt
from modelyard_jobs.cgroup import Cgroup, usable_cpus
from modelyard_jobs.child import die_with_parent
from modelyard_jobs.context import Stop
from modelyard_jobs.journal import Journal

GRACE = 8.0
"""Seconds between SIGTERM and SIGKILL of the child: a checkpoint of what fits in memory, and well within a pod's 30."""
SAMPLE_EVERY = 2.0
NEAR_LIMIT = 0.95
"""Share of the memory limit at which a SIGKILL that nobody sent is the kernel's."""
TOKENS = frozenset(chain(*VARIABLES.values()))
"""What work that needs no hub does not get to see."""
FRUITLESS = 3
"""Attempts without progress after which another one is not begun."""


def main(argv: list[str]) -> int:
    """Run one attempt; the exit code is its class."""
    parser = argparse.ArgumentParser(prog="modelyard_jobs", description="Run one attempt at one step, as a driver ordered it.")
    parser.add_argument("step", help="the verb")
    parser.add_argument("--order", type=Path, required=True, help="the order, a JSON file")
    parser.add_argument("--yard", type=Path, required=True, help="the yard's folder")
    parser.add_argument("--parent", type=int, help="process id of the driver; the attempt ends when that does")
    arguments = parser.parse_args(argv)
    stop = Stop(polled=True)
    stop.install()
    if arguments.parent:
        die_with_parent(arguments.parent, signal.SIGTERM)
    order = Order.model_validate_json(arguments.order.read_bytes(), strict=False)
    try:
        yard = Yard.open(arguments.yard)
        attempt = _attempt(yard, order)
        order = order.model_copy(update={"attempt": attempt.number})
    except Failure as failure:  # there is no attempt to write it to
        sys.stderr.write(f"{failure}\n")
        return _end(Outcome.of(failure, 0.0, order.key))
    outcome = Frame(order, yard, attempt, Journal(attempt.add_log, _to_stdout), stop).run()
    outcome = Outcome.model_validate(redact_all(outcome.model_dump(mode="json")))  # whatever a library or a server has put into its words
    attempt.write_outcome(outcome)
    return _end(outcome)


def _attempt(yard: Yard, order: Order) -> Attempt:
    """The attempt that the order is for; the next one where nobody has counted it yet."""
    run = yard.runs.get(order.run)
    return run.new_attempt(order.step) if order.attempt is None else run.attempt(order.step, order.attempt)


def _end(outcome: Outcome) -> int:
    terminal = Path(os.environ.get("MODELYARD_TERMINATION_LOG", "/dev/termination-log"))
    if terminal.exists():
        terminal.write_bytes(termination_message(outcome))
    return outcome.exit_code


def _to_stdout(line: bytes) -> None:
    with suppress(BrokenPipeError):  # nobody reads it any more; the yard's copy goes on
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


@dataclass
class Said:
    """What the child has told so far."""

    decisions: dict[str, Decision] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    produced: Mapping[str, Any] | None = None
    result: dict[str, Any] | None = None


class Frame:
    """One attempt."""

    def __init__(self, order: Order, yard: Yard, attempt: Attempt, journal: Journal, stop: Stop) -> None:
        self.order = order
        self.step = order.step_settings()
        self.yard = yard
        self.attempt = attempt
        self.journal = journal
        self.stop = stop
        self.group = Cgroup.current()
        self.began = time.monotonic()
        self.deadline = math.inf
        self.key = order.key
        self.said = Said()
        self.use: dict[str, dict[str, float]] = {}
        self.note = ""

    def run(self) -> Outcome:
        """The attempt from its beginning to its outcome; never raises."""
        self.journal.write("begin", step=self.order.step, attempt=self.order.attempt, verb=self.order.verb)
        try:
            outcome = self._on_device(self._device())
        except Exception as error:  # noqa: BLE001  # the last line of defence: the outcome says what it was
            failure = error if isinstance(error, Failure) else self._bug(error)
            if self.stop.requested and not isinstance(failure, Yielded):
                failure = Yielded("asked to stop", why=str(failure), remedy="the same command goes on from here")
            outcome = Outcome.of(failure, self._seconds(), self.key, self.said.result)
        level = "info" if outcome.exit_code in (0, Yielded.exit_code) else "error"
        self.journal.write("end", level=level, **outcome.model_dump(exclude_defaults=True, exclude={"result"}))
        return outcome

    def _look_back(self) -> None:
        """What earlier attempts of this run say about one more."""
        earlier = [attempt for attempt in self.yard.runs.get(self.order.run).attempts(self.order.step) if attempt.number < self.attempt.number]
        if limit := self.order.resources.time_limit:
            spent = sum(attempt.seconds() for attempt in earlier)
            self.deadline = self.began + limit - spent
            if spent >= limit:
                what, why = f"{format_seconds(spent)} of running time are used", f"time_limit is {format_seconds(limit)}"
                raise Deadline(what, why=why, remedy="raise time_limit")
        if not earlier:
            return
        saved = self.yard.checkpoints(self.key, self.order.attempt_id).attempts()
        recent = earlier[-FRUITLESS:]
        if len(recent) == FRUITLESS and not any(saved.get(attempt.id) for attempt in recent):
            why = "; ".join(f"attempt {attempt.number}: {attempt.ended()}" for attempt in recent)
            raise NoProgress(
                f"{FRUITLESS} attempts ended without progress", why=why, remedy=f"see `modelyard logs {self.order.run} {self.order.step}`"
            )
        sample, allowed = earlier[-1].last_sample(), self.group.memory_limit()
        if earlier[-1].outcome() is None and sample and allowed and sample.get("used", 0) >= NEAR_LIMIT * allowed:
            raise self._host_oom(sample["used"], allowed, f"attempt {earlier[-1].number} was killed without a word at {format_bytes(sample['used'])}")

    def _device(self) -> Vendor:
        """The device to run on. Raises NoAccelerator."""
        asked = self.order.resources
        if not asked.gpus:
            return CPU
        vendor = vendor_of(asked.accelerator)
        seen = probe(vendor)
        return vendor if seen.count >= asked.gpus else self._without(vendor, f"{seen.count} of {asked.gpus} are there: {seen.evidence}")

    def _without(self, vendor: Vendor, why: str) -> Vendor:
        asked = self.order.resources
        if self.step.reuse is Reuse.OBSERVE:  # that is one of the things it looks for
            return CPU
        if asked.fallback != "cpu":
            remedy = "set `fallback: cpu` under resources, or run where there is one"
            raise NoAccelerator(f"{asked.gpus} {vendor.name} asked for, not usable here", why=why, remedy=remedy)
        self._decide("device", CPU.name, f"no usable {vendor.name} ({why}), and fallback is cpu")
        self.note = f"on the CPU: no usable {vendor.name}"
        return CPU

    def _on_device(self, device: Vendor) -> Outcome:
        versions = keys.installed_versions()
        if self.step.reuse is Reuse.PURE:
            self.key = keys.action_key(self.step, self.order.inputs, device.name, versions)
        if self.step.makes() and not self.order.forced and (action := self.yard.known(self.key)):
            return self._outcome(action.artifact, reused=True)
        self._look_back()
        try:
            with self.yard.staging(self.order.attempt_id) as staging:
                produced = self._work(device, staging)
                artifact = produced["existing"] or (self._commit(produced, device, versions, staging) if produced["kind"] else None)
        except NoAccelerator as refusal:
            if device is CPU:
                raise
            return self._on_device(self._without(device, str(refusal)))
        return self._outcome(artifact)

    def _work(self, device: Vendor, staging: Staging) -> Mapping[str, Any]:
        """Run the child to its end; what it produced. Raises its failure, or the name of its crash."""
        threads, reason = usable_cpus(self.group)
        if self.order.resources.cpu:
            threads, reason = min(threads, self.order.resources.cpu), f"resources.cpu is {self.order.resources.cpu}; {reason}"
        self._decide("threads", threads, reason)
        self.said = Said(decisions=self.said.decisions)
        kills = self.group.oom_kills()
        scratch = Path(tempfile.mkdtemp(prefix="modelyard-"))
        try:
            channel, child_end = os.pipe()
            child = subprocess.Popen(  # our own module, no shell
                [sys.executable, "-m", "modelyard_jobs.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[child_end],
                env=environment(threads, scratch, network=self.step.reuse is not Reuse.PURE),
            )
            os.close(child_end)
            work = {
                "parent": os.getpid(),
                "channel": child_end,
                "order": self.order.model_dump(mode="json"),
                "yard": str(self.yard.root),
                "key": self.key,
                "device": device.device,
                "threads": threads,
                "out": str(staging.files),
                "scratch": str(scratch),
            }
            with child, os.fdopen(channel, "rb") as told, _watching(device) as gauge:
                code = self._follow(child, told, gauge, work, staging)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if code == 0 and self.said.produced is not None:
            return self.said.produced
        if self.stop.requested:
            raise (
                self.said.failure if isinstance(self.said.failure, Yielded) else Yielded("asked to stop", remedy="the same command goes on from here")
            )
        if self.said.failure is not None:
            raise self.said.failure
        raise self._crash(code, kills)

    def _follow(self, child: subprocess.Popen[bytes], told: IO[bytes], gauge: IO[bytes] | None, work: Mapping[str, Any], staging: Staging) -> int:
        """Listen to the child until it is gone; its exit code as Python counts it."""
        assert child.stdin is not None  # noqa: S101  # a pipe, by the call that made it
        assert child.stderr is not None  # noqa: S101
        with suppress(BrokenPipeError), child.stdin:  # where it is gone already, its exit code says how
            child.stdin.write(json.dumps(work).encode() + b"\n")
        lines = _Lines({told.fileno(): self._hear, child.stderr.fileno(): self._overhear} | ({gauge.fileno(): self._gauge} if gauge else {}))
        killed_at: float | None = None
        sampled = 0.0
        while child.poll() is None or lines.open:
            lines.wait(0.2)
            now = time.monotonic()
            if now - sampled >= SAMPLE_EVERY:
                sampled = now
                self.attempt.add_sample(self._sample(child.pid))
                staging.touch()  # it is swept by age
            if now >= self.deadline and self.said.failure is None:
                self.said.failure = Deadline(
                    "the step ran too long",
                    why=f"time_limit is {format_seconds(self.order.resources.time_limit or 0)}",
                    remedy="raise time_limit; the next run resumes",
                )
                child.kill()
            if self.stop.requested and killed_at is None:
                killed_at = now + GRACE
                child.terminate()
            elif killed_at is not None and now >= killed_at and child.poll() is None:
                child.kill()
            if child.poll() is not None and not lines.wait(0.2):
                break  # a grandchild may hold the pipes open for ever
        return child.wait()

    def _hear(self, line: bytes) -> None:
        """One line of the protocol."""
        try:
            message = json.loads(line)
            kind = message.pop("type")
        except (ValueError, KeyError, AttributeError):
            self._overhear(line)
            return
        if kind == "log":
            self.journal.write(message.pop("event", ""), **message)
        elif kind == "progress":
            self.attempt.write_progress(self.journal.progress(message["done"], message["total"], message["unit"]))
        elif kind == "decide":
            self.said.decisions[message["name"]] = Decision(value=message["value"], reason=message["reason"])
        elif kind == "detail":
            self.said.details[message["name"]] = message["value"]
        elif kind == "result":
            self.said.result = message["value"]
        elif kind == "failure":
            self.said.failure = from_record(message)
        elif kind == "produced":
            self.said.produced = message

    def _overhear(self, line: bytes) -> None:
        """One line that a library wrote to stdout or stderr."""
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self.journal.write(text, level="warning" if "warn" in text.lower() else "info", source="stderr")

    def _gauge(self, line: bytes) -> None:
        """One line of the vendor's tool."""
        if found := parse_use(line.decode("utf-8", "replace")):
            self.use |= dict([found])

    def _commit(self, produced: Mapping[str, Any], device: Vendor, versions: Mapping[str, str], staging: Staging) -> str:
        artifact = self.yard.artifacts.commit(staging, kind=produced["kind"], format=produced["format"], known=produced["known"])
        action = Action(
            key=self.key,
            verb=self.order.verb,
            artifact=artifact.digest,
            settings=self.step.settings(),
            inputs=self.order.inputs,
            versions=dict(versions),
            device=device.name,
            decisions=self.said.decisions,
            timings={"seconds": self._seconds()},
            details=self.said.details,
            attempt=self.order.attempt_id,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        self.yard.actions.put(self.key, action)
        self.yard.checkpoints(self.key, self.order.attempt_id).clear()
        self.yard.leases.end(self.key)
        return artifact.digest

    def _crash(self, code: int, kills: int) -> Failure:
        """The name of an end that the child did not name itself."""
        limit, used = self.group.memory_limit() or 0, (self.attempt.last_sample() or {}).get("used", 0)
        if code == -signal.SIGKILL and self.group.oom_kills() > kills:
            return self._host_oom(used, limit, "the kernel killed it at the memory limit")
        if code == -signal.SIGKILL and used >= NEAR_LIMIT * limit > 0:
            return self._host_oom(used, limit, f"it was killed at {format_bytes(used)}")
        if (named := from_exit(code) or Crashed) is not Crashed:
            return named(f"the work ended with exit code {code}", remedy="see the step's log")
        return Crashed(
            f"the work was ended by {signal_name(code)}", why="nothing said why", remedy=f"see `modelyard logs {self.order.run} {self.order.step}`"
        )

    def _bug(self, error: Exception) -> Bug:
        self.journal.traceback()
        return Bug(f"{type(error).__name__}: {error}", remedy="the step's log holds the traceback")

    def _host_oom(self, used: int, limit: int, why: str) -> HostOom:
        ask = max(used, limit) * 3 // 2
        remedy = f"resources: {{memory: {-(-ask // (1 << 30))}Gi}}, or a smaller batch_size"
        return HostOom(f"the memory limit of {format_bytes(limit)} was reached", why=why, remedy=remedy)

    def _sample(self, pid: int) -> dict[str, Any]:
        rss = 0
        with suppress(OSError, IndexError):  # it is ending; the group's figure remains
            rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        used = {"rss": rss, "used": self.group.memory_used() or rss, "limit": self.group.memory_limit()}
        return {"t": round(self._seconds(), 1), **used, **({"devices": self.use} if self.use else {})}

    def _decide(self, name: str, value: Any, reason: str) -> None:
        self.said.decisions[name] = Decision(value=value, reason=reason)
        self.journal.write("decided", name=name, value=value, reason=reason)

    def _outcome(self, artifact: str | None, *, reused: bool = False) -> Outcome:
        note, result = self.note, self.said.result
        return Outcome(exit_code=0, key=self.key, artifact=artifact, reused=reused, seconds=self._seconds(), note=note, result=result)

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began, 3)


@contextmanager
def _watching(device: Vendor) -> Iterator[IO[bytes] | None]:
    """What the vendor's tool goes on writing about the use of devices; None where there is no such tool."""
    tool, parent = shutil.which(device.watch[0]) if device.watch else None, os.getpid()
    if tool is None:
        yield None
        return
    gauge = subprocess.Popen(
        [tool, *device.watch[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),  # noqa: PLW1509  # the frame has one thread
    )
    with gauge:
        try:
            yield gauge.stdout
        finally:
            gauge.kill()


class _Lines:
    """Whole lines from several pipes, each to its own hearer."""

    def __init__(self, hearers: Mapping[int, Any]) -> None:
        self._selector = selectors.DefaultSelector()
        self._rest = dict.fromkeys(hearers, b"")
        for descriptor, hear in hearers.items():
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, hear)

    @property
    def open(self) -> bool:
        return bool(self._selector.get_map())

    def wait(self, seconds: float) -> bool:
        """Hand on what arrives within `seconds`; whether anything did."""
        if not self.open:
            time.sleep(seconds)
            return False
        ready = self._selector.select(seconds)
        for key, _ in ready:
            data = os.read(key.fd, 1 << 16)
            *lines, self._rest[key.fd] = (self._rest[key.fd] + (data or b"\n")).split(b"\n")
            if not data:
                self._selector.unregister(key.fd)
            for line in filter(None, lines):
                key.data(line)
        return bool(ready)


def environment(threads: int, scratch: Path, *, network: bool) -> dict[str, str]:
    """The child's environment: threads, caches in the scratch folder; for work that needs no hub no network for the libraries, and no token."""
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
    quiet = "HF_HUB_DISABLE_TELEMETRY HF_HUB_DISABLE_PROGRESS_BARS TQDM_DISABLE PYTHONUNBUFFERED"
    caches = {"HF_HOME": str(scratch / "hf"), "TMPDIR": str(scratch), "TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true"}
    # Threads that wait by spinning wait for ever on a core that somebody else uses: on shared cores two of them were seven times slower than one.
    waiting = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    whole = {**waiting, **os.environ, **pools, **dict.fromkeys(quiet.split(), "1"), **caches}
    login = "HF_TOKEN_PATH"
    if network:  # a login that the SDK keeps lies where its caches are unless it is told otherwise
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return {login: str(Path(os.environ.get("HF_HOME") or Path(cache, "huggingface"), "token"))} | whole
    return {name: value for name, value in whole.items() if name not in TOKENS | {login}} | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
