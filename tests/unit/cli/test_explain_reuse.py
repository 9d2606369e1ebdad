"""`explain --reuse`: the answer of run/reuse.py here, and the same command in a pod where the yard is a claim."""

from __future__ import annotations

import json

import pytest

from modelyard.cli import remote
from modelyard.cli.session import Session
from modelyard.run.pipeline import first_status
from modelyard.spec import Pipeline
from modelyard.steps import Evaluate, Fetch, Search
from modelyard.yard import Yard
from tests.unit.cli.conftest import Call


@pytest.fixture
def run(yard: Yard) -> str:
    rows = Fetch(dataset="hf://datasets/a/b")
    pipeline = Pipeline("looks", {"find": Search(query="x"), "rows": rows, "score": Evaluate(model=Fetch(model="hf://a/b").ref, data=rows)})
    made = yard.runs.create("looks-0123456789-r1", {"pipeline": pipeline.to_dict()}, first_status("looks-0123456789-r1", pipeline))
    assert made
    return made.id


def test_the_answer_in_each_form(call: Call, run: str) -> None:
    assert call("explain", "--reuse", "find").out == "would run: search looks anew each time\n"
    assert call("explain", run[:8], "--reuse=rows").out == "would run: its ref is not resolved yet\n"
    done = call("explain", run, "--reuse", "score", "-o", "json")
    told = json.loads(done.out)
    assert (done.code, told["kind"], told["step"], told["artifact"], told["changes"]) == (0, "Reuse", "score", None, [])
    assert "would run first" in told["note"]


def test_what_is_asked_wrongly(call: Call, run: str) -> None:
    assert call("explain", run, "--reuse", "scor").code == 66
    assert "did you mean 'score'?" in call("explain", run, "--reuse", "scor").err
    assert call("explain", run, "score", "--reuse", "score").code == 64
    assert call("explain", "nowhere", "--reuse", "score").code == 66


def test_where_the_yard_is_a_claim_a_pod_answers(call: Call, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, list[str]]] = []

    def delegate(session: Session, *, write: bool) -> None:
        import click

        asked.append((write, remote.words(click.get_current_context())))

    monkeypatch.setattr(remote, "delegate", delegate)
    assert call("explain", run, "--reuse", "score", "--on", "kubernetes", "-n", "team", "-o", "json").code == 0
    assert asked == [(False, ["explain", "--reuse=score", "--output=json", "--", run])]
