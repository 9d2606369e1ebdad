"""What a cluster says before anything is submitted to it: the facts that `check` judges, asked for once. Nothing is created.

What may not be looked at, or was not answered, is kept as `Unseen` with the reason. Of Secrets the names of the keys are kept, never a value.
"""

from __future__ import annotations

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import urlsplit

from modelyard.errors import Failure, NoInput, NoPermission, Unavailable, Usage
from modelyard.kube import access, claims, names, render
from modelyard.kube.cluster import Answer, Cluster, Kind, Manifest
from modelyard.kube.place import Place
from modelyard.kube.room import pod_of
from modelyard.spec import Pipeline

SILENCE = 5.0
"""Seconds for a hub to answer."""
DRIVER = "driver"
"""What the driver's Job is called among what is asked for; steps have their names with `step ` in front."""

_MANIFEST: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "modelyard-check"}}
_SLICES_OF = "kubernetes.io/service-name"

Found = TypeVar("Found")
Ask = Callable[[str], str]
"""An address -> why it did not answer; empty where it did, whatever it said."""


@dataclass(frozen=True)
class Unseen:
    """What could not be looked at, and why."""

    why: str


@dataclass(frozen=True)
class Right:
    """One thing that somebody may do or not."""

    verb: str
    kind: Kind
    subresource: str = ""

    def __str__(self) -> str:
        """As kubectl writes it: `create pods/exec`."""
        return f"{self.verb} {_PLURALS[self.kind]}" + (f"/{self.subresource}" if self.subresource else "")


@dataclass(frozen=True)
class Keys:
    """A Secret without what is secret in it."""

    type: str
    keys: frozenset[str]


@dataclass(frozen=True)
class HubLook:
    """A hub as it was looked at. service: its name and namespace in the cluster, None for an address outside.

    there: whether that Service exists and has the port. ready: its endpoints that are ready. silence: why an address outside did not answer.
    """

    address: str
    service: tuple[str, str] | None = None
    there: bool | Unseen = True
    ready: int | Unseen = 0
    silence: str | Unseen = ""


@dataclass(frozen=True)
class Survey:
    """The facts.

    asks: name -> Job or Pod that would be made; unmade: why there is none. answers: name of one of them, or of a bare pod of it -> what the server
    says to it.
    """

    place: Place
    version: str | Unseen
    namespace: bool | Unseen
    rights: Mapping[Right, bool | Unseen]
    account: Manifest | Unseen | None
    driver_rights: Mapping[Right, bool | Unseen]
    claim: Manifest | Unseen | None
    storage_class: Manifest | Unseen | None
    volume: Manifest | Unseen | None
    quotas: Sequence[Manifest] | Unseen
    limits: Sequence[Manifest] | Unseen
    secrets: Mapping[str, Keys | Unseen | None]
    priorities: Mapping[str, Manifest | Unseen | None]
    queues: Mapping[str, Manifest | Unseen | None]
    nodes: Sequence[Manifest] | Unseen
    pods: Sequence[Manifest] | Unseen
    hubs: Mapping[str, HubLook]
    asks: Mapping[str, Manifest] = field(default_factory=dict)
    unmade: Usage | None = None
    answers: Mapping[str, Answer | Unseen] = field(default_factory=dict)


PURPOSES: Mapping[str, tuple[Right, ...]] = {
    "run": (
        Right("get", "PersistentVolumeClaim"),
        Right("get", "Job"),
        Right("list", "Job"),
        Right("create", "Job"),
        Right("get", "ConfigMap"),
        Right("list", "ConfigMap"),
        Right("create", "ConfigMap"),
        Right("patch", "ConfigMap"),
    ),
    "follow": (Right("list", "Pod"), Right("get", "Pod", "log"), Right("list", "Event")),
    "cancel": (Right("delete", "Job"), Right("delete", "ConfigMap")),
    "read the yard": (
        Right("create", "Pod"),
        Right("get", "Pod"),
        Right("delete", "Pod"),
        Right("get", "Pod", "exec"),
        Right("create", "Pod", "exec"),
    ),
    "keep schedules": tuple(Right(verb, "CronJob") for verb in ("get", "list", "create", "patch", "delete")),
}
"""What a person wants to do -> the rights that it takes. Only the first is needed for a run."""

_PLURALS: Mapping[Kind, str] = {
    "ConfigMap": "configmaps",
    "CronJob": "cronjobs",
    "Event": "events",
    "Job": "jobs",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
}


def driver_rights() -> tuple[Right, ...]:
    """All that a driver's Role grants."""
    kinds = {plural: kind for kind, plural in _PLURALS.items()}
    return tuple(Right(verb, kinds[name]) for rule in access.driver_rules() for name in rule["resources"] for verb in rule["verbs"])


def survey(cluster: Cluster, place: Place, pipeline: Pipeline | None, settings: Mapping[str, Any], *, hubs: Mapping[str, str], ask: Ask) -> Survey:
    """Look at everything. settings: as `render` takes them. hubs: name -> address, of those that would be asked.

    Raises what the first request raises, where there is no API server or it does not know who asks.
    """
    look = _Look(cluster)
    version = look.first()
    claim = look.get("PersistentVolumeClaim", place.claim)
    if isinstance(claim, dict):
        with suppress(Usage):  # judged by `check`, from the claim
            place = place.model_copy(update={"access": claims.access_of(claim)})
    asks, unmade = _asks(pipeline, settings, place)
    specs = [pod_of(manifest)[0] for manifest in asks.values()]
    wanted = claim["spec"].get("storageClassName") if isinstance(claim, dict) else None
    bound = claim["spec"].get("volumeName") if isinstance(claim, dict) else None
    queues = {manifest["metadata"].get("labels", {}).get(render.QUEUE) for manifest in asks.values()} | {place.queue}
    return Survey(
        place=place,
        version=version,
        namespace=look.namespace(),
        rights={right: look.may(right) for rights in PURPOSES.values() for right in rights},
        account=look.get("ServiceAccount", names.DRIVER_ACCOUNT),
        driver_rights={right: look.may(right, names.DRIVER_ACCOUNT) for right in driver_rights()},
        claim=claim,
        storage_class=look.get("StorageClass", wanted) if wanted else None,
        volume=look.get("PersistentVolume", bound) if bound else None,
        quotas=look.list("ResourceQuota"),
        limits=look.list("LimitRange"),
        secrets={name: look.secret(name) for name in (place.secret, place.pull_secret) if name},
        priorities={name: look.get("PriorityClass", name) for name in sorted({str(spec.get("priorityClassName") or "") for spec in specs} - {""})},
        queues={name: look.get("LocalQueue", name) for name in sorted(filter(None, queues))},
        nodes=look.list("Node"),
        pods=look.list("Pod", everywhere=True),
        hubs={name: look.hub(address, ask) for name, address in hubs.items()},
        asks=asks,
        unmade=unmade,
        answers={name: look.dry_run(manifest) for name, manifest in _objects(asks, place).items()},
    )


def answers(address: str) -> str:
    """An `Ask` by HTTP from this machine, by its proxies, within a deadline."""
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "modelyard"})  # noqa: S310  # http and https alone come here
    try:
        with urllib.request.urlopen(request, timeout=SILENCE):  # noqa: S310
            return ""
    except urllib.error.HTTPError:
        return ""  # it said something
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", "") or error) or type(error).__name__


class _Look:
    """Asks a cluster; what is not allowed is Unseen, and once it does not answer any more, so is the rest."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._gone = ""

    def first(self) -> str | Unseen:
        """The server's version. Raises what a server that is not there, or that refuses who asks, is answered with."""
        try:
            return self._cluster.version()
        except NoPermission as failure:
            self._cluster.may("create", "Job")
            return Unseen(str(failure))

    def get(self, kind: Kind, name: str) -> Manifest | Unseen | None:
        return self._try(lambda: self._cluster.get(kind, name))

    def list(self, kind: Kind, *, everywhere: bool = False) -> Sequence[Manifest] | Unseen:
        return self._try(lambda: self._cluster.list(kind, everywhere=everywhere))

    def may(self, right: Right, account: str = "") -> bool | Unseen:
        return self._try(lambda: self._cluster.may(right.verb, right.kind, right.subresource, account=account))

    def dry_run(self, manifest: Manifest) -> Answer | Unseen:
        return self._try(lambda: self._cluster.dry_run(manifest))

    def namespace(self) -> bool | Unseen:
        """Whether it exists: an API server lists one that does not as empty, and refuses to create in it."""

        def there() -> bool:
            try:
                self._cluster.dry_run(_MANIFEST)
            except NoInput:
                return False
            return True

        return self._try(there)

    def secret(self, name: str) -> Keys | Unseen | None:
        found = self.get("Secret", name)
        return Keys(found.get("type", ""), frozenset(found.get("data") or {})) if isinstance(found, dict) else found

    def hub(self, address: str, ask: Ask) -> HubLook:
        """By its Service, where it is one of the cluster; else by asking it."""
        parts = urlsplit(address)
        host = parts.hostname or ""
        labels = host.removesuffix(".").removesuffix(".cluster.local").split(".")
        inside = len(labels) == 1 or (len(labels) == 3 and labels[2] == "svc")
        if inside or len(labels) == 2:
            name, namespace = labels[0], labels[1] if len(labels) > 1 else self._cluster.namespace
            found = self._services("Service", {"metadata.name": name}, namespace)
            if inside or (not isinstance(found, Unseen) and found):
                slices = self._services("EndpointSlice", {}, namespace)
                return HubLook(
                    address, (name, namespace), _has_port(found, parts.port or (443 if parts.scheme == "https" else 80)), _ready(slices, name)
                )
        silence = ask(address)
        return HubLook(address, silence=Unseen(silence) if silence and _private(host, silence) else silence)

    def _services(self, kind: Kind, fields: dict[str, str], namespace: str) -> Sequence[Manifest] | Unseen:
        own = namespace == self._cluster.namespace
        where = fields if own else {**fields, "metadata.namespace": namespace}
        return self._try(lambda: self._cluster.list(kind, fields=where or None, everywhere=not own))

    def _try(self, what: Callable[[], Found]) -> Found | Unseen:
        if self._gone:
            return Unseen(self._gone)
        try:
            return what()
        except NoPermission as failure:
            return Unseen(str(failure))
        except Unavailable as failure:
            self._gone = str(failure)
            return Unseen(self._gone)
        except Failure as failure:
            return Unseen(str(failure))


def _asks(pipeline: Pipeline | None, settings: Mapping[str, Any], place: Place) -> tuple[dict[str, Manifest], Usage | None]:
    """What a run would create; without a pipeline, what every command over a yard would."""
    if pipeline is None:
        return {"reader": render.reader_pod(place, "modelyard-check", write=False, seconds=60)}, None
    try:
        made = render.driver(pipeline, settings, place)
        steps = dict(zip((f"step {name}" for name in pipeline.order()), render.preview(pipeline, settings, place), strict=True))
    except Usage as failure:
        return {}, failure
    return {DRIVER: made[-1], **steps}, None


def _objects(asks: Mapping[str, Manifest], place: Place) -> dict[str, Manifest]:
    """What the server is asked about: a Job is not refused for what its pods are, so each pod is asked for itself, too."""
    found = {}
    for index, (name, manifest) in enumerate(asks.items()):
        found[name] = manifest
        if manifest["kind"] == "Job":
            template = manifest["spec"]["template"]
            metadata = {**template.get("metadata", {}), "name": f"modelyard-check-{index}", "namespace": place.namespace}
            found[f"pod of {name}"] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return found


def _has_port(found: Sequence[Manifest] | Unseen, port: int) -> bool | Unseen:
    return found if isinstance(found, Unseen) else any(one.get("port") == port for service in found for one in service["spec"].get("ports") or [])


def _ready(slices: Sequence[Manifest] | Unseen, service: str) -> int | Unseen:
    if isinstance(slices, Unseen):
        return slices
    of_it = [one for one in slices if (one["metadata"].get("labels") or {}).get(_SLICES_OF) == service]
    return sum((endpoint.get("conditions") or {}).get("ready") is not False for one in of_it for endpoint in one.get("endpoints") or [])


def _private(host: str, silence: str) -> bool:
    """Whether pods may well reach what this machine does not: an address of a private network, or a name that is not known here."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return any(words in silence for words in ("Name or service not known", "not known", "No address", "name resolution"))
