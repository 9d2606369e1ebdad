"""What a driver may do in its namespace, what a person who works there needs, and what reading nodes takes: the rules of Roles, in one place.

`examples/cluster/access.yaml` and the chart say the same (a test holds them to it), and `modelyard check` prints it for who has to grant it. A rule
is as small as the code that needs it: there is none for Secrets, and none by which a driver could execute something in a pod.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kube import names
from modelyard.kube.cluster import Manifest

GROUP = "rbac.authorization.k8s.io"
PERSON = "modelyard-person"
"""The Role of who submits runs."""
NODES = "modelyard-nodes"
"""The ClusterRole of who may see what nodes have and what is taken of it."""


def driver_rules() -> list[Manifest]:
    """Of the service account `modelyard-driver`: the Jobs of its steps, their pods and events, and the ConfigMap that says how its run stands."""
    return [
        _rule("batch", ["jobs"], ["get", "list", "create", "patch", "delete"]),
        _rule("", ["pods"], ["get", "list"]),
        _rule("", ["configmaps"], ["get", "create", "patch"]),
        _rule("", ["persistentvolumeclaims"], ["get"]),
        _rule("", ["events"], ["list"]),
    ]


def person_rules() -> list[Manifest]:
    """Of who submits, follows, explains and ends runs, keeps schedules, and looks into the yard by a reader's pod."""
    return [
        _rule("batch", ["jobs", "cronjobs"], ["get", "list", "create", "patch", "delete"]),
        _rule("", ["pods"], ["get", "list", "create", "delete"]),
        _rule("", ["pods/exec"], ["get", "create"]),  # get: what API servers before 1.35 ask of a WebSocket's handshake
        _rule("", ["pods/log"], ["get"]),
        _rule("", ["configmaps"], ["get", "list", "create", "patch", "delete"]),
        _rule("", ["persistentvolumeclaims"], ["get", "create"]),
        _rule("", ["events", "resourcequotas", "limitranges"], ["list"]),
        _rule("", ["serviceaccounts"], ["get"]),
        _rule("kueue.x-k8s.io", ["localqueues", "workloads"], ["get", "list"]),
    ]


def node_rules() -> list[Manifest]:
    """Of a ClusterRole, which is optional: without it what nodes have is unknown, and the scheduler's own words are told instead."""
    return [_rule("", ["nodes"], ["get", "list"]), _rule("", ["pods"], ["list"])]


def driver_access(namespace: str = "") -> list[Manifest]:
    """The service account of drivers with its Role, as an admin applies them. namespace: empty where kubectl is told one."""
    account: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(names.DRIVER_ACCOUNT, namespace)}
    account["automountServiceAccountToken"] = False  # a driver's pod asks for its token itself
    subject = {"kind": "ServiceAccount", "name": names.DRIVER_ACCOUNT, **({"namespace": namespace} if namespace else {})}
    return [account, *_granted(names.DRIVER_ACCOUNT, namespace, driver_rules(), subject)]


def person_access(user: str, namespace: str = "") -> list[Manifest]:
    """The Role of a person, and its binding to the user of that name."""
    return _granted(PERSON, namespace, person_rules(), {"kind": "User", "apiGroup": GROUP, "name": user})


def _granted(name: str, namespace: str, rules: Sequence[Manifest], subject: Manifest) -> list[Manifest]:
    role = {"apiVersion": f"{GROUP}/v1", "kind": "Role", "metadata": _metadata(name, namespace), "rules": list(rules)}
    reference = {"apiGroup": GROUP, "kind": "Role", "name": name}
    binding = {"apiVersion": f"{GROUP}/v1", "kind": "RoleBinding", "metadata": _metadata(name, namespace), "subjects": [subject]}
    return [role, {**binding, "roleRef": reference}]


def _metadata(name: str, namespace: str) -> Manifest:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": {"app.kubernetes.io/name": "modelyard"}}


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> Manifest:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
