"""What a Job does when a pod of it fails: the table of failures as a podFailurePolicy.

The rules are tried in order, and a code that none of them names counts against the Job's backoffLimit. A pod that was evicted, preempted or drained
has the condition DisruptionTarget, whatever its container ended with: that is never the step's fault.
"""

from __future__ import annotations

from typing import Any

from modelyard.errors import REGISTRY, RETRIES, Crashed, Rule, Yielded

STEP_RETRIES = RETRIES
"""backoffLimit of a step's Job."""
DRIVER_RETRIES = 6
"""backoffLimit of a driver's Job: deaths that no class names. Its steps have been tried again by their own Jobs."""
CRASHED_STEP = 1
"""What a driver exits with when its run ended with a step that crashed; 137 would say that the driver itself was killed, and start another one."""


def step_policy(container: str) -> dict[str, Any]:
    """The policy of a step's Job: each class by its rule."""
    ignored = [failure.exit_code for failure in REGISTRY.values() if failure.rule is Rule.IGNORE]
    final = [failure.exit_code for failure in REGISTRY.values() if failure.rule is Rule.FAIL]
    return _policy(container, ignored, final)


def driver_policy(container: str) -> dict[str, Any]:
    """The policy of a driver's Job: who was asked to stop is followed by another, and every class that has a name is the run's end."""
    unnamed = (Yielded, Crashed)
    final = [failure.exit_code for failure in REGISTRY.values() if failure not in unnamed]
    return _policy(container, [Yielded.exit_code], [CRASHED_STEP, *final])


def _policy(container: str, ignored: list[int], final: list[int]) -> dict[str, Any]:
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": _codes(container, ignored)},
            {"action": "FailJob", "onExitCodes": _codes(container, final)},
        ]
    }


def _codes(container: str, codes: list[int]) -> dict[str, Any]:
    return {"containerName": container, "operator": "In", "values": sorted(codes)}
