"""Mutated pipelines, settings, orders and manifests: each ends in the class that its operator carries, with one message and never half of a run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main, remote
from modelyard.errors import REGISTRY, Failure, NoInput, NoPermission, Unavailable
from modelyard.kube import names, render
from modelyard.kube.cluster import Kind, Manifest
from modelyard.kube.place import Place
from modelyard.run import driver, start
from modelyard.run.remote import submit
from modelyard.run.settings import Settings, place_of
from modelyard.spec import Pipeline, load
from modelyard.yard import Yard
from modelyard_jobs import entry
from tests.unit.run.standin import Standin

from .manifests import DRIVER, ORDERS, Mutation, good_order
from .operators import EXAMPLES, OPERATORS, SECRET, Operator
from .settings import TABLES, Table

RUN = ("run", "pipeline.yaml", "--on", "kubernetes", "-d")
PLACES = ("pipeline.yaml", "looks", "steps.", "resources.", "/", "hubs.", "queue", "MODELYARD_", "namespace ", "run.json", "image")
"""How a message begins: with a file, a step, or a setting."""
CLASSES = {failure.exit_code for failure in REGISTRY.values()}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, where nothing is set."""
    monkeypatch.chdir(tmp_path)
    for name in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Standin:
    """A namespace that is ready for runs; no local run begins meanwhile."""
    made = ready(Standin())
    monkeypatch.setattr(remote, "cluster", lambda _: made)
    monkeypatch.setattr(start, "start_detached", lambda *_: pytest.fail("a local run was begun"))
    return made


def ready(cluster: Standin) -> Standin:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "modelyard"}, "spec": {"accessModes": ["ReadWriteMany"]}}
    cluster.create(claim)
    cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.DRIVER_ACCOUNT}})
    return cluster


def check_run(cluster: Standin, made: bool) -> None:
    """There is all of one run, or nothing of any."""
    drivers, configs = cluster.jobs("driver"), [name for kind, name in cluster.objects if kind == "ConfigMap"]
    assert cluster.jobs("step") == []
    assert configs == drivers
    assert len(drivers) == int(made)


def check_message(code: int, err: str) -> None:
    """One message, which says where and what to do, and is no traceback."""
    if code == 0:
        assert "error" not in err
        return
    assert code in CLASSES
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert "an error of modelyard" not in err
    assert SECRET not in err
    first, *others = err.splitlines()
    assert first.removeprefix("error: ").startswith(PLACES), "where"
    assert "  try: " in err or "give " in first or (others and all(line.startswith("pipeline.yaml:") for line in others)), "what to do"


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_pipelines(operator: Operator, example: str, cluster: Standin, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "pipeline.yaml").write_bytes(operator.file(example, seed=6))
    code = main(RUN)
    err = capfd.readouterr().err
    assert (code, err if code else "") == (operator.expected, err if code else "")
    check_message(code, err)
    assert operator.says in err
    check_run(cluster, made=code == 0)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_settings(table: Table, cluster: Standin, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "pipeline.yaml").write_text(EXAMPLES["quickstart"])
    (folder / "modelyard.toml").write_bytes(table.content)
    code = main(["run", "pipeline.yaml", "-d"])
    err = capfd.readouterr().err
    assert code == table.expected, err
    check_message(code, err)
    assert table.says in err
    check_run(cluster, made=code == 0)


def test_a_file_that_is_none(cluster: Standin, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "folder.yaml").mkdir()
    for name in ("nowhere.yaml", "folder.yaml", "pipeline.yaml/x"):
        assert main(["run", name, "--on", "kubernetes", "-d"]) == NoInput.exit_code
        check_message(NoInput.exit_code, capfd.readouterr().err.replace(name, "pipeline.yaml"))
    check_run(cluster, made=False)


class Failing(Standin):
    """A cluster whose call of one number fails, before or after it has done what it was asked to."""

    def __init__(self, number: int, failure: type[Failure], late: bool) -> None:
        super().__init__()
        self.armed = False
        self.number, self.failure, self.late, self.count = number, failure, late, 0

    def create(self, manifest: Manifest) -> Manifest | None:
        return self._call(lambda: super(Failing, self).create(manifest))

    def get(self, kind: Kind, name: str) -> Manifest | None:
        return self._call(lambda: super(Failing, self).get(kind, name))

    def list(self, kind: Kind, labels: Any = None, *, fields: Any = None, everywhere: bool = False) -> Any:
        return self._call(lambda: super(Failing, self).list(kind, labels, fields=fields, everywhere=everywhere))

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest | None:
        return self._call(lambda: super(Failing, self).patch(kind, name, patch))

    def delete(self, kind: Kind, name: str, **options: Any) -> bool:
        return bool(self._call(lambda: super(Failing, self).delete(kind, name, **options)))

    def _call(self, do: Any) -> Any:
        if not self.armed:
            return do()
        self.count += 1
        if self.count != self.number:
            return do()
        if self.late:
            do()
        raise self.failure("the API server did not answer", where="the cluster", remedy="try again")


def asked(folder: Path, example: str = "quickstart") -> Pipeline:
    (folder / "pipeline.yaml").write_text(EXAMPLES[example])
    return load(folder / "pipeline.yaml")


def submitted(cluster: Standin, pipeline: Pipeline, **settings: Any) -> tuple[str, bool]:
    from modelyard import config

    in_force = config.load({"on": "kubernetes"}, environ={})
    return submit(pipeline, Settings(Path("/nowhere"), in_force.hubs, **settings), place_of(in_force, cluster.namespace), cluster)


CALLS = 7
"""Calls of the API that a submit makes; `test_every_call_is_tried` counts them."""


def test_every_call_is_tried(folder: Path) -> None:
    cluster = ready(Failing(0, Unavailable, late=False))
    cluster.armed = True
    submitted(cluster, asked(folder))
    assert cluster.count == CALLS


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("failure", [Unavailable, NoPermission])
@pytest.mark.parametrize("number", range(1, CALLS + 1))
def test_a_submit_that_fails_between_is_mended_by_the_next(number: int, failure: type[Failure], late: bool, example: str, folder: Path) -> None:
    cluster, pipeline = ready(Failing(number, failure, late)), asked(folder, example)
    cluster.armed = True
    tolerated = failure is NoPermission  # who may create Jobs need not be one who may look for the service account
    try:
        submitted(cluster, pipeline)
    except failure:
        tolerated = False
    drivers = cluster.jobs("driver")
    assert all(("ConfigMap", name) in cluster.objects for name in drivers), "a Job that nobody told what to run"
    assert tolerated is bool(failure is NoPermission and number == 3)
    run, _ = submitted(cluster, pipeline, force=frozenset({"tuned", "candidate"} & set(pipeline.steps)) if not drivers else frozenset())
    assert cluster.jobs("driver") == [run]
    check_run(cluster, made=True)
    told = json.loads(cluster.objects["ConfigMap", run]["data"]["run.json"])
    assert (told["run"], bool(told["settings"]["force"])) == (run, not drivers), "the ConfigMap is of who made the Job"


@pytest.fixture
def pod(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a pod writes its last words; signals and the mask are as before afterwards."""
    path = folder / "termination-log"
    path.touch()
    monkeypatch.setenv("MODELYARD_TERMINATION_LOG", str(path))
    before, mask = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}, os.umask(0o022)
    yield path
    os.umask(mask)
    for number, handler in before.items():
        signal.signal(number, handler)


def check_last_words(path: Path, code: int, err: str, says: str) -> None:
    """The pod's last words have the class, and name what is wrong; so does its log, and neither is a traceback."""
    last = json.loads(path.read_bytes())
    assert (last["exit_code"], last["category"]) == (code, next(name for name, kind in REGISTRY.items() if kind.exit_code == code))
    assert last["what"]
    assert last["remedy"]
    assert says in " ".join(last.get(part, "") for part in ("where", "what", "why"))
    assert "Traceback" not in err
    assert "secret" not in json.dumps(last)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("mutation", DRIVER, ids=lambda mutation: mutation.name)
def test_what_a_driver_is_told(mutation: Mutation, example: str, folder: Path, pod: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = Place(namespace="team", image="modelyard:1", claim="modelyard")
    config, job = render.driver(asked(folder, example), {"hubs": {"modelscope": "http://hub:1"}, "jobs": 1, "force": []}, place)
    (told := folder / "told").mkdir()
    for name, data in mutation.files({name: text.encode() for name, text in config["data"].items()}, example).items():
        (told / name).write_bytes(data)
    cluster = Standin()
    cluster.create(job)
    code = driver.main([str(told / "run.json"), "--yard", str(folder / "yard")], cluster)
    assert code == mutation.expected
    check_last_words(pod, code, capfd.readouterr().err, mutation.says)
    assert cluster.jobs("step") == []
    assert not (folder / "yard").exists(), "a yard was made for a run that cannot be"


@pytest.mark.parametrize("mutation", ORDERS, ids=lambda mutation: mutation.name)
def test_what_a_step_is_told(mutation: Mutation, folder: Path, pod: Path, capfd: pytest.CaptureFixture[str]) -> None:
    yard = Yard.open(folder / "yard")
    for name, data in mutation.files(good_order(), "order").items():
        (folder / name).write_bytes(data)
    code = entry.main(["finetune", "--order", str(folder / "order.json"), "--yard", str(yard.root)])
    assert code == mutation.expected
    check_last_words(pod, code, capfd.readouterr().err, mutation.says)
    assert yard.runs.list() == []
    assert {path.name for path in folder.iterdir()} <= {"order.json", "termination-log", "yard"}


def test_there_are_enough() -> None:
    assert len(OPERATORS) * len(EXAMPLES) + len(TABLES) + len(DRIVER) * len(EXAMPLES) + len(ORDERS) >= 300
