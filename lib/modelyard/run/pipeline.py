"""The driver: takes a run from its pipeline to its end, whoever executes the steps.

Refs are resolved once. A step begins when its inputs are there; its result is looked up first, and only what is not known is executed. What
may pass is tried again by the rule of its class; after a failure nothing new begins, and what is running goes on to its end. Steps are found
again by what they are made of, so a driver that died costs nothing but the time since the last checkpoint.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard import hubs, keys, refs
from modelyard.errors import RETRIES, Bug, Crashed, Failure, Interrupted, NoInput, Rule, Unavailable, Yielded, from_exit, signal_name
from modelyard.hubs import Listing
from modelyard.hubs.selection import fetch_key, select
from modelyard.order import Order, Outcome
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline, digest
from modelyard.steps import Fetch, Reuse
from modelyard.yard import Action, Yard
from modelyard.yard.records import utc_now
from modelyard.yard.runs import FINISHED, Attempt, Run, RunState, RunStatus, StepState, StepStatus

OFFLINE = "MODELYARD_OFFLINE"
BEAT_EVERY = 1.0
LOOK_EVERY = 0.05
SHOW_EVERY = 0.5
RETRY_AFTER = (1.0, 2.0)
"""Seconds before the first and the second further attempt."""


class Execution(Protocol):
    """One attempt that is being executed."""

    def poll(self) -> int | None:
        """Exit code, None while it runs."""

    def stop(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL."""

    def last_words(self) -> str:
        """What it said last, for an attempt without an outcome."""


class Executor(Protocol):
    """How one step is executed."""

    def start(self, order: Order, attempt: Attempt) -> Execution:
        """Begin an attempt."""


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
    attempt: Attempt
    shown: float = 0.0
    stopped: bool = False


@dataclass
class Driver:
    """One run, driven by this process."""

    run: Run
    pipeline: Pipeline
    yard: Yard
    executor: Executor
    settings: Settings
    view: View
    signals: Signals = field(default_factory=Signals)

    def __post_init__(self) -> None:
        self._status = self.run.status()
        self._listings: dict[str, Listing] = {}
        self._running: dict[str, _Running] = {}
        self._tries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._needs = {name: set(self.pipeline.inputs(name).values()) for name in self.pipeline.steps}

    def drive(self) -> RunStatus:
        """Take the run to its end; its status then. Raises nothing that a step or a hub did: that is in the status."""
        ended = threading.Event()
        heart = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        heart.start()
        try:
            if self._resolve():
                self._loop()
            self._end()
        except BaseException as error:
            # Without this the run would look alive until its heartbeat has stood still for long enough.
            self._save(
                state=RunState.FAILED, exit_code=Bug.exit_code, ended=utc_now(), notes=(*self._status.notes, f"{type(error).__name__}: {error}")
            )
            raise
        finally:
            ended.set()
            heart.join()
        self.view.ended(self._status)
        return self._status

    # --- resolving refs

    def _resolve(self) -> bool:
        """What every ref stands for; False when one stands for nothing."""
        resolved: dict[str, Any] = {}
        for name, step in self.pipeline.steps.items():
            if not isinstance(step, Fetch):
                continue
            try:
                resolved[name] = self._resolve_one(name, step)
            except Failure as failure:
                self._fail(name, Outcome.of(failure, 0.0))
                return False
        self.run.write_spec({**self.run.spec(), "resolved": resolved})
        return True

    def _resolve_one(self, name: str, step: Fetch) -> dict[str, Any]:
        ref = refs.parse(step.ref)
        if isinstance(ref, refs.YardRef):
            record = self.yard.refs.get(f"{ref.kind}s/{ref.name}@{ref.alias}")
            self._finish(name, StepState.REUSED, record.digest, note=str(ref))
            return {"ref": str(ref), "artifact": record.digest}
        try:
            if os.environ.get(OFFLINE) == "1" and not isinstance(ref, refs.PathRef):
                raise Unavailable(f"{OFFLINE} is set", remedy=f"unset {OFFLINE} to ask the hub")
            listing = hubs.resolve(ref, "model" if step.model else "dataset", self.settings.hubs)
        except Unavailable as failure:
            action = None if step.fresh else self.yard.actions.get(_last_key(step))
            if action is None or self.yard.artifacts.find(action.artifact) is None:
                raise Unavailable(failure.what, where=str(ref), why="and nothing was fetched from it before", remedy=failure.remedy) from failure
            note = f"{ref}: the hub was not asked or did not answer ({failure.what}); as of {action.at}"
            self._note(note)
            self._finish(name, StepState.REUSED, action.artifact, note=note)
            return {"ref": str(ref), "artifact": action.artifact, "stale": True}
        self._listings[name] = listing
        return {"ref": str(ref), "listing": listing.record(), "digest": listing.digest}

    # --- the loop

    def _loop(self) -> None:
        while True:
            if self.run.cancel_requested() and not self.signals.stop:
                self.signals.stop, self.signals.by = True, Interrupted
            if self.signals.stop:
                self._stop_running()
            elif not self._failed():
                self._begin_ready()
            if not self._running and (self.signals.stop or self._failed() or not self._waiting()):
                return
            time.sleep(LOOK_EVERY)
            for name in list(self._running):
                self._look(name)

    def _begin_ready(self) -> None:
        for name in self.pipeline.order():
            ready = self._step(name).state is StepState.WAITING and all(self._step(need).state in FINISHED for need in self._needs[name])
            if ready and time.monotonic() >= self._not_before.get(name, 0.0) and len(self._running) < self.settings.jobs:
                try:
                    self._begin(name)
                except Failure as failure:
                    self._fail(name, Outcome.of(failure, 0.0))
                    return

    def _begin(self, name: str) -> None:
        """Find the step's result, or begin an attempt at it."""
        step, resources = self.pipeline.steps[name], self.pipeline.resources_of(name)
        inputs = {input_field: self._artifact(source) for input_field, source in self.pipeline.inputs(name).items()}
        listing = self._listings.get(name)
        if isinstance(step, Fetch) and listing:
            key = fetch_key(select(listing, step.trust))
        else:
            key = keys.action_key(step, inputs, resources.accelerator if resources.gpus else "cpu")
        forced = self.settings.forces(name)
        action = None if forced or step.reuse in (Reuse.OBSERVE, Reuse.EFFECT) else self.yard.actions.get(key)
        if action is not None and self.yard.artifacts.find(action.artifact):
            self.yard.actions.touch(key)
            self._finish(name, StepState.REUSED, action.artifact, key=key)
            return
        attempt = self.run.new_attempt(name)
        order = Order(
            run=self.run.id,
            step=name,
            attempt=attempt.number,
            verb=step.verb,
            settings=step.settings(),
            resources=resources,
            inputs=inputs,
            key=key,
            forced=forced,
            listing=listing.record() if listing else None,
            hubs=dict(self.settings.hubs),
        )
        self._running[name] = _Running(self.executor.start(order, attempt), attempt)
        self._set(
            name, state=StepState.RUNNING, attempt=attempt.number, key=key, exit_code=None, category="", what="", where="", why="", remedy="", note=""
        )

    def _look(self, name: str) -> None:
        """See how a running step is doing."""
        running = self._running[name]
        code = running.execution.poll()
        now = time.monotonic()
        if code is None:
            if now - running.shown >= SHOW_EVERY:
                running.shown = now
                progress = running.attempt.progress()
                if progress:
                    self.view.progress(name, progress)
            return
        del self._running[name]
        outcome = self._outcome(running, code)
        if outcome.exit_code == 0 and outcome.artifact:
            state = StepState.REUSED if outcome.reused else StepState.DONE
            self._finish(name, state, outcome.artifact, key=outcome.key, note=outcome.note, seconds=outcome.seconds)
        elif self.signals.stop:
            self._set(name, state=StepState.STOPPED, **_told(outcome))
        elif self._again(name, outcome):
            self._set(name, state=StepState.WAITING, **_told(outcome))
            self.view.note(f"{name}: {outcome.category}: {outcome.what}; trying again")
        else:
            self._fail(name, outcome)

    def _outcome(self, running: _Running, code: int) -> Outcome:
        """How an attempt ended: as it says itself, else by its exit code."""
        outcome = running.attempt.outcome()
        if outcome is not None and (outcome.exit_code == code or code not in (0, outcome.exit_code)):
            return outcome
        words = running.execution.last_words()
        failure = (from_exit(code) or Crashed)(
            f"the step ended with {signal_name(code)} and left no outcome", why=words, remedy=f"see {running.attempt.path}"
        )
        return Outcome.of(failure, running.attempt.seconds())

    def _again(self, name: str, outcome: Outcome) -> bool:
        """Whether the rule of the outcome's class grants another attempt; when it does, not before a moment has passed."""
        failure = from_exit(outcome.exit_code)
        rule = failure.rule if failure else Rule.FAIL
        if rule is Rule.COUNT:
            tries = self._tries[name] = self._tries.get(name, 0) + 1
            if tries > RETRIES:
                return False
            self._not_before[name] = time.monotonic() + RETRY_AFTER[tries - 1]
            return True
        self._not_before[name] = time.monotonic() + RETRY_AFTER[0]
        return rule is Rule.IGNORE

    def _stop_running(self) -> None:
        for running in self._running.values():
            if self.signals.kill:
                running.execution.kill()
            elif not running.stopped:
                running.stopped = True
                running.execution.stop()

    # --- the status

    def _end(self) -> None:
        for name, step in self._status.steps.items():
            if step.state is StepState.WAITING:
                self._set(name, state=StepState.SKIPPED, show=False)
        failed = [step for step in self._status.steps.values() if step.state is StepState.FAILED]
        finished = all(step.state in FINISHED for step in self._status.steps.values())
        if failed:
            state, code = RunState.FAILED, failed[0].exit_code
        elif finished:
            state, code = RunState.DONE, 0
        else:
            state = RunState.CANCELLED if self.run.cancel_requested() else RunState.STOPPED
            code = self.signals.by.exit_code
        self._save(state=state, exit_code=code, ended=utc_now())

    def _finish(self, name: str, state: StepState, artifact: str, *, key: str = "", note: str = "", seconds: float | None = None) -> None:
        found = self.yard.artifacts.get(artifact)
        step = self.pipeline.steps[name]
        if name in self._listings and isinstance(step, Fetch):
            last = _last_key(step)
            self.yard.actions.put(last, Action(key=last, verb="fetch", artifact=artifact, attempt=self.run.id, at=utc_now()))
        self._set(
            name,
            state=state,
            artifact=artifact,
            kind=found.kind,
            exit_code=0,
            key=key,
            note=note,
            seconds=seconds,
            category="ok",
            what="",
            where="",
            why="",
            remedy="",
        )

    def _fail(self, name: str, outcome: Outcome) -> None:
        self._set(name, state=StepState.FAILED, **_told(outcome))

    def _set(self, name: str, *, show: bool = True, **update: Any) -> None:
        steps = {**self._status.steps, name: self._step(name).model_copy(update=update)}
        self._save(show=show, steps=steps)

    def _note(self, text: str) -> None:
        self.view.note(text)
        self._save(show=False, notes=(*self._status.notes, text))

    def _save(self, *, show: bool = True, **update: Any) -> None:
        self._status = self._status.model_copy(update=update)
        self.run.write_status(self._status)
        if show:
            self.view.changed(self._status)

    def _step(self, name: str) -> StepStatus:
        return self._status.steps[name]

    def _artifact(self, name: str) -> str:
        artifact = self._step(name).artifact
        if artifact is None:
            raise NoInput(f"step {name!r} has no artifact", remedy="run the pipeline again")
        return artifact

    def _waiting(self) -> bool:
        return any(step.state is StepState.WAITING for step in self._status.steps.values())

    def _failed(self) -> bool:
        return any(step.state is StepState.FAILED for step in self._status.steps.values())

    def _beat(self, ended: threading.Event) -> None:
        count = 0
        while not ended.wait(BEAT_EVERY):
            count += 1
            self.run.beat(count)


def first_status(run_id: str, pipeline: Pipeline) -> RunStatus:
    """The status of a run that has just been made."""
    steps = {name: StepStatus(verb=pipeline.steps[name].verb) for name in pipeline.order()}
    return RunStatus(run=run_id, pipeline=pipeline.name, started=utc_now(), steps=steps)


def _last_key(step: Fetch) -> str:
    """The key of the action that remembers what a ref stood for last, for when its hub does not answer."""
    return digest({"last": step.ref, "trust": sorted(step.trust)})


def _told(outcome: Outcome) -> Mapping[str, Any]:
    return {name: getattr(outcome, name) for name in ("exit_code", "category", "what", "where", "why", "remedy", "seconds")}
