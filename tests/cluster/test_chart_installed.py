"""The chart installed on a cluster: pipelines run to their end, upgrades leave runs alone, and what it held outlives it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard import spec
from modelyard.kube import access, names
from tests.cluster import images
from tests.cluster.accounts import as_account
from tests.cluster.chart import CHART, Helm
from tests.cluster.harness import volumes
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.local import LocalCluster
from tests.cluster.harness.namespaces import own_namespace
from tests.cluster.site import IMAGE, Site, fill

PIPELINE = """# A comment that YAML 1.1 would not mind, and a word that it would: on
name: {name}
resources: {{pending_limit: 1h}}
steps:
  found: {{search: {{query: tiny, hub: [modelscope]}}}}
  base: {{fetch: {{model: modelscope://o/tiny}}, resources: {{overlay: {overlay}}}}}
  champion: {{promote: {{model: base, to: yard://models/tiny@champion}}}}
"""
HOLD = {"spec": {"schedulingGates": [{"name": "modelyard-tests/hold"}]}}
"""A pod waits until somebody takes this away."""


class Yard(Site):
    """A namespace with a release in it, its hub and its claims; commands of a person who has no more rights than a person needs."""

    @property
    def environ(self) -> dict[str, str]:
        address = f"http://modelyard-hub.{self.namespace}.svc:8000"
        own = {"MODELYARD_HUBS_MODELSCOPE": address, "MODELYARD_HUBS_HUGGINGFACE": address, "KUBECONFIG": str(self.home / "kubeconfig")}
        return {**super().environ, **own}

    @property
    def helm(self) -> Helm:
        """With the rights of an admin."""
        return Helm(self.cluster.kubeconfig)

    def install(self, word: str = "upgrade", **more: Any) -> str:
        """Install or upgrade; what Helm said."""
        repository, _, tag = IMAGE.rpartition(":")
        values = {
            "image": {"repository": repository, "tag": tag},
            "yard": {"storageClass": "", "size": "10Gi"},
            "hub": {"enabled": True, "storageClass": "", "size": "10Gi", "accessModes": ["ReadWriteMany"]},
            **more,
        }
        return self.helm.run(word, "yard", str(CHART), "-n", self.namespace, values=values).stdout

    def drivers(self, key: str) -> list[dict[str, Any]]:
        """The Jobs of a pipeline of the chart's."""
        return [job for job in self.jobs("driver") if job["metadata"]["name"].startswith(f"{key}-")]

    def ended(self, job: str) -> dict[str, Any]:
        """A driver's Job, when it is done."""

        def over() -> dict[str, Any] | None:
            found = self.cluster.get("job", job, namespace=self.namespace)
            return found if any(one["type"] in ("Complete", "Failed") for one in found["status"].get("conditions", [])) else None

        return dict(self.cluster.wait(f"the end of {job}", over, within=420))

    def told(self, run: str) -> dict[str, Any]:
        """How a run stands, by its ConfigMap."""
        found: dict[str, Any] = json.loads(self.cluster.get("configmap", f"{run}-status", namespace=self.namespace)["data"]["status.json"])
        return found


def text(name: str, **overlay: Any) -> str:
    return PIPELINE.format(name=name, overlay=json.dumps(overlay) if overlay else "null")


@pytest.fixture(scope="module")
def helm_there(helm: Helm) -> Helm:
    """Helm is there, before anything is made."""
    return helm


@pytest.fixture(scope="module")
def made(helm_there: Helm, local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    local_cluster.load_image(images.image("light"))
    home = tmp_path_factory.mktemp("home")
    repository = home / "hub" / "o" / "tiny"
    repository.mkdir(parents=True)
    (repository / "config.json").write_text('{"model_type": "bert"}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (repository / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with own_namespace(local_cluster) as namespace:
        yard, hub = (volumes.make_unclaimed(local_cluster, namespace, claim) for claim in ("modelyard", "modelyard-hub"))
        fill(hub, home / "hub")
        found = Yard(local_cluster, namespace, yard, hub, home)
        as_person(local_cluster, namespace, home / "kubeconfig")
        said = found.install("install")
        assert f"modelyard-hub.{namespace}.svc:8000" in said
        found.kubectl("rollout", "status", "deployment/modelyard-hub", "--timeout=60s")
        yield found


def as_person(cluster: Cluster, namespace: str, file: Path) -> None:
    """A kubeconfig with the rights that `access.person_rules` gives."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ada"}}
    role, binding = access.person_access("ada", namespace)
    binding["subjects"] = [{"kind": "ServiceAccount", "name": "ada", "namespace": namespace}]
    cluster.apply(account, role, binding, namespace=namespace)
    as_account(cluster, namespace, "ada", file)


def test_helm_test_finds_the_yard_and_the_rights(made: Yard) -> None:
    said = made.helm.run("test", "yard", "-n", made.namespace, "--logs").stdout
    assert "Phase:          Succeeded" in said
    assert "the yard can be written to, and drivers have their rights" in said


def test_helm_test_says_what_is_wrong(made: Yard) -> None:
    made.kubectl("delete", "rolebinding", "modelyard-driver")
    try:
        done = made.helm.run("test", "yard", "-n", made.namespace, "--logs", code=1)
        assert "may not create Job, get Job, list Pod" in done.stdout + done.stderr
    finally:
        made.install()  # puts back what is missing


def test_a_pipeline_of_the_values_runs_and_an_upgrade_leaves_it_alone(made: Yard) -> None:
    """A run that goes on sees its release upgraded twice: with the same values, and with another text."""
    first = {"nightly": {"spec": text("by-helm", **HOLD)}}
    made.install(pipelines=first)
    (job,) = made.drivers("nightly")

    def held() -> dict[str, Any] | None:
        pods = made.cluster.items("pods", namespace=made.namespace, selector=f"{names.STEP}=base,{names.PIPELINE}=by-helm")
        return pods[0] if pods else None

    pod = made.cluster.wait("the step that is held", held, within=300)
    made.install(pipelines=first)
    assert [one["metadata"]["uid"] for one in made.drivers("nightly")] == [job["metadata"]["uid"]]
    made.install(pipelines={"nightly": {"spec": text("by-helm")}})
    jobs = {one["metadata"]["uid"]: one for one in made.drivers("nightly")}
    assert len(jobs) == 2
    assert jobs[job["metadata"]["uid"]]["spec"] == job["spec"]
    assert not jobs[job["metadata"]["uid"]]["status"].get("conditions")
    made.kubectl("patch", "pod", pod["metadata"]["name"], "--type=json", "-p", '[{"op": "remove", "path": "/spec/schedulingGates"}]')
    runs = set()
    for one in jobs.values():
        ended = made.ended(one["metadata"]["name"])
        assert (ended["metadata"]["uid"], ended["status"].get("succeeded")) == (one["metadata"]["uid"], 1)
        run = ended["metadata"]["labels"][names.RUN]
        assert made.told(run)["state"] == "done"
        runs.add(run)
    assert len(runs) == 2
    shown = made.modelyard("ls").stdout
    assert all(run in shown for run in runs)
    made.install()  # without it: it is no longer Helm's, and still there
    assert {one["metadata"]["uid"] for one in made.drivers("nightly")} == set(jobs)


def test_a_schedule_of_the_values_is_one_for_the_command_too(made: Yard) -> None:
    """It ticks when a person asks; suspended by the command it stays so, whatever is upgraded; a change belongs to Helm."""
    scheduled = {"weekly": {"spec": text("weekly"), "schedule": "0 3 29 2 *", "timeZone": "Europe/Berlin"}}
    made.install(pipelines=scheduled)
    made.modelyard("schedule", "suspend", "weekly")
    made.install(pipelines=scheduled, nodeReader=False)
    cron = made.cluster.get("cronjob", "weekly", namespace=made.namespace)
    assert (cron["spec"]["suspend"], cron["spec"]["timeZone"]) == (True, "Europe/Berlin")
    done = made.json("schedule", "trigger", "weekly")
    assert done["state"] == "done"
    assert {name: step["state"] for name, step in done["steps"].items()}.items() >= {"found": "done", "champion": "done"}.items()
    assert "weekly" in made.modelyard("schedule", "ls").stdout
    refused = made.modelyard("schedule", "apply", made.write("weekly.yaml", text("weekly")), "--cron", "0 4 * * *", code=64)
    assert "helm upgrade" in refused.stderr
    made.install(pipelines={"weekly": {**scheduled["weekly"], "suspend": False}})
    assert made.cluster.get("cronjob", "weekly", namespace=made.namespace)["spec"]["suspend"] is False
    made.install()
    assert not made.cluster.has("cronjob", "weekly", namespace=made.namespace)


def test_what_is_wrong_with_the_steps_is_the_runs_end(made: Yard) -> None:
    """Helm cannot know what a step takes; the driver says it at once, in words."""
    made.install(pipelines={"wrong": {"spec": "name: wrong\nsteps:\n  found: {search: {qery: tiny}}\n"}})
    (job,) = made.drivers("wrong")
    ended = made.ended(job["metadata"]["name"])
    assert ended["status"]["conditions"][-1]["type"] == "Failed"
    (pod,) = made.cluster.items("pods", namespace=made.namespace, selector=f"{names.JOB}={job['metadata']['name']}")
    (status,) = pod["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 64
    assert "qery" in status["state"]["terminated"]["message"]
    assert not [one for one in made.jobs() if one["metadata"]["labels"][names.PIPELINE] == "wrong"]


@pytest.mark.slow
def test_each_door_gives_the_same_artifacts(made: Yard) -> None:
    """The command, what `render` prints by kubectl, and Helm, each on a yard of its own, so that none of them finds what another one made."""
    file = made.write("doors.yaml", text("doors"))
    yards = {claim: volumes.make_volume(made.cluster, made.namespace, claim) for claim in ("by-command", "by-kubectl", "by-helm")}
    doors: dict[str, Callable[[], object]] = {
        "by-command": lambda: made.modelyard("run", file, "-d", "--yard", "by-command"),
        "by-kubectl": lambda: made.kubectl("apply", "-f", "-", stdin=made.modelyard("render", file, "--yard", "by-kubectl").stdout),
        "by-helm": lambda: made.install(yard={"create": False, "claim": "by-helm"}, pipelines={"doors": {"spec": text("doors")}}),
    }
    runs, told = {}, {}
    for door, enter in doors.items():
        enter()
        (job,) = made.drivers("doors")
        assert job["metadata"]["labels"][names.YARD] == door
        runs[door] = made.ended(job["metadata"]["name"])["metadata"]["labels"][names.RUN]
        told[door] = made.told(runs[door])
        made.modelyard("cancel", runs[door], "--purge")  # the namespace forgets it; the next one has its name
    steps = [{name: (step["state"], step["artifact"], step["key"]) for name, step in one["steps"].items()} for one in told.values()]
    assert steps[0] == steps[1] == steps[2]
    assert [(name, bool(step[1])) for name, step in steps[0].items() if step[0] == "done"] == [("found", False), ("base", True), ("champion", False)]
    assert [one["state"] for one in told.values()] == ["done"] * 3
    known = [sorted(path.name for kind in ("actions", "artifacts") for path in (yard / kind).iterdir()) for yard in yards.values()]
    assert known[0] == known[1] == known[2]
    assert steps[0]["base"][1] in known[0]
    digest = names.pipeline_digest(spec.load(Path(file)), IMAGE)[: names.SHOWN]
    assert set(runs.values()) == {f"doors-{digest}-r1"}
    assert made.drivers("doors") == []
    made.install()


def test_a_person_has_the_rights_that_a_person_needs(made: Yard) -> None:
    """Beside what the commands above did: waiting in the foreground, the yard, logs, and an end before its time."""
    done = made.json("run", made.write("person.yaml", text("person")))
    assert done["state"] == "done"
    assert made.modelyard("logs", done["run"]).stdout
    assert "tiny" in made.modelyard("yard", "ls").stdout
    made.modelyard("run", made.write("ended.yaml", text("ended", **HOLD)), "-d")
    made.modelyard("cancel", "ended")
    with pytest.raises(Exception, match="secrets is forbidden"):
        Cluster(made.home / "kubeconfig").kubectl("get", "secrets")


def test_what_it_held_outlives_the_release(made: Yard) -> None:
    """Last: the release goes. Its claims, the yard, and what ran stay; a release of the same name finds them again."""
    made.install(pipelines={"kept": {"spec": text("kept")}})
    (job,) = made.drivers("kept")
    made.ended(job["metadata"]["name"])
    claim = made.cluster.get("pvc", "modelyard", namespace=made.namespace)
    before = sorted(path.name for path in (made.yard / "artifacts").iterdir())
    assert before
    said = made.helm.run("uninstall", "yard", "-n", made.namespace, "--wait").stdout
    assert "kept due to the resource policy" in said
    assert made.cluster.get("pvc", "modelyard", namespace=made.namespace)["metadata"]["uid"] == claim["metadata"]["uid"]
    assert made.cluster.has("pvc", "modelyard-hub", namespace=made.namespace)
    assert made.cluster.has("configmap", job["metadata"]["name"], namespace=made.namespace)
    for kind, name in (("serviceaccount", "modelyard-driver"), ("role", "modelyard-driver"), ("deployment", "modelyard-hub")):
        assert not made.cluster.has(kind, name, namespace=made.namespace)
    assert sorted(path.name for path in (made.yard / "artifacts").iterdir()) == before
    other = made.helm.run("install", "other", str(CHART), "-n", made.namespace, "--set=yard.storageClass=,yard.size=10Gi", code=1)
    assert "modelyard" in other.stderr
    assert 'must equal "other"' in other.stderr
    made.install("install", pipelines={"kept": {"spec": text("kept")}})
    assert made.cluster.get("pvc", "modelyard", namespace=made.namespace)["metadata"]["uid"] == claim["metadata"]["uid"]
    (again,) = made.drivers("kept")
    assert again["metadata"]["uid"] == job["metadata"]["uid"]
    made.kubectl("delete", "job", job["metadata"]["name"])
    made.install(pipelines={"kept": {"spec": text("kept")}})  # how it is run again
    (again,) = made.drivers("kept")
    ended = made.ended(again["metadata"]["name"])
    assert ended["status"].get("succeeded") == 1
    told = made.told(ended["metadata"]["labels"][names.RUN])
    assert told["steps"]["base"]["state"] == "reused"
