"""Steps as Jobs of a cluster.

A Job is named by what it executes, so that whoever comes second finds the first one's: a driver that died is followed by one that adopts its
children, and two runs that need the same work do it once. A Job tries again by itself, by the rules of the classes; the driver waits for its end
and reads what the step said. The API server may be away for minutes: the steps go on, and so does the run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import Crashed, Failure, Interrupted, NoAccelerator, NoInput, Unavailable, Yielded
from modelyard.kube import ends, names, runs, waits
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.diagnose import diagnose
from modelyard.kube.diagnosis import Diagnosis, Evidence, setting
from modelyard.kube.endings import ended, of_ending
from modelyard.kube.facts import Facts, gather
from modelyard.kube.place import Place
from modelyard.kube.render import reference_to, step_job
from modelyard.order import Order, Outcome
from modelyard.quantities import format_seconds
from modelyard.yard import Yard
from modelyard.yard.runs import Attempt, Progress, Run, RunState

LOOK_EVERY = 1.0
"""Seconds between two looks at the API server, however many steps run."""
LOGS_EVERY = 3.0
"""Seconds between two looks at a pod's log, where progress is read there."""
EVENTS_EVERY = 5.0
"""Seconds between two looks at the events of a Job that has no pod."""
AWAY_LIMIT = 600.0
"""Seconds without an answer of the cluster after which the steps are given up; they go on by themselves."""
LONGEST_LISTING = 48 * 1024
"""Bytes of what a ref resolved to that travel with an order."""
NODES = 3
"""Nodes on which a step that needs an accelerator is tried."""
MOVE_LIMIT = 300
"""Seconds that a step waits for another node than those without a usable accelerator, where it has no limit of its own."""


@dataclass
class Jobs:
    """Executes the steps of one run as Jobs.

    run: in the yard that the driver sees. shares_yard: whether the steps see it too. owner: the driver's own Job, with which its children go.
    """

    cluster: Cluster
    place: Place
    yard: Yard
    run: Run
    pipeline: str
    shares_yard: bool
    owner: Manifest | None = None
    retries: bool = True
    outlives: bool = True
    made: dict[str, str] = field(default_factory=dict)
    """Step -> its Job."""
    _sights: dict[str, _Sight] = field(default_factory=dict)

    def begin(self, order: Order) -> Execution:
        """Create the step's Job, or find the one that executes it already; a cluster that is away is asked again later."""
        if len(json.dumps(order.listing)) > LONGEST_LISTING:
            order = order.model_copy(update={"listing": None})  # an order has to fit into its pod's annotation: the frame asks the hub
        execution = Execution(self, order)
        execution.begin()
        return execution

    def seen(self, run: str, job: str) -> tuple[Manifest | None, Sequence[Manifest]]:
        """A Job of a run with its pods, as of a moment ago. Raises failures of the cluster."""
        sight = self._sights.setdefault(run, _Sight())
        sight.refresh(self.cluster, {names.RUN: run, names.ROLE: "step"})
        return sight.jobs.get(job), sight.pods.get(job, ())


@dataclass
class _Sight:
    """What the API server last said of the Jobs of a run: two calls for all of them."""

    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, list[Manifest]] = field(default_factory=dict)
    failure: Failure | None = None
    at: float = -LOOK_EVERY

    def refresh(self, cluster: Cluster, labels: Mapping[str, str]) -> None:
        if time.monotonic() - self.at >= LOOK_EVERY:
            try:
                # Jobs first: the pods of a Job that has ended have ended by then, and say how.
                jobs, pods, self.failure = cluster.list("Job", labels), cluster.list("Pod", labels), None
            except Failure as failure:
                self.failure = failure
            else:
                self.jobs, self.pods = {job["metadata"]["name"]: job for job in jobs}, {}
                for pod in pods:
                    self.pods.setdefault(str(pod["metadata"].get("labels", {}).get(names.JOB, "")), []).append(pod)
            self.at = time.monotonic()
        if self.failure:
            raise self.failure


@dataclass
class Execution:
    """A step that is, or is about to be, a Job."""

    of: Jobs
    order: Order
    attempt: int = 0

    def __post_init__(self) -> None:
        self._number = 1
        self._avoid: dict[str, str] = {}
        """Node -> what was wrong with its accelerator."""
        self._refused: Outcome | None = None
        self._name = ""
        self._uid = ""
        self._by = ""
        """The followed Job: its name, its uid, the run that made it."""
        self._job: Manifest | None = None
        self._pods: Sequence[Manifest] = ()
        self._held_up: Diagnosis | None = None
        self._stop = self._asked = False
        self._note = ""
        self._said: Sequence[Manifest] = ()
        """Events of the Job, as they were last looked at."""
        self._progress: Progress | None = None
        self._next = self._next_log = self._next_events = 0.0
        self._answered = self._idle_since = time.monotonic()

    def begin(self) -> None:
        """The first look for a Job. Raises what the cluster refuses."""
        try:
            self._take()
        except Unavailable as failure:
            self._note = f"the cluster does not answer: {failure.what}"

    # --- what the driver asks

    def poll(self) -> Outcome | None:
        """How it ended, as the step said itself or else as Kubernetes says; the API server is looked at once a second for all steps."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + LOOK_EVERY
        try:
            outcome = self._look()
        except Unavailable as failure:
            away = time.monotonic() - self._answered
            self._note = f"the cluster has not answered for {away:.0f} s ({failure.what}); the step goes on"
            outcome = Outcome.of(ends.unreachable(failure, away), 0.0) if away >= AWAY_LIMIT else None
        except Failure as failure:
            outcome = Outcome.of(failure, 0.0)
        else:
            self._answered = time.monotonic()
        return outcome and self._completed(outcome)

    def diagnosis(self, outcome: Outcome) -> Diagnosis:
        """Why it ended so: what held it up for too long, else what its Job and its pods say."""
        if self._held_up:
            limit = Evidence(object=f"run {self.of.run.id}", field=f"steps.{self.order.step}.resources.pending_limit", value=outcome.what)
            update = {"what": f"{outcome.what}: {self._held_up.what}", "evidence": (*self._held_up.evidence, limit), "exit_code": outcome.exit_code}
            return self._held_up.model_copy(update=update)
        run, step = self.of.run.id, self.order.step
        if self._job is None or not ends.finished(self._job):
            return of_ending(outcome, run, step, job=self._job, namespace=self.of.cluster.namespace)
        return ended(Facts(self.of.cluster.namespace, run, step), self._job, self._pods, outcome)

    def progress(self) -> Progress | None:
        """How far it is: from the yard, else from the last lines of its log."""
        if self.of.shares_yard:
            attempt = self._last_attempt()
            return attempt.progress() if attempt else None
        now, pod = time.monotonic(), ends.last(self._pods)
        if pod and waits.working([pod]) and now >= self._next_log:
            self._next_log = now + LOGS_EVERY
            try:
                self._progress = _last_progress(list(self.of.cluster.logs(pod["metadata"]["name"], tail=20, container="step"))) or self._progress
            except Failure:
                return self._progress  # what was known: a log that cannot be read, or may not be, ends nothing
        return self._progress

    def note(self) -> str:
        """What it waits for, and which nodes it was moved away from."""
        moved = f"not on {', '.join(self._avoid)}: no usable accelerator there" if self._avoid else ""
        return "; ".join(filter(None, [moved, self._note]))

    def terminate(self) -> None:
        """Delete the Job; its pod gets SIGTERM and its time to keep what it has. One that another run needs is left to that."""
        self._stop, self._next = True, 0.0 if not self._stop else self._next

    def kill(self) -> None:
        """As `terminate`: a cluster's pods have their time, and no right of the driver's takes it from them."""
        self.terminate()

    # --- finding or making the Job

    def _take(self) -> None:
        """Create the Job, or follow the one of its name; neither while that one is being deleted."""
        while not self._name:
            name = names.step_name(self.of.pipeline, self.order, self._number)
            manifest = step_job(
                self.order, self.of.place, pipeline=self.of.pipeline, number=self._number, avoid=tuple(self._avoid), owner=self.of.owner
            )
            found = self.of.cluster.create(manifest)
            if found is not None:
                self._follow(found)
                return
            found = self.of.cluster.get("Job", name)
            if found is None or found["metadata"].get("deletionTimestamp"):
                self._note = f"waits until the Job {name} of before is gone"
                return
            same = found["metadata"].get("annotations", {}).get(names.DIGEST) == names.step_digest(self.order)
            ours = found["metadata"].get("labels", {}).get(names.RUN) == self.of.run.id
            if same and (ours or not ends.finished(found)):
                self._own(found)
                self._follow(found)
                return
            self._number += 1  # it ended badly, or what it made is gone, or it is another step's

    def _follow(self, job: Manifest) -> None:
        self._name, self._uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._by = job["metadata"].get("labels", {}).get(names.RUN, "")
        self._pods, self._asked, self._note = (), False, ""
        self._idle_since = time.monotonic()
        self.of.made[self.order.step] = self._name

    def _own(self, job: Manifest) -> None:
        """Add the driver's Job to the owners of an adopted one, so that it does not go with the driver that made it."""
        owners = job["metadata"].get("ownerReferences") or []
        if self.of.owner and all(owner["uid"] != self.of.owner["metadata"]["uid"] for owner in owners):
            patch = {"metadata": {"ownerReferences": [*owners, reference_to(self.of.owner)]}}
            self.of.cluster.patch("Job", job["metadata"]["name"], patch)

    # --- following it

    @property
    def _foreign(self) -> bool:
        return bool(self._name) and self._by != self.of.run.id

    def _look(self) -> Outcome | None:
        if self._stop:
            return self._stopping()
        if not self._name:
            self._take()
            if not self._name:
                return None
        job, pods = self._seen()
        self._count()
        if job is None:
            if self._foreign:  # whoever made it has ended it: then it is ours to make
                self._name = ""
                return None
            return ends.deleted(self._name, self._pods, asked=False)
        if ends.finished(job):
            return self._ended(ends.outcome(job, pods))
        self._note = waits.waits_for(job, pods, self._events(job, pods))
        return self._waited(pods)

    def _seen(self) -> tuple[Manifest | None, Sequence[Manifest]]:
        """The followed Job and its pods; no Job where it is gone, also where another one has its name."""
        job, pods = self.of.seen(self._by, self._name)
        if job is None or job["metadata"]["uid"] != self._uid:  # the list may be older than the Job
            job = self.of.cluster.get("Job", self._name)
            if job is None or job["metadata"]["uid"] != self._uid:
                return None, ()
            pods = self.of.cluster.list("Pod", {names.JOB: self._name})
        self._job, self._pods = job, pods or self._pods
        return job, pods

    def _ended(self, outcome: Outcome) -> Outcome | None:
        """The outcome, or None where the step is moved to another node first."""
        pod = ends.last(self._pods)
        node = ends.node(pod) if pod else ""
        if outcome.exit_code != NoAccelerator.exit_code or not node:
            return outcome
        self._avoid[node] = outcome.why or outcome.what
        if len(self._avoid) >= NODES:
            return outcome.model_copy(update={"why": self._evidence()})
        self._refused, self._name = outcome, ""
        self._number += 1
        self._take()
        return None

    def _waited(self, pods: Sequence[Manifest]) -> Outcome | None:
        """The end of a step that has found no place for too long."""
        now = time.monotonic()
        if waits.working(pods):
            self._idle_since, self._refused = now, None  # another node took it: what it waits for later is not that
        limit = self.order.resources.pending_limit or (MOVE_LIMIT if self._refused else None)
        if limit is None or now - self._idle_since < limit:
            return None
        if not self._refused:
            self._held_up = self._explained()
        if not self._foreign:
            self.of.cluster.delete("Job", self._name, uid=self._uid)
        if self._refused:
            return self._refused.model_copy(update={"why": f"{self._evidence()}; and no other node took it ({self._note})"})
        what = f"the step found no place within {format_seconds(limit)}"
        remedy = self._held_up.remedy if self._held_up else "wait until there is room and run it again, or raise pending_limit"
        return Outcome.of(Unavailable(what, where=f"Job {self._name}", why=self._note, remedy=remedy), 0.0)

    def _explained(self) -> Diagnosis | None:
        """Why it finds no place, while its Job is still there to be looked at; None where the cluster does not let it be known."""
        try:
            found = diagnose(gather(self.of.cluster, self.of.run.id, self.order.step))
        except Failure as failure:
            self._note = "; ".join(filter(None, [self._note, f"why cannot be looked at: {failure.what}"]))
            return None
        if not found.remedy.startswith(("modelyard wait ", "nothing: ")):
            return found
        limit = setting(self.order.step, "pending_limit: LONGER")  # its Job goes now: waiting for it would not help
        return found.model_copy(update={"remedy": f"modelyard run FILE (when there is room; or {limit})"})

    def _evidence(self) -> str:
        return "; ".join(f"{node}: {why}" for node, why in self._avoid.items())

    def _stopping(self) -> Outcome | None:
        if not self._name:
            found = self.of.cluster.get("Job", names.step_name(self.of.pipeline, self.order, self._number))  # its creation may have gone unanswered
            if found is None or found["metadata"].get("labels", {}).get(names.RUN) != self.of.run.id:
                return Outcome.of(Yielded("asked to stop before it began", remedy="the same command begins it"), 0.0)
            self._follow(found)
        job, pods = self._seen()
        if job is None:
            return ends.deleted(self._name, self._pods, asked=True)
        if ends.finished(job):
            return ends.outcome(job, pods)
        if not self._asked:
            if other := self._needed_by(job):
                return Outcome.of(Yielded("asked to stop", why=f"the Job {self._name} is left to {other}", remedy="the same command goes on"), 0.0)
            self.of.cluster.delete("Job", self._name, uid=self._uid, wait_for_pods=True)
            self._asked = True
        self._note = "being stopped"
        return None

    def _needed_by(self, job: Manifest) -> str:
        """Another run that goes on and needs the Job too: the one that made it, or one that found it. Empty where there is none."""
        own = self.of.owner["metadata"]["uid"] if self.of.owner else ""
        others = [str(owner["name"]) for owner in job["metadata"].get("ownerReferences") or [] if owner["uid"] != own]
        for run in dict.fromkeys([self._by, *others]):
            with suppress(NoInput):
                if run != self.of.run.id and (found := runs.look(self.of.cluster, run).status).state is RunState.RUNNING:
                    return found.run
        return ""

    def _events(self, job: Manifest, pods: Sequence[Manifest]) -> Sequence[Manifest]:
        """Events of a Job that has no pod, every few seconds; what was said of it last in between."""
        now = time.monotonic()
        if pods or job["spec"].get("suspend"):
            return ()
        if now >= self._next_events:
            self._next_events = now + EVENTS_EVERY
            self._said = runs.events(self.of.cluster, self._name)
        return self._said

    # --- what the yard knows

    def _count(self) -> None:
        """Which attempt is at work: the frame counts them, in the yard. Another run's attempts are not this run's."""
        attempt = None if self._foreign else self._last_attempt()
        self.attempt = attempt.number if attempt else self.attempt

    def _last_attempt(self) -> Attempt | None:
        if not self.of.shares_yard:
            return None
        try:
            run = self.of.yard.runs.get(self._by) if self._foreign else self.of.run
        except NoInput:
            return None  # the other run has been removed meanwhile
        return next(reversed(run.attempts(self.order.step)), None)

    def _completed(self, outcome: Outcome) -> Outcome:
        """The outcome with what does not fit into a termination message, from the yard."""
        last = self._last_attempt()
        if last and outcome.attempt and last.number != outcome.attempt:
            last = last.run.attempt(last.step, outcome.attempt)
        kept = last.outcome() if last else None
        late = outcome.exit_code in (Interrupted.exit_code, Yielded.exit_code)
        if last and kept and (kept.exit_code == outcome.exit_code or (late and kept.exit_code == 0)):
            elsewhere = {"why": outcome.why} if self._avoid and outcome.exit_code == NoAccelerator.exit_code else {}  # an attempt knows its own node
            outcome = kept.model_copy(update={"attempt": last.number, **elsewhere})
        if outcome.exit_code == 0 and not outcome.artifact and self.order.step_settings().makes():
            remedy = "run it again: what it made is found in the yard"
            lost = Crashed("the step succeeded, and what it said is gone", where=f"Job {self._name}", remedy=remedy)
            outcome = Outcome.of(lost, outcome.seconds)
        update: dict[str, Any] = {"key": outcome.key or self.order.key}
        moved = f"not on {', '.join(self._avoid)}: no usable accelerator there" if self._avoid and outcome.exit_code == 0 else ""
        if self._foreign:
            update |= {"attempt": 0, "reused": outcome.exit_code == 0}
            moved = "; ".join(filter(None, [moved, f"made by {self._by}"]))
        self.attempt = 0 if self._foreign else outcome.attempt or self.attempt
        return outcome.model_copy(update={**update, "note": "; ".join(filter(None, [moved, outcome.note]))})


def _last_progress(lines: Sequence[bytes]) -> Progress | None:
    """The progress that a log's last lines tell of."""
    for line in reversed(lines):
        try:
            entry = json.loads(line.partition(b" ")[2])
            if isinstance(entry, dict) and entry.get("event") == "progress":
                return Progress.model_validate(entry)
        except (ValueError, RecursionError):
            continue  # a library's own words
    return None
