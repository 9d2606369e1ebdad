"""ls, show, logs, wait, cancel over runs that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.cli import places
from modelyard.cli import runs as commands
from modelyard.cli.session import complete_runs
from modelyard.run import start
from modelyard.yard import Yard
from modelyard.yard.runs import Run, RunState, StepState, StepStatus

from .conftest import Call, commit, make_run

METRICS = {"metrics": {"accuracy": {"value": 0.8, "low": 0.75, "high": 0.84, "n": 200, "interval": "wilson"}}}
LIVE = Run.live
ENDED = {"state": RunState.DONE, "exit_code": 0, "ended": "2024-05-01T10:01:12+00:00"}
FAILED = {"state": RunState.FAILED, "exit_code": 65}


class Clock:
    """Time that passes when somebody waits, and a run on which something happens meanwhile."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self.now = 0.0
        self._happens = list(happens)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self._happens:
            self._happens.pop(0)()


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the run's driver live, and things happen, one at each look."""

    def at_work(*happens: Callable[[], object]) -> None:
        clock = Clock(*happens)
        monkeypatch.setattr(places, "time", clock)
        monkeypatch.setattr(start, "time", clock)
        monkeypatch.setattr(Run, "live", lambda run, sleep=clock.sleep: LIVE(run, 10.0, clock.monotonic, sleep))

    return at_work


def log(run: Run, step: str, *lines: dict[str, Any], number: int = 1) -> None:
    attempt = run.new_attempt(step) if not run.attempts(step) or run.attempts(step)[-1].number < number else run.attempt(step, number)
    for line in lines:
        attempt.add_log(json.dumps({"at": f"2024-05-01T10:00:{line['seq']:02d}Z", "level": "info", **line}).encode() + b"\n")


def test_ls(call: Call, yard: Yard) -> None:
    make_run(yard, steps={"a": StepStatus(verb="fetch", state=StepState.REUSED), "b": StepStatus(verb="infer", state=StepState.DONE)}, **ENDED)
    done = call("ls")
    assert done.out.splitlines()[1].split() == ["reviews-0123456789-r1", "reviews", "done", "2/2", "2024-05-01T10:00:00+00:00", "1m12s"]
    assert (done.code, done.err) == (0, "")
    assert call("ls", "-q").out == "reviews-0123456789-r1\n"
    (item,) = json.loads(call("ls", "-o", "json").out)["items"]
    assert item["steps"]["a"]["state"] == "reused"
    assert not [key for key in item if key.startswith("_")]


def test_without_a_yard(call: Call) -> None:
    done = call("ls")
    assert (done.code, done.out) == (66, "")


def test_show_prints_metrics_and_a_hint(call: Call, yard: Yard) -> None:
    made = commit(yard, json.dumps(METRICS).encode())
    step = StepStatus(verb="evaluate", state=StepState.DONE, artifact=made.digest, kind="metrics", seconds=3.0, attempt=1)
    make_run(yard, steps={"score": step}, **ENDED)
    done = call("show")
    assert done.code == 0
    assert "score  evaluate  done   metrics  " + made.digest[:12] in done.out
    assert "score  accuracy  0.8000  0.7500 to 0.8400  200" in done.out
    document = json.loads(call("show", "reviews", "-o", "json").out)
    assert (document["apiVersion"], document["kind"], document["run"]) == ("modelyard/v1", "Run", "reviews-0123456789-r1")
    assert document["metrics"] == {"score": METRICS["metrics"]}
    assert call("show", "-q").out == "reviews-0123456789-r1\n"


def test_show_says_why_a_step_failed(call: Call, yard: Yard) -> None:
    said = {"category": "data", "exit_code": 65, "what": "one label only", "where": "rows.csv", "why": "pos"}
    step = StepStatus(verb="finetune", state=StepState.FAILED, attempt=1, **said)  # type: ignore[arg-type]
    make_run(yard, steps={"tuned": step}, **FAILED)
    done = call("show")
    assert done.code == 0, "show answers; it does not judge"
    assert done.err == "error: tuned: rows.csv: one label only\n  why: pos\nnext: modelyard logs reviews-0123456789-r1 tuned\n"


def test_show_tells_a_crash(call: Call, yard: Yard, at_work: Callable[..., None]) -> None:
    run = make_run(yard)
    at_work()
    done = call("show", "-o", "json")
    assert json.loads(done.out)["live"] is False
    assert "the driver is gone" in done.err
    at_work(lambda: run.beat(1))
    done = call("show", "-o", "json")
    assert (json.loads(done.out)["live"], done.err) == (True, "")


def test_show_shows_how_far_a_step_is(call: Call, yard: Yard, at_work: Callable[..., None]) -> None:
    from modelyard.yard.runs import Progress

    run = make_run(yard, steps={"a": StepStatus(verb="infer", state=StepState.RUNNING, attempt=1)})
    run.new_attempt("a").write_progress(Progress(done=5, total=10, unit="rows"))
    at_work(lambda: run.beat(1))
    assert "5/10 rows" in call("show").out


def test_an_unknown_run(call: Call, yard: Yard) -> None:
    make_run(yard)
    make_run(yard, "reviews-0123456789-r2")
    done = call("show", "reviews-0123456789-r3")
    assert done.code == 66
    assert "did you mean 'reviews-0123456789-r" in done.err
    done = call("show", "rev")
    assert done.code == 66
    assert "begins the names of 2 runs" in done.err


def test_logs_in_order_with_steps_in_front(call: Call, yard: Yard) -> None:
    run = make_run(yard, steps={"a": StepStatus(verb="fetch"), "tuned": StepStatus(verb="finetune")}, **ENDED)
    log(
        run,
        "tuned",
        {"seq": 2, "event": "step", "step": 12, "loss": 0.3123456789, "note": "two words"},
        {"seq": 4, "event": "slow", "level": "warning"},
    )
    log(run, "a", {"seq": 1, "event": "begin"}, {"seq": 3, "event": "end"})
    done = call("logs")
    assert done.err == ""
    assert done.out.splitlines() == [
        "a     | 10:00:01 begin",
        'tuned | 10:00:02 step  step=12 loss=0.31235 note="two words"',
        "a     | 10:00:03 end",
        "tuned | 10:00:04 warning: slow",
    ]
    assert call("logs", "reviews", "a").out.splitlines() == ["10:00:01 begin", "10:00:03 end"]
    lines = [json.loads(line) for line in call("logs", "-o", "json").out.splitlines()]
    assert [(line["step"], line["attempt"], line["entry"]["seq"]) for line in lines] == [("a", 1, 1), ("tuned", 1, 2), ("a", 1, 3), ("tuned", 1, 4)]
    done = call("logs", "reviews", "tunde")
    assert done.code == 66
    assert "its steps are a, tuned" in done.err


def test_logs_skip_torn_lines(call: Call, yard: Yard) -> None:
    run = make_run(yard, steps={"a": StepStatus(verb="fetch")}, **ENDED)
    log(run, "a", {"seq": 1, "event": "one"})
    run.attempt("a", 1).add_log(b'{"seq": 3, "event": "torn\n')
    log(run, "a", {"seq": 2, "event": "two"})
    run.attempt("a", 1).add_log(b'{"seq": 4, "event": "not yet whole"}')
    log(run, "a", {"seq": 5, "event": "another attempt"}, number=2)
    assert [line.split(" ", 3)[3] for line in call("logs").out.splitlines()] == ["one", "two", "another attempt"]


def test_a_log_does_not_command_the_terminal(call: Call, yard: Yard) -> None:
    attempt = make_run(yard, steps={"a": StepStatus(verb="fetch")}).new_attempt("a")
    attempt.add_log(json.dumps({"seq": 1, "event": "\x1b[2J gone", "name": "\u202e\x07", "traceback": "a\n\tb\x1b"}).encode() + b"\n")
    assert call("logs").out.splitlines() == ["a |  \ufffd[2J gone  name=\ufffd\ufffd", "a | a", "a | \tb\ufffd"]


def test_logs_follow_to_the_end(call: Call, yard: Yard, at_work: Callable[..., None]) -> None:
    run = make_run(yard, steps={"a": StepStatus(verb="fetch")})
    log(run, "a", {"seq": 1, "event": "one"})

    def end() -> None:
        log(run, "a", {"seq": 3, "event": "three"})
        run.write_status(run.status().model_copy(update=ENDED))

    at_work(lambda: run.beat(1), lambda: log(run, "a", {"seq": 2, "event": "two"}), lambda: run.beat(2), end)
    done = call("logs", "-f")
    assert [line.rsplit(" ", 1)[1] for line in done.out.splitlines()] == ["one", "two", "three"]
    assert (done.code, done.err) == (0, "")


def test_logs_stop_following_when_the_driver_is_gone(call: Call, yard: Yard, at_work: Callable[..., None]) -> None:
    run = make_run(yard, steps={"a": StepStatus(verb="fetch")})
    log(run, "a", {"seq": 1, "event": "one"})
    at_work()
    done = call("logs", "-f")
    assert done.out == "a | 10:00:01 one\n"
    assert "the driver is gone" in done.err


def test_wait_exits_like_the_first_that_failed(call: Call, yard: Yard) -> None:
    make_run(yard, "a-r1", **ENDED)
    make_run(yard, "b-r1", **FAILED)
    make_run(yard, "c-r1", state=RunState.STOPPED, exit_code=75)
    done = call("wait", "a", "b", "c", "-o", "json")
    assert done.code == 65
    assert [item["state"] for item in json.loads(done.out)["items"]] == ["done", "failed", "stopped"]
    assert call("wait", "a").code == 0
    assert call("wait", "c").code == 75


def test_wait_sees_the_end(call: Call, yard: Yard, at_work: Callable[..., None]) -> None:
    run = make_run(yard)
    at_work(lambda: run.beat(1), lambda: run.write_status(run.status().model_copy(update=FAILED)))
    assert call("wait").code == 65


def test_wait_gives_up(call: Call, yard: Yard, at_work: Callable[..., None]) -> None:
    run = make_run(yard)
    at_work()
    done = call("wait", "--timeout", "2s", "--yard", str(yard.root))
    assert (done.code, done.out) == (124, "")
    assert f"error: {run.id} is still running after 2.0s\n  try: modelyard wait {run.id} --yard {yard.root}\n" in done.err
    assert call("wait", "--timeout", "soon").code == 64


def test_cancel(call: Call, yard: Yard) -> None:
    run = make_run(yard)
    for _ in range(2):
        done = call("cancel", "reviews")
        assert (done.code, done.out, done.err) == (0, f"{run.id}\n", f"next: modelyard wait {run.id}\n")
    assert run.cancel_requested()
    ended = make_run(yard, "other-r1", **ENDED)
    assert "has ended already: done" in call("cancel", "other").err
    assert not ended.cancel_requested()
    assert call("cancel").code == 64


def test_names_of_runs_complete(yard: Yard) -> None:
    import click

    make_run(yard)
    context = click.Context(commands.show)
    assert [item.value for item in complete_runs(context, click.Argument(["run"]), "rev")] == ["reviews-0123456789-r1"]
    assert complete_runs(context, click.Argument(["run"]), "x") == []
