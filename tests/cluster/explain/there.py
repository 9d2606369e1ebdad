"""Where situations happen: a person's namespace, a second one that an administrator has limited, and what is seen of both."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelyard.kube import names
from modelyard.yard import Yard
from tests.cluster.explain import registry
from tests.cluster.harness import network, volumes
from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import ROOT, Site, site
from tests.cluster.stepjobs import FRONT, Case, commit, make_hub, manifest, run_of
from tests.steps.released import World


@dataclass(frozen=True)
class Seen:
    """What the cluster has of one run: raw objects, as the API server gives them."""

    jobs: Sequence[dict[str, Any]]
    pods: Sequence[dict[str, Any]]
    events: Sequence[dict[str, Any]]
    around: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)

    def said(self, *reasons: str) -> list[str]:
        """What events of these reasons say."""
        return [event.get("message", "") for event in self.events if event.get("reason") in reasons]


@dataclass
class There:
    """home: the person's namespace. limited: a namespace with a quota, a LimitRange, and a driver's account that has no Role."""

    home: Site
    limited: str
    inputs: dict[str, str]
    released: World
    """What is in the claim `yard`: a model with metrics."""
    captured: Path
    runs: dict[str, str] = field(default_factory=dict)
    """Situation -> its run, where that is not named after it."""

    @property
    def cluster(self) -> LocalCluster:
        return self.home.cluster

    @property
    def namespace(self) -> str:
        return self.home.namespace

    def begin(self, name: str, case: Case, namespace: str = "") -> None:
        """Create the Job of a lone step."""
        self.cluster.apply(manifest(name, case, namespace or self.namespace, inputs=self.inputs))

    def submit(self, name: str, text: str, namespace: str = "", **environ: str) -> None:
        """Begin a run as a person does."""
        file = self.home.write(f"{name}.yaml", text)
        done = self.home.modelyard("run", file, "-d", "-q", **{"MODELYARD_NAMESPACE": namespace or self.namespace, **environ})
        self.runs[name] = done.stdout.strip()

    def run_of(self, name: str) -> str:
        return self.runs.get(name) or run_of(name)

    def explained(self, name: str, namespace: str = "", **environ: str) -> dict[str, Any]:
        """What modelyard says of a situation to a person who asks."""
        found = self.home.json("explain", self.run_of(name), **{"MODELYARD_NAMESPACE": namespace or self.namespace, **environ})
        return dict(found)

    def seen(self, name: str, namespace: str = "") -> Seen:
        """The run's Jobs and pods, the namespace's events about them, and their volumes."""
        where, run = namespace or self.namespace, self.run_of(name)
        got = self._lists(where, "jobs,pods,events,persistentvolumeclaims")
        ours = [one for one in got if (one["metadata"].get("labels") or {}).get(names.RUN) == run]
        jobs, pods = ([one for one in ours if one["kind"] == kind] for kind in ("Job", "Pod"))
        volumes_of = [volume for pod in pods for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in volumes_of]
        about = {one["metadata"]["name"] for one in ours} | set(claims)
        events = [one for one in got if one["kind"] == "Event" and one["involvedObject"]["name"] in about]
        return Seen(jobs, pods, events, {"claims": [one for one in got if one["metadata"]["name"] in claims and "Claim" in one["kind"]]})

    def wait(self, name: str, ready: Callable[[Seen], bool], namespace: str = "", within: float = 120) -> Seen:
        """What is seen of a situation once it is there."""
        found: Seen = self.cluster.wait(name, lambda: (seen := self.seen(name, namespace)) and ready(seen) and seen, within=within)
        return found

    def described(self, name: str, seen: Seen, namespace: str = "") -> str:
        """What `kubectl describe` says of the run's Jobs and pods, which is all that a person has without modelyard."""
        where = namespace or self.namespace
        objects = [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in (*seen.jobs, *seen.pods)]
        return "\n".join(self.cluster.kubectl("-n", where, "describe", one) for one in objects)

    def capture(self, name: str, seen: Seen, described: str, namespace: str = "") -> None:
        """Keep what was seen, for whoever writes a branch of diagnose: pytest keeps the folders of its last runs."""
        where = namespace or self.namespace
        around = {
            "status": [one for one in self._lists(where, "configmaps") if one["metadata"]["name"] == names.status_name(self.run_of(name))],
            "quotas": self._lists(where, "resourcequotas,limitranges"),
            "nodes": self.cluster.items("nodes"),
        }
        whole = {"run": self.run_of(name), "jobs": seen.jobs, "pods": seen.pods, "events": seen.events, **seen.around, **around}
        (self.captured / f"{name}.json").write_text(json.dumps(whole, indent=1))
        (self.captured / f"{name}.describe.txt").write_text(described)

    def _lists(self, namespace: str, kinds: str) -> list[dict[str, Any]]:
        return self.cluster.items(kinds, namespace=namespace)


@contextmanager
def there(cluster: LocalCluster, folder: Path) -> Iterator[There]:
    """Both namespaces with all that the situations need, and a registry beside each node."""
    captured, home = folder / "captured", folder / "home"
    for made in (captured, home):
        made.mkdir(parents=True, exist_ok=True)
    limited = f"limited-{uuid.uuid4().hex[:8]}"
    with registry.serving([network.namespace(node) for node in network.NODES]), site(cluster, home, targets=("light",)) as person:
        cluster.make_namespace(limited)
        try:
            _limit(cluster, limited)
            yield _furnish(person, limited, captured)
        finally:
            cluster.remove_namespace(limited)
            volumes.remove_volumes(cluster, limited)


def _furnish(person: Site, limited: str, captured: Path) -> There:
    cluster, namespace = person.cluster, person.namespace
    make_hub(person.hub)
    cluster.apply(FRONT, _secret("wrong-login"), namespace=namespace)
    volumes.make_small_volume(cluster, namespace, "full", mebibytes=4)
    volumes.make_volume(cluster, namespace, "alone", access_modes=("ReadWriteOncePod",))
    cluster.apply(_claim(namespace, "unbound"), *_mismatch(namespace))
    Yard.open(person.yard.parent / "full")
    Yard.open(person.yard)
    inputs = {name: commit(person.yard, name, kind) for name, kind in (("model", "model"), ("data", "dataset"))}
    refs = Yard.open(person.yard).refs
    for ref, name in (("yard://models/model@latest", "model"), ("yard://datasets/data@latest", "data")):
        refs.move(ref, inputs[name], "the test")
    released = World.make(volumes.make_volume(cluster, namespace, "yard").parent)
    return There(person, limited, inputs, released, captured)


def _limit(cluster: LocalCluster, namespace: str) -> None:
    """A quota of accelerators, the most memory that one container may have, and a driver's account whose RoleBinding somebody forgot."""
    volumes.make_volume(cluster, namespace, "modelyard")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "accelerators"}, "spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}
    limits = {"limits": [{"type": "Container", "max": {"memory": "8Gi"}}]}
    access = [one for one in yaml.safe_load_all((ROOT / "examples/cluster/access.yaml").read_text()) if one["kind"] != "RoleBinding"]
    cluster.apply(quota, {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "containers"}, "spec": limits}, *access, namespace=namespace)


def _secret(name: str) -> dict[str, Any]:
    login = {"auths": {registry.ADDRESS: {"username": "somebody", "password": "a-wrong-one"}}}
    metadata = {"name": name}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps(login)},
    }


def _claim(namespace: str, name: str, modes: Sequence[str] = ("ReadWriteMany",), **spec: Any) -> dict[str, Any]:
    asked = {"accessModes": list(modes), "storageClassName": "", "resources": {"requests": {"storage": "64Ti"}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}, "spec": asked}


def _mismatch(namespace: str) -> list[dict[str, Any]]:
    """A claim that wants its volume on many nodes, and its volume, which does not offer that."""
    name = f"{namespace}-mismatch"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {"modelyard-tests/namespace": namespace}},
        "spec": {
            "capacity": {"storage": "64Ti"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": "/nowhere"},
        },
    }
    return [volume, _claim(namespace, "mismatch", volumeName=name)]
