"""`modelyard schedule`: always of a cluster, with the next command, in every form of output."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path

import pytest

from modelyard.cli import remote
from modelyard.kube import names, runs
from modelyard.kube.cluster import Manifest
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus
from tests.unit.kube.fake import FakeCluster

from .conftest import Call

FILE = "name: nightly\nsteps:\n  find: {search: {query: x}}\n"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr(remote, "cluster", lambda _: made)
    made.create({"kind": "PersistentVolumeClaim", "metadata": {"name": "modelyard"}, "spec": {"accessModes": ["ReadWriteMany"]}})
    made.create({"kind": "ServiceAccount", "metadata": {"name": names.DRIVER_ACCOUNT}})
    (folder / "nightly.yaml").write_text(FILE)
    return made


def job(cluster: FakeCluster) -> Manifest:
    (name,) = (name for kind, name in cluster.objects if kind == "Job")
    return cluster.objects["Job", name]


def end(cluster: FakeCluster, run: str, how: RunState, **step: object) -> None:
    """What a driver would say at the end."""
    job(cluster)["metadata"]["labels"][names.RUN] = run
    found = StepStatus.model_validate({"verb": "search", "state": StepState.DONE, **step})
    status = RunStatus(run=run, pipeline="nightly", state=how, exit_code=found.exit_code or 0, steps={"find": found})
    labels = {names.ROLE: "status", names.RUN: run}
    data = {"status.json": status.model_dump_json()}
    cluster.create({"kind": "ConfigMap", "metadata": {"name": names.status_name(run), "labels": labels}, "data": data})


def test_from_apply_to_rm(call: Call, cluster: FakeCluster) -> None:
    done = call("schedule", "apply", "nightly.yaml", "--cron", "0 3 * * *", "--time-zone", "Asia/Shanghai", "-n", "team")
    assert (done.code, done.out.split(", next")[0]) == (0, "schedule nightly created: 0 3 * * *, Asia/Shanghai")
    assert done.err == "next: modelyard schedule show nightly --on kubernetes --namespace team\n"
    again = json.loads(call("schedule", "apply", "nightly.yaml", "--cron", "0 3 * * *", "-o", "json").out)
    assert (again["change"], again["timeZone"], again["suspended"], again["kind"]) == ("unchanged", "Asia/Shanghai", False, "Schedule")
    (listed,) = json.loads(call("schedule", "ls", "-o", "json").out)["items"]
    assert (listed["schedule"], listed["pipeline"], listed["cron"], listed["next"]) == ("nightly", "nightly", "0 3 * * *", again["next"])
    assert call("schedule", "suspend", "nightly").out == "schedule nightly suspended\n"
    assert "it was so already" in call("schedule", "suspend", "nightly").err
    assert "suspended" in call("schedule", "apply", "nightly.yaml", "--cron", "0 3 * * *").out
    assert call("schedule", "resume", "nightly").out.startswith("schedule nightly goes on, next ")
    assert call("schedule", "rm", "nightly").out == "schedule nightly removed\n"
    assert [kind for kind, _ in cluster.objects] == ["PersistentVolumeClaim", "ServiceAccount"]
    assert call("schedule", "show", "nightly").code == 66


def test_a_triggered_tick_is_followed_to_its_end_and_shown(call: Call, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    call("schedule", "apply", "nightly.yaml", "--cron", "0 3 * * *")
    failed = {"state": StepState.FAILED, "attempt": 1, "exit_code": 66, "category": "no-input", "what": "no such model", "remedy": "name another"}

    def pause(_: float) -> None:
        if names.RUN not in job(cluster)["metadata"]["labels"]:
            end(cluster, "nightly-0123456789-r1", RunState.FAILED, **failed)

    monkeypatch.setattr(runs, "follow", partial(runs.follow, sleep=pause))
    done = call("schedule", "trigger", "nightly")
    assert done.code == 66
    assert done.out.startswith("run nightly-0123456789-r1: failed")
    assert "no such model" in done.err
    shown = call("schedule", "show", "nightly", "--limit", "1")
    assert [line.split() for line in shown.out.splitlines()[2:3]] == [["TICK", "OUTCOME", "RUN", "CATEGORY", "REASON"]]
    assert ", triggered" in shown.out
    assert "no-input" in shown.out
    assert "  try: name another" in shown.out
    assert "next: modelyard show nightly-0123456789-r1" in shown.err
    tick = json.loads(call("schedule", "show", "nightly", "-o", "json").out)["ticks"][0]
    assert (tick["state"], tick["run"], tick["category"], tick["triggered"]) == ("failed", "nightly-0123456789-r1", "no-input", True)
    assert call("schedule", "show", "nightly", "-q").out == "nightly-0123456789-r1\n"


def test_a_triggered_tick_that_is_left_is_found_by_its_job(call: Call, cluster: FakeCluster) -> None:
    call("schedule", "apply", "nightly.yaml", "--cron", "0 3 * * *")
    name = call("schedule", "trigger", "nightly", "-d", "-q").out.strip()
    assert name == job(cluster)["metadata"]["name"]
    assert json.loads(call("show", name, "--on", "kubernetes", "-o", "json").out)["state"] == "running"
    refused = call("schedule", "trigger", "nightly", "-d")
    assert refused.code == 64
    assert refused.err.splitlines()[-1] == f"  try: modelyard wait {name} --on kubernetes, or modelyard cancel {name} --on kubernetes"
    end(cluster, "nightly-0123456789-r1", RunState.DONE)
    assert json.loads(call("show", name, "--on", "kubernetes", "-o", "json").out)["run"] == "nightly-0123456789-r1"
    assert call("wait", name, "--on", "kubernetes").code == 0


@pytest.mark.parametrize(("cron", "remedy"), [("@daily", "write '0 0 * * *'"), ("0 3 * *", "minute, hour")])
def test_a_wrong_expression_is_a_wrong_command_line(call: Call, cluster: FakeCluster, cron: str, remedy: str) -> None:
    done = call("schedule", "apply", "nightly.yaml", "--cron", cron)
    assert done.code == 64
    assert remedy in done.err
    assert not any(kind == "ConfigMap" for kind, _ in cluster.objects)


@pytest.mark.parametrize("words", ["ls", "show nightly", "trigger nightly", "suspend nightly", "rm nightly", "apply nightly.yaml --cron '0 3 * * *'"])
def test_who_may_not_is_told_so(call: Call, cluster: FakeCluster, words: str) -> None:
    call("schedule", "apply", "nightly.yaml", "--cron", "0 3 * * *")
    cluster.forbidden |= {(verb, "CronJob") for verb in ("get", "list", "patch")}
    done = call("schedule", *shlex.split(words), "-o", "json")
    assert (done.code, done.out) == (77, "")
    assert "the cluster does not allow it" in done.err


def test_no_schedule_is_said(call: Call, cluster: FakeCluster) -> None:
    done = call("schedule", "ls")
    assert (done.code, done.out, done.err) == (0, "", "there is no schedule in namespace team\n")
    assert json.loads(call("schedule", "ls", "-o", "json").out)["items"] == []
