"""A frame as a pod has it: nobody counts its attempts, fetches its inputs, or writes its run down for it, and it is the first process there is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import REGISTRY, Yielded
from modelyard.order import Order, Outcome, termination_message
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Infer, Step
from modelyard.yard import Yard
from modelyard.yard.runs import RunState, StepState

HERE = Path(__file__).parent
MODEL, ROWS = "hf://me/small", "modelscope://datasets/me/rows"
RUN = "alone-0123456789-r1"


class Pod:
    """A folder hub, a yard, and steps in it as a cluster starts them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.yard = root / "yard"
        self.hub = root / "hub"
        self.hubs = dict.fromkeys(("modelscope", "huggingface"), str(self.hub))
        for path, content in {"me/small/model.safetensors": "weights", "datasets/me/rows/rows.csv": "text,label\na,b\n"}.items():
            (self.hub / path).parent.mkdir(parents=True)
            (self.hub / path).write_text(content)

    def order(self, step: Step, **fields: Any) -> Order:
        """The order of a lone step of that kind."""
        pipeline = Pipeline("alone", {"it": step})
        linked = pipeline.steps["it"]
        refs = {place: MODEL if place == "model" else ROWS for place in pipeline.inputs("it")}
        told = {"run": RUN, "step": "it", "verb": step.verb, "settings": linked.settings(), "resources": pipeline.resources_of("it"), "refs": refs}
        return Order.model_validate({**told, "hubs": self.hubs, "pipeline": pipeline.to_dict(), **fields}, strict=False)

    def start(self, order: Order | Path, verb: str = "", misbehave: str = "none", before: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
        path = order if isinstance(order, Path) else self.root / "order.json"
        if isinstance(order, Order):
            path.write_text(order.model_dump_json())
            verb = verb or order.verb
        environ = {
            **os.environ,
            "MISBEHAVE": misbehave,
            "PYTHONPATH": os.pathsep.join([str(HERE / "misbehaving"), os.environ.get("PYTHONPATH", "")]),
            "MODELYARD_TERMINATION_LOG": str(self.root / "said"),
            **env,
        }
        (self.root / "said").write_bytes(b"")
        command = [*before, sys.executable, "-m", "modelyard_jobs", verb, "--order", str(path), "--yard", str(self.yard)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True)

    def finish(self, order: Order | Path, code: int = 0, **options: Any) -> dict[str, Any]:
        """What the step says in the end; it has to exit with `code`."""
        process = self.start(order, **options)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == code, output + errors
        return self.said(code)

    def said(self, code: int) -> dict[str, Any]:
        """The termination message, whose class has to be that of `code`."""
        said: dict[str, Any] = json.loads((self.root / "said").read_bytes())
        assert said["exit_code"] == code
        assert REGISTRY[said["category"]].exit_code == code if code else "category" not in said
        return said


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


INFER = Infer(model=MODEL, data=ROWS)


def test_a_lone_step_fetches_its_inputs_and_writes_its_run_down(pod: Pod) -> None:
    said = pod.finish(pod.order(INFER))
    yard = Yard.open(pod.yard)
    run = yard.runs.get(RUN)
    status = run.status()
    assert (status.state, status.exit_code, said["attempt"]) == (RunState.DONE, 0, 1)
    assert {step.verb for step in status.steps.values()} == {"fetch", "infer"}
    assert {step.state for step in status.steps.values()} == {StepState.DONE}
    assert status.steps["it"].artifact == said["artifact"]
    action = yard.actions.get(said["key"])
    assert action
    assert {place: yard.artifacts.get(digest).kind for place, digest in action.inputs.items()} == {"model": "model", "data": "dataset"}
    assert {found["ref"] for found in run.spec()["resolved"].values()} == {MODEL, ROWS}
    order = json.loads((run.attempts("it")[0].path / "order.json").read_bytes())
    assert order["attempt"] == 1
    lines = [json.loads(line) for line in run.attempts("it")[0].log.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1)), "its inputs' lines are part of its log"
    assert (run.path / "heartbeat").read_bytes() != b"0"
    for command in (("show", RUN), ("ls",), ("logs", RUN), ("report", RUN, "--out", str(pod.root / "report.html"))):
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", *command, "--yard", str(pod.yard)], capture_output=True, text=True, check=False, cwd=pod.root
        )
        assert done.returncode == 0, done.stderr
    again = pod.finish(pod.order(INFER), misbehave="exit:1")
    assert (again["reused"], again["artifact"], again["attempt"]) == (True, said["artifact"], 2)
    assert {step.state for step in run.status().steps.values()} == {StepState.REUSED}


def test_two_at_once_make_one_run_and_two_attempts(pod: Pod) -> None:
    (pod.root / "order.json").write_text(pod.order(INFER).model_dump_json())
    processes = [pod.start(pod.root / "order.json", "infer") for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    run = Yard.open(pod.yard).runs.get(RUN)
    assert [attempt.number for attempt in run.attempts("it")] == [1, 2, 3]
    assert {attempt.outcome().artifact for attempt in run.attempts("it")} == {run.status().steps["it"].artifact}  # type: ignore[union-attr]


@pytest.mark.parametrize(("worked", "code"), [(False, 0), (True, 84)])
def test_attempts_that_were_stopped_while_they_fetched_are_not_held_against_the_step(pod: Pod, worked: bool, code: int) -> None:
    run = Yard.open(pod.yard).runs.undriven(RUN, {"pipeline": pod.order(INFER).pipeline})
    for _ in range(3):
        attempt = run.new_attempt("it")
        if worked:
            attempt.add_sample({"t": 1.0, "used": 1})
        attempt.write_outcome(Outcome.of(Yielded("asked to stop"), 1.0))
    assert pod.finish(pod.order(INFER), code)["attempt"] == 4


def test_an_input_that_cannot_be_fetched_ends_the_step_with_its_class(pod: Pod) -> None:
    shutil.rmtree(pod.hub / "me/small")
    assert pod.finish(pod.order(INFER), 66)["attempt"] == 1
    status = Yard.open(pod.yard).runs.get(RUN).status()
    assert (status.state, status.exit_code) == (RunState.FAILED, 66)
    assert status.steps["it"].state is StepState.FAILED


def test_a_fetch_resolves_its_ref_itself(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = Fetch(model=MODEL)
    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    assert "MODELYARD_OFFLINE" in pod.finish(pod.order(fetch), 69)["what"]
    monkeypatch.delenv("MODELYARD_OFFLINE")
    said = pod.finish(pod.order(fetch))
    assert "reused" not in said
    assert pod.finish(pod.order(fetch))["reused"]
    down = {"hubs": dict.fromkeys(pod.hubs, "http://127.0.0.1:9")}
    (pod.hub / "me/small/model.safetensors").write_text("other weights")
    stale = pod.finish(pod.order(fetch, **down))
    assert (stale["artifact"], stale["reused"]) == (said["artifact"], True)
    assert "did not answer" in stale["note"]
    run = Yard.open(pod.yard).runs.get(RUN)
    assert run.spec()["resolved"]["it"]["stale"] is True
    pod.finish(pod.order(Fetch(model=MODEL, fresh=True), **down), 69)
    moved = pod.finish(pod.order(fetch))
    assert moved["artifact"] != said["artifact"]


@pytest.mark.parametrize(("ended", "same"), [("yielded", True), ("killed", True), ("ok", False)])
def test_who_goes_on_keeps_to_what_the_refs_stood_for(pod: Pod, ended: str, same: bool) -> None:
    """Also where the inputs themselves were whole: a ref that has moved since must not change them under a step that resumes."""
    first = pod.finish(pod.order(INFER))
    (attempt,) = Yard.open(pod.yard).runs.get(RUN).attempts("it")
    if ended == "killed":
        (attempt.path / "outcome.json").unlink()
    elif ended == "yielded":
        attempt.write_outcome(Outcome.of(Yielded("asked to stop"), 1.0))
    (pod.hub / "me/small/model.safetensors").write_text("other weights")
    again = pod.finish(pod.order(INFER))
    assert (again["key"] == first["key"]) == same


def test_pickles_are_refused_where_the_frame_sees_them_first(pod: Pod) -> None:
    (pod.hub / "me/small/model.safetensors").rename(pod.hub / "me/small/pytorch_model.bin")
    assert "trust" in pod.finish(pod.order(Fetch(model=MODEL)), 81)["remedy"]


@pytest.mark.parametrize("broken", ["no JSON", '{"run": "a"}', "verb", "step", "ref", "missing"])
def test_an_order_that_cannot_be_read_is_usage(pod: Pod, broken: str) -> None:
    order, path = pod.order(INFER), pod.root / "broken.json"
    wrong = {"verb": {"verb": "evaluate"}, "step": {"step": "../it"}, "ref": {"refs": {"nothing": MODEL}}}.get(broken)
    if broken != "missing":
        path.write_text(order.model_copy(update=wrong).model_dump_json() if wrong else broken)
    said = pod.finish(path, 64, verb="infer")
    assert str(path) in said["where"]
    assert not (pod.yard / "runs").exists()


def test_a_command_line_that_is_wrong_is_usage(pod: Pod) -> None:
    done = subprocess.run([sys.executable, "-m", "modelyard_jobs", "infer", "--oder", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "--oder" in done.stderr or "--order" in done.stderr


def test_a_run_that_is_not_there_is_no_input(pod: Pod) -> None:
    Yard.open(pod.yard).runs.undriven(f"{RUN}0", {"pipeline": pod.order(INFER).pipeline})
    pod.finish(pod.order(INFER, pipeline=None), 66)


def test_a_stop_while_the_frame_is_loaded_is_heeded(pod: Pod) -> None:
    pod.finish(pod.order(INFER), 75, misbehave="early")
    assert not (pod.yard / "runs" / RUN).exists()


def test_a_stop_before_there_is_an_attempt_is_heeded(pod: Pod) -> None:
    """The order comes slowly."""
    path = pod.root / "slow.json"
    os.mkfifo(path)
    process = pod.start(path, "infer")
    with path.open("w") as fifo:  # from here on it is being read
        process.send_signal(signal.SIGTERM)
        fifo.write(pod.order(INFER).model_dump_json())
    process.communicate(timeout=30)
    assert process.returncode == 75
    pod.said(75)
    assert not (pod.yard / "runs" / RUN).exists()


def test_a_stop_while_a_hub_is_silent_is_heeded_at_once(pod: Pod) -> None:
    from tests.hubs.lying import LyingHub

    silent = threading.Event()
    with LyingHub({}, lambda handler, _: silent.set() or handler.silence() or True) as hub:
        process = pod.start(pod.order(Fetch(model=MODEL), hubs=dict.fromkeys(pod.hubs, hub.address)))
        assert silent.wait(30)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 75
    assert pod.said(75)["attempt"] == 1


def test_a_log_that_cannot_be_written_ends_the_step_and_its_work(pod: Pod) -> None:
    """The volume is full from some operation on; the class is said all the same."""
    pod.finish(pod.order(INFER))
    counts = {number: pod.start(pod.order(INFER, forced=True), MODELYARD_FAULT=f"ENOSPC:{number}") for number in (3, 12, 25, 40, 60)}
    codes = {}
    for number, process in counts.items():
        process.communicate(timeout=60)
        codes[number] = process.returncode
    assert set(codes.values()) <= {0, 73}, codes
    assert 73 in codes.values()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be the first process of a namespace")
def test_the_first_process_of_a_container_ends_what_its_children_leave(pod: Pod) -> None:
    first = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    pod.finish(pod.order(INFER), misbehave="orphans", before=first)
    lines = [json.loads(line) for line in Yard.open(pod.yard).runs.get(RUN).attempts("it")[0].log.read_text().splitlines()]
    (told,) = [line for line in lines if line["event"] == "orphans"]
    assert (told["made"], told["left"]) == (5, 0)


def test_what_a_step_writes_is_the_groups_too(pod: Pod) -> None:
    pod.finish(pod.order(INFER), before=("sh", "-c", 'umask 077; exec "$@"', "sh"))
    kept = pod.yard / "artifacts"
    for path in [path for path in pod.yard.rglob("*") if not path.is_relative_to(kept)]:
        wanted = 0o2070 if path.is_dir() else 0o060
        assert path.stat().st_mode & wanted == wanted, path
    for path in kept.rglob("*"):
        wanted = 0o070 if path.is_dir() else 0o040
        assert path.stat().st_mode & wanted == wanted, path


@pytest.mark.timeout(300)
def test_a_home_that_is_not_there_is_missed_by_no_step(tmp_path: Path) -> None:
    """From fetch to metrics: what libraries keep goes to the step's scratch folder, and nothing is left of it."""
    from tests.steps.yardstick import Place, make_hub

    place = Place.make(tmp_path / "place", make_hub(tmp_path / "hub"))
    (tmp_path / "temporary").mkdir()
    told = {"HOME": str(tmp_path / "nowhere"), "TMPDIR": str(tmp_path / "temporary")}
    place.modelyard("run", str(place.write("max_steps: 2", "  score: {evaluate: {model: tuned, data: rows, max_length: 64}}\n")), **told)
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "temporary").iterdir()) == []
    (run,) = Yard.open(place.root / ".yard").runs.list()
    outcome = run.attempts("score")[0].outcome()
    assert outcome
    assert outcome.result
    metrics = json.loads((Yard.open(place.root / ".yard").artifacts.get(outcome.artifact or "").path / "metrics.json").read_bytes())["metrics"]
    assert outcome.result["metrics"]["accuracy"]["value"] == metrics["accuracy"]["value"]
    assert len(termination_message(outcome)) <= 3072
    assert b"accuracy" in termination_message(outcome)
