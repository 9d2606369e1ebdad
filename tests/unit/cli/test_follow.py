"""What a person sees of a run while it goes on."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from modelyard.cli import follow
from modelyard.cli.output import Output
from modelyard.yard.runs import Progress, RunState, RunStatus, StepState, StepStatus


def status(**steps: dict[str, Any]) -> RunStatus:
    return RunStatus(
        run="r", pipeline="p", state=RunState.RUNNING, steps={name: StepStatus(verb="fetch", **fields) for name, fields in steps.items()}
    )


def test_plain_lines_for_changes_once() -> None:
    lines: list[str] = []
    view = follow.Plain(lines.append)
    view.begun("p-r1", "")
    view.changed(status(a={}, b={}))
    for _ in range(2):
        view.changed(status(a={"state": StepState.REUSED, "artifact": "f" * 64}, b={"state": StepState.RUNNING, "attempt": 1}))
    view.changed(status(a={"state": StepState.REUSED}, b={"state": StepState.WAITING, "attempt": 1, "what": "the hub is silent"}))
    view.changed(status(a={"state": StepState.REUSED}, b={"state": StepState.RUNNING, "attempt": 2}))
    view.changed(status(a={"state": StepState.REUSED}, b={"state": StepState.DONE, "attempt": 2, "seconds": 72.0, "artifact": "e" * 64}))
    assert lines == [
        "run p-r1",
        "a: reused: ffffffffffff",
        "b: running",
        "b: waiting: the hub is silent",
        "b: running, attempt 2",
        "b: done in 1m12s: eeeeeeeeeeee",
    ]


def test_plain_progress_now_and_then() -> None:
    lines: list[str] = []
    now = [0.0]
    view = follow.Plain(lines.append, clock=lambda: now[0])
    view.changed(status(a={"state": StepState.RUNNING, "attempt": 1}))
    for second in range(25):
        now[0] = float(second)
        view.progress("a", Progress(done=second, total=100, unit="rows", rate=1.0, left=100.0 - second))
    now[0] = 100.0
    for _ in range(2):
        view.progress("a", Progress(done=20, total=100, unit="rows"))
    assert lines == ["a: running", "a: 10/100 rows, 1/s, 1m30s left", "a: 20/100 rows, 1/s, 1m20s left"]


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(done=3, unit="files"), "3 files"),
        (Progress(done=3, total=9, unit="steps", rate=0.52, left=11.5), "3/9 steps, 0.52/s, 12s left"),
    ],
)
def test_pace(progress: Progress, text: str) -> None:
    assert follow.pace(progress) == text


def test_bars_for_what_runs() -> None:
    screen = io.StringIO()
    bars = Bars(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), console=Console(file=screen, width=100))
    view = follow.Live(bars)
    view.progress("a", Progress(done=1, unit="rows"))
    view.changed(status(a={"state": StepState.RUNNING, "attempt": 1}, b={}))
    view.progress("a", Progress(done=5, total=10, unit="rows"))
    assert [(task.description, task.completed, task.total, task.fields["text"]) for task in bars.tasks] == [("a", 5, 10, "5/10 rows")]
    view.changed(status(a={"state": StepState.FAILED, "attempt": 1, "what": "[bold] no"}, b={}))
    assert bars.tasks == []
    assert screen.getvalue() == "a: running\na: failed: [bold] no\n"


@pytest.mark.parametrize(("variable", "live"), [(None, True), ("NO_COLOR", False), ("CI", False)])
def test_which_view(monkeypatch: pytest.MonkeyPatch, variable: str | None, live: bool) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with follow.view(Output()) as view:
        assert type(view) is follow.Plain
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    if variable:
        monkeypatch.setenv(variable, "1")
    with follow.view(Output()) as view:
        assert isinstance(view, follow.Live) == live
    with follow.view(Output(quiet=True)) as view:
        assert type(view) is follow.Plain


def test_views_say_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with follow.view(Output()) as view:
        view.begun("p-r1", "it is running already")
        view.note("the hub was not asked")
    assert capsys.readouterr() == ("", "run p-r1: it is running already\nthe hub was not asked\n")
