"""A training pod that is evicted goes on from its last whole checkpoint, elsewhere where its node is drained, and ends as if nothing had been."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.site import Site

PIPELINE = """
name: evicted
resources: {cpu: 1, memory: 3Gi}
steps:
  tuned:
    finetune:
      model: modelscope://sentence-transformers/all-MiniLM-L6-v2
      data: modelscope://datasets/hutto/movie-reviews
      epochs: 4
      max_length: 64
      train_rows: 400
      checkpoint_every: 2s
"""


@pytest.fixture(scope="module")
def made(demo_site: Site) -> Site:
    return demo_site


@pytest.fixture(scope="module")
def undisturbed(made: Site) -> dict[str, Any]:
    """How the training ends when nobody disturbs it, in a yard where nothing is known of it."""
    return dict(made.json("run", made.write("evicted.yaml", PIPELINE)))


@pytest.mark.slow
def test_an_evicted_pod_goes_on(made: Site, undisturbed: dict[str, Any]) -> None:
    again = _evicted(made, times=1)
    _as_undisturbed(made, again, undisturbed, attempts=2)


@pytest.mark.slow
def test_a_pod_that_is_evicted_five_times_and_drained_goes_on(made: Site, undisturbed: dict[str, Any]) -> None:
    again = _evicted(made, times=5, drain=True)
    _as_undisturbed(made, again, undisturbed, attempts=7)


def _evicted(made: Site, *, times: int, drain: bool = False) -> dict[str, Any]:
    """The same training once more, its pod evicted so often, each time after a further checkpoint; at the end its node is drained."""
    process = made.start("run", made.write("evicted.yaml", PIPELINE), "--force=tuned", "-o", "json")
    cordoned = ""
    try:
        seen: set[str] = set()
        for number in range(times + drain):
            pod = made.cluster.wait("a training pod with a new checkpoint", lambda: _training(made, seen), within=400)
            seen.add(pod["metadata"]["name"])
            if number == times:
                cordoned = pod["spec"]["nodeName"]
                made.cluster.kubectl("cordon", cordoned)
            _evict(made, pod["metadata"]["name"])
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
        if cordoned:
            made.cluster.kubectl("uncordon", cordoned)
    assert process.returncode == 0, err
    ended = dict(json.loads(out))
    if cordoned:
        last = _pods(made)[-1]
        assert last["spec"]["nodeName"] != cordoned
    return ended


def _as_undisturbed(made: Site, again: dict[str, Any], undisturbed: dict[str, Any], attempts: int) -> None:
    assert again["run"] != undisturbed["run"]
    assert again["steps"]["tuned"]["state"] == "done"
    assert again["steps"]["tuned"]["attempt"] == attempts
    assert again["steps"]["tuned"]["artifact"] == undisturbed["steps"]["tuned"]["artifact"]
    job = max(
        (job for job in made.jobs() if job["metadata"]["labels"]["modelyard.dev/step"] == "tuned"),
        key=lambda job: job["metadata"]["creationTimestamp"],
    )
    assert job["status"].get("succeeded") == 1
    assert job["status"].get("failed", 0) == 0  # what was evicted counts no retry
    resumed = [(_steps(made, again) / str(number) / "log.jsonl").read_text() for number in range(2, attempts + 1)]
    assert all('"event": "resumed"' in log for log in resumed)


def _steps(made: Site, run: dict[str, Any]) -> Any:
    return made.yard / "runs" / run["run"] / "steps" / "tuned"


def _pods(made: Site) -> list[dict[str, Any]]:
    pods = made.cluster.items("pods", namespace=made.namespace, selector="modelyard.dev/step=tuned")
    return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])


def _training(made: Site, seen: set[str]) -> dict[str, Any] | None:
    """The pod that trains now and has saved a checkpoint, unless it was seen before."""
    for pod in _pods(made):
        if pod["status"]["phase"] == "Running" and pod["metadata"]["name"] not in seen and "deletionTimestamp" not in pod["metadata"]:
            lines = made.kubectl("logs", pod["metadata"]["name"])
            if '"event": "checkpoint"' in lines:
                return pod
    return None


def _evict(made: Site, pod: str) -> None:
    """By the Eviction API, as `kubectl drain` does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": made.namespace}}
    path = f"/api/v1/namespaces/{made.namespace}/pods/{pod}/eviction"
    made.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
