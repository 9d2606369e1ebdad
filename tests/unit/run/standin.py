"""A namespace in memory for tests of the driver: objects, and what a controller and a kubelet would say of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.kube.cluster import Kind, Manifest
from modelyard.order import Outcome, termination_message
from tests.unit.kube.fake import FakeCluster


@dataclass
class Clock:
    """Time that passes when somebody waits."""

    now: float = 100.0
    then: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at, do in [one for one in self.then if one[0] <= self.now]:
            self.then.remove((at, do))
            do()


class Standin(FakeCluster):
    """A namespace whose controllers and kubelets the test plays; a Job that is being deleted stays until `vanish`. calls: (verb, kind) of each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def get(self, kind: Kind, name: str) -> Manifest | None:
        self.calls.append(("get", kind))
        return super().get(kind, name)

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, fields: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> list[Manifest]:
        self.calls.append(("list", kind))
        return super().list(kind, labels, fields=fields, everywhere=everywhere)

    def create(self, manifest: Manifest) -> Manifest | None:
        self.calls.append(("create", manifest["kind"]))
        return super().create(manifest)

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest | None:
        self.calls.append(("patch", kind))
        return super().patch(kind, name, patch)

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: int | None = None, wait_for_pods: bool = False) -> bool:
        self.calls.append(("delete", kind))
        if wait_for_pods and not self.down and (kind, name) in self.objects:
            self.objects[kind, name]["metadata"].setdefault("finalizers", []).append("a pod that takes its time")
        return super().delete(kind, name, uid=uid, grace=grace, wait_for_pods=wait_for_pods)

    def logs(self, pod: str, *, follow: bool = False, since: str | None = None, tail: int | None = None, container: str = "") -> Iterator[bytes]:
        self.calls.append(("logs", "Pod"))
        return super().logs(pod, follow=follow, since=since, tail=tail, container=container)

    # --- the controllers

    def jobs(self, role: str = "step") -> list[str]:
        return [name for (kind, name), one in self.objects.items() if kind == "Job" and one["metadata"]["labels"]["modelyard.dev/role"] == role]

    def vanish(self, kind: str, name: str) -> None:
        """An object goes, and a Job's pods with it."""
        del self.objects[kind, name]
        for at in [at for at, one in self.objects.items() if at[0] == "Pod" and kind == "Job" and job_of(one) == name]:
            del self.objects[at]

    def pod(self, job: str, *, node: str = "", **status: Any) -> str:
        """A pod of a Job; its status besides."""
        of = self.objects["Job", job]
        labels = {**of["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": job}
        name = f"{job}-{len(self.objects)}"
        owner = {"kind": "Job", "name": job, "uid": of["metadata"]["uid"]}
        metadata = {"name": name, "labels": labels, "ownerReferences": [owner]}
        spec = {**copy.deepcopy(of["spec"]["template"]["spec"]), "nodeName": node}
        self.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
        return name

    def runs(self, job: str, node: str = "node-1") -> str:
        """A pod of the Job at work."""
        return self.pod(job, node=node, phase="Running", containerStatuses=[{"name": "step", "state": {"running": {}}}])

    def ends(
        self, job: str, outcome: Outcome | None = None, *, node: str = "node-1", reason: str = "", exit_code: int | None = None, oom: bool = False
    ) -> None:
        """A pod of the Job ends, and the Job with it. outcome: its termination message."""
        code = exit_code if exit_code is not None else outcome.exit_code if outcome else 0
        ended: dict[str, Any] = {"exitCode": code, "reason": "OOMKilled" if oom else "Completed" if code == 0 else "Error"}
        if outcome:
            ended["message"] = termination_message(outcome).decode()
        self.pod(job, node=node, phase="Failed" if code else "Succeeded", containerStatuses=[{"name": "step", "state": {"terminated": ended}}])
        self.over(job, "Failed" if code else "Complete", reason or ("PodFailurePolicy" if code else "CompletionsReached"))

    def over(self, job: str, kind: str, reason: str, message: str = "") -> None:
        self.objects["Job", job]["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}

    def data(self, name: str) -> dict[str, Any]:
        """A ConfigMap's data, read."""
        return {key: json.loads(text) for key, text in self.objects["ConfigMap", name]["data"].items() if key.endswith(".json")}


def job_of(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
