"""Results of steps that make no artifact: tables on stdout, whole in JSON, names alone where names are asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.cli import results
from modelyard.cli.run import text
from modelyard.errors import NoSpace, Unavailable
from modelyard.gate import judge
from modelyard.order import Outcome
from modelyard.run import start as run_api
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import STEPS, Gate, Reuse
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus

from .conftest import Call, make_run

FOUND: dict[str, Any] = {
    "query": {"query": "senti"},
    "found": [
        {
            "ref": "modelscope://o/a",
            "task": "text-classification",
            "size": 3 << 20,
            "licence": "apache-2.0",
            "downloads": 1234567,
            "updated": "2026-02-01T10:00:00Z",
            "gated": True,
            "private": True,
        },
        {"ref": "hf://o/b", "task": None, "size": None, "licence": None, "downloads": None, "updated": None, "gated": None, "private": False},
    ],
    "unanswered": [{"hub": "huggingface", "what": "no connection", "remedy": "look"}],
}
LOOKED: dict[str, Any] = {
    "verdict": "failed",
    "rows": [
        {"check": "python", "verdict": "ok", "found": "3.11.9", "needed": "3.11", "reason": "the interpreter", "remedy": ""},
        {"check": "devices", "verdict": "warning", "found": "none", "needed": "1", "reason": "fallback is cpu", "remedy": "none is needed"},
        {"check": "disk", "verdict": "failed", "found": "1 GiB free", "needed": "2 GiB", "reason": "1 GiB is missing", "remedy": "make room"},
    ],
}
MOVED = {"to": "yard://models/reviews@champion", "digest": "a" * 64, "previous": "b" * 64, "unchanged": False, "gate": None}
VERDICT = judge({"accuracy": {"value": 0.9, "low": 0.88, "high": 0.92, "n": 900}}, Gate(metrics="score", at_least={"accuracy": 0.8}), main="accuracy")
PUBLISHED = {
    "to": "hf://me/reviews",
    "gate": VERDICT.record(),
    "tag": "v-0123456789",
    "licence": "mit",
    "files": [{"path": "config.json", "size": 1 << 20, "sha256": "c" * 64}],
    "revision": "d" * 40,
    "unchanged": False,
    "visibility": "private",
}


def test_a_search_is_a_table() -> None:
    assert list(results.text("search", FOUND)) == [
        "REF               TASK                 SIZE   LICENCE     DOWNLOADS  UPDATED     ACCESS",
        "modelscope://o/a  text-classification  3 MiB  apache-2.0  1,234,567  2026-02-01  gated, private",
        "hf://o/b          -                    -      -           -          -           -",
        "huggingface gave no answer: no connection",
    ]
    assert list(results.text("search", {"found": [], "unanswered": []})) == ["nothing was found"]


def test_what_a_hub_wrote_does_not_reach_the_terminal_as_commands(call: Call, ends: Any) -> None:
    hostile = FOUND["found"][0] | {"task": "x\x1b]0;owned\x07\x1b[2J", "licence": "a\nb\r\u202ec"}
    ends("search", Outcome(exit_code=0, result={"found": [hostile], "unanswered": [{"hub": "modelscope", "what": "\x1b[31m", "remedy": ""}]}))
    done = call("search")
    lines = done.out.rstrip("\n").split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    ends("fetch", Outcome.of(Unavailable("\x1b[2J gone", why="\x1b[31m\u202e", remedy="look"), 1.0))
    done = call("fetch", "--model", "hf://o/a")
    assert done.code == 69
    assert "error: fetch: \ufffd[2J gone\n  why: \ufffd[31m\ufffd\n  try: look\n" in done.err


def test_half_a_surrogate_is_written_as_json_has_it(call: Call, ends: Any) -> None:
    ends("search", Outcome(exit_code=0, result=FOUND | {"found": [FOUND["found"][0] | {"licence": "\ud800"}]}))
    done = call("search", "-o", "json")
    assert done.code == 0
    assert json.loads(done.out)["results"]["search"]["found"][0]["licence"] == "\ud800"


def test_a_preflight_says_why_and_what_to_do() -> None:
    lines = list(results.text("preflight", LOOKED))
    assert lines[0].split() == ["VERDICT", "CHECK", "FOUND", "NEEDED"]
    assert lines[1].split() == ["ok", "python", "3.11.9", "3.11"]
    assert lines[-4:] == [
        "failed   disk     1 GiB free  2 GiB",
        "           why: 1 GiB is missing",
        "           try: make room",
        "3 checks: 1 failed, 1 warning",
    ]
    assert "           why: fallback is cpu" in lines
    assert "why: the interpreter" in " ".join(lines)
    short = list(results.text("preflight", LOOKED, whole=False))
    assert [line.split()[0] for line in short] == ["VERDICT", "warning", "why:", "try:", "failed", "why:", "try:", "3"]
    assert short[-1] == lines[-1]
    assert list(results.text("preflight", LOOKED | {"rows": LOOKED["rows"][:1]}))[-1] == "1 checks: all ok"
    assert list(results.text("preflight", LOOKED | {"rows": LOOKED["rows"][:1]}, whole=False)) == ["1 checks: all ok"]


def test_a_promotion_says_what_the_name_stands_for() -> None:
    assert list(results.text("promote", MOVED)) == ["yard://models/reviews@champion stands for aaaaaaaaaaaa, before it bbbbbbbbbbbb"]
    again = MOVED | {"unchanged": True, "previous": "a" * 64}
    assert list(results.text("promote", again)) == ["yard://models/reviews@champion stood for aaaaaaaaaaaa already: nothing was changed"]
    refused = {"to": "yard://models/reviews@champion", "gate": {"passed": False, "lines": []}}
    assert list(results.text("promote", refused)) == ["yard://models/reviews@champion was not moved"]


def test_a_comparison_with_the_champion_is_a_line_of_the_gate() -> None:
    found = {"value": 0.9, "low": 0.88, "high": 0.92, "n": 900, "difference": {"value": -0.02, "low": -0.03, "high": -0.01, "n": 900}}
    refused = judge({"accuracy": found}, Gate(metrics="score", not_worse_than_champion=0.01), main="accuracy")
    lines = list(results.text("promote", {"to": "yard://models/reviews@champion", "gate": refused.record()}))
    assert lines[0].endswith("was not moved")
    assert lines[1] == "gate refused: accuracy less the champion's -0.02 (95 % interval -0.03 to -0.01, n = 900); at least -0.01 asked for"


def test_a_publication_says_where_and_the_gates_lines() -> None:
    lines = list(results.text("publish", PUBLISHED))
    assert lines[0] == "hf://me/reviews@v-0123456789: 1 files, 1 MiB, private"
    assert lines[1] == f"revision {'d' * 40}"
    assert lines[2].startswith("gate passed: accuracy 0.9 (95 % interval 0.88 to 0.92, n = 900)")
    failed = judge(
        {"accuracy": {"value": 0.7, "low": 0.68, "high": 0.72, "n": 900}}, Gate(metrics="score", at_least={"accuracy": 0.8}), main="accuracy"
    )
    lines = list(results.text("publish", {"to": "hf://me/reviews", "gate": failed.record()}))
    assert lines[0] == "nothing was published to hf://me/reviews"
    assert lines[1].startswith("gate refused: accuracy 0.7 ")


def test_every_step_without_an_artifact_has_a_form() -> None:
    told = {"search": FOUND, "preflight": LOOKED, "promote": MOVED, "publish": PUBLISHED}
    assert told.keys() == {verb for verb, step in STEPS.items() if step.reuse in (Reuse.OBSERVE, Reuse.EFFECT)}
    assert all(list(results.text(verb, result)) for verb, result in told.items())


class Driver:
    """Stands for modelyard.run: leaves a step's outcome in the yard."""

    def __init__(self, yard: Yard, verb: str, outcome: Outcome) -> None:
        self.yard, self.verb, self.outcome = yard, verb, outcome

    def start(self, pipeline: Pipeline, settings: Settings, view: View) -> RunStatus:
        state = StepState.FAILED if self.outcome.exit_code else StepState.DONE
        ended = {name: getattr(self.outcome, name) for name in ("exit_code", "category", "what", "why", "remedy", "seconds")}
        step = StepStatus(verb=self.verb, state=state, attempt=1, **ended)
        over = RunState.FAILED if self.outcome.exit_code else RunState.DONE
        run = make_run(self.yard, f"{self.verb}-r1", {self.verb: step}, state=over, exit_code=self.outcome.exit_code)
        run.new_attempt(self.verb).write_outcome(self.outcome)
        return run.status()


@pytest.fixture
def ends(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Any:
    def ends(verb: str, outcome: Outcome) -> None:
        monkeypatch.setattr(run_api, "start", Driver(yard, verb, outcome).start)

    return ends


def test_a_lone_search_prints_its_table_and_nothing_else_on_stdout(call: Call, ends: Any) -> None:
    ends("search", Outcome(exit_code=0, result=FOUND))
    done = call("search", "--query", "senti")
    assert done.code == 0
    assert done.out.splitlines() == list(results.text("search", FOUND))
    assert done.err.endswith("next: modelyard show search-r1\n")


@pytest.mark.parametrize(("how", "told"), [(["-o", "name"], True), (["-q"], False)])
def test_names_of_a_search_are_refs(call: Call, ends: Any, how: list[str], told: bool) -> None:
    ends("search", Outcome(exit_code=0, result=FOUND))
    done = call("search", *how)
    assert done.out == "modelscope://o/a\nhf://o/b\n"
    assert ("huggingface gave no answer" in done.err) is told


@pytest.mark.parametrize("outcome", [Outcome(exit_code=0, result=FOUND | {"found": []}), Outcome.of(Unavailable("gone", remedy="look"), 1.0)])
def test_a_search_that_finds_nothing_names_nothing(call: Call, ends: Any, outcome: Outcome) -> None:
    ends("search", outcome)
    assert call("search", "-o", "name").out == ""


def test_json_carries_the_whole_result(call: Call, ends: Any) -> None:
    ends("search", Outcome(exit_code=0, result=FOUND))
    document = json.loads(call("search", "-o", "json").out)
    assert (document["kind"], document["results"]) == ("Run", {"search": FOUND})
    assert json.loads(call("show", "-o", "json").out)["results"] == {"search": FOUND}


def test_a_preflight_that_failed_is_shown_all_the_same(call: Call, ends: Any) -> None:
    failure = NoSpace("disk: 1 GiB free; needed: 2 GiB", why="1 GiB is missing", remedy="make room")
    ends("preflight", Outcome.of(failure, 1.0, result=LOOKED))
    done = call("preflight")
    assert done.code == 73
    assert done.out.splitlines() == list(results.text("preflight", LOOKED))
    assert "error: preflight: disk: 1 GiB free; needed: 2 GiB\n  why: 1 GiB is missing\n  try: make room\n" in done.err
    shown = call("show")
    assert shown.code == 0
    assert "RESULT OF preflight\nVERDICT" in shown.out
    assert "STEP" in shown.out


def test_a_step_that_failed_without_a_result_is_shown_as_a_run(call: Call, ends: Any) -> None:
    ends("search", Outcome.of(Unavailable("gone", remedy="look"), 1.0))
    done = call("search")
    assert done.code == 69
    assert done.out.startswith("run search-r1: failed")
    assert "RESULT" not in done.out


def test_a_comparison_is_a_table_of_its_own() -> None:
    less = {"value": 0.0125, "low": -0.003, "high": 0.028, "n": 2000}
    alone = {"value": 0.9, "low": 0.88, "high": 0.92, "n": 2000}
    run = {"run": "a-r1", "state": "done", "started": "now", "ended": "", "notes": [], "steps": {}, "results": {}}
    lines = list(text({**run, "metrics": {"score": {"accuracy": {**alone, "difference": less}}, "other": {"accuracy": alone}}}))
    assert [line.split() for line in lines if "+0.0125" in line] == [["score", "accuracy", "+0.0125", "-0.0030", "to", "+0.0280", "2000"]]
    assert any("AGAINST THE OTHER MODEL" in line for line in lines)
    assert not any("AGAINST" in line for line in text({**run, "metrics": {"other": {"accuracy": alone}}}))
