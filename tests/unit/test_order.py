"""The two documents between a driver and a frame."""

from __future__ import annotations

import json

import pytest

from modelyard.errors import HostOom
from modelyard.order import Order, Outcome, termination_message
from modelyard.steps import STEPS, Fetch, Finetune, Resources, Step


@pytest.mark.parametrize("step", [Finetune(model="base", data="rows", checkpoint_every="2m"), Fetch(model="hf://o/n", trust=("pickle",))])
def test_an_order_carries_its_settings_through_json(step: Step) -> None:
    order = Order(run="r", step="s", attempt=2, verb=step.verb, settings=step.settings(), resources=Resources(gpus=1, time_limit="1h"), key="k")
    again = Order.model_validate_json(order.model_dump_json(), strict=False)
    assert again == order
    assert again.step_settings() == step
    assert type(again.step_settings()) is STEPS[step.verb]
    assert again.attempt_id == "r.s.2"


def test_an_outcome_gives_back_its_failure() -> None:
    failure = HostOom("what", where="where", why="why", remedy="remedy")
    outcome = Outcome.of(failure, 2.5, "key")
    again = outcome.failure()
    assert isinstance(again, HostOom)
    assert again.record() == failure.record()
    assert Outcome(exit_code=0).failure() is None


@pytest.mark.parametrize("text", ["short", "x" * 10_000, "ü" * 10_000, "\0" * 5000])
def test_a_termination_message_fits_and_keeps_its_class(text: str) -> None:
    message = termination_message(Outcome.of(HostOom("what", why=text, remedy=text), 1.0, "k" * 64))
    assert len(message) <= 3072
    found = json.loads(message)
    assert (found["exit_code"], found["category"], found["what"]) == (83, "host-oom", "what")


def test_a_termination_message_fits_whatever_is_long() -> None:
    message = termination_message(Outcome(exit_code=0, artifact="a" * 64, note="x" * 10_000))
    assert len(message) <= 3072
    assert json.loads(message)["artifact"] == "a" * 64


def test_a_termination_message_is_text_whatever_is_named_in_it() -> None:
    message = termination_message(Outcome.of(HostOom("what", where="name\udcff", remedy="ü"), 1.0))
    again = Outcome.model_validate_json(message)
    assert (again.where, again.remedy) == ("name?", "ü")


def test_a_result_is_in_the_termination_message_where_all_of_it_has_room() -> None:
    small = Outcome(exit_code=0, result={"metrics": {"accuracy": {"value": 0.5}}}, attempt=2)
    assert json.loads(termination_message(small)) == small.model_dump(exclude_defaults=True)
    large = Outcome(exit_code=0, result={"files": ["x" * 100] * 30}, artifact="a" * 64, attempt=2)
    assert json.loads(termination_message(large)) == {"exit_code": 0, "artifact": "a" * 64, "attempt": 2}
