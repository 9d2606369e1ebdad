"""Whole pipelines by the command line and the Python way in: made once, found again, killed, stopped, resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard import Evaluate, Fetch, Finetune, Pipeline, Resources, StepFailed, submit
from tests.steps.yardstick import Place, make_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def place(tmp_path: Path, hub: Path) -> Place:
    return Place.make(tmp_path / "place", hub)


def losses(place: Place, step: str = "tuned") -> dict[int, list[str]]:
    """Optimizer step -> its loss in each attempt of each run that came so far, to the last digit."""
    found: dict[int, list[str]] = {}
    for run in place.runs():
        for line in place.log(run, step):
            if line["event"] == "step":
                found.setdefault(line["step"], []).append(repr(line["loss"]))
    return found


def wait_for_steps(place: Place, run: str, count: int) -> None:
    """Wait until a training has logged `count` optimizer steps."""
    for _ in range(1200):
        if sum(line["event"] == "step" for line in place.log(run, "tuned")) >= count:
            return
        time.sleep(0.05)
    pytest.fail("the training does not come further")


def wait_for_run(place: Place, number: int) -> str:
    for _ in range(600):
        if len(place.runs()) >= number:
            return place.runs()[number - 1]
        time.sleep(0.05)
    pytest.fail("no run begins")


def test_a_pipeline_runs_once_and_is_found_again(place: Place) -> None:
    path = place.write()
    output, errors = place.modelyard("run", str(path))
    assert set(place.states().values()) == {"done"}
    shown = place.json("show")
    assert shown["state"] == "done"
    assert shown["metrics"]["score"]["accuracy"]["value"] > 0.9
    assert "tuned" in errors + output
    before = place.artifacts()
    place.modelyard("run", str(path))
    assert set(place.states().values()) == {"reused"}
    assert place.artifacts() == before
    assert len(place.runs()) == 2
    place.modelyard("yard", "verify")

    tuned = place.root / ".yard/artifacts" / shown["steps"]["tuned"]["artifact"] / "files"
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, info = AutoModelForSequenceClassification.from_pretrained(tuned, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert AutoTokenizer.from_pretrained(tuned)("a good film")["input_ids"]
    assert str(place.root) not in "".join(path.read_text() for path in tuned.glob("*.json"))

    said = place.root / ".yard/artifacts" / shown["steps"]["said"]["artifact"] / "files"
    rows = [json.loads(line) for part in sorted(said.rglob("*.jsonl")) for line in part.read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(100))


def test_equal_runs_give_equal_bytes(tmp_path: Path, hub: Path) -> None:
    found = []
    for name in ("one", "two"):
        place = Place.make(tmp_path / name, hub)
        place.modelyard("run", str(place.write("epochs: 1, max_steps: 5, dtype: float32")))
        found.append({step: told["artifact"] for step, told in place.json("show")["steps"].items()})
    assert found[0] == found[1]


def test_one_change_repeats_what_depends_on_it_alone(place: Place) -> None:
    place.modelyard("run", str(place.write("epochs: 1, max_steps: 3")))
    place.modelyard("run", str(place.write("epochs: 1, max_steps: 4")))
    assert place.states() == {"rows": "reused", "model": "reused", "tuned": "done", "score": "done", "said": "done"}
    place.modelyard("run", str(place.write("epochs: 1, max_steps: 4")), "--force=score")
    assert place.states() == {"rows": "reused", "model": "reused", "tuned": "reused", "score": "done", "said": "reused"}


@pytest.mark.timeout(900)  # eight whole runs, three of which wait until the one before is known to be dead
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param("epochs: 8, batch_size: 16", id="plain", marks=pytest.mark.slow),
        pytest.param("epochs: 8, batch_size: 5, accumulate: 3", id="accumulated"),
    ],
)
def test_killed_three_times_it_ends_like_the_run_that_was_not(tmp_path: Path, hub: Path, settings: str) -> None:
    """kill -9 of the whole process group; every loss after is the uninterrupted run's to the last digit."""
    whole = Place.make(tmp_path / "whole", hub)
    whole.modelyard("run", str(whole.write(settings, more="")))
    killed = Place.make(tmp_path / "killed", hub)
    path = killed.write(settings + ", checkpoint_every: 1s", more="")
    chance = random.Random(3)
    total = len(losses(whole))
    for number in range(1, 4):
        process = killed.start("run", str(path))
        run = wait_for_run(killed, number)
        reached = max(losses(killed), default=0)
        wait_for_steps(killed, run, min(chance.randint(20, total // 4), max(1, total - reached - 20)))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    killed.modelyard("run", str(path))
    assert killed.states()["tuned"] == "done"
    expected, found = losses(whole), losses(killed)
    assert set(found) == set(expected)
    assert any(len(values) > 1 for values in found.values()) or len(found) == total
    assert {step: set(values) for step, values in found.items()} == {step: set(values) for step, values in expected.items()}
    resumed = [line["step"] for run in killed.runs()[1:] for line in killed.log(run, "tuned") if line["event"] == "resumed"]
    assert resumed, "it has to resume, not to begin again"
    ends = [place.json("show")["steps"]["tuned"]["artifact"] for place in (whole, killed)]
    assert ends[0] == ends[1]


def test_sigterm_ends_with_75_and_the_next_run_goes_on(place: Place) -> None:
    path = place.write("epochs: 200, max_steps: 2000")
    process = place.start("run", str(path))
    wait_for_steps(place, wait_for_run(place, 1), 20)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (place.states()["tuned"], place.states()["score"]) == ("stopped", "skipped")
    assert place.json("show")["state"] == "stopped"
    outcome = json.loads(next((place.root / ".yard/runs").rglob("tuned/1/outcome.json")).read_text())
    assert (outcome["exit_code"], outcome["category"]) == (75, "yielded")
    process = place.start("run", str(path))
    second = wait_for_run(place, 2)
    wait_for_steps(place, second, 5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert min(line["step"] for line in place.log(second, "tuned") if line["event"] == "step") > 20


def test_a_torn_checkpoint_is_skipped(place: Place) -> None:
    path = place.write("epochs: 40, max_steps: 450, checkpoint_every: 1s", more="")  # few enough for every loss to be logged
    process = place.start("run", str(path))
    run = wait_for_run(place, 1)
    for _ in range(600):
        steps = sorted((place.root / ".yard/checkpoints").rglob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
        if len(steps) == 2:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    steps = sorted((place.root / ".yard/checkpoints").rglob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    kept, torn = (int(path.name.partition("-")[2]) for path in steps[-2:])
    weights = max(steps[-1].rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    process = place.start("run", str(path))
    second = wait_for_run(place, 2)
    wait_for_steps(place, second, 1)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    first = next(line["step"] for line in place.log(second, "tuned") if line["event"] == "step")
    assert first == kept + 1 < torn, run


def test_in_the_background_attached_to_and_cancelled(place: Place) -> None:
    path = place.write("epochs: 500, max_steps: 9000", more="")
    run = place.modelyard("run", str(path), "-d", "-q")[0].strip()
    wait_for_steps(place, run, 3)
    assert place.modelyard("run", str(path), "-d", "-q")[0].strip() == run
    watching = place.start("run", str(path))
    follower = place.start("logs", run, "tuned", "-f")
    place.modelyard("wait", run, "--timeout", "1s", code=124)
    place.modelyard("cancel", run)
    _, errors = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert "watching" in errors
    followed, _ = follower.communicate(timeout=60)
    numbers = [line for line in followed.splitlines() if "step" in line]
    assert len(numbers) > 3
    assert place.json("show", run)["state"] == "cancelled"
    assert len(place.runs()) == 1


def test_smoke_is_the_whole_pipeline_small(place: Place) -> None:
    place.modelyard("run", str(place.write("epochs: 50")), "--smoke")
    assert set(place.states().values()) == {"done"}
    shown = place.json("show")
    assert shown["metrics"]["score"]["accuracy"]["n"] == 64
    (run,) = place.runs()
    assert max(line["step"] for line in place.log(run, "tuned") if line["event"] == "step") == 2


def test_independent_steps_run_side_by_side(place: Place) -> None:
    more = "  again: {finetune: {model: modelscope://tiny/base, data: rows, learning_rate: 1e-3, max_length: 64, max_steps: 30, seed: 7}}\n"
    place.modelyard("run", str(place.write("epochs: 9, max_steps: 30", more)), "--jobs", "2")
    (run,) = place.runs()
    spans = []
    for step in ("tuned", "again"):
        times = [line["at"] for line in place.log(run, step)]
        spans.append((times[0], times[-1]))
    assert spans[0][0] < spans[1][1]
    assert spans[1][0] < spans[0][1]


def test_the_python_way_in(place: Place, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root)
    rows = Fetch(dataset="modelscope://datasets/tiny/reviews")
    tuned = Finetune(model="modelscope://tiny/base", data=rows, learning_rate=3e-3, max_length=64, epochs=3)
    score = Evaluate(model=tuned, data=rows, max_length=64)
    pipeline = Pipeline("reviews", {"rows": rows, "tuned": tuned, "score": score}, Resources(cpu=1))
    run = submit(pipeline)
    assert run.wait(timeout=300).state == "done"
    assert run.artifact("score").metrics["accuracy"] > 0.9
    assert (run.artifact("tuned").path / "model.safetensors").is_file()
    with pytest.raises(StepFailed) as caught:
        submit(Evaluate(model="modelscope://tiny/base", data="modelscope://datasets/tiny/reviews")).wait(timeout=300)
    assert (caught.value.category, caught.value.step) == ("data", "evaluate")
    assert caught.value.remedy


def hostile(place: Place, hub: Path, case: str) -> list[str]:
    """Arguments of a command that has to fail."""
    text = place.write("epochs: 1, max_steps: 2").read_text()
    own = place.root / "own"
    own.mkdir()

    def written(text: str) -> list[str]:
        (place.root / "hostile.yaml").write_text(text)
        return ["run", "hostile.yaml"]

    def data(content: str, name: str = "rows.csv") -> list[str]:
        (own / name).write_text(content)
        return ["finetune", "--model", "modelscope://tiny/base", "--data", f"./own/{name}", "--max-steps", "2"]

    if case == "unknown step":
        return written(text.replace("evaluate:", "evalute:"))
    if case == "unknown option":
        return ["finetune", "--epoch", "2"]
    if case == "wrong type":
        return written(text.replace("epochs: 1", "epochs: many"))
    if case == "no such step":
        return written(text.replace("data: rows", "data: row"))
    if case == "cycle":
        return written(text.replace("data: rows, split: test", "data: said, split: test"))
    if case == "no such model":
        return ["fetch", "--model", "modelscope://tiny/bse"]
    if case == "column missing":
        return [*data("body,label\na,x\nb,y\n"), "--text", "txt"]
    if case == "one class":
        return data("text,label\n" + "".join(f"word {n},same\n" for n in range(50)))
    if case == "empty file":
        return data("")
    if case == "headless model":
        return ["infer", "--model", "modelscope://tiny/base", "--data", "modelscope://datasets/tiny/reviews", "--split", "test"]
    raise AssertionError(case)


def unsafe(root: Path, case: str) -> Path:
    """A hub whose one model is not what it should be."""
    model = root / "their" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    name = "pytorch_model.bin" if case == "pickles only" else "model.safetensors"
    (model / name).write_bytes(b"x" * 1000)
    if case == "wrong hash":
        (model / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    if case == "dots":
        (model / "SHA256SUMS").write_text(f"{'0' * 64}  ../../../outside\n")
    if case == "link":
        (model / "vocab.txt").symlink_to("/etc/passwd")
    if case == "folder link":
        (model / "more").symlink_to("/etc")
    if case == "backslash":
        (model / "..\\..\\x.json").write_text("{}")
    return root


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("wrong hash", 76, "does not match its sha256"),
        ("dots", 81, ".."),
        ("link", 81, "vocab.txt"),
        ("folder link", 81, "more"),
        ("backslash", 81, "x.json"),
        ("pickles only", 81, "trust: [pickle]"),
    ],
)
def test_what_is_unsafe_is_not_taken(tmp_path: Path, case: str, code: int, said: str) -> None:
    place = Place.make(tmp_path / "place", unsafe(tmp_path / "hub", case))
    _, errors = place.modelyard("fetch", "--model", "modelscope://their/model", code=code)
    message = errors[errors.index("error:") :]
    assert said in message
    assert errors.count("error:") == 1
    assert "Traceback" not in errors
    assert place.artifacts() == set()
    assert not list((place.root / ".yard/staging").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small volume needs root")
def test_a_volume_that_is_too_small_is_said_with_the_numbers(tmp_path: Path, hub: Path) -> None:
    place = Place.make(tmp_path / "place", tmp_path / "hub")
    big = tmp_path / "hub" / "their" / "big"
    big.mkdir(parents=True)
    (big / "model.safetensors").write_bytes(b"x" * (8 << 20))
    (place.root / ".yard").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place.root / ".yard")], check=True)
    try:
        _, errors = place.modelyard("fetch", "--model", "modelscope://their/big", code=73)
        assert "8 MiB" in errors
        assert "4 MiB" in errors or "3.9" in errors
        assert place.artifacts() == set()
        assert not list((place.root / ".yard/staging").iterdir())
    finally:
        subprocess.run(["umount", "-l", str(place.root / ".yard")], check=True)


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("unknown step", 64, "did you mean 'evaluate'?"),
        ("unknown option", 64, "did you mean '--epochs'?"),
        ("wrong type", 64, "not 'many'"),
        ("no such step", 64, "did you mean 'rows'?"),
        ("cycle", 64, "wait for each other"),
        ("no such model", 66, "tiny/base"),
        ("column missing", 66, "txt"),
        ("one class", 65, "same"),
        ("empty file", 65, "rows.csv"),
        ("headless model", 65, "finetune"),
    ],
)
def test_what_is_wrong_is_said_once_clearly(place: Place, hub: Path, case: str, code: int, said: str) -> None:
    arguments = hostile(place, hub, case)
    inputs = {"model", "dataset"}
    _, errors = place.modelyard(*arguments, code=code)
    message = errors[errors.index("error:") :]
    assert said in message
    assert "Traceback" not in errors
    assert errors.count("error:") == 1
    made: list[Any] = [json.loads((place.root / ".yard/artifacts" / digest / "manifest.json").read_text())["kind"] for digest in place.artifacts()]
    assert set(made) <= inputs, "only what was fetched may be there"
    assert len(made) <= 2
    if case in ("unknown step", "unknown option", "wrong type", "no such step", "cycle", "no such model"):
        assert made == []


def test_labels_that_do_not_match_the_models(place: Place) -> None:
    place.modelyard("run", str(place.write("epochs: 1, max_steps: 2", more="")))
    tuned = place.json("show")["steps"]["tuned"]["artifact"]
    (place.root / "other.csv").write_text("text,label\ngood film,joy\nbad film,anger\n")
    before = place.artifacts()
    model = place.root / ".yard/artifacts" / tuned / "files"
    _, errors = place.modelyard("evaluate", "--model", str(model), "--data", "./other.csv", "--split", "train", code=65)
    assert "anger" in errors
    assert "negative" in errors
    kinds = [json.loads((place.root / ".yard/artifacts" / digest / "manifest.json").read_text())["kind"] for digest in place.artifacts() - before]
    assert kinds == ["dataset"]
