"""The quickstart on a real cluster, from fetch to publish, while its driver is killed three times and the API server is away for 20 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples import demo_hub
from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import ROOT, TOKEN, Site, fill, site

QUICKSTART = str(ROOT / "examples" / "quickstart.yaml")
AWAY = 20.0
"""Seconds without an API server."""


@dataclass(frozen=True)
class Ran:
    """A run of the quickstart that has ended. shown: as `run -o json` said it. followed: lines of `logs -f -o json`, begun while it ran."""

    site: Site
    shown: dict[str, Any]
    followed: list[dict[str, Any]]

    @property
    def id(self) -> str:
        return str(self.shown["run"])


@pytest.fixture(scope="module")
def ran(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    demo = tmp_path_factory.mktemp("demo") / "hub"
    demo_hub.main(demo)
    with site(local_cluster, tmp_path_factory.mktemp("home")) as made:
        fill(made.hub, demo)
        begun = [process := made.start("run", QUICKSTART, "-o", "json")]
        try:
            run = str(made.cluster.wait("a driver Job", lambda: made.jobs("driver"), within=120)[0]["metadata"]["name"])
            _wait_for(made, run, "tuned", process)
            begun.append(logs := made.start("logs", run, "-f", "-o", "json"))
            _delete_driver(made, run)
            made.cluster.restart_api_server(AWAY)
            _kill_driver(made, run)
            _wait_for(made, run, "score", process)
            _delete_driver(made, run)
            out, err = process.communicate(timeout=900)
            assert process.returncode == 0, f"{out[-2000:]}\n{err[-4000:]}"
            lines, complaints = logs.communicate(timeout=60)
            assert logs.returncode == 0, complaints
        finally:
            for one in begun:
                one.kill()
        yield Ran(made, json.loads(out), [json.loads(line) for line in lines.splitlines()])


def test_it_ends_well_and_says_that_it_fell_back(ran: Ran) -> None:
    steps = ran.shown["steps"]
    assert {step["state"] for step in steps.values()} == {"done"}
    assert ran.shown["metrics"]["score"]["accuracy"]["value"] > 0.78
    for name in ("tuned", "score", "predictions"):
        assert steps[name]["note"] == "on the CPU: no usable nvidia"
        asked = next(job for job in ran.site.jobs() if job["metadata"]["labels"]["modelyard.dev/step"] == name)
        container = asked["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert ran.shown["results"]["release"]["gate"]["lines"][0]["passed"]


def test_every_step_ran_once_although_the_driver_was_killed(ran: Ran) -> None:
    jobs = ran.site.jobs()
    assert sorted(job["metadata"]["labels"]["modelyard.dev/step"] for job in jobs) == sorted(ran.shown["steps"])
    assert {(job["status"].get("succeeded"), job["status"].get("failed", 0)) for job in jobs} == {(1, 0)}
    attempts = {step.name: [attempt.name for attempt in step.iterdir()] for step in (ran.site.yard / "runs" / ran.id / "steps").iterdir()}
    assert attempts == {name: ["1"] for name in ran.shown["steps"]}
    ran.site.cluster.wait("one driver Job has succeeded", lambda: [job["status"].get("succeeded") for job in ran.site.jobs("driver")] == [1])


def test_no_line_is_lost_or_doubled_while_the_api_server_is_away(ran: Ran) -> None:
    for name in ran.shown["steps"]:
        kept = (ran.site.yard / "runs" / ran.id / "steps" / name / "1" / "log.jsonl").read_text().splitlines()
        followed = [line["entry"] for line in ran.followed if line["step"] == name]
        assert followed == [json.loads(line) for line in kept], name


def test_the_report_comes_back(ran: Ran, tmp_path: Path) -> None:
    ran.site.modelyard("report", ran.id, "--out", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "no usable nvidia" in page
    assert f"{ran.shown['metrics']['score']['accuracy']['value']:.4f}"[:5] in page


def test_runs_are_listed_shown_and_waited_for_without_the_yard(ran: Ran) -> None:
    assert ran.id in [run["run"] for run in ran.site.json("ls")["items"]]
    shown = ran.site.json("show", ran.id)
    assert {name: step["artifact"] for name, step in shown["steps"].items()} == {name: step["artifact"] for name, step in ran.shown["steps"].items()}
    assert shown["metrics"] == ran.shown["metrics"]
    ran.site.modelyard("wait", ran.id)


@pytest.mark.slow
def test_a_changed_setting_runs_only_what_depends_on_it(ran: Ran) -> None:
    text = Path(QUICKSTART).read_text().replace("split: test, rows: 500", "split: test, rows: 499")
    again = ran.site.json("run", ran.site.write("changed.yaml", text))
    states = {name: step["state"] for name, step in again["steps"].items()}
    assert {name for name, state in states.items() if state != "reused"} == {"encoders", "ready", "predictions", "champion", "release"}


def test_nothing_holds_the_token(ran: Ran) -> None:
    objects = ran.site.kubectl("get", "jobs,pods,configmaps", "-o", "yaml")
    assert TOKEN not in objects
    found = subprocess.run(["grep", "-rlF", TOKEN, str(ran.site.yard)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")


def _wait_for(made: Site, run: str, step: str, process: subprocess.Popen[str]) -> None:
    """Until a step is at work."""

    def running() -> bool:
        assert process.poll() is None, process.communicate()
        if not made.cluster.has("configmap", f"{run}-status", namespace=made.namespace):
            return False
        status = json.loads(made.cluster.get("configmap", f"{run}-status", namespace=made.namespace)["data"]["status.json"])
        return bool(status["steps"][step]["state"] == "running" and status["steps"][step]["attempt"])

    made.cluster.wait(f"{step} runs", running, within=300)


def _driver_pod(made: Site, run: str) -> dict[str, Any]:
    """The driver's pod, as soon as it runs."""

    def running() -> dict[str, Any] | None:
        pods = made.cluster.items("pods", namespace=made.namespace, selector=f"modelyard.dev/run={run},modelyard.dev/role=driver")
        return next((pod for pod in pods if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]), None)

    return dict(made.cluster.wait("a driver pod runs", running, within=120))


def _delete_driver(made: Site, run: str) -> None:
    made.kubectl("delete", "pod", _driver_pod(made, run)["metadata"]["name"], "--grace-period=0", "--force")


def _kill_driver(made: Site, run: str) -> None:
    """SIGKILL from outside of the pod, to the processes of the one whose control group has the pod's id."""
    uid = _driver_pod(made, run)["metadata"]["uid"]
    found = subprocess.run(["pgrep", "-f", "modelyard.run.driver"], capture_output=True, text=True, check=True).stdout.split()
    ours = [int(process) for process in found if uid in Path(f"/proc/{process}/cgroup").read_text()]
    assert ours
    for process in ours:
        os.kill(process, signal.SIGKILL)
