"""The frame around steps that end in every way: each end has its class, its outcome, and leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard import keys
from modelyard.devices import CPU
from modelyard.errors import REGISTRY, NoSpace, Rule
from modelyard.order import Order, Outcome
from modelyard.run.pipeline import first_status
from modelyard.spec import Pipeline
from modelyard.steps import Infer, Resources
from modelyard.yard import Yard
from modelyard.yard.runs import Attempt
from modelyard_jobs.context import Stop
from modelyard_jobs.frame import Frame
from modelyard_jobs.journal import Journal

HERE = Path(__file__).parent
STEP = Infer(model="model", data="rows")


class Stage:
    """A yard with inputs, and attempts at one step of one run in it."""

    def __init__(self, root: Path) -> None:
        self.yard = Yard.open(root)
        self.inputs = {}
        for name, kind in (("model", "model"), ("data", "dataset")):
            with self.yard.staging(f"made.{name}.1") as staging:
                (staging.files / "file").write_text(name)
                self.inputs[name] = self.yard.artifacts.commit(staging, kind=kind).digest
        pipeline = Pipeline("a", {"step": Infer(model="./m", data="./d")})
        run = self.yard.runs.create("a-0-r1", {}, first_status("a-0-r1", pipeline))
        assert run
        self.run = run

    def order(self, attempt: Attempt, resources: Resources | None = None, forced: bool = False) -> Order:
        resources = resources or Resources()
        key = keys.action_key(STEP, self.inputs, resources.accelerator if resources.gpus else "cpu")
        return Order(
            run=self.run.id,
            step="step",
            attempt=attempt.number,
            verb="infer",
            settings=STEP.settings(),
            resources=resources,
            inputs=self.inputs,
            key=key,
            forced=forced,
        )

    def start(
        self, misbehave: str = "", attempt: Attempt | None = None, forced: bool = False, env: dict[str, str] | None = None, **resources: object
    ) -> tuple[Attempt, subprocess.Popen[bytes]]:
        attempt = attempt or self.run.new_attempt("step")
        path = attempt.write_order(self.order(attempt, Resources(**resources), forced))
        environ = {
            **os.environ,
            "MISBEHAVE": misbehave or "none",
            "PYTHONPATH": os.pathsep.join([str(HERE / "misbehaving"), os.environ.get("PYTHONPATH", "")]),
            **(env or {}),
        }
        command = [sys.executable, "-m", "modelyard_jobs", "infer", "--order", str(path), "--yard", str(self.yard.root)]
        return attempt, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)

    def finish(self, misbehave: str = "", **options: object) -> tuple[Attempt, int, bytes]:
        attempt, process = self.start(misbehave, **options)
        output, errors = process.communicate(timeout=60)
        assert process.returncode >= 0, errors.decode()
        return attempt, process.returncode, output


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "yard")


def outcome(attempt: Attempt) -> Outcome:
    found = attempt.outcome()
    assert found is not None
    return found


def lines(attempt: Attempt) -> list[dict[str, object]]:
    return [json.loads(line) for line in attempt.log.read_text().splitlines()]


def committed(stage: Stage) -> set[str]:
    return set(stage.yard.artifacts.digests()) - set(stage.inputs.values())


def when(attempt: Attempt, event: str) -> None:
    """Wait until the log says so."""
    for _ in range(600):
        if attempt.log.exists() and any(line["event"] == event for line in lines(attempt)):
            return
        time.sleep(0.05)
    pytest.fail(f"no {event!r} in the log")


def test_a_good_attempt_commits_and_keeps_what_it_was_told(stage: Stage) -> None:
    attempt, code, output = stage.finish()
    result = outcome(attempt)
    assert (code, result.exit_code, result.category, result.reused) == (0, 0, "ok", False)
    assert committed(stage) == {result.artifact}
    action = stage.yard.actions.get(result.key)
    assert action
    assert action.artifact == result.artifact
    assert action.decisions["choice"].reason == "three is best"
    assert action.decisions["threads"].value >= 1
    assert action.details == {"speed": 12.5}
    assert (action.device, action.inputs, action.attempt) == ("cpu", stage.inputs, attempt.id)
    assert action.versions == keys.installed_versions()
    progress = attempt.progress()
    assert progress
    assert (progress.done, progress.total, progress.unit) == (4, 4, "rows")
    assert attempt.last_sample()
    assert [json.loads(line) for line in output.splitlines()] == lines(attempt)
    assert [line["seq"] for line in lines(attempt)] == list(range(1, len(lines(attempt)) + 1))
    assert not list((stage.yard.root / "staging").iterdir())


def test_a_known_result_is_not_made_again(stage: Stage) -> None:
    first, _, _ = stage.finish()
    action = stage.yard.root / "actions" / f"{outcome(first).key}.json"
    os.utime(action, (1, 1))
    second, code, _ = stage.finish("exit:1")
    assert code == 0
    assert action.stat().st_mtime > 1, "what answers again is young again, or gc would take what is used every day"
    assert outcome(second).reused
    assert outcome(second).artifact == outcome(first).artifact
    _, code, _ = stage.finish("raise:data", forced=True)
    assert code == 65


@pytest.mark.parametrize("category", [name for name, cls in REGISTRY.items() if cls.rule is not Rule.CLI and name != "crashed"])
def test_every_class_comes_out_as_its_exit_code(stage: Stage, category: str) -> None:
    attempt, code, _ = stage.finish(f"raise:{category}")
    assert code == REGISTRY[category].exit_code
    result = outcome(attempt)
    assert (result.category, result.what, result.where, result.why, result.remedy) == (category, "it failed", "here", "because", "mend it")
    assert committed(stage) == set()
    assert not list((stage.yard.root / "staging").iterdir())


@pytest.mark.parametrize(
    ("misbehave", "exit_code", "category", "said"),
    [
        ("bug", 70, "bug", "ValueError: an error of ours"),
        ("signal:9", 137, "crashed", "SIGKILL"),
        ("segfault", 137, "crashed", "SIGSEGV"),
        ("exit:3", 137, "crashed", "exit 3"),
        ("exit:0", 137, "crashed", "exit 0"),
        ("import", 64, "usage", "a_package_that_is_not_there"),
        ("full", 73, "no-space", "no space is left"),
    ],
)
def test_what_has_no_class_is_named(stage: Stage, misbehave: str, exit_code: int, category: str, said: str) -> None:
    attempt, code, _ = stage.finish(misbehave)
    result = outcome(attempt)
    assert (code, result.category) == (exit_code, category)
    assert said in result.what
    assert result.remedy
    assert committed(stage) == set()
    if category == "bug":
        assert any("an error of ours" in str(line.get("traceback")) for line in lines(attempt))


def test_what_libraries_print_is_kept_and_is_not_the_protocol(stage: Stage) -> None:
    attempt, code, _ = stage.finish("talk")
    assert code == 0
    printed = [str(line["event"]) for line in lines(attempt) if line.get("source") == "stderr"]
    assert {"to stdout", "to stderr"} <= set(printed)
    assert sum(len(text) for text in printed) >= 200_000
    assert [line["number"] for line in lines(attempt) if line["event"] == "line"] == list(range(500))


@pytest.mark.parametrize("misbehave", ["sleep", "polled", "deaf"])
def test_sigterm_ends_with_75_whatever_the_work_does(stage: Stage, misbehave: str) -> None:
    attempt, process = stage.start(misbehave)
    when(attempt, "working" if misbehave == "sleep" else misbehave)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert outcome(attempt).category == "yielded"
    assert committed(stage) == set()
    kept = stage.yard.checkpoints(outcome(attempt).key or keys.action_key(STEP, stage.inputs, "cpu"), "other.step.1").furthest()
    assert (kept is not None) == (misbehave == "polled")


@pytest.mark.parametrize(("requested", "exit_code"), [(False, 70), (True, 75)])
def test_an_error_of_the_frame_itself_is_a_bug_unless_it_was_asked_to_stop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, requested: bool, exit_code: int
) -> None:
    attempt = stage.run.new_attempt("step")
    stop = Stop(polled=True)
    frame = Frame(stage.order(attempt), stage.yard, attempt, Journal(attempt.add_log, lambda _: None), stop)
    frame.said.result = {"to": "there"}

    def broken() -> None:
        stop.requested = requested
        raise KeyError("odd")

    monkeypatch.setattr(frame, "_device", broken)
    found = frame.run()
    assert (found.exit_code, found.result) == (exit_code, {"to": "there"})
    assert "odd" in found.what + found.why
    assert any(line["event"] == "traceback" for line in lines(attempt))


def test_an_outcome_is_kept_where_the_log_takes_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = stage.run.new_attempt("step")

    def full(line: bytes) -> None:
        if json.loads(line)["event"] == "end":
            raise NoSpace("the volume is full")

    frame = Frame(stage.order(attempt), stage.yard, attempt, Journal(full), Stop(polled=True))
    monkeypatch.setattr(frame, "_device", lambda: CPU)
    monkeypatch.setattr(frame, "_on_device", lambda _: Outcome(exit_code=0, artifact="a" * 64))
    assert frame.run().exit_code == 0
    assert outcome(attempt).artifact == "a" * 64


def test_a_yard_that_cannot_be_opened_ends_with_its_class(stage: Stage, tmp_path: Path) -> None:
    path = stage.run.new_attempt("step").write_order(stage.order(stage.run.new_attempt("step")))
    (tmp_path / "file").write_text("no folder")
    said = tmp_path / "termination-log"
    said.touch()
    command = [sys.executable, "-m", "modelyard_jobs", "infer", "--order", str(path), "--yard", str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MODELYARD_TERMINATION_LOG": str(said)}, check=False)
    told = json.loads(said.read_text())
    assert REGISTRY[told["category"]].exit_code == done.returncode == told["exit_code"]
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
    assert told["where"] or told["why"]


def test_work_that_is_done_when_the_signal_comes_is_committed(stage: Stage) -> None:
    attempt, process = stage.start("late")
    when(attempt, "late")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert committed(stage) == {outcome(attempt).artifact}


def test_the_child_dies_with_the_frame(stage: Stage) -> None:
    attempt, process = stage.start("deaf")
    when(attempt, "deaf")
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    assert len(children) == 1
    process.kill()
    process.communicate()
    for _ in range(100):
        if not Path(f"/proc/{children[0]}").exists() or Path(f"/proc/{children[0]}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its frame")


def test_running_time_over_the_limit_is_a_deadline(stage: Stage) -> None:
    attempt, code, _ = stage.finish("sleep", time_limit=1)
    assert (code, outcome(attempt).category) == (79, "deadline")


def test_running_time_is_summed_over_attempts(stage: Stage) -> None:
    earlier = stage.run.new_attempt("step")
    earlier.add_sample({"t": 100.0, "used": 1})
    attempt, code, _ = stage.finish(time_limit=90)
    assert (code, outcome(attempt).category) == (79, "deadline")
    assert "1m40s" in outcome(attempt).what


def test_three_attempts_without_progress_are_enough(stage: Stage) -> None:
    for number in range(3):
        _, code, _ = stage.finish("signal:9")
        assert code == 137, number
    attempt, code, _ = stage.finish()
    assert (code, outcome(attempt).category) == (84, "no-progress")


@pytest.mark.parametrize("resources", [{}, {"gpus": 1, "fallback": "cpu"}], ids=["cpu", "fallback"])
def test_an_attempt_with_progress_is_followed_by_another(stage: Stage, resources: dict[str, object]) -> None:
    """Also where the checkpoints lie under the key of another device than was asked for."""
    for number in range(3):
        attempt, process = stage.start("polled", **resources)
        when(attempt, "polled")
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 75, number
    _, code, _ = stage.finish(**resources)
    assert code == 0


def test_no_accelerator_is_refused_unless_a_fallback_is_allowed(stage: Stage) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "none"}
    refused, code, _ = stage.finish(env=hidden, gpus=1)
    assert (code, outcome(refused).category) == (78, "no-accelerator")
    assert "fallback: cpu" in outcome(refused).remedy
    allowed, code, _ = stage.finish(env=hidden, gpus=1, fallback="cpu")
    assert code == 0
    action = stage.yard.actions.get(outcome(allowed).key)
    assert action
    assert (action.device, action.decisions["device"].value) == ("cpu", "cpu")
    assert "fallback is cpu" in action.decisions["device"].reason
    asked = keys.action_key(STEP, stage.inputs, "nvidia", keys.installed_versions())
    assert stage.yard.actions.get(asked) is None, "a CPU's result must never answer for a GPU"
    again, code, _ = stage.finish("exit:1", env=hidden, gpus=1, fallback="cpu")
    assert (code, outcome(again).reused) == (0, True)


def test_the_use_of_devices_is_sampled(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tool that writes like the vendor's, on a device that is the CPU by another name."""
    from modelyard.devices import Probe, Vendor
    from modelyard_jobs import frame
    from modelyard_jobs.context import Stop
    from modelyard_jobs.journal import Journal

    tool = tmp_path / "smi"
    tool.write_text("#!/bin/sh\necho '0, 37, 1024'\necho '1, [N/A], 0'\necho '2, 5, 10'\nexec sleep 1000\n")
    tool.chmod(0o755)
    monkeypatch.setattr(frame, "vendor_of", lambda _: Vendor("nvidia", "cpu", watch=(str(tool), "--loop=5")))
    monkeypatch.setattr(frame, "probe", lambda _: Probe(1, "a test's"))
    monkeypatch.setenv("MISBEHAVE", "slow:3")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE / "misbehaving"), os.environ.get("PYTHONPATH", "")]))
    attempt = stage.run.new_attempt("step")
    result = frame.Frame(stage.order(attempt, Resources(gpus=1)), stage.yard, attempt, Journal(attempt.add_log), Stop(polled=True)).run()
    assert result.exit_code == 0, result
    sample = attempt.last_sample()
    assert sample
    assert sample["devices"] == {"0": {"percent": 37.0, "memory": 1024.0 * 2**20}, "2": {"percent": 5.0, "memory": 10.0 * 2**20}}
    assert not subprocess.run(["pgrep", "-f", str(tool)], capture_output=True, check=False).stdout, "the tool ends with the step"


def test_a_reused_step_loads_no_torch(stage: Stage) -> None:
    stage.finish()
    attempt = stage.run.new_attempt("step")
    path = attempt.write_order(stage.order(attempt))
    code = (
        "import sys; from modelyard_jobs.entry import main\n"
        f"code = main(['infer', '--order', {str(path)!r}, '--yard', {str(stage.yard.root)!r}])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert outcome(attempt).reused


def test_a_sample_near_the_limit_names_the_silent_kill(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel kills the whole group, nothing is left but the last sample of the attempt before."""
    from modelyard_jobs import frame
    from modelyard_jobs.cgroup import Cgroup
    from modelyard_jobs.context import Stop
    from modelyard_jobs.journal import Journal

    earlier = stage.run.new_attempt("step")
    earlier.add_sample({"t": 3.0, "used": 990 << 20, "limit": 1 << 30})
    attempt = stage.run.new_attempt("step")
    monkeypatch.setattr(Cgroup, "memory_limit", lambda _: 1 << 30)
    monkeypatch.setattr(frame.subprocess, "Popen", lambda *_, **__: pytest.fail("nothing may be loaded"))
    result = frame.Frame(stage.order(attempt), stage.yard, attempt, Journal(attempt.add_log), Stop(polled=True)).run()
    assert (result.exit_code, result.category) == (83, "host-oom")
    assert "memory: 2Gi" in result.remedy
    monkeypatch.setattr(Cgroup, "memory_limit", lambda _: 4 << 30)
    monkeypatch.undo()


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir(), reason="needs root and a version 1 memory controller")
def test_the_kernels_kill_at_the_memory_limit_is_host_oom(stage: Stage) -> None:
    group = Path(f"/sys/fs/cgroup/memory/modelyard-test-{os.getpid()}")
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(300 << 20))
        attempt = stage.run.new_attempt("step")
        path = attempt.write_order(stage.order(attempt))
        script = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -m modelyard_jobs infer --order {path} --yard {stage.yard.root}"
        environ = {**os.environ, "MISBEHAVE": "memory", "PYTHONPATH": os.pathsep.join([str(HERE / "misbehaving"), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 83, done.stderr
        result = outcome(attempt)
        assert result.category == "host-oom"
        assert "300 MiB" in result.what
        assert "memory: 1Gi" in result.remedy
    finally:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)
