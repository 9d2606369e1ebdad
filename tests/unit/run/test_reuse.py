"""Why a step is reused or is not: one change of its key at a time, against what is in the yard."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard import keys, refs
from modelyard.errors import NoInput
from modelyard.hubs import Listing, resolve
from modelyard.hubs.selection import fetch_key, select
from modelyard.locked import PINNED
from modelyard.run.pipeline import first_status
from modelyard.run.reuse import Reuse, compare
from modelyard.spec import Pipeline, digest
from modelyard.steps import Evaluate, Fetch, Finetune, Preflight, Publish, Resources
from modelyard.yard import Action, Yard
from modelyard.yard.runs import Run, StepState


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,b\n")
    return folder


@pytest.fixture
def pipeline(tmp_path: Path, rows: Path) -> Pipeline:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"x")
    data, model = Fetch(dataset=str(rows)), Fetch(model=str(base))
    tuned = Finetune(model=model, data=data, epochs=2)
    return Pipeline("reviews", {"rows": data, "base": model, "tuned": tuned, "score": Evaluate(model=tuned, data=data)})


def commit(yard: Yard, text: str, attempt: str, kind: Any = "dataset", name: str = "made") -> str:
    with yard.staging(attempt) as staging:
        (staging.files / name).write_text(text)
        return yard.artifacts.commit(staging, kind=kind).digest


def made(yard: Yard, pipeline: Pipeline, number: int = 1, steps: tuple[str, ...] = ("rows", "base", "tuned", "score"), **other: Any) -> Run:
    """A run whose first steps were executed. other: parts of the keys of steps that compute, in place of today's."""
    run = yard.runs.create(f"reviews-r{number}", {"pipeline": pipeline.to_dict(), "settings": {}}, first_status(f"reviews-r{number}", pipeline))
    assert run
    resolved: dict[str, Any] = {}
    status = run.status()
    artifacts: dict[str, str] = {}
    for name in pipeline.order():
        step, attempt = pipeline.steps[name], f"{run.id}.{name}.1"
        if isinstance(step, Fetch):
            listing = resolve(refs.parse(step.ref), step.makes(), {})
            assert isinstance(listing, Listing)
            resolved[name] = {"ref": step.ref, "listing": listing.record()}
            key = fetch_key(select(listing))
            files = sorted((Path(step.ref) / file.path).read_text() for file in listing.files)
            artifact = commit(yard, "".join(files), attempt, step.makes(), listing.files[0].path)
            action = Action(key=key, verb="fetch", artifact=artifact, settings=step.settings(), attempt=attempt, at=f"2026-01-0{number}")
        else:
            if name not in steps:
                continue
            inputs = {field: artifacts[source] for field, source in pipeline.inputs(name).items()}
            parts = keys.key_parts(step, inputs, "cpu") | other
            key = digest(parts)
            artifact = commit(yard, key, attempt, step.makes())
            said = {"settings": step.settings(), "inputs": inputs, "versions": parts["versions"], "device": parts["device"]}
            action = Action(key=key, verb=step.verb, artifact=artifact, attempt=attempt, at=f"2026-01-0{number}", **said)
        if name in steps:
            yard.actions.put(key, action)
            artifacts[name] = artifact
            done = status.steps[name].model_copy(update={"state": StepState.DONE, "artifact": artifact})
            status = status.model_copy(update={"steps": {**status.steps, name: done}})
    run.write_spec({**run.spec(), "resolved": resolved})
    run.write_status(status)
    return run


def asked(yard: Yard, pipeline: Pipeline, step: str, **other: Any) -> Reuse:
    """What a second run says, whose fetches alone are done."""
    return compare(yard, made(yard, pipeline, 2, ("rows", "base"), **other), step)


def tuned(pipeline: Pipeline, **changed: Any) -> Pipeline:
    return replace(pipeline, steps={**pipeline.steps, "tuned": pipeline.steps["tuned"].model_copy(update=changed)})


def test_the_first_run_has_nothing_to_compare_with(yard: Yard, pipeline: Pipeline) -> None:
    run = made(yard, pipeline, 1, ("rows", "base"))
    assert str(compare(yard, run, "tuned")) == "would run: no earlier result"
    assert str(compare(yard, run, "score")) == "would run: its inputs are not made yet (tuned would run first)"


def test_an_unchanged_step_is_reused(yard: Yard, pipeline: Pipeline) -> None:
    first = made(yard, pipeline)
    found = asked(yard, pipeline, "tuned")
    assert found.artifact == first.status().steps["tuned"].artifact
    assert str(found) == f"reused: {found.artifact[:12]} (made by reviews-r1.tuned.1)"
    assert (
        compare(yard, yard.runs.get("reviews-r2"), "score").artifact == first.status().steps["score"].artifact
    )  # through a step that is not settled in this run


def test_what_the_run_made_itself_is_compared_with_what_was_before(yard: Yard, pipeline: Pipeline) -> None:
    assert str(compare(yard, made(yard, pipeline), "tuned")).endswith(", which this run made: no earlier result")
    second = made(yard, tuned(pipeline, epochs=3), 2)
    assert str(compare(yard, second, "tuned")).endswith("which this run made: settings.epochs 2 -> 3 (compared with reviews-r1.tuned.1)")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 3}, "settings.epochs 2 -> 3"),
        ({"epochs": 3, "label": "stars"}, "settings.epochs 2 -> 3; settings.label null -> stars"),
    ],
)
def test_settings(yard: Yard, pipeline: Pipeline, changed: dict[str, Any], said: str) -> None:
    made(yard, pipeline)
    found = asked(yard, tuned(pipeline, **changed), "tuned")
    assert found.artifact is None
    assert str(found) == f"would run: {said} (compared with reviews-r1.tuned.1)"


def test_settings_that_do_not_count_are_not_told(yard: Yard, pipeline: Pipeline) -> None:
    made(yard, pipeline)
    assert asked(yard, tuned(pipeline, checkpoint_every=5, resources=Resources(cpu=2)), "tuned").artifact


def test_versions_device_and_code(yard: Yard, pipeline: Pipeline) -> None:
    made(yard, pipeline, versions={**PINNED, "torch": "1.0"}, device="nvidia", code="0" * 64)
    found = asked(yard, pipeline, "tuned")
    assert {change.part for change in found.changes} == {"code", "versions.torch", "device"}
    assert f"versions.torch 1.0 -> {PINNED['torch']}" in str(found)
    assert "device nvidia -> cpu" in str(found)
    assert "code changed" in str(found)
    assert found.note.startswith("versions are the locked ones")


def test_the_most_alike_result_is_told(yard: Yard, pipeline: Pipeline) -> None:
    made(yard, tuned(pipeline, epochs=3), 1)
    made(yard, tuned(pipeline, epochs=5, seed=1), 3)
    found = asked(yard, pipeline, "tuned")
    assert (found.against, [change.part for change in found.changes]) == ("reviews-r1.tuned.1", ["settings.epochs"])


def test_of_those_that_are_equally_alike_the_newest_is_told(yard: Yard, pipeline: Pipeline) -> None:
    made(yard, tuned(pipeline, epochs=3), 3)
    made(yard, tuned(pipeline, epochs=4), 1)
    assert asked(yard, pipeline, "tuned").against == "reviews-r3.tuned.1"


def test_an_input_names_the_step_that_makes_it(yard: Yard, pipeline: Pipeline, rows: Path) -> None:
    made(yard, pipeline)
    (rows / "train.csv").write_text("text,label\na,c\n")
    (change,) = asked(yard, pipeline, "tuned").changes
    assert (change.part, change.source) == ("inputs.data", "rows")
    assert str(change).startswith("inputs.data (step rows) ")


def test_a_fetch_tells_the_files_that_changed(yard: Yard, pipeline: Pipeline, rows: Path) -> None:
    made(yard, pipeline)
    (rows / "train.csv").write_text("text,label\na,b\nc,d\n")
    (rows / "more.csv").write_text("text,label\n")
    run = made(yard, pipeline, 3, ("base",))
    found = compare(yard, run, "rows")
    assert found.artifact is None
    assert {change.part for change in found.changes} == {"files.train.csv", "files.more.csv"}


def test_a_file_of_which_only_the_time_changed_says_so(yard: Yard, pipeline: Pipeline, rows: Path) -> None:
    made(yard, pipeline)
    os.utime(rows / "train.csv", (1, 1))
    found = compare(yard, made(yard, pipeline, 2, ("base",)), "rows")
    assert [change.part for change in found.changes] == ["the time of a file"]


def test_a_result_that_gc_took_is_named(yard: Yard, pipeline: Pipeline) -> None:
    first = made(yard, pipeline)
    lost = yard.root / "artifacts" / str(first.status().steps["tuned"].artifact)
    lost.rename(lost.with_name("gone"))
    assert str(asked(yard, pipeline, "tuned")) == "would run: reviews-r1.tuned.1 made it, and it is not in the yard any more"


def test_a_fallback_answers_for_the_device_that_is_not_there(yard: Yard, pipeline: Pipeline) -> None:
    made(yard, pipeline)
    gpu = replace(pipeline, resources=Resources(gpus=1))
    assert [change.part for change in asked(yard, gpu, "tuned").changes] == ["device"]
    either = replace(pipeline, resources=Resources(gpus=1, fallback="cpu"))
    found = compare(yard, made(yard, either, 3, ("rows", "base")), "tuned")
    assert found.artifact
    assert "where no nvidia is usable" in found.note


def test_steps_that_are_never_reused_say_so(yard: Yard, tmp_path: Path) -> None:
    pipeline = Pipeline("a", {"look": Preflight(), "out": Publish(model=str(tmp_path), to="hf://me/x")})
    run = yard.runs.create("a-r1", {"pipeline": pipeline.to_dict()}, first_status("a-r1", pipeline))
    assert run
    assert str(compare(yard, run, "look")) == "would run: preflight looks anew each time"
    assert "compares with what is there" in str(compare(yard, run, "out"))


def test_a_step_that_is_none_and_a_forced_one(yard: Yard, pipeline: Pipeline) -> None:
    run = made(yard, pipeline)
    with pytest.raises(NoInput, match="'tunde'") as caught:
        compare(yard, run, "tunde")
    assert caught.value.remedy == "did you mean 'tuned'?"
    run.write_spec({**run.spec(), "settings": {"force": ["tuned"]}})
    assert "this run was told to do it again (--force)" in str(compare(yard, run, "tuned"))


def test_nothing_is_written(yard: Yard, pipeline: Pipeline) -> None:
    made(yard, pipeline)
    run = made(yard, pipeline, 2, ("rows", "base"))
    before = {path: path.stat().st_mtime_ns for path in yard.root.rglob("*")}
    assert compare(Yard.open(yard.root, write=False), run, "score").artifact
    assert {path: path.stat().st_mtime_ns for path in yard.root.rglob("*")} == before
