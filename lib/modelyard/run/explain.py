"""Why a run, or one of its steps, waits or failed: on a cluster as its objects and its status say, in a yard on this machine as its files say.

What was found out when a step failed comes first: it was kept then, since events and pods do not stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from modelyard.errors import Crashed, NoInput, Yielded, suggest
from modelyard.kube import names
from modelyard.kube.cluster import Cluster
from modelyard.kube.diagnose import diagnose, of_status, pace
from modelyard.kube.diagnosis import Diagnosis, Evidence
from modelyard.kube.facts import DIAGNOSES, gather
from modelyard.yard.runs import Run, RunState, RunStatus, StepState


def there(cluster: Cluster, run: str | None = None, step: str | None = None) -> Diagnosis:
    """Of a run on a cluster: the one of that name, or the beginning of one; without a name the latest. Raises NoInput; what the cluster refuses."""
    return diagnose(gather(cluster, run, step))


def here(run: Run, step: str | None = None) -> Diagnosis:
    """Of a run in a yard on this machine. Raises NoInput: it has no such step."""
    live = run.live()  # before the status: a run that ends meanwhile has ended
    status = run.status()
    if step and step not in status.steps:
        raise NoInput(f"{run.id} has no step {step!r}", remedy=suggest(step, status.steps))
    states = {name: found.state for name, found in status.steps.items()}
    first = [name for wanted in (StepState.FAILED, StepState.RUNNING) for name, state in states.items() if state is wanted]
    name = step or next(iter(first), "")
    if name and states[name] is StepState.FAILED:
        return run.diagnosis(name, status.steps[name].attempt, Diagnosis) or of_status(status, name) or _of_run(status, live=live)
    if not name or (status.state is RunState.RUNNING and not live):
        return _of_run(status, live=live)
    return of_status(status, name) or _running(run, status, name)


def kept_here(run: Run, status: RunStatus) -> dict[str, Diagnosis]:
    """Step -> why it failed, as the run's yard has it."""
    failed = {name: step for name, step in status.steps.items() if step.state is StepState.FAILED}
    found = {name: run.diagnosis(name, step.attempt, Diagnosis) for name, step in failed.items()}
    return {name: diagnosis for name, diagnosis in found.items() if diagnosis}


def kept_there(cluster: Cluster, run: str) -> dict[str, Diagnosis]:
    """Step -> why it failed, as the run's driver mirrored it."""
    data: Mapping[str, str] = (cluster.get("ConfigMap", names.status_name(run)) or {}).get("data") or {}
    try:
        return {name: Diagnosis.model_validate(one) for name, one in json.loads(data.get(DIAGNOSES, "{}")).items()}
    except (ValueError, AttributeError, RecursionError):
        return {}  # the step's own word is there all the same


def _of_run(status: RunStatus, *, live: bool) -> Diagnosis:
    evidence = (Evidence(object=f"run {status.run}", field="state", value=status.state.value),)
    again = "modelyard run FILE (it goes on from what was kept)"
    if status.state is RunState.DONE:
        return Diagnosis(category="done", what="all its steps ended well", evidence=evidence, exit_code=0, run=status.run)
    if status.state is RunState.RUNNING:
        if live:
            return Diagnosis(
                category="running", what="its driver is at work", evidence=evidence, remedy=f"modelyard wait {status.run}", run=status.run
            )
        beat = Evidence(object=f"run {status.run}", field="heartbeat", value="stands still")
        what = "the run has not ended, and nothing drives it any more"
        return Diagnosis(category="driver-gone", what=what, evidence=(*evidence, beat), remedy=again, run=status.run)
    category = {RunState.CANCELLED: "interrupted", RunState.STOPPED: Yielded.category}.get(status.state, Crashed.category)
    what = "; ".join([f"the run was {status.state.value}", *status.notes])
    return Diagnosis(category=category, what=what, evidence=evidence, remedy=again, exit_code=status.exit_code, run=status.run)


def _running(run: Run, status: RunStatus, name: str) -> Diagnosis:
    step = status.steps[name]
    progress = run.attempt(name, step.attempt).progress() if step.attempt else None
    evidence = (Evidence(object=f"run {run.id}", field=f"steps.{name}.state", value=step.state.value),)
    what = "it runs" + (f": {pace(progress)}" if progress else "")
    return Diagnosis(category="running", what=what, evidence=evidence, remedy=f"modelyard wait {run.id}", run=run.id, step=name)
