"""`modelyard report`."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest

from modelyard.yard import Yard
from tests.unit.cli.conftest import Call, make_run

RUN = "reviews-0123456789-r1"


def test_the_newest_run_into_a_file_of_its_name(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard)
    done = call("report")
    assert (done.code, done.out) == (0, f"{folder / RUN}.html\n")
    page = (folder / f"{RUN}.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert RUN in page
    assert [path.name for path in folder.iterdir() if path.name != ".yard"] == [f"{RUN}.html"], "nothing temporary stays"


def test_out_makes_its_folder_and_replaces_what_is_there(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard)
    for _ in range(2):
        assert call("report", "reviews-01", "--out", "report/index.html").code == 0
    assert RUN in (folder / "report" / "index.html").read_text()
    document = json.loads(call("report", "--out", "a.html", "-o", "json").out)
    assert document == {"apiVersion": "modelyard/v1", "kind": "Report", "run": RUN, "path": str(folder / "a.html")}


def test_stdout(call: Call, yard: Yard, folder: Path) -> None:
    make_run(yard)
    done = call("report", "--out", "-")
    assert done.out.rstrip().endswith("</html>")
    assert [path.name for path in folder.iterdir()] == [".yard"]


def test_open(call: Call, yard: Yard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(yard)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    assert call("report", "--open").code == 0
    assert opened == [(folder / f"{RUN}.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    done = call("report", "--open")
    assert done.code == 74
    assert "no browser could be started" in done.err
    assert (folder / f"{RUN}.html").exists()


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
    make_run(yard)
    (folder / "file").write_text("")
    done = call("report", *arguments)
    assert done.code == code
    assert said in done.err
    assert done.out == ""


def test_no_run(call: Call, yard: Yard) -> None:
    done = call("report")
    assert done.code == 66
    assert "there is no run yet" in done.err
