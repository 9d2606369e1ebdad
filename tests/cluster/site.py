"""A namespace as its users would set it up: a yard's claim, the driver's rights, the hub's token as a Secret, and a hub served by the light image."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelyard
from tests.cluster import images
from tests.cluster.harness import volumes
from tests.cluster.harness.local import LocalCluster

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-this-test-0123456789"
IMAGE = f"localhost/modelyard:{modelyard.__version__}"
PORT = 8000
LEFT_OUT = ("MODELSCOPE_", "HF_", "MODELYARD_", "HUGGING", "KUBECONFIG")


@dataclass(frozen=True)
class Site:
    """yard, hub: the folders of the two volumes, on this machine. home: of the person who types."""

    cluster: LocalCluster
    namespace: str
    yard: Path
    hub: Path
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        """What the commands of a person who works in this namespace see."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        told = {"ON": "kubernetes", "NAMESPACE": self.namespace, "IMAGE": IMAGE, "HUBS_MODELSCOPE": f"http://hub.{self.namespace}.svc:{PORT}"}
        variables = {f"MODELYARD_{name}": value for name, value in told.items()}
        # The hub's Hugging Face face is at the same address.
        faces = {"MODELYARD_HUBS_HUGGINGFACE": variables["MODELYARD_HUBS_MODELSCOPE"]}
        return {**kept, **variables, **faces, "KUBECONFIG": str(self.cluster.kubeconfig), "HOME": str(self.home), "CI": "1"}

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Begin a command of modelyard's."""
        command = [sys.executable, "-m", "modelyard", *words]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environ, **environ},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
        )

    def modelyard(self, *words: str, code: int | None = 0, timeout: float = 600, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command of modelyard's, and hold it to its exit code (None: any)."""
        process = self.start(*words, **environ)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert code is None or done.returncode == code, f"{' '.join(words)}: exit {done.returncode}\n{out[-3000:]}\n{err[-6000:]}"
        return done

    def json(self, *words: str, code: int | None = 0, **environ: str) -> Any:
        """What such a command says as JSON."""
        return json.loads(self.modelyard(*words, "-o", "json", code=code, **environ).stdout)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """kubectl in this namespace."""
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def jobs(self, role: str = "step") -> list[dict[str, Any]]:
        """The Jobs of steps, or of drivers."""
        return self.cluster.items("jobs", namespace=self.namespace, selector=f"modelyard.dev/role={role}")

    def write(self, name: str, text: str) -> str:
        """A file of the person's; its path."""
        path = self.home / name
        path.write_text(text)
        return str(path)


@contextmanager
def site(cluster: LocalCluster, home: Path, *, targets: tuple[str, ...] = images.TARGETS) -> Iterator[Site]:
    """Such a namespace, removed at the end with its volumes. targets: the images that are needed."""
    for target in targets:
        cluster.load_image(images.image(target))
    namespace = f"site-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(namespace)
    try:
        yard = volumes.make_volume(cluster, namespace, "modelyard")
        hub = volumes.make_volume(cluster, namespace, "hub")
        made = Site(cluster, namespace, yard, hub, home)
        made.kubectl("apply", "-f", str(ROOT / "examples" / "cluster" / "access.yaml"))
        token = base64.b64encode(TOKEN.encode()).decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "modelyard-tokens"}, "data": {"modelscope": token, "huggingface": token}}
        cluster.apply(secret, _service(), _pod(), namespace=namespace)
        cluster.wait_for_pod("hub", "Running", namespace=namespace)
        cluster.wait("the hub answers", lambda: _ready(made), within=60)
        yield made
    finally:
        cluster.remove_namespace(namespace)
        volumes.remove_volumes(cluster, namespace)


def fill(folder: Path, source: Path) -> None:
    """Copy the repositories of a folder hub into the hub's volume, so that its pod may write beside them."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, volumes.GROUP, volumes.GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)


def _ready(made: Site) -> bool:
    pod = made.cluster.get("pod", "hub", namespace=made.namespace)
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hub"},
        "spec": {"selector": {"app": "hub"}, "ports": [{"port": PORT, "targetPort": PORT}]},
    }


def _pod() -> dict[str, Any]:
    serve = ["modelyard", "hub", "serve", "/hub", "--host", "0.0.0.0", "--port", str(PORT), "--token-file", "/token/modelscope"]
    container = {
        "name": "hub",
        "image": f"{IMAGE}-light",
        "command": serve,
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "hub", "mountPath": "/hub"},
            {"name": "token", "mountPath": "/token"},
            {"name": "home", "mountPath": "/home/modelyard"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes_of_it = [
        {"name": "hub", "persistentVolumeClaim": {"claimName": "hub"}},
        {"name": "token", "secret": {"secretName": "modelyard-tokens"}},
        {"name": "home", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    spec = {"containers": [container], "securityContext": security, "volumes": volumes_of_it, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hub", "labels": {"app": "hub"}}, "spec": spec}
