"""run and the step commands: what they start, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.run import start as run_api
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.steps import Finetune, Resources
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus

from .conftest import Call

FILE = "name: reviews\nsteps:\n  rows: {fetch: {dataset: ./rows.csv}}\n  base: {fetch: {model: hf://a/b}}\n"
DONE = StepStatus(verb="fetch", state=StepState.DONE, exit_code=0, attempt=1, kind="dataset", artifact="f" * 64, seconds=1.0)
FAILED = StepStatus(
    verb="fetch", state=StepState.FAILED, exit_code=66, attempt=1, category="no-input", what="it is not there", remedy="look elsewhere"
)


PUBLIC = {"modelscope": "https://modelscope.cn", "huggingface": "https://huggingface.co"}


class Driver:
    """Stands for modelyard.run: notes what it is told, and ends as it is told."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        self.settings: Settings | None = None
        self.status = RunStatus(run="reviews-r1", pipeline="reviews", state=RunState.DONE, exit_code=0, steps={"rows": DONE})

    def start(self, pipeline: Pipeline, settings: Settings, view: View) -> RunStatus:
        self.pipeline, self.settings = pipeline, settings
        view.begun("reviews-r1", "")
        view.changed(self.status)
        return self.status

    def start_detached(self, pipeline: Pipeline, settings: Settings) -> str:
        self.pipeline, self.settings = pipeline, settings
        return "reviews-r1"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, yard: Yard) -> Driver:
    driver = Driver()
    monkeypatch.setattr(run_api, "start", driver.start)
    monkeypatch.setattr(run_api, "start_detached", driver.start_detached)
    return driver


@pytest.fixture
def file(folder: Path) -> str:
    (folder / "pipeline.yaml").write_text(FILE)
    return "pipeline.yaml"


def test_run_ends_with_a_table_and_a_hint(call: Call, driver: Driver, file: str, folder: Path) -> None:
    done = call("run", file)
    assert done.code == 0
    assert "rows  fetch  done   dataset  ffffffffffff  1.0s" in done.out
    assert done.err == "run reviews-r1\nrows: done in 1.0s: ffffffffffff\nnext: modelyard show reviews-r1\n"
    assert driver.settings == Settings(folder / ".yard", PUBLIC)
    document = json.loads(call("run", file, "-o", "json").out)
    assert (document["kind"], document["state"], document["steps"]["rows"]["artifact"]) == ("Run", "done", "f" * 64)
    assert call("run", file, "-q") == type(done)(0, "reviews-r1\n", "")


def test_settings_reach_the_driver(call: Call, driver: Driver, file: str, folder: Path) -> None:
    (folder / "modelyard.toml").write_text('[hubs]\nmodelscope = "hub"\n')
    call("run", file, "--jobs", "3", "--yard", "other")
    assert driver.settings == Settings(folder / "other", PUBLIC | {"modelscope": str(folder / "hub")}, jobs=3)
    assert call("run", file, "--jobs", "0").code == 64


@pytest.mark.parametrize(
    ("arguments", "force"),
    [
        (["pipeline.yaml"], frozenset()),
        (["--force", "pipeline.yaml"], frozenset({"rows", "base"})),
        (["pipeline.yaml", "--force"], frozenset({"rows", "base"})),
        (["pipeline.yaml", "--force=rows"], frozenset({"rows"})),
        (["--force=rows", "pipeline.yaml", "--force=base"], frozenset({"rows", "base"})),
        (["--force=rows", "--force", "pipeline.yaml"], frozenset({"rows", "base"})),
    ],
)
def test_force(call: Call, driver: Driver, file: str, arguments: list[str], force: Any) -> None:
    assert call("run", *arguments).code == 0
    assert driver.settings is not None
    assert driver.settings.force == force


def test_detached(call: Call, driver: Driver, file: str) -> None:
    done = call("run", file, "-d")
    assert (done.code, done.out, done.err) == (0, "reviews-r1\n", "next: modelyard logs reviews-r1 -f\n")


def test_a_failed_step_is_said_once_with_its_class(call: Call, driver: Driver, file: str) -> None:
    driver.status = driver.status.model_copy(update={"state": RunState.FAILED, "exit_code": 66, "steps": {"rows": FAILED}})
    done = call("run", file)
    assert done.code == 66
    assert "error: rows: it is not there\n  try: look elsewhere\nnext: modelyard logs reviews-r1 rows\n" in done.err
    assert "error" not in done.out


def test_a_stopped_run_is_to_be_run_again(call: Call, driver: Driver, file: str) -> None:
    driver.status = driver.status.model_copy(update={"state": RunState.STOPPED, "exit_code": 130})
    done = call("run", file)
    assert done.code == 130
    assert "next: run it again" in done.err


def test_a_wrong_file_starts_nothing(call: Call, driver: Driver, folder: Path) -> None:
    (folder / "wrong.yaml").write_text("name: reviews\nsteps:\n  rows: {fetch: {datset: ./rows.csv}}\n")
    done = call("run", "wrong.yaml")
    assert (done.code, done.out) == (64, "")
    assert "wrong.yaml:3: steps.rows.fetch.datset" in done.err
    assert "did you mean 'dataset'?" in done.err
    assert call("run", "absent.yaml").code == 66
    assert driver.pipeline is None


def test_a_lone_step_is_a_pipeline_of_one(call: Call, driver: Driver, folder: Path) -> None:
    given = ["--model", "hf://a/b", "--data", "./rows.csv", "--batch-size", "8", "--learning-rate", "1e-4", "--checkpoint-every", "2m"]
    assert call("finetune", *given, "--gpus", "1", "--fallback", "cpu", "--time-limit", "1h", "--force").code == 0
    model = Finetune(model="hf://a/b", data="./rows.csv", batch_size=8, learning_rate=1e-4, checkpoint_every="2m")  # type: ignore[arg-type]
    assert driver.pipeline == Pipeline("finetune", {"finetune": model}, Resources(gpus=1, fallback="cpu", time_limit="1h"))  # type: ignore[arg-type]
    assert driver.settings is not None
    assert driver.settings.force == {"finetune"}


def test_smoke(call: Call, driver: Driver, file: str) -> None:
    assert call("evaluate", "--model", "hf://a/b", "--data", "./rows.csv", "--smoke").code == 0
    assert driver.pipeline is not None
    assert driver.pipeline.steps["evaluate"].settings()["rows"] == 64


def test_a_fetch_needs_one_ref(call: Call, driver: Driver) -> None:
    assert call("fetch", "--trust", "pickle", "--trust", "code", "--model", "hf://a/b").code == 0
    assert driver.pipeline is not None
    assert driver.pipeline.steps["fetch"].settings()["trust"] == ["pickle", "code"]
    done = call("fetch")
    assert done.code == 64
    assert "give either model or dataset" in done.err


def test_check(call: Call, file: str, folder: Path) -> None:
    done = call("check", file)
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert ["rows", "fetch", str(folder / "rows.csv"), "dataset", "cpu"] in lines
    assert ["yard", str(folder / ".yard"), "default"] in lines
    assert "not checked" in done.err
    assert not (folder / ".yard").exists()
    document = json.loads(call("check", file, "-o", "json", "--yard", "y").out)
    assert document["order"] == ["rows", "base"]
    assert {"name": "yard", "value": str(folder / "y"), "from": "--yard"} in document["settings"]
    assert call("check", file, "-q").out == "reviews\n"


def test_check_without_a_file_shows_the_settings(call: Call) -> None:
    done = call("check")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("SETTING")


def test_check_finds_what_is_wrong(call: Call, folder: Path) -> None:
    (folder / "wrong.yaml").write_text("name: reviews\nsteps:\n  a: {infer: {model: b, data: b}}\n  b: {infer: {model: a, data: a}}\n")
    done = call("check", "wrong.yaml")
    assert (done.code, done.out) == (64, "")


def test_schema(call: Call) -> None:
    done = call("schema")
    assert set(json.loads(done.out)["$defs"]) >= {"fetch", "finetune", "infer", "evaluate", "Resources"}
