"""`modelyard hub serve` as far as it goes without a server."""

from __future__ import annotations

import sys

import pytest

from modelyard.cli import main


def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("starlette", "modelyard.hubs.server"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert main(["hub", "serve", str(tmp_path)]) == 64
    error = capsys.readouterr().err
    assert "starlette is not installed" in error or "starlette.applications is not installed" in error
    assert "pip install 'modelyard[hub]'" in error


@pytest.mark.parametrize(("options", "code"), [(["--port", "70000"], 64), (["--port", "x"], 64), ([], 66), (["--token-file", "absent"], 66)])
def test_what_cannot_be_served(tmp_path, capsys, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path if "--token-file" in options else tmp_path / "absent"
    assert main(["hub", "serve", str(folder), *options]) == code
    assert "error:" in capsys.readouterr().err


def test_the_help_names_both_clients(capsys):
    assert main(["hub", "serve", "--help"]) == 0
    said = capsys.readouterr().out
    assert "MODELSCOPE_ENDPOINT" in said
    assert "HF_ENDPOINT" in said
