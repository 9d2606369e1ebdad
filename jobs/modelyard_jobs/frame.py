"""What every step runs in: a light supervisor, with the work in a child process.

In order: choose the device, find out what refs stand for and fetch inputs where the driver could not, look for the result under the key of what is
really here, look at what came before (deadline, no progress, out of memory), start the child, keep its log, progress and memory, pass on SIGTERM,
commit what it made, write the action, and leave one outcome. Because the work is in a child, a crash of it is an outcome with a name like any other.

After SIGTERM the frame ends with 0 or 75 and with nothing else.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from modelyard import keys
from modelyard.devices import CPU, Vendor, parse_use, probe, vendor_of
from modelyard.errors import Bug, Deadline, Failure, NoAccelerator, Usage, Yielded, from_record
from modelyard.hubs import Listing
from modelyard.hubs.credentials import redact_all
from modelyard.hubs.resolving import Resolved, remember, resolve_or_last
from modelyard.hubs.selection import fetch_key, select
from modelyard.order import Order, Outcome
from modelyard.quantities import format_seconds
from modelyard.refs import is_step_name, parse
from modelyard.steps import Fetch, Reuse
from modelyard.yard import Action, Decision, Staging, Yard
from modelyard.yard.runs import Attempt
from modelyard_jobs import crashes
from modelyard_jobs.cgroup import Cgroup, usable_cpus
from modelyard_jobs.context import Stop
from modelyard_jobs.earlier import Earlier
from modelyard_jobs.journal import Journal
from modelyard_jobs.process import Lines, environment, reap, watching

GRACE = 8.0
"""Seconds between SIGTERM and SIGKILL of the child: a checkpoint of what fits in memory, and well within a pod's 30."""
SAMPLE_EVERY = 2.0


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

    def __init__(self, order: Order, yard: Yard, attempt: Attempt, journal: Journal, stop: Stop, *, anew: bool | None = None) -> None:
        """anew: whether a ref is asked for again that this run knows already; unless given, as the step's earlier attempts say."""
        self.order = order
        self.anew = anew
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
        self.listing: Listing | None = None
        """What the frame itself resolved the ref of a fetch to."""
        self._near = False
        self._fetched = bool(order.refs)
        self._log = f"`modelyard logs {order.run} {order.step}`"

    def run(self) -> Outcome:
        """The attempt from its beginning to its outcome, which it keeps; never raises."""
        try:
            self.journal.write("begin", step=self.order.step, attempt=self.order.attempt, verb=self.order.verb)
            self.stop.check()
            if self.anew is None:
                self.anew = Earlier(self.attempt).ended_well
            device = self._device()
            self._obtain()
            outcome = self._resolve() or self._on_device(device)
            if self.listing and outcome.artifact and isinstance(self.step, Fetch):
                remember(self.yard, self.step.ref, self.step.trust, listing=self.listing, artifact=outcome.artifact, by=self.order.run)
        except Exception as error:  # noqa: BLE001  # the last line of defence: the outcome says what it was
            outcome = Outcome.of(self._named(error), self._seconds(), self.key, self.said.result)
        outcome = redacted(outcome.model_copy(update={"attempt": self.attempt.number}))
        level = "info" if outcome.exit_code in (0, Yielded.exit_code) else "error"
        with suppress(Failure):  # the log of a volume that is full lacks its last line; what counts is the outcome
            self.journal.write("end", level=level, **outcome.model_dump(exclude_defaults=True, exclude={"result"}))
        try:
            self.attempt.write_outcome(outcome)
        except Failure as failure:  # what came before says more
            if not outcome.exit_code and not self.stop.requested:
                outcome = Outcome.of(failure, self._seconds(), self.key).model_copy(update={"attempt": self.attempt.number})
        return outcome

    def _named(self, error: Exception) -> Failure:
        failure = error if isinstance(error, Failure) else self._bug(error)
        if self.stop.requested and not isinstance(failure, Yielded):
            return Yielded("asked to stop", why=str(failure), remedy="the same command goes on from here")
        return failure

    def _obtain(self) -> None:
        """Fetch the inputs that are refs, each as an attempt at the fetch step that the pipeline has for it."""
        inputs = dict(self.order.inputs)
        for place, ref in self.order.refs.items():
            name, settings = str(self.step.sources().get(place, "")), {self.step.inputs[place]: ref}
            if not is_step_name(name):
                raise Usage(f"{place} is given as a ref, and no step fetches it", where=ref, remedy="name a fetch step")
            attempt = self.attempt.run.new_attempt(name)
            order = Order(
                run=self.order.run,
                step=name,
                attempt=attempt.number,
                verb=Fetch.verb,
                settings=Fetch.model_validate(settings).settings(),
                resources=self.order.resources.model_copy(update={"gpus": 0, "fallback": None}),
                hubs=self.order.hubs,
                pipeline=self.order.pipeline,
            )
            attempt.write_order(order)
            outcome = Frame(order, self.yard, attempt, self.journal, self.stop, anew=self.anew).run()
            if failure := outcome.failure():
                raise failure
            inputs[place] = outcome.artifact or ""
        self.order = self.order.model_copy(update={"inputs": inputs, "refs": {}})

    def _resolve(self) -> Outcome | None:
        """Find out what the ref of a fetch stands for, where its driver did not; the outcome, where that is in the yard already.

        Who goes on with what was stopped or failed finds that out no second time: what was written down holds, whatever the hub says by now.
        """
        if not isinstance(self.step, Fetch) or self.order.listing is not None:
            return None
        known = None if self.anew else self.attempt.run.spec()["resolved"].get(self.order.step, {}).get("listing")
        found = Resolved(parse(self.step.ref), Listing.from_record(known)) if known else self._ask(self.step)
        self.attempt.write_resolved(found.record())
        revision = found.listing.revision if found.listing else ""
        self.journal.write("resolved", level="warning" if found.stale else "info", ref=self.step.ref, revision=revision, note=found.note)
        if found.listing is None:
            self.note = found.note
            return self._outcome(found.artifact, reused=True)
        self.listing, self.key = found.listing, fetch_key(select(found.listing, self.step.trust))
        self.order = self.order.model_copy(update={"listing": found.listing.record()})
        return None

    def _ask(self, step: Fetch) -> Resolved:
        with self.stop.anywhere():
            return resolve_or_last(self.yard, step.ref, step.makes(), self.order.hubs, trust=step.trust, fresh=step.fresh, again=self.order.forced)

    def _look_back(self) -> None:
        """What earlier attempts of this run say about one more. Raises Deadline, NoProgress, HostOom: it would be in vain."""
        earlier = Earlier(self.attempt)
        if limit := self.order.resources.time_limit:
            self.deadline = self.began + earlier.left(limit)
        earlier.got_on(self.yard.checkpoints(self.key, self.order.attempt_id).attempts(), self._log, fetched=self._fetched)
        earlier.fitted(self.group.memory_limit())

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
        if self.step.reuse is Reuse.PURE or not self.key:
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
            with child, os.fdopen(channel, "rb") as told, watching(device) as gauge:
                try:
                    code = self._follow(child, told, gauge, work, staging)
                except BaseException:
                    child.kill()  # nobody would hear it any more
                    raise
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
        sample, killed = self.attempt.last_sample() or {}, self.group.oom_kills() > kills
        raise crashes.named(code, self.group.memory_limit(), sample.get("used", 0), by_the_kernel=killed, log=self._log)

    def _follow(
        self, child: subprocess.Popen[bytes], told: IO[bytes], gauge: subprocess.Popen[bytes] | None, work: Mapping[str, Any], staging: Staging
    ) -> int:
        """Listen to the child until it is gone; its exit code as Python counts it."""
        assert child.stdin is not None  # noqa: S101  # a pipe, by the call that made it
        assert child.stderr is not None  # noqa: S101
        with suppress(BrokenPipeError), child.stdin:  # where it is gone already, its exit code says how
            child.stdin.write(json.dumps(work).encode() + b"\n")
        lines = Lines(
            {told.fileno(): self._hear, child.stderr.fileno(): self._overhear}
            | ({gauge.stdout.fileno(): self._gauge} if gauge and gauge.stdout else {})
        )
        killed_at: float | None = None
        sampled = 0.0
        while child.poll() is None or lines.open:
            lines.wait(0.2)
            now = time.monotonic()
            reap(child, gauge)
            if now - sampled >= SAMPLE_EVERY or self._grown_near():
                sampled = now
                self.attempt.add_sample(self._sample(child.pid))
                staging.touch()  # it is swept by age
                if self.order.pipeline is not None:
                    self.attempt.run.beat(time.monotonic_ns())
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

    def _bug(self, error: Exception) -> Bug:
        with suppress(Failure):  # where the log cannot be written, the class is said all the same
            self.journal.traceback()
        return Bug(f"{type(error).__name__}: {error}", remedy="the step's log holds the traceback")

    def _grown_near(self) -> bool:
        """Whether the memory has come near its limit just now: the kernel may not wait for the next sample."""
        before, self._near = self._near, (self.group.memory_used() or 0) >= crashes.NEAR_LIMIT * (self.group.memory_limit() or math.inf)
        return self._near and not before

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
        result = self.said.result
        if artifact and self.step.makes() == "metrics":
            measured = json.loads((self.yard.artifacts.get(artifact).path / "metrics.json").read_bytes())["metrics"]
            told = ("value", "low", "high", "n", "difference")
            result = {"metrics": {name: {part: metric[part] for part in told if part in metric} for name, metric in measured.items()}}
        return Outcome(exit_code=0, key=self.key, artifact=artifact, reused=reused, seconds=self._seconds(), note=self.note, result=result)

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began, 3)


def redacted(outcome: Outcome) -> Outcome:
    """The outcome without any token that a library or a server has put into its words."""
    return Outcome.model_validate(redact_all(outcome.model_dump(mode="json")))
