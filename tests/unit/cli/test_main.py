"""The door: help, suggestions, exit codes, and what an error looks like."""

from __future__ import annotations

import errno
import os
import re
import shlex
from pathlib import Path

import click
import pytest

import modelyard
from modelyard import cli
from modelyard.cli.lazy import COMMANDS, root
from modelyard.cli.output import Output, complain
from modelyard.errors import NoInput, Usage
from modelyard.steps import STEPS

from .conftest import Call


def examples(command: click.Command) -> list[str]:
    return [line.strip() for line in (command.epilog or "").splitlines()[2:]]


def commands(group: click.Group = root, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


def test_the_table_is_what_the_commands_say() -> None:
    for name, entry in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert command.name == name
        assert str(command.help).split("\n")[0] == entry.help


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids="-".join)
def test_every_command_has_help_with_examples(call: Call, path: tuple[str, ...]) -> None:
    done = call(*path, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: modelyard {' '.join(path)} ")
    assert call(*path, "-h") == done
    command = dict(commands())[path]
    if not isinstance(command, click.Group):
        assert examples(command)
        assert all(f"\n    {example}\n" in done.out for example in examples(command))
        assert f"modelyard {' '.join(path)}" in examples(command)[0]


def test_examples_parse() -> None:
    for _, command in commands():
        for example in examples(command) if not isinstance(command, click.Group) else ():
            program, *arguments = shlex.split(re.split(" [>|] ", example)[0])
            if program != "modelyard":
                continue  # somebody else's command, such as a hub's own client
            path = tuple(arguments[: 2 if arguments[0] in ("hub", "schedule", "yard") else 1])
            with dict(commands())[path].make_context("modelyard", arguments[len(path) :]) as context:
                assert context.args == []


def test_without_a_command_the_help_is_printed(call: Call) -> None:
    done = call()
    assert (done.code, done.err) == (0, "")
    assert done == call("--help")
    assert all(name in done.out for name in COMMANDS)


def test_version(call: Call) -> None:
    assert call("--version").out == f"modelyard {modelyard.__version__}\n"


def test_public_names() -> None:
    assert all(getattr(modelyard, name) is not None for name in modelyard.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        _ = modelyard.Pipelines
    assert {step.__name__ for step in STEPS.values()} | {"Gate", "Resources"} <= set(modelyard.__all__), "a pipeline can be written with them alone"


@pytest.mark.parametrize(
    ("arguments", "what", "remedy"),
    [
        (["chek"], "error: modelyard: no such command 'chek'", "did you mean 'check'?"),
        (["yard", "lss"], "error: modelyard yard: no such command 'lss'", "did you mean 'ls'?"),
        (["finetune", "--batchsize", "3"], "error: modelyard finetune: no such option '--batchsize'", "did you mean '--batch-size'?"),
        (["finetune", "--train_rows=3"], "error: modelyard finetune: no such option '--train_rows'", "did you mean '--train-rows'?"),
        (["finetune", "--model", "./m"], "error: modelyard finetune: missing option '--data'", "modelyard finetune --help"),
        (
            ["finetune", "--epochs", "x"],
            "error: modelyard finetune: invalid value for '--epochs': 'x' is not a valid integer",
            "modelyard finetune --help",
        ),
        (["finetune", "--model", "base", "--data", "./d"], "error: modelyard finetune: --model: 'base' is a bare word", "a ref has a scheme"),
        (
            ["fetch", "--dataset", "hf://a/b"],
            "error: modelyard fetch: --dataset: 'hf://a/b' names a model, not a dataset",
            "dataset: ref of a data set",
        ),
        (["run"], "error: modelyard run: missing argument 'FILE'", "modelyard run --help"),
        (["ls", "-o", "xml"], "error: modelyard ls: invalid value for '-o' / '--output': 'xml' is not one of", ""),
    ],
)
def test_usage_errors(call: Call, arguments: list[str], what: str, remedy: str) -> None:
    done = call(*arguments)
    assert (done.code, done.out) == (64, "")
    assert done.err.startswith(what)
    assert f"\n  try: {remedy}" in done.err


def test_a_failure_is_what_why_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    complain(NoInput("it is not there", where="here", why="somebody took it", remedy="look elsewhere"))
    complain(Usage("no"))
    assert capsys.readouterr().err == "error: here: it is not there\n  why: somebody took it\n  try: look elsewhere\nerror: no\n"


class Breaks:
    """Stands for the program's group."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def main(self, *_: object, **__: object) -> None:
        raise self._error


def test_an_unexpected_error_is_a_bug_with_its_traceback_kept(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "root", Breaks(ZeroDivisionError("by zero")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = call("ls")
    assert done.code == 70
    assert "ZeroDivisionError: by zero" in done.err
    (kept,) = tmp_path.glob("*.traceback.txt")
    assert str(kept) in done.err
    assert "Traceback (most recent call last)" in kept.read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(cli, "root", Breaks(error))
    assert call("ls").code == 130


def test_a_reader_that_went_away_is_no_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "root", Breaks(BrokenPipeError()))
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    done = call("ls")
    assert (done.code, done.err) == (141, "")


def test_a_reader_that_goes_away_during_a_command_is_no_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(Output, "lines", lines)
    done = call("check")
    assert (done.code, done.err) == (141, "")


def test_completion(call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_MODELYARD_COMPLETE", "zsh_source")
    with pytest.raises(SystemExit, match="0"):
        call()
    assert "compdef" in capsys.readouterr().out
    context = click.Context(root)
    assert [item.value for item in root.shell_complete(context, "sh")] == ["show"]
    assert "--version" in [item.value for item in root.shell_complete(context, "--")]
