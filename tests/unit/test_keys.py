"""What a result's key depends on, and what it does not."""

from __future__ import annotations

import pytest

from modelyard import keys
from modelyard.steps import Evaluate, Finetune, Resources

INPUTS = {"model": "a" * 64, "data": "b" * 64}
STEP = Finetune(model="base", data="rows")


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # a value of no type shows as well as any
@pytest.mark.parametrize("field", sorted(STEP.result_settings()))
def test_every_setting_that_affects_the_result_is_in_the_key(field: str) -> None:
    changed = STEP.model_copy(update={field: "changed"})
    assert keys.action_key(changed, INPUTS, "cpu") != keys.action_key(STEP, INPUTS, "cpu")


@pytest.mark.parametrize("update", [{"checkpoint_every": 7}, {"resources": Resources(gpus=4, memory="1Gi")}, {"model": "other-name"}])
def test_what_does_not_affect_the_result_is_not(update: dict[str, object]) -> None:
    assert keys.action_key(STEP.model_copy(update=update), INPUTS, "cpu") == keys.action_key(STEP, INPUTS, "cpu")


def test_inputs_device_verb_and_versions_are_in_the_key() -> None:
    key = keys.action_key(STEP, INPUTS, "cpu")
    assert key != keys.action_key(STEP, {**INPUTS, "data": "c" * 64}, "cpu")
    assert key != keys.action_key(STEP, INPUTS, "nvidia")
    assert key != keys.action_key(Evaluate(model="base", data="rows"), INPUTS, "cpu")
    assert key != keys.action_key(STEP, INPUTS, "cpu", {**keys.PINNED, "torch": "0"})
    assert key == keys.action_key(STEP, INPUTS, "cpu", keys.PINNED)


def test_another_champion_is_another_comparison_and_the_same_one_is_reused() -> None:
    step, inputs = Evaluate(model="base", against="champion", data="rows"), {**INPUTS, "against": "d" * 64}
    key = keys.action_key(step, inputs, "cpu")
    assert key == keys.action_key(step.model_copy(update={"against": "other-name"}), inputs, "cpu")
    assert len({key, keys.action_key(step, INPUTS, "cpu"), keys.action_key(step, {**inputs, "against": "e" * 64}, "cpu")}) == 3


def test_the_code_digest_is_over_the_steps_and_their_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    first = keys.code_digest()
    keys.code_digest.cache_clear()
    assert keys.code_digest() == first
    (tmp_path / "infer.py").write_text("changed")  # type: ignore[attr-defined]
    monkeypatch.setattr(keys, "jobs_package", lambda: tmp_path)
    keys.code_digest.cache_clear()
    changed = keys.code_digest()
    assert changed != first
    keys.code_digest.cache_clear()
