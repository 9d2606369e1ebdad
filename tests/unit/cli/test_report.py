"""`modelyard report`."""

from __future__ import annotations

import io
import json
import webbrowser
from pathlib import Path

import pytest

from modelyard.yard import Yard
from modelyard.yard.runs import Run, RunState
from tests.unit.cli.conftest import Call, make_run

RUN = "reviews-0123456789-r1"


def test_the_newest_run_into_a_file_of_its_name(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard, state=RunState.DONE)
    done = call("report")
    assert (done.code, done.out) == (0, f"{folder / RUN}.html\n")
    page = (folder / f"{RUN}.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert RUN in page
    assert [path.name for path in folder.iterdir() if path.name != ".yard"] == [f"{RUN}.html"], "nothing temporary stays"


def test_out_makes_its_folder_and_replaces_what_is_there(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard, state=RunState.DONE)
    for _ in range(2):
        assert call("report", "reviews-01", "--out", "report/index.html").code == 0
    assert RUN in (folder / "report" / "index.html").read_text()
    document = json.loads(call("report", "--out", "a.html", "-o", "json").out)
    assert document == {"apiVersion": "modelyard/v1", "kind": "Report", "run": RUN, "path": str(folder / "a.html")}


def test_stdout(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard, state=RunState.DONE)
    done = call("report", "--out", "-")
    assert done.out.rstrip().endswith("</html>")
    assert [path.name for path in folder.iterdir()] == [".yard"]


def test_open(call: Call, yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(yard, state=RunState.DONE)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    assert call("report", "--open").code == 0
    assert opened == [(folder / f"{RUN}.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    done = call("report", "--open")
    assert done.code == 74
    assert "no browser could be started" in done.err
    assert (folder / f"{RUN}.html").exists()


def test_stdout_is_utf_8_whatever_the_terminal_speaks(call: Call, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(yard, state=RunState.DONE, notes=("ÿ, 評",))
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    assert call("report", "--out", "-").code == 0
    assert "ÿ, 評" in raw.getvalue().decode()


@pytest.mark.parametrize("alive", [True, False])
def test_a_run_without_a_driver_is_written_and_named(call: Call, yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch, alive: bool) -> None:
    make_run(yard)
    monkeypatch.setattr(Run, "live", lambda _: alive)
    done = call("report")
    assert done.code == 0
    assert ("the driver is gone" in done.err) is not alive
    assert "It had not ended when this was written" in (folder / f"{RUN}.html").read_text()


def test_a_folder_in_the_way_of_the_default_name(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard, state=RunState.DONE)
    (folder / f"{RUN}.html").mkdir()
    done = call("report")
    assert done.code == 64
    assert f"--out {folder / f'{RUN}.html' / f'{RUN}.html'}" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["reviews-9"], 66, "there is no run 'reviews-9'"),
        (["--out", "-", "--open"], 64, "stdout cannot be opened in a browser"),
        (["--out", "."], 64, "this is a folder"),
        (["--out", "file/page.html"], 74, "file"),
    ],
)
def test_refused(call: Call, yard: Yard, folder: Path, arguments: list[str], code: int, said: str) -> None:
    make_run(yard, state=RunState.DONE)
    (folder / "file").write_text("")
    done = call("report", *arguments)
    assert done.code == code
    assert said in done.err
    assert done.out == ""


def test_no_run(call: Call, yard: Yard) -> None:
    done = call("report")
    assert done.code == 66
    assert "there is no run yet" in done.err
