"""Forms of output, and what goes to stderr."""

from __future__ import annotations

import json
import sys

import pytest
import yaml

from modelyard.cli.output import FORMATS, Format, Output, complain, table
from modelyard.errors import Usage

ITEMS = [{"run": "a-r1", "state": "done", "on": "yes", "_shown": "1/1"}, {"run": "b-r12", "state": None, "on": "no", "_shown": "0/1"}]
COLUMNS = {"RUN": "run", "STATE": "state", "STEPS": "_shown"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_listing(capsys: pytest.CaptureFixture[str], form: Format) -> None:
    Output(form).listing("Run", ITEMS, COLUMNS, name="run")
    out = capsys.readouterr().out
    public = [{key: value for key, value in item.items() if key != "_shown"} for item in ITEMS]
    document = {"apiVersion": "modelyard/v1", "kind": "RunList", "items": public}
    match form:
        case "table":
            assert out == "RUN    STATE  STEPS\na-r1   done   1/1\nb-r12  -      0/1\n"
        case "name":
            assert out == "a-r1\nb-r12\n"
        case "json":
            assert json.loads(out) == document
        case "yaml":
            assert yaml.safe_load(out) == document


@pytest.mark.parametrize("form", FORMATS)
def test_a_record(capsys: pytest.CaptureFixture[str], form: Format) -> None:
    Output(form).record("Run", {"run": "a", "_x": 1}, ["for", "people"], name="a")
    out = capsys.readouterr().out
    document = {"apiVersion": "modelyard/v1", "kind": "Run", "run": "a"}
    as_yaml = "apiVersion: modelyard/v1\nkind: Run\nrun: a\n"
    assert out == {"table": "for\npeople\n", "name": "a\n", "json": json.dumps(document, indent=2) + "\n", "yaml": as_yaml}[form]


def test_quiet_is_names_only_and_silence(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Output("table", quiet=True)
    quiet.listing("Run", ITEMS, COLUMNS, name="run")
    quiet.note("by the way")
    quiet.hint("modelyard ls")
    assert capsys.readouterr() == ("a-r1\nb-r12\n", "")


def test_notes_and_hints_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for form in FORMATS:
        Output(form).note("by the way")
        Output(form).hint("modelyard ls")
    assert capsys.readouterr() == ("", "by the way\nnext: modelyard ls\n" * len(FORMATS))


def test_an_empty_listing(capsys: pytest.CaptureFixture[str]) -> None:
    Output().listing("Run", [], COLUMNS, name="run")
    Output("json").listing("Run", [], COLUMNS, name="run")
    assert json.loads(capsys.readouterr().out)["items"] == []


def test_a_table_has_no_trailing_spaces() -> None:
    assert table([["a", None, ""]], ["X", "LONG", "Z"]) == ["X  LONG  Z", "a  -     -"]


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    complain(Usage("no"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    complain(Usage("no"))
    monkeypatch.setenv("NO_COLOR", "1")
    complain(Usage("no"))
    assert capsys.readouterr().err == "error: no\n\x1b[31merror:\x1b[0m no\nerror: no\n"
