"""Rights both ways, by the real API server: a driver can do what it needs, and nothing beyond; a tenant's cannot reach another tenant's."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modelyard.errors import NoPermission
from modelyard.kube import access, names
from modelyard.kube.client import Client, connect
from tests.cluster.accounts import as_account
from tests.cluster.chart import Helm, of_kind
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import BUSYBOX
from tests.cluster.harness.namespaces import own_namespace
from tests.cluster.harness.state import HarnessFailure
from tests.unit.kube.manifests import ROOT

ACCESS = ROOT / "examples" / "cluster" / "access.yaml"
GOLDEN = Path(__file__).with_name("golden") / "driver-rights.txt"


class Tenant(NamedTuple):
    """A namespace with a driver's account, a Secret and a claim that the driver was not told of. driver: a cluster with the driver's token alone."""

    namespace: str
    driver: Cluster

    @property
    def account(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{names.DRIVER_ACCOUNT}"

    def refused(self, *words: str, stdin: str | None = None) -> str:
        """What kubectl says against it, as the driver; a failure of the test where it is allowed."""
        with pytest.raises(HarnessFailure) as failure:
            self.driver.kubectl(*words, stdin=stdin)
        return str(failure.value)


@pytest.fixture(scope="module")
def tenants(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tenant, Tenant]]:
    home = tmp_path_factory.mktemp("home")
    with own_namespace(cluster) as first, own_namespace(cluster) as second:
        yield tenant(cluster, first, home), tenant(cluster, second, home)


def tenant(cluster: Cluster, namespace: str, home: Path) -> Tenant:
    cluster.kubectl("-n", namespace, "apply", "-f", str(ACCESS))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "private"}, "stringData": {"word": f"of-{namespace}"}}
    asked = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"yard-of-{namespace}"}, "spec": asked}
    cluster.apply(secret, claim, SOME_POD, namespace=namespace)
    cluster.wait_for_pod("some-pod", "Running", namespace=namespace)
    return Tenant(namespace, as_account(cluster, namespace, names.DRIVER_ACCOUNT, home / f"{namespace}.yaml"))


def job(name: str, **spec: Any) -> dict[str, Any]:
    """A Job that passes `restricted`. spec: more of its pod."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "step", "image": BUSYBOX, "command": ["true"], "securityContext": security}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container | spec.pop("container", {})],
        **spec,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"}, "spec": job("own")["spec"]["template"]["spec"]}
SOME_POD = {**POD, "metadata": {"name": "some-pod"}, "spec": job("", container={"command": ["sleep", "600"]})["spec"]["template"]["spec"]}
CRON = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "own"},
    "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job("own")["spec"]}},
}
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "more"},
    "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}],
}


# --- what it may


def test_rights_are_the_golden(cluster: Cluster, tenants: tuple[Tenant, Tenant]) -> None:
    """`kubectl auth can-i --list`: what the Role gives is the golden, and the rest is what every account may."""
    mine = listed(cluster, tenants[0].namespace, names.DRIVER_ACCOUNT)
    everybodys = listed(cluster, tenants[0].namespace, "default")
    assert everybodys <= mine
    # Itself by name, and pages that hold nothing of a namespace: what system:basic-user and system:discovery give.
    assert [line for line in everybodys if not line.startswith("selfsubject") and not re.match(r"\[/\S+\] \[\] \[get\]$", line)] == []
    assert sorted(mine - everybodys) == GOLDEN.read_text().splitlines()


def listed(cluster: Cluster, namespace: str, account: str) -> set[str]:
    who = f"--as=system:serviceaccount:{namespace}:{account}"
    said = cluster.kubectl("-n", namespace, "auth", "can-i", "--list", "--no-headers", who)
    return {" ".join(line.split()) for line in said.splitlines()}


def test_a_driver_can_do_what_it_needs(tenants: tuple[Tenant, Tenant], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verb that drivers use, by the client that they use."""
    mine = tenants[0]
    monkeypatch.setenv("KUBECONFIG", str(mine.driver.kubeconfig))
    client = connect(namespace=mine.namespace)
    name = f"needed-{uuid.uuid4().hex[:6]}"
    one = job(name)
    one["spec"]["suspend"] = True
    made = client.create(one)
    assert made is not None
    assert client.create(one) is None
    assert client.patch("Job", name, {"metadata": {"labels": {names.RUN: name}}}) is not None
    assert [found["metadata"]["name"] for found in client.list("Job", {names.RUN: name})] == [name]
    found = client.get("Job", name)
    assert found is not None
    assert client.list("Pod", {names.RUN: name}) == []
    assert client.get("Pod", "none") is None
    status = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": names.status_name(name)}, "data": {"status.json": "{}"}}
    assert client.create(status) is not None
    assert client.patch("ConfigMap", names.status_name(name), {"data": {"status.json": "[]"}}) is not None
    assert client.get("ConfigMap", names.status_name(name)) is not None
    assert client.get("PersistentVolumeClaim", f"yard-of-{mine.namespace}") is not None
    assert isinstance(client.list("Event", fields={"involvedObject.name": name}), list)
    assert client.delete("Job", name, uid=found["metadata"]["uid"])


def test_no_rule_is_larger_than_its_use(tenants: tuple[Tenant, Tenant], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above does is all that the rules allow: a verb that is granted and tried nowhere would be one too many."""
    used: set[tuple[str, str]] = set()
    ask = Client._ask

    def counted(self: Client, verb: Any, kind: Any, *words: Any, **more: Any) -> Any:
        used.add((verb, kind))
        return ask(self, verb, kind, *words, **more)

    monkeypatch.setattr(Client, "_ask", counted)
    test_a_driver_can_do_what_it_needs(tenants, monkeypatch)
    plurals = {"Job": "jobs", "Pod": "pods", "ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims", "Event": "events"}
    granted = {(verb, resource) for rule in access.driver_rules() for resource in rule["resources"] for verb in rule["verbs"]}
    assert {(verb, plurals[kind]) for verb, kind in used} == granted


# --- what it may not

REFUSED: dict[str, tuple[str, ...]] = {
    "read the Secret that it has no business with": ("get", "secret", "private"),
    "list Secrets": ("get", "secrets"),
    "list ConfigMaps": ("get", "configmaps"),
    "remove a ConfigMap": ("delete", "configmap", "kube-root-ca.crt"),
    "remove the claim": ("delete", "pvc", "yard-of-it", "--wait=false"),
    "remove pods": ("delete", "pod", "some-pod", "--wait=false"),
    "look into a pod": ("exec", "some-pod", "--", "true"),
    "read a pod's log": ("logs", "some-pod"),
    "list nodes": ("get", "nodes"),
    "list namespaces": ("get", "namespaces"),
    "list volumes": ("get", "persistentvolumes"),
    "make itself a token": ("create", "token", "default"),
    "give itself more": ("create", "-f", "-", json.dumps(ROLE)),
    "make a pod": ("create", "-f", "-", json.dumps(POD)),
    "make a CronJob": ("create", "-f", "-", json.dumps(CRON)),
    "speak to an address through the API server": ("get", "--raw", "/api/v1/namespaces/default/services/kubernetes/proxy/"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_driver_cannot(tenants: tuple[Tenant, Tenant], what: str) -> None:
    mine = tenants[0]
    words = [word.replace("yard-of-it", f"yard-of-{mine.namespace}") for word in REFUSED[what]]
    document = words.pop() if words[-1].startswith("{") else None
    assert "orbidden" in mine.refused(*words, stdin=document)


@pytest.mark.parametrize("kind", ["jobs", "pods", "configmaps", "secrets", "persistentvolumeclaims", "events"])
def test_another_namespace_is_closed(tenants: tuple[Tenant, Tenant], kind: str) -> None:
    mine, other = tenants
    assert f'in the namespace "{other.namespace}"' in mine.refused("-n", other.namespace, "get", kind)
    assert "at the cluster scope" in mine.refused("get", kind, "--all-namespaces")


def test_a_job_in_another_namespace_is_refused(tenants: tuple[Tenant, Tenant], monkeypatch: pytest.MonkeyPatch) -> None:
    """By kubectl, and by the client that drivers have: there it is a failure with a name."""
    mine, other = tenants
    volume = {"name": "yard", "persistentVolumeClaim": {"claimName": f"yard-of-{other.namespace}"}}
    taker = job("taker", volumes=[volume])
    assert "orbidden" in mine.refused("-n", other.namespace, "create", "-f", "-", stdin=json.dumps(taker))
    monkeypatch.setenv("KUBECONFIG", str(mine.driver.kubeconfig))
    with pytest.raises(NoPermission):
        connect(namespace=other.namespace).create(taker)


def test_names_of_another_tenants_things_are_nothing_here(cluster: Cluster, tenants: tuple[Tenant, Tenant]) -> None:
    """A pod mounts claims and Secrets of its own namespace alone: one that names the neighbour's waits for its own of that name, for ever."""
    mine, other = tenants
    name = f"taker-{uuid.uuid4().hex[:6]}"
    taker = job(name, volumes=[{"name": "yard", "persistentVolumeClaim": {"claimName": f"yard-of-{other.namespace}"}}])
    mine.driver.kubectl("create", "-f", "-", stdin=json.dumps(taker))

    def reason() -> str:
        pods = cluster.items("pods", namespace=mine.namespace, selector=f"{names.JOB}={name}")
        conditions = [one for pod in pods for one in pod["status"].get("conditions", [])]
        return next((one["message"] for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"), "")

    said = cluster.wait("the scheduler's word", reason, within=60)
    assert f'persistentvolumeclaim "yard-of-{other.namespace}" not found' in said
    mine.driver.kubectl("delete", "job", name, "--wait=false")


# --- nodes, where the chart was told to


def test_a_reader_of_nodes_reads_nodes_and_no_more(helm: Helm, cluster: Cluster, tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    made = of_kind(helm.template({"nodeReader": True}, namespace=mine.namespace), "ClusterRole", "ClusterRoleBinding")
    cluster.apply(*made)
    try:
        cluster.wait("the right", lambda: granted(mine), within=30)
        mine.driver.kubectl("get", "pods", "--all-namespaces", "--output=name")
        node = cluster.items("nodes")[0]["metadata"]["name"]
        mine.driver.kubectl("get", "node", node, "--output=name")
        assert "orbidden" in mine.refused("label", "node", node, "modelyard-tests/own=1")
        assert "orbidden" in mine.refused("get", "secrets", "--all-namespaces")
        assert "orbidden" in mine.refused("-n", other.namespace, "get", "configmaps")
        assert "orbidden" in mine.refused("-n", other.namespace, "create", "-f", "-", stdin=json.dumps(job("taker")))
        assert "orbidden" in other.refused("get", "nodes")
    finally:
        for one in made:
            cluster.kubectl("delete", one["kind"], one["metadata"]["name"])


def granted(mine: Tenant) -> bool:
    try:
        return bool(mine.driver.kubectl("get", "nodes", "--output=name"))
    except HarnessFailure:
        return False
