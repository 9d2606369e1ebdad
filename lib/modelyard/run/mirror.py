"""A run's status in the ConfigMap `<run>-status`, so that who follows it needs no yard; and the way in which a cancel reaches its driver.

    status.json     RunStatus
    progress.json   step -> Progress, of the steps that run
    jobs.json       step -> the name of its Job
    diagnoses.json  step -> Diagnosis, of the steps that failed
    results.json    `metrics` of evaluations and `results` of steps that make no artifact
    cancel          written by somebody who wants the run to end

A mirror never fails the run: what could not be written is written with the next change, or at the end.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from modelyard.errors import Failure, Unavailable
from modelyard.kube import names
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.facts import DIAGNOSES
from modelyard.run import results
from modelyard.run.view import View
from modelyard.yard import Yard
from modelyard.yard.runs import FINISHED, Progress, Run, RunState, RunStatus, StepState

PUSH_EVERY = 1.0
"""Seconds between two patches at least, and between two looks for a cancel."""
LAST_TRIES = 20
"""How often the end of a run is told to an API server that does not answer."""
LARGEST = 900_000
"""Bytes of what is mirrored; an object holds 1 MiB."""


class Mirror(View):
    """Hands on what a driver shows, and mirrors it. yard: the one that the steps see, None where the driver does not see it.

    `push` is one patch; `start` makes a thread that pushes once a second, and `close` ends it with the last word.
    """

    def __init__(
        self, cluster: Cluster, run: Run, pipeline: str, inner: View, *, yard: Yard | None, jobs: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self._cluster = cluster
        self._run = run
        self._pipeline = pipeline
        self._inner = inner
        self._yard = yard
        self._jobs = jobs
        self._status = run.status()
        self._progress: dict[str, Progress] = {}
        self._diagnoses: dict[str, Any] = {}
        self._kept: dict[str, Any] = {"metrics": {}, "results": {}}
        self._kept_of: set[tuple[str, str]] = set()
        """Steps that had ended, and how, when results were last read."""
        self._told: set[str] = set()
        self._jobs_before: dict[str, str] = {}
        self._written: dict[str, str] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    # --- the view

    def begun(self, run: str, note: str) -> None:
        """Hand it on."""
        self._inner.begun(run, note)

    def changed(self, status: RunStatus) -> None:
        """Keep the status for the next patch."""
        with self._lock:
            self._status = status
            running = {name for name, step in status.steps.items() if step.state is StepState.RUNNING}
            self._progress = {name: progress for name, progress in self._progress.items() if name in running}
        self._inner.changed(status)

    def progress(self, step: str, progress: Progress) -> None:
        """Keep the progress for the next patch."""
        with self._lock:
            self._progress[step] = progress
        self._inner.progress(step, progress)

    def diagnosed(self, step: str, diagnosis: Diagnosis) -> None:
        """Keep it for the next patch."""
        with self._lock:
            self._diagnoses[step] = diagnosis.model_dump(mode="json")
        self._inner.diagnosed(step, diagnosis)

    def note(self, text: str) -> None:
        """Hand it on."""
        self._inner.note(text)

    # --- the ConfigMap

    def start(self) -> None:
        """Begin to mirror."""
        self._thread.start()

    def close(self) -> None:
        """Mirror the last word; an API server that does not answer for long is left without it. Of a run that goes on, the next driver tells."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for _ in range(LAST_TRIES if self._status.state is not RunState.RUNNING else 1):
            if self.push():
                return
            time.sleep(PUSH_EVERY)

    def push(self) -> bool:
        """Write what is new, and look whether somebody asks for the end; False when the cluster did not let it."""
        try:
            found = self._push()
        except Unavailable:
            return False  # the next push says it all
        except Failure as failure:
            self._tell(f"the run's status cannot be mirrored: {failure}")
            return True  # trying again would not help; the yard has it all
        if "cancel" in found.get("data", {}) and not self._run.cancel_requested():
            self._run.request_cancel()
        return True

    def _push(self) -> Manifest:
        name = names.status_name(self._run.id)
        if self._written is None:
            found = self._cluster.get("ConfigMap", name)
            before = (found or {}).get("data") or {}
            self._jobs_before = _by_step(before.get("jobs.json", "{}"))
            with self._lock:
                self._diagnoses = {**_by_step(before.get(DIAGNOSES, "{}")), **self._diagnoses}
        data = self._data()
        if data == self._written:
            found = self._cluster.get("ConfigMap", name)
            if found is not None:
                return found
        found = self._cluster.patch("ConfigMap", name, {"data": data}) or self._cluster.create(self._manifest(name, data))
        self._written = data if found else None  # somebody made it in between: patch it the next time
        return found or {}

    def _manifest(self, name: str, data: Mapping[str, str]) -> Manifest:
        labels = {names.RUN: self._run.id, names.PIPELINE: self._pipeline, names.ROLE: "status"}
        metadata = {"name": name, "namespace": self._cluster.namespace, "labels": labels}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}

    def _data(self) -> dict[str, str]:
        """What the ConfigMap says; without the largest results and answers where it would be too large, and it says so."""
        with self._lock:
            status = self._status
            failed = {name for name, step in status.steps.items() if step.state is StepState.FAILED}
            diagnoses = {step: found for step, found in self._diagnoses.items() if step in failed}
            progress = {step: found.model_dump(mode="json") for step, found in self._progress.items()}
        kept = {**self._results(status), "diagnoses": diagnoses}
        jobs = {**self._jobs_before, **self._jobs()}
        left_out: list[str] = []
        while True:
            notes = (*status.notes, f"too large to be shown without the yard: results of {', '.join(left_out)}") if left_out else status.notes
            data = {
                "status.json": status.model_copy(update={"notes": notes}).model_dump_json(),
                "progress.json": json.dumps(progress),
                "jobs.json": json.dumps(jobs),
                **({DIAGNOSES: json.dumps(diagnoses, ensure_ascii=False)} if diagnoses else {}),
                "results.json": json.dumps({kind: found for kind, found in kept.items() if found is not diagnoses}, ensure_ascii=False),
            }
            if sum(len(text.encode()) for text in data.values()) <= LARGEST or not any(kept.values()):
                return data
            kind, step = max(((kind, step) for kind in kept for step in kept[kind]), key=lambda at: len(json.dumps(kept[at[0]][at[1]])))
            del kept[kind][step]
            left_out.append(step)

    def _results(self, status: RunStatus) -> dict[str, dict[str, Any]]:
        """Metrics and results, read again when a step has ended; what was known where the volume fails."""
        ended = {(name, step.state.value) for name, step in status.steps.items() if step.state in FINISHED or step.state is StepState.FAILED}
        if self._yard and ended != self._kept_of:
            try:
                self._kept = {"metrics": results.metrics(self._yard, status), "results": results.results(self._yard, status)}
                self._kept_of = ended
            except Failure as failure:
                self._tell(f"results cannot be shown: {failure}")
        return {kind: dict(found) for kind, found in self._kept.items()}

    def _tell(self, text: str) -> None:
        """A note, once."""
        if text not in self._told:
            self._told.add(text)
            self._inner.note(text)

    def _go_on(self) -> None:
        while not self._ended.wait(PUSH_EVERY):
            self.push()


def _by_step(text: str) -> dict[str, Any]:
    """What an earlier driver wrote; nothing where it is torn, which what is written now replaces."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
