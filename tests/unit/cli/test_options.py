"""Options are made from settings: all of them, typed, described, and with errors that name the option."""

from __future__ import annotations

from typing import Any

import click
import pytest

from modelyard.cli import options, steps
from modelyard.errors import Usage
from modelyard.steps import STEPS, Fetch, Finetune, Resources

COMMANDS = {verb: getattr(steps, verb) for verb in STEPS}
COMPUTING = {"preflight", "finetune", "infer", "evaluate", "export"}


def option(command: click.Command, name: str) -> click.Option:
    return next(parameter for parameter in command.params if isinstance(parameter, click.Option) and parameter.name == name)


@pytest.mark.parametrize("verb", STEPS)
def test_every_setting_is_an_option(verb: str) -> None:
    models: list[Any] = [STEPS[verb], *([Resources] if verb in COMPUTING else [])]
    for model in models:
        for name, info in model.model_fields.items():
            if name not in ("resources", "gate", "tolerations", "overlay"):
                made = option(COMMANDS[verb], name)
                assert options.flag(name) in made.opts
                assert made.help
                assert made.help.lower().startswith(str(info.description).replace("`", "").lower())
                assert made.required == info.is_required()
                if info.default is not None and not info.is_required() and not isinstance(info.default, bool | tuple):
                    assert f"[default: {info.default}]" in made.help


def test_what_does_not_compute_takes_no_device() -> None:
    for verb in STEPS.keys() - COMPUTING:
        assert not {parameter.name for parameter in COMMANDS[verb].params} & set(Resources.model_fields), verb


def test_a_gate_is_for_files() -> None:
    for verb in ("promote", "publish"):
        assert "gate" in STEPS[verb].model_fields
        assert "gate" not in {parameter.name for parameter in COMMANDS[verb].params}


def test_types() -> None:
    assert option(steps.finetune, "batch_size").type is click.INT
    assert option(steps.finetune, "learning_rate").type is click.FLOAT
    for name in ("checkpoint_every", "time_limit", "memory", "model", "text"):
        assert option(steps.finetune, name).type is click.STRING
    assert option(steps.fetch, "fresh").is_flag
    assert option(steps.fetch, "trust").multiple
    assert option(steps.search, "hub").multiple
    assert option(steps.search, "limit").type is click.INT
    assert option(steps.promote, "rollback").is_flag
    assert list(option(steps.fetch, "trust").type.choices) == ["pickle", "code"]  # type: ignore[attr-defined]
    assert list(option(steps.finetune, "fallback").type.choices) == ["cpu"]  # type: ignore[attr-defined]


def test_only_what_is_given_is_passed_on() -> None:
    given = {"gpus": 1, "fallback": None, "memory": None, "epochs": 2, "model": "./m", "data": "./d", "trust": ()}
    assert options.build(Resources, given, "x").model_fields_set == {"gpus"}
    assert options.build(Finetune, given, "x") == Finetune(model="./m", data="./d", epochs=2)


def test_bounds_come_back_under_the_options_name() -> None:
    with pytest.raises(Usage) as failed:
        options.build(Finetune, {"model": "./m", "data": "./d", "batch_size": 0}, "modelyard finetune")
    assert failed.value.where == "modelyard finetune"
    assert failed.value.what == "--batch-size: should be greater than or equal to 1, not 0"
    with pytest.raises(Usage, match="either model or dataset"):
        options.build(Fetch, {}, "modelyard fetch")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h", 7200), ("60", 60)])
def test_durations(text: str, seconds: int) -> None:
    assert options.duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-1", "1.5h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration"):
        options.duration(text)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"model": "reviews"}, "--model: 'reviews' is a bare word"),
        ({"model": "ftp://a/b"}, "--model: .*unknown scheme"),
        ({"model": "hf://../b"}, "--model: .*not allowed"),
        ({"checkpoint_every": "soon"}, "--checkpoint-every: 'soon' is no duration"),
    ],
)
def test_forms_of_their_own(given: dict[str, str], why: str) -> None:
    with pytest.raises(Usage, match=why):
        options.build(Finetune, {"model": "./m", "data": "./d", **given}, "modelyard finetune")
    assert options.build(Finetune, {"model": "./m", "data": "./d", "checkpoint_every": "60"}, "x").checkpoint_every == 60
