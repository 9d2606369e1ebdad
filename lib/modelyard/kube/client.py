"""The one door to an API server. The `kubernetes` package is imported here alone, and late.

That package reads the kubeconfig or a pod's service account, runs credential plugins, and makes the pool of TLS connections. The requests are
ours: plain dicts in and out, none of its models, which differ between its releases and cost more time than the requests.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

from modelyard.errors import NoInput, NoPermission, Usage
from modelyard.kube import channels
from modelyard.kube.cluster import Answer, Cause, Kind, Manifest
from modelyard.kube.http import PATIENCE, Access, Call, Http, Reply, causes

MANAGER = "modelyard"
"""Who a field's value is by, in `managedFields`."""

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PAGE = 500


class _Resource(NamedTuple):
    version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.version.rpartition("/")[0]

    @property
    def root(self) -> str:
        return f"/apis/{self.version}" if self.group else f"/api/{self.version}"


_RESOURCES: Mapping[str, _Resource] = MappingProxyType(
    {
        "ConfigMap": _Resource("v1", "configmaps"),
        "CronJob": _Resource("batch/v1", "cronjobs"),
        "EndpointSlice": _Resource("discovery.k8s.io/v1", "endpointslices"),
        "Event": _Resource("v1", "events"),
        "Job": _Resource("batch/v1", "jobs"),
        "LimitRange": _Resource("v1", "limitranges"),
        "LocalQueue": _Resource("kueue.x-k8s.io/v1beta1", "localqueues"),
        "Namespace": _Resource("v1", "namespaces", namespaced=False),
        "Node": _Resource("v1", "nodes", namespaced=False),
        "PersistentVolume": _Resource("v1", "persistentvolumes", namespaced=False),
        "PersistentVolumeClaim": _Resource("v1", "persistentvolumeclaims"),
        "Pod": _Resource("v1", "pods"),
        "PriorityClass": _Resource("scheduling.k8s.io/v1", "priorityclasses", namespaced=False),
        "ResourceQuota": _Resource("v1", "resourcequotas"),
        "Secret": _Resource("v1", "secrets"),
        "Service": _Resource("v1", "services"),
        "ServiceAccount": _Resource("v1", "serviceaccounts"),
        "StorageClass": _Resource("storage.k8s.io/v1", "storageclasses", namespaced=False),
        "Workload": _Resource("kueue.x-k8s.io/v1beta1", "workloads"),
    }
)


def connect(context: str = "", namespace: str = "", *, patience: float = PATIENCE) -> Client:
    """The cluster of a kubeconfig's context, or, without a kubeconfig, of the pod that this is.

    context: default the current one. namespace: default the context's own, or the pod's. patience: seconds for a request, its further attempts
    included. Nothing is asked of the cluster yet. Raises NoInput without a cluster, Usage for a kubeconfig that cannot be used.
    """
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise Usage(f"{namespace!r} is no namespace", why="lower-case letters, digits and '-', at most 63", remedy="correct --namespace")
    file = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    there = any(Path(part).exists() for part in file.split(os.pathsep) if part)
    if not there and (context or not os.environ.get("KUBERNETES_SERVICE_HOST")):
        raise NoInput("there is no kubeconfig", where=file, remedy="set KUBECONFIG to the file of a cluster, or run with --on local")
    load = partial(_load, file, context) if there else partial(_load, None, "")
    return Client(Http(load, patience), namespace or (_namespace(file, context) if there else (_ACCOUNT / "namespace").read_text().strip()))


_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


class Client:
    """One namespace of a real cluster; a `cluster.Cluster`. Any thread may use it."""

    def __init__(self, http: Http, namespace: str) -> None:
        self._http = http
        self.namespace = namespace

    def get(self, kind: Kind, name: str) -> Manifest | None:
        """The object; None when there is none of that name."""
        reply = self._ask("get", kind, name, expected={404})
        return None if reply.status == 404 else reply.body

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, fields: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> list[Manifest]:
        """Objects with all of these labels and field values; `kind` and `apiVersion` are set in each. everywhere: in all namespaces.

        An API server that does not know the kind (Kueue's, where there is no Kueue) has none of it.
        """
        query = {"limit": str(_PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{name}={value}" for name, value in labels.items())
        if fields:
            query["fieldSelector"] = ",".join(f"{name}={value}" for name, value in fields.items())
        found: list[Manifest] = []
        while True:
            reply = self._ask("list", kind, query=query, expected={404, 410}, everywhere=everywhere)
            if reply.status == 404:
                return []
            if reply.status == 410:  # the pages' snapshot is gone: from the beginning, in one piece
                query, found = {name: value for name, value in query.items() if name not in ("limit", "continue")}, []
                continue
            found += reply.body.get("items") or []
            more = (reply.body.get("metadata") or {}).get("continue")
            if not more:
                return [{"apiVersion": _RESOURCES[kind].version, "kind": kind, **item} for item in found]
            query["continue"] = more

    def may(self, verb: str, kind: Kind, subresource: str = "", *, name: str = "", everywhere: bool = False, account: str = "") -> bool:
        """Whether who asks may do that in the namespace, by a SelfSubjectAccessReview: `may("get", "Pod", "log")`.

        name: to the object of that name alone. everywhere: in all namespaces. account: whether that service account of the namespace may; raises
        NoPermission where who asks may not ask for others.
        """
        resource = _RESOURCES[kind]
        asked = {"verb": verb, "group": resource.group, "resource": resource.plural, "subresource": subresource, "name": name}
        asked |= {"namespace": self.namespace} if resource.namespaced and not everywhere else {}
        body: dict[str, Any] = {"apiVersion": "authorization.k8s.io/v1", "spec": {"resourceAttributes": asked}}
        if account:
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"]
            body["spec"] |= {"user": f"system:serviceaccount:{self.namespace}:{account}", "groups": groups}
        within = f"/namespaces/{quote(self.namespace, safe='')}" if account else ""
        review = "LocalSubjectAccessReview" if account else "SelfSubjectAccessReview"
        body |= {"kind": review, "metadata": {"namespace": self.namespace} if account else {}}
        path = f"/apis/authorization.k8s.io/v1{within}/{review.lower()}s"
        reply = self._http.ask(Call(f"create {review.lower()}s.authorization.k8s.io"), "POST", path, body=body)
        return bool(reply.body["status"].get("allowed"))

    def version(self) -> str:
        """Of the API server, such as `v1.34.4`."""
        return str(self._http.ask(Call("get /version"), "GET", "/version").body.get("gitVersion", ""))

    def create(self, manifest: Manifest) -> Manifest | None:
        """The object as it was created, by strict field validation; None when there is one of that name."""
        reply = self._ask("create", manifest["kind"], query=_STRICT, body=manifest, expected={404, "AlreadyExists"})
        return None if reply.status == 409 else reply.body

    def dry_run(self, manifest: Manifest) -> Answer:
        """What the server would say to the object's creation; nothing is created. One of that name that exists is no objection."""
        query = {**_STRICT, "dryRun": "All"}
        reply = self._ask("create", manifest["kind"], query=query, body=manifest, expected={400, 403, 404, 413, 422, "AlreadyExists"})
        said = self._http.harmless(str(reply.body.get("message", "")))
        if reply.status == 403 and " cannot " in said:
            raise self._http.refused(Call(self._doing("create", manifest["kind"])), 403, {}, said.encode())
        refused = 400 <= reply.status < 500 and reply.status != 409
        return Answer([Cause(cause.field, self._http.harmless(cause.message)) for cause in causes(reply.body)] if refused else (), reply.warnings)

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest | None:
        """The object after a JSON merge patch; None when there is none of that name."""
        reply = self._ask("patch", kind, name, query=_STRICT, body=patch, expected={404})
        return None if reply.status == 404 else reply.body

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: int | None = None, wait_for_pods: bool = False) -> bool:
        """Delete an object and what it owns; False when it was not there (or is another one than `uid`).

        grace: seconds, of a pod. wait_for_pods: the object stays, being deleted, until what it owns is gone (foreground).
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground" if wait_for_pods else "Background"}
        options |= {} if uid is None else {"preconditions": {"uid": uid}}
        options |= {} if grace is None else {"gracePeriodSeconds": grace}
        reply = self._ask("delete", kind, name, body=options, expected={404, 409} if uid else {404})
        return reply.status not in (404, 409)

    def logs(self, pod: str, *, follow: bool = False, since: str | None = None, tail: int | None = None, container: str = "") -> Iterator[bytes]:
        """Lines of a pod's container, without the line's end, each with the kubelet's RFC 3339 time and a space in front.

        since: that time, to begin with (lines of that second come again). follow: until the container ends or the connection breaks: either
        ends the iterator. container: which one, where a pod has several. Nothing, when the container has not begun or is gone. What came of a line
        whose end never came is left out where the connection broke.
        """
        query = {"timestamps": "true"} | ({"follow": "true"} if follow else {})
        query |= {} if since is None else {"sinceTime": since}
        query |= {} if tail is None else {"tailLines": str(tail)}
        query |= {"container": container} if container else {}
        # 400: the container waits to start; 404: the pod is gone.
        pieces = self._http.stream(Call(self._doing("get", "Pod", "/log"), {400, 404}), f"{self._path('Pod', pod)}/log", query)
        yield from _lines(pieces)

    def execute(self, pod: str, command: Sequence[str], *, stdin: BinaryIO | None = None, stdout: BinaryIO) -> tuple[int, bytes]:
        """Run a command in a pod's container: bytes in, bytes out, binary-safe; (exit code, stderr). stdin is closed at its end."""
        call = Call(self._doing("create", "Pod", "/exec"))
        asked = [("stdout", "true"), ("stderr", "true"), *([("stdin", "true")] if stdin else []), *(("command", word) for word in command)]
        path = f"{self._path('Pod', pod)}/exec"
        opened = self._http.insist(lambda: channels.open_channels(self._http, call, path, asked))
        return opened.carry(stdin, stdout)

    def _ask(
        self,
        verb: str,
        kind: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        expected: Collection[int | str] = (),
        everywhere: bool = False,
    ) -> Reply:
        method, form = _METHODS[verb]
        path = self._path(kind, name, everywhere=everywhere)
        reply = self._http.ask(Call(self._doing(verb, kind), expected), method, path, query=query, body=body, form=form)
        if verb == "create" and reply.status == 404:
            why = self._http.harmless(str(reply.body.get("message", "")))
            remedy = f"kubectl create namespace {self.namespace}, or name another with -n"
            raise NoInput(f"there is no namespace {self.namespace!r}", where=self._http.access.host, why=why, remedy=remedy)
        return reply

    def _path(self, kind: str, name: str = "", *, everywhere: bool = False) -> str:
        resource = _RESOURCES[kind]
        within = f"/namespaces/{quote(self.namespace, safe='')}" if resource.namespaced and not everywhere else ""
        return f"{resource.root}{within}/{resource.plural}" + (f"/{quote(name, safe='')}" if name else "")

    def _doing(self, verb: str, kind: str, subresource: str = "") -> str:
        """`create jobs.batch`."""
        resource = _RESOURCES[kind]
        return f"{verb} {resource.plural}{subresource}" + (f".{resource.group}" if resource.group else "")


def _load(file: str | None, context: str) -> Access:
    """How the cluster is reached. Reads files and runs credential plugins, each time anew."""
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import load_incluster_config, load_kube_config

    configuration = Configuration()
    with _usable(file or ""):
        if file:
            load_kube_config(file, context or None, configuration)  # type: ignore[no-untyped-call]
        else:
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]

    if configuration.host in ("", "http://localhost"):  # what the two lines of the client take where none is named
        raise Usage(
            "the cluster of this context has no server", where=file or "", remedy="kubectl config set-cluster NAME --server=https://HOST:PORT"
        )

    as_another = _as_another(file, context) if file else {}

    def headers() -> dict[str, str]:
        settings: Mapping[str, Any] = configuration.auth_settings()
        return {auth["key"]: auth["value"].strip() for auth in settings.values() if auth["value"]} | as_another

    tls = {
        "cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE,
        "check_hostname": configuration.verify_ssl and configuration.assert_hostname is not False,
        "ca_certs": configuration.ssl_ca_cert,
        "certfile": configuration.cert_file,
        "keyfile": configuration.key_file,
        "server_hostname": configuration.tls_server_name,
    }
    pool = ApiClient(configuration).rest_client.pool_manager
    return Access(
        configuration.host.rstrip("/"), pool, headers, {name: value for name, value in tls.items() if value is not None}, configuration.proxy
    )


def _namespace(file: str, context: str) -> str:
    """The namespace of a kubeconfig's context."""
    with _usable(file):
        return str(_context(file, context).get("namespace") or "default")


def _context(file: str, name: str) -> Mapping[str, Any]:
    """A kubeconfig's context of that name, else its current one."""
    from kubernetes.config import list_kube_config_contexts

    contexts, current = list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    found: Mapping[str, Any] = (next((item for item in contexts if item["name"] == name), current) if name else current)["context"]
    return found


def _as_another(file: str, context: str) -> dict[str, str]:
    """The header by which a user of a kubeconfig acts as another one (`as:`), which the package leaves out, and so does all with more rights."""
    from kubernetes.config.kube_config import KubeConfigMerger

    with _usable(file):
        config, name = KubeConfigMerger(file).config, _context(file, context).get("user")  # type: ignore[no-untyped-call]
        found = config["users"].get_with_name(name, safe=True) if name and "users" in config else None
        user: Mapping[str, Any] = (found.value.get("user") if found else None) or {}
    if more := sorted(key for key in user if key.startswith("as-")):
        remedy = "use a user of the kubeconfig that needs no impersonation, or `as` alone"
        raise Usage(f"the kubeconfig's user {name!r} acts as another with {', '.join(more)}", where=file, why="only `as` is read", remedy=remedy)
    return {"Impersonate-User": str(user["as"])} if user.get("as") else {}


@contextmanager
def _usable(file: str) -> Iterator[None]:
    """What reading a kubeconfig, or running its plugin, fails with, as a failure. Of texts that may hold a token only the kind of error is told."""
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    try:
        yield
    except (ConfigException, OSError, YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = str(error) if isinstance(error, (ConfigException, OSError)) else type(error).__name__
        remedy = "`kubectl config get-contexts` must know it, and `kubectl auth whoami` must answer"
        kind = NoPermission if isinstance(error, PermissionError) else Usage
        raise kind("the kubeconfig cannot be used", where=file, why=why, remedy=remedy) from error


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    try:
        for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
    except ConnectionError:
        return
    if rest:
        yield rest


_STRICT = MappingProxyType({"fieldValidation": "Strict", "fieldManager": MANAGER})
_METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "get": ("GET", ""),
        "list": ("GET", ""),
        "create": ("POST", "application/json"),
        "patch": ("PATCH", "application/merge-patch+json"),
        "delete": ("DELETE", "application/json"),
    }
)
