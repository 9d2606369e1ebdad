"""promote: names move behind the gate, and back."""

from __future__ import annotations

import json

import pytest

from modelyard.errors import Corrupt, NoInput, Refused
from modelyard.steps import Gate
from tests.steps.fake import artifact
from tests.steps.released import RUN, World

TO = "yard://models/reviews@champion"


@pytest.fixture
def world(tmp_path):
    return World.make(tmp_path)


def gate(**settings):
    return Gate(metrics="score", at_least={"accuracy": 0.75}, **settings)


def test_a_name_moves_and_says_who_moved_it(world):
    result = world.promote(world.tuned)
    assert result == {"to": TO, "digest": world.tuned.digest, "previous": None, "unchanged": False, "gate": None}
    assert world.yard.refs.get(TO).source == f"run {RUN}, step release"
    result = world.promote(world.onnx)
    assert (result["digest"], result["previous"], result["unchanged"]) == (world.onnx.digest, world.tuned.digest, False)


def test_promoted_again_nothing_changes(world):
    world.promote(world.tuned)
    world.promote(world.onnx)
    before = world.yard.refs.get(TO)
    result = world.promote(world.onnx, attempt=2)
    assert (result["digest"], result["previous"], result["unchanged"]) == (world.onnx.digest, world.tuned.digest, True)
    assert world.yard.refs.get(TO) == before


def test_a_passed_gate_is_part_of_the_result(world):
    result = world.promote(world.tuned, world.measure(world.tuned), gate=gate())
    assert result["gate"]["passed"] is True
    assert result["gate"]["lines"][0]["metric"] == "accuracy"
    assert world.yard.refs.get(TO).digest == world.tuned.digest


def test_below_the_gate_nothing_moves(world):
    world.promote(world.base)
    with pytest.raises(Refused, match=r"accuracy 0\.7 .*at least 0\.75"):
        world.promote(world.tuned, world.measure(world.tuned, accuracy=0.70), gate=gate())
    assert world.result()["gate"] == {
        "passed": False,
        "lines": [
            {
                "metric": "accuracy",
                "value": 0.7,
                "low": 0.62,
                "high": 0.76,
                "n": 100,
                "at_least": 0.75,
                "sure": False,
                "passed": False,
                "difference": False,
            }
        ],
    }
    assert "digest" not in world.result()  # which says what the name stands for
    assert world.yard.refs.get(TO).digest == world.base.digest


def test_sure_asks_for_the_lower_end(world):
    metrics = world.measure(world.tuned, accuracy=0.82)  # its lower end is 0.74
    assert world.promote(world.tuned, metrics, gate=gate())["gate"]["passed"]
    with pytest.raises(Refused, match="lower end"):
        world.promote(world.tuned, metrics, gate=gate(sure=True))


def test_metrics_of_the_exported_model_count_and_others_do_not(world):
    assert world.promote(world.onnx, world.measure(world.tuned), gate=gate())["gate"]["passed"]
    assert world.promote(world.onnx, world.measure(world.onnx), gate=gate())["gate"]["passed"]
    for model, measured in ((world.onnx, world.base), (world.tuned, world.onnx), (world.tuned, world.base)):
        with pytest.raises(Refused, match="of another model") as refused:
            world.promote(model, world.measure(measured, accuracy=0.99), gate=gate())
        assert measured.digest in refused.value.why
        assert model.digest in refused.value.why
        assert refused.value.remedy == "evaluate {model: onnx, …}, and name that step in gate.metrics"
        assert world.result()["gate"] == {"passed": False, "lines": []}
    assert world.yard.refs.get(TO).digest == world.onnx.digest


def test_metrics_that_no_evaluate_step_made_do_not_count(world):
    metrics = world.measure(world.tuned)
    for action in world.yard.actions.list():
        if action.verb == "evaluate":
            world.yard.actions.forget(action.key)
    with pytest.raises(Refused, match="no evaluate step of this yard"):
        world.promote(world.tuned, metrics, gate=gate())


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1}', '{"schema": 1, "metrics": []}', '{"schema": 2, "metrics": {}}'])
def test_metrics_that_evaluate_did_not_write_are_corrupt(world, text):
    metrics = artifact(world.yard, "metrics", {"metrics.json": text})
    world.act("evaluate", metrics, {"model": world.tuned, "data": world.data})
    with pytest.raises(Corrupt, match="not what evaluate writes"):
        world.promote(world.tuned, metrics, gate=gate())


def test_a_rollback_goes_back_once_per_run(world):
    for model in (world.base, world.tuned, world.onnx):
        world.promote(model)
    result = world.promote(rollback=True)
    assert result == {"to": TO, "digest": world.tuned.digest, "previous": world.onnx.digest, "unchanged": False, "gate": None}
    again = world.promote(rollback=True, attempt=2)  # the first attempt was killed before it could say so
    assert again == {**result, "unchanged": True}
    assert world.promote(rollback=True, run="reviews-0123456789-r2")["digest"] == world.base.digest


def test_a_rollback_tried_again_leaves_alone_what_somebody_moved_since(world):
    for model in (world.base, world.tuned):
        world.promote(model)
    first = world.promote(rollback=True)
    world.yard.refs.move(TO, world.onnx.digest, "somebody else")
    again = world.promote(rollback=True, attempt=2)
    assert (first["digest"], first["previous"]) == (world.base.digest, world.tuned.digest)
    assert again == {**first, "digest": world.onnx.digest, "unchanged": True}
    assert world.yard.refs.get(TO).digest == world.onnx.digest


def test_there_is_nothing_before_the_beginning(world):
    with pytest.raises(NoInput):
        world.promote(rollback=True)
    world.promote(world.base)
    with pytest.raises(NoInput, match="has not pointed to anything else"):
        world.promote(rollback=True)
    assert world.yard.refs.get(TO).digest == world.base.digest


def no_worse(by=0.01, **settings):
    return Gate(metrics="score", not_worse_than_champion=by, **settings)


def test_no_worse_than_the_champion_moves_the_name(world):
    world.promote(world.base)
    result = world.promote(world.tuned, world.measure(world.tuned, world.base, -0.01), gate=no_worse(at_least={"accuracy": 0.75}))
    assert (result["digest"], result["previous"]) == (world.tuned.digest, world.base.digest)
    assert [(line["difference"], line["value"], line["at_least"]) for line in result["gate"]["lines"]] == [(False, 0.82, 0.75), (True, -0.01, -0.01)]


@pytest.mark.parametrize(("gate", "difference"), [(no_worse(), -0.011), (no_worse(sure=True), 0.004), (no_worse(0.0), -0.0001)])
def test_worse_than_the_champion_leaves_the_name_as_it_was(world, gate, difference):
    world.promote(world.base)
    before = world.yard.refs.get(TO)
    with pytest.raises(Refused, match="accuracy less the champion's") as refused:
        world.promote(world.tuned, world.measure(world.tuned, world.base, difference), gate=gate)
    assert refused.value.exit_code == 81
    assert world.yard.refs.get(TO) == before
    assert world.result()["gate"]["passed"] is False
    assert "digest" not in world.result()


def test_better_than_the_champion_is_not_enough_where_a_floor_is_missed(world):
    world.promote(world.base)
    with pytest.raises(Refused, match="at least 0.9 asked for"):
        world.promote(world.tuned, world.measure(world.tuned, world.base, 0.2), gate=no_worse(at_least={"accuracy": 0.9}))
    assert world.yard.refs.get(TO).digest == world.base.digest


def test_a_champion_that_moved_meanwhile_is_not_replaced(world):
    world.promote(world.base)
    metrics = world.measure(world.tuned, world.base, 0.1)
    world.promote(world.onnx)  # somebody else
    stranger = artifact(world.yard, "model", {"model.safetensors": b"another"})
    world.yard.refs.move(TO, stranger.digest, "somebody else")
    before = world.yard.refs.get(TO)
    with pytest.raises(Refused, match="the champion moved meanwhile") as refused:
        world.promote(world.tuned, metrics, gate=no_worse())
    assert stranger.digest in refused.value.why
    assert world.base.digest in refused.value.why
    assert refused.value.remedy.startswith("run again")
    assert world.yard.refs.get(TO) == before
    assert world.result()["gate"] == {"passed": False, "lines": []}


def test_tried_again_after_it_moved_the_name_it_says_so_and_changes_nothing(world):
    world.promote(world.base)
    metrics = world.measure(world.tuned, world.base, 0.1)
    first = world.promote(world.tuned, metrics, gate=no_worse())
    again = world.promote(world.tuned, metrics, attempt=2, gate=no_worse())  # the first attempt was killed before it could say so
    assert again == {**first, "unchanged": True}


def test_differences_without_the_model_that_they_are_to_are_corrupt(world):
    world.promote(world.base)
    found = json.loads((world.measure(world.tuned, world.base, 0.1).path / "metrics.json").read_text())
    metrics = artifact(world.yard, "metrics", {"metrics.json": json.dumps({**found, "against": None})})
    world.act("evaluate", metrics, {"model": world.tuned, "data": world.data})
    with pytest.raises(Corrupt, match="does not say what was compared"):
        world.promote(world.tuned, metrics, gate=no_worse())
    assert world.yard.refs.get(TO).digest == world.base.digest


def test_the_champion_itself_stays_the_champion(world):
    world.promote(world.base)
    world.promote(world.tuned)
    before = world.yard.refs.get(TO)
    result = world.promote(world.tuned, world.measure(world.tuned, world.tuned, 0.0), gate=no_worse(0.0))
    assert (result["digest"], result["unchanged"]) == (world.tuned.digest, True)
    assert world.yard.refs.get(TO) == before


def test_metrics_of_the_champion_alone_do_not_promote_it_again(world):
    """What was compared with is not what was measured."""
    world.promote(world.base)
    metrics = world.measure(world.tuned, world.base, 0.1)
    with pytest.raises(Refused, match="of another model"):
        world.promote(world.base, metrics, gate=no_worse())


def test_without_a_comparison_nothing_is_promoted(world):
    world.promote(world.base)
    with pytest.raises(NoInput, match="not compared with a champion"):
        world.promote(world.tuned, world.measure(world.tuned), gate=no_worse())
    assert world.yard.refs.get(TO).digest == world.base.digest


def test_the_first_champion_is_promoted_without_a_comparison(world):
    with pytest.raises(NoInput, match="there is no champion") as missing:
        world.promote(world.tuned, world.measure(world.tuned, world.base, 0.1), gate=no_worse())
    assert "without not_worse_than_champion" in missing.value.remedy


@pytest.mark.parametrize("against", [{}, {"digests": {}}, {"digests": None}, ["x"]])
def test_a_comparison_with_nothing_that_is_named_is_corrupt(world, against):
    world.promote(world.base)
    text = json.dumps({"schema": 1, "main": "accuracy", "metrics": {"accuracy": {}}, "against": against or {"digests": []}})
    metrics = artifact(world.yard, "metrics", {"metrics.json": text})
    world.act("evaluate", metrics, {"model": world.tuned, "data": world.data})
    with pytest.raises(Corrupt, match="does not say what was compared"):
        world.promote(world.tuned, metrics, gate=no_worse())


def test_promoted_refused_and_rolled_back_the_last_good_one_stands(world):
    world.promote(world.base)
    world.promote(world.tuned, world.measure(world.tuned, world.base, 0.02), gate=no_worse())
    worse = artifact(world.yard, "model", {"model.safetensors": b"worse"})
    with pytest.raises(Refused):
        world.promote(worse, world.measure(worse, world.tuned, -0.3), gate=no_worse())
    assert world.yard.refs.get(TO).digest == world.tuned.digest
    result = world.promote(rollback=True)
    assert (result["digest"], result["previous"]) == (world.base.digest, world.tuned.digest)
    assert world.yard.refs.get(TO).digest == world.base.digest
