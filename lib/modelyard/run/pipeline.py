"""The driver: takes a run from its pipeline to its end, whoever executes the steps.

Refs are resolved once. A step begins when its inputs are there; its result is looked up first, and only what is not known is executed. What
may pass is tried again by the rule of its class; after a failure nothing new begins, and what is running goes on to its end. Steps are found
again by what they are made of, so a driver that died costs nothing but the time since the last checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard import keys
from modelyard.devices import CPU, vendor_of
from modelyard.errors import RETRIES, Bug, Failure, Interrupted, Rule, Yielded, from_exit
from modelyard.hubs import Listing
from modelyard.hubs.resolving import remember, resolve_or_last
from modelyard.hubs.selection import fetch_key, select
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.endings import of_ending
from modelyard.order import Ending, Order, Outcome
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Reuse
from modelyard.yard import Yard
from modelyard.yard.records import utc_now
from modelyard.yard.runs import FINISHED, Progress, Run, RunState, RunStatus, StepState, StepStatus

BEAT_EVERY = 1.0
LOOK_EVERY = 0.05
SHOW_EVERY = 0.5
RETRY_AFTER = (1.0, 2.0)
"""Seconds before the first and the second further attempt."""


class Execution(Protocol):
    """One step that is being executed: an attempt of it, or as many as its executor makes by itself."""

    @property
    def attempt(self) -> int:
        """The number of the attempt that is at work, or was last; 0 before the first has begun."""

    def poll(self) -> Outcome | None:
        """How it ended, None while it goes on. A cheap look: the driver calls it many times a second."""

    def diagnosis(self, outcome: Outcome) -> Diagnosis:
        """Why it ended so. Asked once, when it has failed for good."""

    def progress(self) -> Progress | None:
        """How far it is, as far as it is known."""

    def note(self) -> str:
        """What a person should know about it now, such as what it waits for; empty where there is nothing."""

    def terminate(self) -> None:
        """Ask for its end: it keeps what it can and ends with 75."""

    def kill(self) -> None:
        """End it now."""


class Executor(Protocol):
    """Where steps are executed.

    retries: whether it tries again by itself, by the rules of the classes. outlives: whether what it executes goes on when the driver ends, and is
    found again by `begin`. shares_yard: whether the driver sees the yard that the steps see; where it does not, only frames resolve and look up.
    """

    retries: bool
    outlives: bool
    shares_yard: bool

    def begin(self, order: Order) -> Execution:
        """Begin to execute a step, or find what executes it already. Raises failures: it cannot be begun."""


@dataclass
class Signals:
    """What the driver was asked to do from outside. stop: end the steps, keep what they have. kill: end them now."""

    stop: bool = False
    kill: bool = False
    by: type[Failure] = Yielded
    """The class that the run ends with when it was stopped."""


@dataclass
class _Running:
    execution: Execution
    shown: float = 0.0
    stopped: bool = False


@dataclass
class Driver:
    """One run, driven by this process.

    Where an executor's steps outlive their driver, another driver of the same run goes on: what is settled stays settled, what was running is
    found again by the executor, and refs stay what they were resolved to.
    """

    run: Run
    pipeline: Pipeline
    yard: Yard
    executor: Executor
    settings: Settings
    view: View
    signals: Signals = field(default_factory=Signals)

    def __post_init__(self) -> None:
        self._status = self.run.status()
        self._before = self.run.spec()["resolved"]
        self._found = {name for name, step in self._status.steps.items() if step.state is StepState.RUNNING}
        """Steps that an earlier driver of this run has begun."""
        for name in self._found:
            waiting = self._status.steps[name].model_copy(update={"state": StepState.WAITING})
            self._status = self._status.model_copy(update={"steps": {**self._status.steps, name: waiting}})
        self._listings: dict[str, Listing] = {}
        self._running: dict[str, _Running] = {}
        self._tries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        looks = {name for name, step in self.pipeline.steps.items() if step.verb == "preflight"}
        self._needs = {
            name: {*self.pipeline.inputs(name).values(), *(looks if step.reuse is not Reuse.OBSERVE else ())}
            for name, step in self.pipeline.steps.items()
        }

    def drive(self) -> RunStatus:
        """Take the run to its end; its status then. Raises nothing that a step or a hub did: that is in the status."""
        ended = threading.Event()
        heart = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        heart.start()
        try:
            if not self.executor.shares_yard or self._resolve():
                self._loop()
            if not (self.executor.outlives and self.signals.stop and not self.run.cancel_requested()):
                self._end()  # otherwise the next driver of this run goes on
        except BaseException as error:
            # Without this the run would look alive until its heartbeat has stood still for long enough.
            self._save(self._status.over(RunState.FAILED, Bug.exit_code, f"{type(error).__name__}: {error}"))
            raise
        finally:
            ended.set()
            heart.join()
        return self._status

    # --- resolving refs

    def _resolve(self) -> bool:
        """What every ref stands for; False when one stands for nothing, or the end is asked for before that is known."""
        resolved = dict(self._before)
        for name, step in self.pipeline.steps.items():
            if not isinstance(step, Fetch):
                continue
            if name in resolved:
                if "listing" in resolved[name]:
                    self._listings[name] = Listing.from_record(resolved[name]["listing"])
                continue
            if self._asked_to_stop():
                return False
            try:
                resolved[name] = self._resolve_one(name, step)
            except Failure as failure:
                self._fail(name, Outcome.of(failure, 0.0))
                return False
            self.run.write_spec({**self.run.spec(), "resolved": resolved})  # at once: the next driver resolves the others alone
        return True

    def _resolve_one(self, name: str, step: Fetch) -> dict[str, Any]:
        kind, again = step.makes(), name in self.settings.force
        found = resolve_or_last(self.yard, step.ref, kind, self.settings.hubs, trust=step.trust, fresh=step.fresh, again=again)
        if found.listing:
            self._listings[name] = found.listing
            return found.record()
        if found.stale:
            self.view.note(found.note)
            self._save(self._status.model_copy(update={"notes": (*self._status.notes, found.note)}))
        self._finish(name, StepState.REUSED, found.artifact, note=found.note)
        return found.record()

    # --- the loop

    def _loop(self) -> None:
        self._begin_ready(self._found)  # also where the end is asked for already: what goes on has to be ended
        while True:
            if self._asked_to_stop():
                self._stop_running()
            elif not self._any(StepState.FAILED):
                self._begin_ready(self.pipeline.steps)
            if not self._running and (self.signals.stop or self._any(StepState.FAILED) or not self._any(StepState.WAITING)):
                return
            time.sleep(LOOK_EVERY)
            for name in list(self._running):
                self._look(name)

    def _asked_to_stop(self) -> bool:
        """By a signal, or by a request that somebody left in the yard."""
        if self.run.cancel_requested() and not self.signals.stop:
            self.signals.stop, self.signals.by = True, Interrupted
        return self.signals.stop

    def _begin_ready(self, among: Collection[str]) -> None:
        for name in (name for name in self.pipeline.order() if name in among):
            ready = self._step(name).state is StepState.WAITING and all(self._step(need).state in FINISHED for need in self._needs[name])
            if ready and time.monotonic() >= self._not_before.get(name, 0.0) and len(self._running) < self.settings.jobs:
                try:
                    self._begin(name)
                except Failure as failure:
                    self._fail(name, Outcome.of(failure, 0.0))
                    return

    def _begin(self, name: str) -> None:
        """Find the step's result, or have it executed."""
        step, resources = self.pipeline.steps[name], self.pipeline.resources_of(name)
        inputs = {input_field: made for input_field, source in self.pipeline.inputs(name).items() if (made := self._step(source).artifact)}
        listing = self._listings.get(name)
        if not isinstance(step, Fetch):
            key = keys.action_key(step, inputs, vendor_of(resources.accelerator).name if resources.gpus else CPU.name)
        else:
            key = fetch_key(select(listing, step.trust)) if listing else ""
        forced = name in self.settings.force
        looked = forced or name in self._found or not self.executor.shares_yard or step.reuse in (Reuse.OBSERVE, Reuse.EFFECT)
        action = None if looked else self.yard.known(key)
        if action is not None:
            self._finish(name, StepState.REUSED, action.artifact, key=key)
            return
        order = Order(
            run=self.run.id,
            step=name,
            verb=step.verb,
            settings=step.settings(),
            resources=resources,
            inputs=inputs,
            key=key,
            forced=forced,
            listing=listing.record() if listing else None,
            hubs=dict(self.settings.hubs),
            pipeline=None if self.executor.shares_yard else self.pipeline.to_dict(),
        )
        execution = self.executor.begin(order)
        self._running[name] = _Running(execution)
        self._set(name, StepState.RUNNING, Ending(key=key), attempt=execution.attempt)

    def _look(self, name: str) -> None:
        """See how a running step is doing."""
        running = self._running[name]
        outcome = running.execution.poll()
        now = time.monotonic()
        if outcome is None:
            if now - running.shown >= SHOW_EVERY:
                running.shown = now
                self._show(name, running.execution)
            return
        del self._running[name]
        attempt = running.execution.attempt
        if outcome.exit_code == 0 and (outcome.artifact or not self.pipeline.steps[name].makes()):
            self._finish(name, StepState.REUSED if outcome.reused else StepState.DONE, outcome.artifact, outcome, attempt=attempt)
        elif self.signals.stop:
            self._set(name, StepState.STOPPED, outcome, attempt=attempt)
        elif not self.executor.retries and self._again(name, outcome):
            self._set(name, StepState.WAITING, outcome, attempt=attempt)
            self.view.note(f"{name}: {outcome.category}: {outcome.what}; trying again")
        else:
            self._fail(name, outcome, running.execution)

    def _show(self, name: str, execution: Execution) -> None:
        """Tell what is new about a step that goes on."""
        if progress := execution.progress():
            self.view.progress(name, progress)
        step = self._step(name)
        if (execution.attempt, execution.note()) != (step.attempt, step.note):
            self._set(name, StepState.RUNNING, Ending(key=step.key, note=execution.note()), attempt=execution.attempt)

    def _again(self, name: str, outcome: Outcome) -> bool:
        """Whether the rule of the outcome's class grants another attempt; when it does, not before a moment has passed."""
        failure = from_exit(outcome.exit_code)
        tries = 0
        if failure and failure.rule is Rule.COUNT:
            tries = self._tries[name] = self._tries.get(name, 0) + 1
        elif not failure or failure.rule is not Rule.IGNORE:
            return False
        if tries > RETRIES:
            return False
        self._not_before[name] = time.monotonic() + RETRY_AFTER[max(tries - 1, 0)]
        return True

    def _stop_running(self) -> None:
        if self.executor.outlives and not self.run.cancel_requested():
            self._running.clear()  # they go on; the next driver of this run finds them
        for running in self._running.values():
            if self.signals.kill:
                running.execution.kill()
            elif not running.stopped:
                running.stopped = True
                running.execution.terminate()

    # --- the status

    def _end(self) -> None:
        failed = [step for step in self._status.steps.values() if step.state is StepState.FAILED]
        if failed:
            state, code = RunState.FAILED, failed[0].exit_code or Bug.exit_code
        elif all(step.state in FINISHED for step in self._status.steps.values()):
            state, code = RunState.DONE, 0
        else:
            state, code = RunState.CANCELLED if self.run.cancel_requested() else RunState.STOPPED, self.signals.by.exit_code
        self._save(self._status.over(state, code))

    def _finish(
        self, name: str, state: StepState, artifact: str | None, ending: Ending | None = None, *, key: str = "", note: str = "", attempt: int = 0
    ) -> None:
        """The step has its artifact, or did what it does without one. ending: of its attempt, None when there was none."""
        step = self.pipeline.steps[name]
        if artifact and name in self._listings and isinstance(step, Fetch):
            remember(self.yard, step.ref, step.trust, listing=self._listings[name], artifact=artifact, by=self.run.id)
        ending = ending or Ending(exit_code=0, category="ok", artifact=artifact, key=key, note=note)
        self._set(name, state, ending, kind=(step.makes() or "") if artifact else "", attempt=attempt)

    def _fail(self, name: str, outcome: Outcome, execution: Execution | None = None) -> None:
        """The step failed for good: why is kept before anybody hears that it did, since what tells it does not stay for long."""
        attempt = execution.attempt if execution else 0
        diagnosis = execution.diagnosis(outcome) if execution else of_ending(outcome, self.run.id, name)
        try:
            self.run.write_diagnosis(name, attempt, diagnosis)
        except Failure as failure:  # a full volume, say, which is why the step failed
            self.view.note(f"{name}: why it failed cannot be kept: {failure}")
        self.view.diagnosed(name, diagnosis)
        self._set(name, StepState.FAILED, outcome, attempt=attempt)

    def _set(self, name: str, state: StepState, ending: Ending, **update: Any) -> None:
        told = {field: getattr(ending, field) for field in Ending.model_fields}
        step = self._step(name).model_copy(update={"state": state, **told, **update})
        self._save(self._status.model_copy(update={"steps": {**self._status.steps, name: step}}))

    def _save(self, status: RunStatus) -> None:
        self._status = status
        self.run.write_status(status)
        self.view.changed(status)

    def _step(self, name: str) -> StepStatus:
        return self._status.steps[name]

    def _any(self, state: StepState) -> bool:
        return any(step.state is state for step in self._status.steps.values())

    def _beat(self, ended: threading.Event) -> None:
        count = 0
        while not ended.wait(BEAT_EVERY):
            count += 1
            self.run.beat(count)


def first_status(run_id: str, pipeline: Pipeline) -> RunStatus:
    """The status of a run that has just been made."""
    steps = {name: StepStatus(verb=pipeline.steps[name].verb) for name in pipeline.order()}
    return RunStatus(run=run_id, pipeline=pipeline.name, started=utc_now(), steps=steps)
