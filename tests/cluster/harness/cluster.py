"""A cluster by its kubeconfig, whoever runs it: kubectl, and what the tests ask of every cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.harness.binaries import program
from tests.cluster.harness.state import HarnessFailure, cache


class Cluster:
    """A Kubernetes cluster, with the rights of its kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Runs kubectl and returns what it printed; its failure carries its message."""
        command = [
            shutil.which("kubectl") or str(program("kubectl")),
            f"--kubeconfig={self.kubeconfig}",
            f"--cache-dir={cache() / 'kubectl'}",
            *words,
        ]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise HarnessFailure(f"kubectl {' '.join(words)[:200]}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def apply(self, *documents: Mapping[str, Any], namespace: str | None = None) -> None:
        """Creates or changes objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl(*_in(namespace), "apply", "--server-side", "--filename=-", stdin=text)

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """One object."""
        found: dict[str, Any] = json.loads(self.kubectl(*_in(namespace), "get", kind, name, "--output=json"))
        return found

    def items(self, kind: str, *, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        """Every object of a kind, in a namespace or in none."""
        text = self.kubectl(*_in(namespace), "get", kind, f"--selector={selector}", "--output=json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def has(self, kind: str, name: str, *, namespace: str | None = None) -> bool:
        """Whether there is such an object."""
        return bool(self.kubectl(*_in(namespace), "get", kind, name, "--ignore-not-found", "--output=name"))

    def wait(self, what: str, ready: Callable[[], Any], *, within: float = 60) -> Any:
        """Waits until `ready()` gives something true, and returns that; `what` names it where the deadline passes."""
        deadline = time.monotonic() + within
        while not (found := ready()):
            if time.monotonic() > deadline:
                raise HarnessFailure(f"{what}: not within {within:.0f} s")
            time.sleep(0.2)
        return found

    def wait_for_pod(self, name: str, *phases: str, namespace: str, within: float = 60) -> dict[str, Any]:
        """Waits until a pod is in one of the phases; returns it as it is then."""

        def pod() -> dict[str, Any] | None:
            found = self.get("pod", name, namespace=namespace)
            return found if found.get("status", {}).get("phase") in phases else None

        try:
            return dict(self.wait(f"pod {name} is {' or '.join(phases)}", pod, within=within))
        except HarnessFailure as failure:
            raise HarnessFailure(f"{failure}\n{self.kubectl('-n', namespace, 'describe', 'pod', name)[-2000:]}") from failure

    def logs(self, pod: str, *, namespace: str) -> str:
        """What a pod's only container printed."""
        return self.kubectl("-n", namespace, "logs", pod)

    def node_ready(self, name: str) -> bool:
        """Whether a node is registered, Ready, and takes pods (the taint of a new node goes a moment after it is Ready)."""
        if not self.has("node", name):
            return False
        node = self.get("node", name)
        ready = {"type": "Ready", "status": "True"}
        return not node["spec"].get("taints") and any(ready.items() <= condition.items() for condition in node["status"].get("conditions", []))

    def workers(self) -> list[str]:
        """The names of the nodes that take any pod."""
        return [node["metadata"]["name"] for node in self.items("nodes") if not node["spec"].get("taints")]

    def make_namespace(self, name: str, *, level: str = "restricted") -> None:
        """Makes a namespace that refuses pods which ask for more than a pod security standard allows."""
        labels = {"pod-security.kubernetes.io/enforce": level, "app.kubernetes.io/part-of": "modelyard-tests"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.wait(f"service account of {name}", lambda: self.has("serviceaccount", "default", namespace=name))

    def remove_namespace(self, name: str) -> None:
        """Removes a namespace and all that is in it, without waiting for the end of that; its pods get no time to end."""
        self.kubectl("-n", name, "delete", "jobs,pods", "--all", "--grace-period=0", "--force", "--cascade=background")
        self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def _in(namespace: str | None) -> tuple[str, ...]:
    return ("--namespace", namespace) if namespace else ()
