"""The table of failures as Jobs have it: each class is in the rule that the table gives it."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import REGISTRY, RETRIES, Crashed, Failure, Rule, Yielded, from_exit
from modelyard.kube.policy import CRASHED_STEP, DRIVER_RETRIES, STEP_RETRIES, driver_policy, step_policy

ACTIONS = {Rule.FAIL: "FailJob", Rule.COUNT: None, Rule.IGNORE: "Ignore", Rule.CLI: None}
"""Rule -> action; None: no rule of the policy names the code, so that it counts."""


def action_of(policy: dict[str, Any], code: int) -> str | None:
    """What a Job does with a pod whose container ended with a code: the first rule that names it."""
    for rule in policy["rules"]:
        if code in rule.get("onExitCodes", {}).get("values", []):
            action: str = rule["action"]
            return action
    return None


@pytest.mark.parametrize("failure", REGISTRY.values(), ids=REGISTRY)
def test_a_steps_job_does_what_the_table_says(failure: type[Failure]) -> None:
    assert action_of(step_policy("step"), failure.exit_code) == ACTIONS[failure.rule]


@pytest.mark.parametrize("failure", REGISTRY.values(), ids=REGISTRY)
def test_a_drivers_job_ends_with_every_class_that_has_a_name(failure: type[Failure]) -> None:
    expected = {Yielded: "Ignore", Crashed: None}.get(failure, "FailJob")
    assert action_of(driver_policy("driver"), failure.exit_code) == expected


@pytest.mark.parametrize("code", [2, 3, 134, 137, 139, 143, 255])
def test_what_no_class_names_counts(code: int) -> None:
    assert action_of(step_policy("step"), code) is None
    assert action_of(driver_policy("driver"), code) is None


def test_a_driver_can_say_that_a_step_crashed_without_another_one_being_started() -> None:
    assert action_of(driver_policy("driver"), CRASHED_STEP) == "FailJob"
    assert from_exit(CRASHED_STEP) is Crashed
    assert CRASHED_STEP not in {failure.exit_code for failure in REGISTRY.values()}


def test_a_disruption_is_looked_at_before_any_code() -> None:
    for policy in (step_policy("step"), driver_policy("driver")):
        assert policy["rules"][0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert all("onPodConditions" not in rule for rule in policy["rules"][1:])


@pytest.mark.parametrize("policy", [step_policy("step"), driver_policy("driver")])
def test_the_policies_are_what_the_api_allows(policy: dict[str, Any]) -> None:
    assert len(policy["rules"]) <= 20
    named = [rule["onExitCodes"]["values"] for rule in policy["rules"] if "onExitCodes" in rule]
    for values in named:
        assert 0 < len(values) <= 255
        assert values == sorted(set(values))
        assert 0 not in values
    assert len({code for values in named for code in values}) == sum(map(len, named))


def test_retries_are_the_tables() -> None:
    assert (STEP_RETRIES, DRIVER_RETRIES) == (RETRIES, 6)
