"""Commands are called as a shell calls them, in an empty folder with a yard of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main
from modelyard.yard import Artifact, Yard
from modelyard.yard.runs import Run, RunStatus, StepStatus


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> Done:
        code = main(arguments)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture
def yard(folder: Path) -> Yard:
    return Yard.open(folder / ".yard")


def commit(yard: Yard, content: bytes = b"{}", kind: str = "metrics", name: str = "metrics.json") -> Artifact:
    with yard.staging("test") as staging:
        (staging.files / name).write_bytes(content)
        return yard.artifacts.commit(staging, kind=kind)  # type: ignore[arg-type]


def make_run(yard: Yard, name: str = "reviews-0123456789-r1", steps: dict[str, StepStatus] | None = None, **status: Any) -> Run:
    fields = {"run": name, "pipeline": "reviews", "started": "2024-05-01T10:00:00+00:00", "steps": steps or {}}
    run = yard.runs.create(name, {"pipeline": {}}, RunStatus(**(fields | status)))
    assert run is not None
    return run
