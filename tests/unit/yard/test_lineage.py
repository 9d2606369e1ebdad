"""Lineage: what made what, from actions alone."""

from __future__ import annotations

from modelyard.yard import Action
from modelyard.yard.lineage import Lineage

from .conftest import KEYS

BASE, TUNED, ONNX, SCORE = (letter * 64 for letter in "1234")


def action(key: str, verb: str, made: str, **inputs: str) -> Action:
    return Action(key=KEYS[key], verb=verb, artifact=made, inputs=inputs)


def test_makers_are_found_by_what_they_made_and_how() -> None:
    tuned, again = action("b", "finetune", TUNED, model=BASE), action("a", "finetune", TUNED, model=BASE)
    lineage = Lineage([tuned, again, action("c", "fetch", BASE)])
    assert lineage.makers(TUNED, "finetune") == [again, tuned]
    assert lineage.maker(TUNED, "finetune") == again
    assert lineage.makers(TUNED, "fetch") == []
    assert lineage.maker(BASE, "finetune") is None
    assert lineage.maker("9" * 64, "fetch") is None


def test_of_several_makers_the_runs_own_goes_first() -> None:
    made = [action("a", "export", ONNX, model=BASE), action("b", "export", ONNX, model=TUNED)]
    assert Lineage(made).maker(ONNX, "export") == made[0]
    lineage = Lineage(made, own={KEYS["b"]})
    assert lineage.maker(ONNX, "export") == made[1]
    assert lineage.subjects(ONNX) == [ONNX, TUNED, BASE]


def test_an_export_is_worth_what_its_model_is_and_not_the_other_way_round() -> None:
    lineage = Lineage([action("a", "export", ONNX, model=TUNED, parity=BASE), action("b", "finetune", TUNED, model=BASE)])
    assert lineage.subjects(ONNX) == [ONNX, TUNED]
    assert lineage.subjects(TUNED) == [TUNED]


def test_metrics_are_of_the_models_that_evaluate_steps_measured() -> None:
    made = [action("a", "evaluate", SCORE, model=TUNED), action("b", "evaluate", SCORE, model=ONNX), action("c", "infer", SCORE, model=BASE)]
    lineage = Lineage([*made, action("d", "evaluate", BASE, model=BASE)])
    assert lineage.measured(SCORE) == [TUNED, ONNX]
    assert lineage.measured(ONNX) == []
