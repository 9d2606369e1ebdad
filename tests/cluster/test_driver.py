"""The driver on a real cluster: killed as often as one likes, submitted by ten at once, cancelled, on this machine; a light pipeline in one image."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard import spec
from modelyard.errors import NoInput
from modelyard.kube import client, names
from modelyard.kube.place import Place
from modelyard.run.remote import drive_here, submit
from modelyard.run.settings import Settings
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.yard.runs import RunState, RunStatus
from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import IMAGE, PORT, Site, fill, site

LIGHT = """
name: {name}
steps:
  base: {{fetch: {{model: modelscope://o/{name}}}}}
  release: {{promote: {{model: base, to: yard://models/{name}@{alias}}}}}
"""
NOWHERE = """
name: nowhere
resources: {pending_limit: 1h}
steps:
  far: {search: {query: base, hub: [modelscope]}, resources: {overlay: {spec: {nodeSelector: {nobody: has-this}}}}}
"""


@pytest.fixture(scope="module")
def there(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hub = tmp_path_factory.mktemp("hub")
    for name in ("killed", "changed", "ten", "here"):  # of different bytes, so that no pipeline finds what another one has fetched
        repository = hub / "o" / name
        repository.mkdir(parents=True)
        (repository / "config.json").write_text('{"model_type": "bert"}')
        header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        (repository / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with site(local_cluster, tmp_path_factory.mktemp("home"), targets=("light",)) as made:
        fill(made.hub, hub)
        yield made


@pytest.fixture
def api(there: Site, monkeypatch: pytest.MonkeyPatch) -> client.Client:
    monkeypatch.setenv("KUBECONFIG", str(there.cluster.kubeconfig))
    return client.connect(namespace=there.namespace)


def pipeline(there: Site, name: str, text: str = LIGHT, alias: str = "production") -> Pipeline:
    return spec.load(there.write(f"{name}.yaml", text.format(name=name, alias=alias)))


def place(there: Site) -> Place:
    return Place(namespace=there.namespace, image=IMAGE, claim="modelyard", secret="modelyard-tokens")


def settings(there: Site, **update: Any) -> Settings:
    return Settings(Path("/nowhere"), **{"hubs": {"modelscope": f"http://hub.{there.namespace}.svc:{PORT}"}, **update})


def status(api: client.Client, run: str) -> RunStatus | None:
    found = api.get("ConfigMap", names.status_name(run))
    return RunStatus.model_validate_json(found["data"]["status.json"]) if found else None


def end(there: Site, api: client.Client, run: str) -> RunStatus:
    def ended() -> RunStatus | None:
        found = status(api, run)
        return found if found and found.state is not RunState.RUNNING else None

    found: RunStatus = there.cluster.wait(f"the end of {run}", ended, within=240)
    return found


def driver_pods(api: client.Client, run: str) -> list[dict[str, Any]]:
    return api.list("Pod", {names.RUN: run, names.ROLE: "driver"})


@pytest.mark.slow  # test_quickstart.py sees the same of a larger run
def test_a_driver_that_is_killed_three_times_costs_nothing(there: Site, api: client.Client) -> None:
    run, attached = submit(pipeline(there, "killed"), settings(there), place(there), api)
    assert not attached
    killed: set[str] = set()
    for begun in ("base", "release", "release"):

        def victim(begun: str = begun) -> dict[str, Any] | None:
            """A driver that was not killed yet and has taken the run up, once the step has begun."""
            found = status(api, run)
            pods = [pod for pod in driver_pods(api, run) if pod["metadata"]["uid"] not in killed and pod["status"].get("phase") == "Running"]
            at_it = found and (found.steps[begun].state.value == "running" or found.state is not RunState.RUNNING)
            return pods[0] if pods and at_it else None

        pod = there.cluster.wait("a driver to kill", victim, within=120)
        killed.add(pod["metadata"]["uid"])
        assert api.delete("Pod", pod["metadata"]["name"], uid=pod["metadata"]["uid"], grace=0)
    found = end(there, api, run)
    assert (found.state, found.exit_code) == (RunState.DONE, 0)
    jobs = there.jobs()
    ours = [job for job in jobs if job["metadata"]["labels"][names.RUN] == run]
    assert sorted(job["metadata"]["labels"][names.STEP] for job in ours) == ["base", "release"]
    assert all(job["status"].get("succeeded") == 1 and not job["status"].get("failed") for job in ours)
    assert {step.attempt for step in found.steps.values()} == {1}
    driver = there.cluster.wait("the driver's Job to end", lambda: _finished(api, run), within=60)
    assert driver["status"]["succeeded"] == 1
    owners = [owner["uid"] for job in ours for owner in job["metadata"]["ownerReferences"]]
    assert owners == [driver["metadata"]["uid"]] * 2
    mirrored = json.loads(api.get("ConfigMap", names.status_name(run))["data"]["results.json"])  # type: ignore[index]
    assert mirrored["results"]["release"]["to"] == "yard://models/killed@production"


def _finished(api: client.Client, run: str) -> dict[str, Any] | None:
    job = api.get("Job", run)
    return job if job and any(one["type"] == "Complete" for one in job["status"].get("conditions", [])) else None


def test_a_changed_setting_runs_only_what_depends_on_it(there: Site, api: client.Client) -> None:
    first, _ = submit(pipeline(there, "changed"), settings(there), place(there), api)
    base = end(there, api, first).steps["base"]
    second, _ = submit(pipeline(there, "changed", alias="staging"), settings(there), place(there), api)
    found = end(there, api, second)
    assert second != first
    assert {name: step.state.value for name, step in found.steps.items()} == {"base": "reused", "release": "done"}
    assert found.steps["base"].artifact == base.artifact
    assert [job["metadata"]["labels"][names.STEP] for job in there.jobs() if job["metadata"]["labels"][names.RUN] == second] == ["release"]


def test_ten_submits_at_once_have_one_driver(there: Site, api: client.Client) -> None:
    file = there.write("ten.yaml", LIGHT.format(name="ten", alias="production"))
    processes = [there.start("run", file, "-d", "-q") for _ in range(10)]
    try:
        ended = [(process.communicate(timeout=120), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [code for _, code in ended] == [0] * 10, ended
    runs = {out.strip() for (out, _), _ in ended}
    assert len(runs) == 1
    drivers = [job["metadata"]["name"] for job in there.jobs("driver") if job["metadata"]["labels"][names.PIPELINE] == "ten"]
    assert drivers == list(runs)
    assert end(there, api, drivers[0]).state is RunState.DONE


def test_a_step_without_a_place_says_so_and_a_cancel_ends_its_run(there: Site, api: client.Client) -> None:
    run, _ = submit(spec.load(there.write("nowhere.yaml", NOWHERE)), settings(there), place(there), api)

    def waits() -> bool:
        found = status(api, run)
        return bool(found and "didn't match Pod's node affinity/selector" in found.steps["far"].note)

    there.cluster.wait("the scheduler's words", waits, within=60)
    assert api.patch("ConfigMap", names.status_name(run), {"data": {"cancel": "now"}})
    found = end(there, api, run)
    assert (found.state, found.exit_code, found.steps["far"].state.value) == (RunState.CANCELLED, 130, "stopped")
    assert [job for job in there.jobs() if job["metadata"]["labels"][names.RUN] == run] == []


@pytest.mark.slow  # test_equal.py sees the same of a larger run
def test_a_driver_here_needs_no_driver_there(there: Site, api: client.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = drive_here(pipeline(there, "here"), settings(there), place(there), api, View())
    assert (found.state, {step.state.value for step in found.steps.values()}) == (RunState.DONE, {"done"})
    assert [job for job in there.jobs("driver") if job["metadata"]["labels"][names.PIPELINE] == "here"] == []
    assert status(api, found.run) == found
    artifact = found.steps["base"].artifact
    assert (there.yard / "artifacts" / str(artifact) / "manifest.json").is_file()
    assert sorted(path.name for path in (there.yard / "runs" / found.run / "steps").iterdir()) == ["base", "release"]
    assert os.listdir(tmp_path / "modelyard" / there.namespace / "artifacts") == []


def test_what_is_missing_is_said_before_anything_is_made(there: Site, api: client.Client) -> None:
    with pytest.raises(NoInput) as raised:
        submit(pipeline(there, "unmade"), settings(there), place(there).model_copy(update={"claim": "nothing"}), api)
    assert "yard create" in raised.value.remedy
    there.kubectl("delete", "serviceaccount", names.DRIVER_ACCOUNT)
    with pytest.raises(NoInput, match="no service account"):
        submit(pipeline(there, "unmade"), settings(there), place(there), api)
    assert [job for job in there.jobs("driver") if job["metadata"]["labels"][names.PIPELINE] == "unmade"] == []
