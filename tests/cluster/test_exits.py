"""The exit table on a real cluster: each row is provoked by a real pod, and ends as the table says.

What is looked at: the exit code of the container, the class in its termination message, how many pods there were, the Job's condition and reason, and
what the driver would make of it (kube.ends). All Jobs run side by side in one namespace; the tests look at how each ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import REGISTRY, Rule
from modelyard.hubs.store import Store
from modelyard.kube import ends
from modelyard.yard import Yard
from modelyard.yard.runs import RunState
from tests.cluster import images
from tests.cluster.harness import network, volumes
from tests.cluster.harness.local import LocalCluster
from tests.cluster.stepjobs import FRONT, NOBODY, commit, evict, fetch, make_hub, manifest, run_of, wrong

CASES = {
    "ok": fetch("small"),
    "usage": fetch("small", broken='{"run": "a"}'),
    "data": wrong("raise:data"),
    "no-input": fetch("nothing"),
    "unavailable": fetch("other", hub=NOBODY),
    "bug": wrong("bug"),
    "no-space": fetch("large", claim="full"),
    "io": fetch("small", claim="frozen"),
    "evicted": wrong("resume:evicted"),
    "deleted": wrong("resume:deleted"),
    "corrupt": fetch("corrupt"),
    "no-permission": fetch("private", hub="served"),
    "no-accelerator": wrong("none", resources={"gpus": 1}),
    "deadline": wrong("sleep", resources={"time_limit": "1s"}),
    "refused": fetch("pickled"),
    "host-oom": wrong("memory", memory="160Mi"),
    "full-memory": wrong("full-memory", memory="160Mi"),
    "killed": wrong("signal:9"),
    "fault": wrong("fault"),
}


class Table:
    """The namespace in which all cases run at once, and what was seen of their pods, also of those that are gone."""

    def __init__(self, cluster: LocalCluster, namespace: str, served: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.served = served
        self.pods: dict[str, dict[str, Any]] = {}
        self.yards = {"modelyard": volumes.make_volume(cluster, namespace, "modelyard"), "hub": volumes.make_volume(cluster, namespace, "hub")}
        self.yards["full"] = volumes.make_small_volume(cluster, namespace, "full", mebibytes=4)
        self.yards["frozen"] = volumes.make_volume(cluster, namespace, "frozen")
        make_hub(self.yards["hub"])
        cluster.apply(FRONT, namespace=namespace)
        for claim in ("modelyard", "full", "frozen"):
            Yard.open(self.yards[claim])
        volumes.make_read_only(self.yards["frozen"])
        self.inputs = {name: commit(self.yards["modelyard"], name, kind) for name, kind in (("model", "model"), ("data", "dataset"))}

    def yard(self) -> Yard:
        return Yard.open(self.yards["modelyard"], write=False)

    def manifest(self, name: str, number: int = 1) -> dict[str, Any]:
        """The Job of a case."""
        return manifest(name, CASES[name], self.namespace, inputs=self.inputs, served=self.served, number=number)

    def begin(self, *names: str, number: int = 1) -> None:
        """Create the Jobs of cases."""
        self.cluster.apply(*(self.manifest(name, number) for name in names))

    def job(self, name: str, number: int = 1) -> dict[str, Any]:
        """The Job as it is now."""
        return self.cluster.get("job", self.manifest(name, number)["metadata"]["name"], namespace=self.namespace)

    def ended(self, name: str, number: int = 1) -> dict[str, Any]:
        """The Job when it has ended."""
        return dict(self.cluster.wait(f"Job of {name}", lambda: (job := self.job(name, number)) and ends.finished(job) and job, within=240))

    def pods_of(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every pod of a Job, as it was last seen, in the order of their creation."""
        uid = job["metadata"]["uid"]
        mine = [pod for pod in self.pods.values() if pod["metadata"]["ownerReferences"][0]["uid"] == uid]
        return sorted(mine, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def ends(self, name: str, number: int = 1) -> tuple[dict[str, Any], list[int], list[str]]:
        """The Job when it has ended, and the exit codes and classes of its pods ("": it said nothing)."""
        job = self.ended(name, number)
        wait = lambda: all(ends.terminated(pod) for pod in self.pods_of(job))  # noqa: E731
        self.cluster.wait(f"pods of {name} were seen to end", wait, within=30)
        containers = [ends.terminated(pod) or {} for pod in self.pods_of(job)]
        return job, [container["exitCode"] for container in containers], [category(container) for container in containers]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what is seen of pods."""
        words = ("get", "pods", f"--namespace={self.namespace}", "--watch", "--output=json")
        command = [str(program()), f"--kubeconfig={self.cluster.kubeconfig}", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            threading.Thread(target=self._watch, args=(process,), daemon=True).start()
            try:
                yield
            finally:
                process.kill()

    def _watch(self, process: subprocess.Popen[str]) -> None:
        text, decoder = "", json.JSONDecoder()
        assert process.stdout
        for line in process.stdout:
            text += line
            if line == "}\n":
                pod, _ = decoder.raw_decode(text)
                self.pods[pod["metadata"]["uid"]] = pod
                text = ""

    def events(self, name: str) -> set[str]:
        """What the log of a case's last attempt says so far."""
        try:
            attempts = self.yard().runs.get(run_of(name)).attempts("it")
            return {json.loads(line)["event"] for line in attempts[-1].log.read_text().splitlines()} if attempts else set()
        except Exception:  # noqa: BLE001  # there is no run yet, or a line is being written
            return set()


def program() -> Path:
    from tests.cluster.harness.binaries import program as found

    return Path(found("kubectl"))


def category(container: Mapping[str, Any]) -> str:
    try:
        return str(json.loads(container.get("message", "")).get("category", "ok"))
    except ValueError:
        return ""


@pytest.fixture(scope="module")
def table(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """All cases, begun."""
    local_cluster.load_image(images.image("light"))
    namespace = f"exits-{os.getpid()}"
    local_cluster.make_namespace(namespace)
    try:
        folder = tmp_path_factory.mktemp("served")
        make_hub(folder / "hub")
        with served(folder) as address:
            made = Table(local_cluster, namespace, address)
            with made.watching():
                made.begin(*CASES)
                yield made
    finally:
        local_cluster.remove_namespace(namespace)
        volumes.remove_volumes(local_cluster, namespace)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The hub behind an address that pods reach, with a private repository."""
    import sys

    store = Store(folder / "hub")
    store.mark(store.repo("model", "me", "private"), private=True)
    (folder / "token").write_text("a-token-that-nobody-is-given\n")
    (folder / "token").chmod(0o600)
    words = ["hub", "serve", str(folder / "hub"), "--host", network.HOST, "--port", "0", "--token-file", str(folder / "token"), "-q"]
    with subprocess.Popen([sys.executable, "-m", "modelyard", *words], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@pytest.mark.parametrize(
    "name",
    ["usage", "data", "no-input", "bug", "no-space", "no-permission", "no-accelerator", "deadline", "refused", "host-oom"],
)
def test_what_cannot_get_better_fails_the_job_at_once(table: Table, name: str) -> None:
    job, codes, said = table.ends(name)
    failure = REGISTRY[name]
    assert failure.rule is Rule.FAIL
    assert (codes, said) == ([failure.exit_code], [name])
    assert reason(job) == "PodFailurePolicy"
    outcome = ends.outcome(job, table.pods_of(job))
    assert (outcome.category, outcome.exit_code) == (name, failure.exit_code)
    assert outcome.remedy
    if name == "host-oom":
        assert "memory: 1Gi" in outcome.remedy
    if name != "usage" and CASES[name].claim == "modelyard":
        status = table.yard().runs.get(run_of(name)).status()
        assert (status.state, status.exit_code) == (RunState.FAILED, failure.exit_code)


@pytest.mark.parametrize("name", [pytest.param("unavailable", marks=pytest.mark.slow), "io", "corrupt"])
def test_what_may_pass_is_tried_three_times(table: Table, name: str) -> None:
    job, codes, said = table.ends(name)
    failure = REGISTRY[name]
    assert failure.rule is Rule.COUNT
    assert (codes, said) == ([failure.exit_code] * 3, [name] * 3)
    assert reason(job) == "BackoffLimitExceeded"
    assert ends.outcome(job, table.pods_of(job)).category == name


@pytest.mark.parametrize("name", ["evicted", "deleted"])
def test_who_is_asked_to_stop_is_replaced_and_goes_on(table: Table, name: str) -> None:
    """By an eviction, which Kubernetes itself knows to be nobody's fault, and by somebody who deletes the pod: there the exit code alone says it."""
    table.cluster.wait("it is at work", lambda: "polled" in table.events(name), within=120)
    (pod,) = [pod for pod in table.pods_of(table.job(name)) if not ends.terminated(pod)]
    if name == "evicted":
        evict(table.cluster, table.namespace, pod["metadata"]["name"])
    else:
        table.cluster.kubectl("-n", table.namespace, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    job, codes, said = table.ends(name)
    assert (codes, said) == ([75, 0], ["yielded", "ok"])
    assert ends.finished(job) == "Complete"
    assert not job["status"].get("failed"), "it counts no retry"
    first, _ = table.pods_of(job)
    assert bool(ends.disruption(first)) == (name == "evicted")
    attempts = table.yard().runs.get(run_of(name)).attempts("it")
    assert [attempt.ended() for attempt in attempts] == ["yielded", "ok"]


def test_a_good_end(table: Table) -> None:
    job, codes, said = table.ends("ok")
    assert (codes, said, ends.finished(job)) == ([0], ["ok"], "Complete")
    outcome = ends.outcome(job, table.pods_of(job))
    assert (outcome.attempt, outcome.exit_code) == (1, 0)
    assert outcome.artifact
    assert table.yard().artifacts.get(outcome.artifact).kind == "model"


def test_work_that_is_killed_counts_and_a_fourth_attempt_without_progress_is_not_made(table: Table) -> None:
    job, codes, said = table.ends("killed")
    assert (codes, said, reason(job)) == ([137] * 3, ["crashed"] * 3, "BackoffLimitExceeded")
    table.begin("killed", number=2)
    job, codes, said = table.ends("killed", number=2)
    assert (codes, said, reason(job)) == ([84], ["no-progress"], "PodFailurePolicy")


def test_a_frame_that_fails_itself_counts_and_is_a_crash(table: Table) -> None:
    job, codes, said = table.ends("fault")
    assert (codes, said, reason(job)) == ([139] * 3, [""] * 3, "BackoffLimitExceeded")
    outcome = ends.outcome(job, table.pods_of(job))
    assert (outcome.category, outcome.exit_code) == ("crashed", 137)
    assert "SIGSEGV" in outcome.what


def test_a_pod_that_is_killed_as_a_whole_near_its_limit_is_named_by_the_next_one(table: Table) -> None:
    """As where the kernel ends the whole group: nobody is left who could say anything."""
    table.cluster.wait("its memory is full", lambda: "full" in table.events("full-memory"), within=120)
    (pod,) = table.pods_of(table.job("full-memory"))
    kill_all(pod["metadata"]["uid"])
    job, codes, said = table.ends("full-memory")
    assert (codes, said, reason(job)) == ([137, 83], ["", "host-oom"], "PodFailurePolicy")
    outcome = ends.outcome(job, table.pods_of(job))
    assert "memory: 1Gi" in outcome.remedy
    second = table.yard().runs.get(run_of("full-memory")).attempts("it")[1]
    assert "working" not in {json.loads(line)["event"] for line in second.log.read_text().splitlines()}, "before it loads anything"


def reason(job: Mapping[str, Any]) -> str:
    (found,) = [one["reason"] for one in job["status"]["conditions"] if (one["type"], one["status"]) == ("Failed", "True")]
    return str(found)


def kill_all(uid: str) -> None:
    """SIGKILL, from the node, to every process of a pod's step."""
    killed = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and uid in (process / "cgroup").read_text() and b"modelyard_jobs" in (process / "cmdline").read_bytes():
                killed.append(int(process.name))
        except OSError:
            continue  # it ended
    for pid in sorted(killed):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # the first of a container takes the others along
    assert killed
