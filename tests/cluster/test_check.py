"""`modelyard check` on a real cluster: what would keep a run from working is said before anything is submitted, and nothing is created."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from modelyard.kube import access
from tests.cluster.harness import accelerators, images, volumes
from tests.cluster.harness.accelerators import Accelerator
from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import ROOT, Site, site

MODEL = "NVIDIA-CHECK-96GB-MIG-4g.48gb"
SLICES = Accelerator("nvidia.com/mig-4g.48gb", 4, {"nvidia.com/mig-4g.48gb.product": MODEL})
"""Of this test alone: nobody else asks for them, and the node that has them is the only one that could take such a step."""
SLICED = {"gpus": 2, "accelerator": "nvidia-mig:4g.48gb"}
TAINT = "modelyard-tests/check=1:NoSchedule"


@pytest.fixture(scope="module")
def there(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A person's namespace in which all is as it should be."""
    with site(local_cluster, tmp_path_factory.mktemp("home"), targets=("light",)) as made:
        yield made


def pipeline(there: Site, **resources: Any) -> str:
    """A file with a step for the light image, and one that computes."""
    tuned = {"finetune": {"model": "modelscope://o/m", "data": "rows", "task": "text-classification"}, "resources": resources}
    return there.write(
        "check.yaml", json.dumps({"name": "check", "steps": {"rows": {"fetch": {"dataset": "modelscope://datasets/o/d"}}, "tuned": tuned}})
    )


def everything(there: Site) -> list[str]:
    """What is in the namespace, events aside."""
    kinds = "jobs,cronjobs,pods,configmaps,secrets,persistentvolumeclaims,serviceaccounts,roles,rolebindings,services,resourcequotas,limitranges"
    return sorted(there.kubectl("get", kinds, "-o", "name").split())


def checked(there: Site, *words: str, code: int, resources: dict[str, Any] | None = None, **environ: str) -> dict[str, dict[str, Any]]:
    """The verdicts by their names; the exit code is the given one, and nothing was created."""
    file, before = pipeline(there, **(resources or {})), everything(there)
    found = there.json("check", file, *words, code=code, **environ)
    assert everything(there) == before
    return {row["check"]: row for row in found["verdicts"]}


def refused(there: Site, row: str, category: str, code: int, *words: str, resources: dict[str, Any] | None = None, **environ: str) -> dict[str, Any]:
    """Hold a verdict to what it should say; all that a run needs and that is looked at before it is ok."""
    rows = checked(there, code=code, resources=resources, **environ)
    one = rows[row]
    assert (one["verdict"], one["category"], one["exit_code"]) == ("no", category, code), one
    told = "\n".join([one["why"], *one["lines"], one["remedy"]])
    assert [word for word in words if word not in told] == [], told
    assert one["remedy"]
    return one


@contextmanager
def added(there: Site, manifest: dict[str, Any]) -> Iterator[None]:
    """Something more in the namespace, for a while."""
    there.cluster.apply(manifest, namespace=there.namespace)
    try:
        yield
    finally:
        there.kubectl("delete", manifest["kind"].lower(), manifest["metadata"]["name"], "--wait=true")


@contextmanager
def without(there: Site, kind: str, name: str) -> Iterator[None]:
    """Something less in the namespace, for a while."""
    kept = json.loads(there.kubectl("get", kind, name, "-o", "json"))
    kept["metadata"] = {key: value for key, value in kept["metadata"].items() if key in ("name", "labels")}
    there.kubectl("delete", kind, name)
    try:
        yield
    finally:
        there.cluster.apply(kept, namespace=there.namespace)


def test_a_good_namespace_is_all_ok(there: Site) -> None:
    rows = checked(there, code=0, resources={"gpus": 1})
    assert {name: row["why"] for name, row in rows.items() if row["verdict"] == "no"} == {}
    unknown = {name for name, row in rows.items() if row["verdict"] == "unknown"}
    assert unknown <= {"image modelyard:0.1.0-cuda"}, rows  # which this test does not bring to the nodes
    assert rows["cluster"]["why"].startswith("the API server answers: v1.")
    assert rows["fit of step tuned"]["why"].startswith("now: node")
    assert any("nvidia.com/gpu (NVIDIA-H100-80GB-HBM3)" in line for line in rows["fit of step tuned"]["lines"])
    text = there.modelyard("check", pipeline(there)).stdout
    assert "hub modelscope" in text
    assert "namespace         " + there.namespace in text  # the settings in force
    assert "Role" not in text


def test_claims(there: Site) -> None:
    refused(there, "claim", "claim-missing", 66, "there is no claim 'absent'", "yard create", MODELYARD_YARD="absent")

    def claim(name: str, mode: str, **spec: Any) -> dict[str, Any]:
        whole = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}, **spec}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": whole}

    with added(there, claim("unbound", "ReadWriteMany", storageClassName="")):
        refused(there, "claim", "claim-unbound", 69, "unbound has no volume", "describe pvc", MODELYARD_YARD="unbound")
    with added(there, claim("classless", "ReadWriteMany", storageClassName="modelyard-absent")):
        refused(there, "claim", "storage-class-missing", 66, "modelyard-absent", MODELYARD_YARD="classless")
    volumes.make_volume(there.cluster, there.namespace, "alone", access_modes=("ReadWriteOncePod",))
    refused(there, "access mode", "claim-access-mode", 64, "ReadWriteOncePod", MODELYARD_YARD="alone")
    volumes.make_volume(there.cluster, there.namespace, "once", access_modes=("ReadWriteOnce",))
    assert "one node" in checked(there, code=0, MODELYARD_YARD="once")["access mode"]["why"]


def test_quota_and_limits(there: Site) -> None:
    def quota(**hard: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}

    with added(there, quota(**{"requests.nvidia.com/gpu": "1"})):
        there.cluster.wait("the quota is counted", lambda: there.cluster.get("resourcequota", "q", namespace=there.namespace)["status"].get("hard"))
        refused(there, "quota", "quota", 64, "requests.nvidia.com/gpu: 1 allowed, 0 used, 2 asked", resources={"gpus": 2})
        assert checked(there, code=0, resources={"gpus": 1})["quota"]["verdict"] == "ok"
    with added(there, quota(pods="2")):  # of which the hub's is one
        there.cluster.wait(
            "the quota is counted",
            lambda: there.cluster.get("resourcequota", "q", namespace=there.namespace)["status"].get("used", {}).get("pods") == "1",
        )
        refused(there, "quota", "quota", 69, "pods: 2 allowed, 1 used, 2 asked")
    limits = {"limits": [{"type": "Container", "max": {"memory": "2Gi"}}]}
    with added(there, {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": limits}):
        refused(there, "limit range", "limit-range", 64, "at most 2 GiB, 6 GiB asked (step tuned)", resources={"gpus": 1})


def test_pod_security_and_what_the_server_does_not_take(there: Site) -> None:
    overlay = {"overlay": {"spec": {"hostNetwork": True}}}
    refused(there, "pod security", "pod-security", 81, "step tuned", "hostNetwork", "overlay", resources=overlay)
    refused(there, "admission", "admission", 64, "tolerations[0].key", resources={"tolerations": [{"key": "a b", "operator": "Exists"}]})


@contextmanager
def tainted(cluster: LocalCluster) -> Iterator[None]:
    cluster.kubectl("taint", "node", "node2", TAINT)
    try:
        yield
    finally:
        cluster.kubectl("taint", "node", "node2", f"{TAINT}-")


@contextmanager
def cordoned(cluster: LocalCluster) -> Iterator[None]:
    cluster.kubectl("cordon", "node2")
    try:
        yield
    finally:
        cluster.kubectl("uncordon", "node2")


@contextmanager
def taken(there: Site) -> Iterator[None]:
    """All but one of the slices are in use."""
    asks = {"resources": {"limits": {SLICES.resource: "3"}}}
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "c", "image": images.BUSYBOX, "command": ["sleep", "600"], "securityContext": security, **asks}
    own = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": own, "terminationGracePeriodSeconds": 0}
    with added(there, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "taker"}, "spec": spec}):
        there.cluster.wait("it is placed", lambda: there.cluster.get("pod", "taker", namespace=there.namespace)["spec"].get("nodeName"))
        yield


def test_where_a_step_would_go(there: Site) -> None:
    refused(there, "fit of step tuned", "never-fits", 64, "8 nvidia.com/gpu", "9 asked", "modelyard gpus", resources={"gpus": 9})
    refused(there, "fit of step tuned", "gpu-model", 64, "not the model asked for, A100", resources={"gpus": 1, "gpu_model": "A100"})
    with accelerators.given(there.cluster, "node2", SLICES):
        rows = checked(there, code=0, resources={**SLICED, "gpu_model": MODEL})
        assert f"node2: 4 nvidia.com/mig-4g.48gb ({MODEL}), 0 in use, 4 free; 2 asked" in rows["fit of step tuned"]["lines"]
        cases: list[tuple[Callable[[], AbstractContextManager[None]], str, int, str]] = [
            (lambda: tainted(there.cluster), "taint", 64, "{key: modelyard-tests/check, operator: Exists}"),
            (lambda: cordoned(there.cluster), "cordoned", 69, "kubectl uncordon node2"),
            (lambda: taken(there), "busy", 69, f"4 nvidia.com/mig-4g.48gb ({MODEL}), 3 in use, 1 free; 2 asked"),
        ]
        for provoked, category, code, words in cases:
            with provoked():
                refused(there, "fit of step tuned", category, code, words, resources=SLICED)


def test_gpus(there: Site) -> None:
    with accelerators.given(there.cluster, "node2", SLICES), taken(there):
        items = {item["model"]: item for item in there.json("gpus")["items"]}
        one = items[MODEL]
        assert (one["vendor"], one["resource"], one["nodes"], one["allocatable"]) == ("nvidia", SLICES.resource, 1, 4)
        assert (one["used"], one["free"], one["block"], one["unusable"]) == (3, 1, 1, [])
        assert items["NVIDIA-H100-80GB-HBM3"]["allocatable"] == 16
        with cordoned(there.cluster):
            one = next(item for item in there.json("gpus")["items"] if item["model"] == MODEL)
            assert (one["free"], one["block"]) == (0, 0)
            assert one["unusable"] == [{"node": "node2", "count": 4, "why": "cordoned"}]
        assert MODEL in there.modelyard("gpus", "-o", "name").stdout.split()


def test_a_queue_that_is_not_there(there: Site) -> None:
    """On a cluster without Kueue, too, whose API server does not know what a LocalQueue is."""
    one = refused(there, "queue absent", "queue-missing", 66, "there is no LocalQueue 'absent'", MODELYARD_QUEUE="absent")
    assert "suspended" in one["why"]


def test_a_priority_class_that_is_not_there(there: Site) -> None:
    rows = checked(there, code=66, resources={"priority": "modelyard-absent"})
    assert rows["priority modelyard-absent"]["category"] == "priority-missing"
    assert rows["admission"]["verdict"] == "ok"  # the same thing is not said twice


def test_secrets(there: Site) -> None:
    named = {"MODELYARD_SECRET": "absent"}
    refused(there, "token secret", "secret-missing", 66, "there is no Secret 'absent'", "create secret generic absent", **named)
    refused(there, "pull secret", "secret-missing", 66, "there is no Secret 'pulls'", "docker-registry", MODELYARD_PULL_SECRET="pulls")
    refused(there, "pull secret", "image-refused", 64, "is of type Opaque", MODELYARD_PULL_SECRET="modelyard-tokens")
    shown = there.modelyard("check", "-o", "yaml").stdout
    assert "a-token-of-this-test" not in shown


def test_a_driver_without_its_role(there: Site) -> None:
    with without(there, "role", "modelyard-driver"):
        one = refused(there, "driver's rights", "no-permission", 77, "modelyard-driver may not get jobs", "kubectl apply")
        assert any(line.startswith("jobs: not get") for line in one["lines"])
        grants = there.json("check", code=77)["grants"]
        assert [item["rules"] for item in grants if item["kind"] == "Role"] == [access.driver_rules()]
        text = there.modelyard("check", code=77).stdout
        there.kubectl("apply", "--dry-run=server", "-f", "-", stdin="---" + text.split("\n---", 1)[1])  # as an admin would
    with without(there, "serviceaccount", "modelyard-driver"):
        refused(there, "driver's account", "service-account-missing", 66, "there is no service account 'modelyard-driver'")
    assert checked(there, code=0)["driver's rights"]["verdict"] == "ok"


def test_hubs(there: Site) -> None:
    absent = f"http://absent.{there.namespace}.svc:8000"
    refused(there, "hub modelscope", "unavailable", 69, "there is no Service absent", MODELYARD_HUBS_MODELSCOPE=absent)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "down"}, "spec": {"selector": {"app": "none"}, "ports": [{"port": 8000}]}}
    with added(there, service):
        down = f"http://down.{there.namespace}:8000"
        refused(there, "hub modelscope", "unavailable", 69, "nothing is ready behind Service down", MODELYARD_HUBS_MODELSCOPE=down)
    row = checked(there, code=0, MODELYARD_HUBS_MODELSCOPE="http://172.30.0.1:9")["hub modelscope"]  # of a private network, which pods may see
    assert row["verdict"] == "unknown"
    assert "does not answer this machine" in row["why"]


def test_without_rights_on_nodes_and_without_any(there: Site) -> None:
    """A person with the Role that the project hands out, and one with none."""
    person = f"system:serviceaccount:{there.namespace}:person"
    there.cluster.apply(*access.person_access(person, there.namespace), namespace=there.namespace)
    config = json.loads(there.cluster.kubectl("config", "view", "--raw", "-o", "json"))
    for user, code, verdict in (("person", 0, "ok"), ("nobody", 77, "no")):
        there.kubectl("create", "serviceaccount", user)
        config["users"][0]["user"] = {"token": there.kubectl("create", "token", user).strip()}
        file = there.write(f"{user}.kubeconfig", json.dumps(config))
        rows = checked(there, code=code, resources={"gpus": 1}, KUBECONFIG=file)
        assert rows["rights to run"]["verdict"] == verdict
        assert {rows[name]["verdict"] for name in ("fit of step tuned", "driver's rights", "token secret")} == {"unknown"}
        assert "capacity unknown" in rows["fit of step tuned"]["why"]
        done = there.modelyard("gpus", code=77, KUBECONFIG=file)
        assert "capacity unknown" in done.stderr
        assert "kubectl create clusterrole modelyard-nodes" in done.stderr
        assert "nodeReader: true" in done.stderr
    assert rows["rights to run"]["lines"][1] == "jobs: not get, list, create"
    assert "you may not get persistentvolumeclaims" in rows["rights to run"]["why"]


def test_no_cluster_and_no_namespace(there: Site) -> None:
    rows = there.json("check", code=66, MODELYARD_NAMESPACE="modelyard-absent")["verdicts"]
    assert rows[-1]["check"] == "namespace"
    assert "there is no namespace" in rows[-1]["why"]
    config = json.loads(there.cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    rows = there.json("check", code=69, KUBECONFIG=there.write("dead.kubeconfig", json.dumps(config)))["verdicts"]
    assert [(row["check"], row["verdict"], row["exit_code"]) for row in rows] == [("cluster", "no", 69)]
    assert there.json("check", code=66, KUBECONFIG=str(ROOT / "absent"))["verdicts"][0]["exit_code"] == 66
