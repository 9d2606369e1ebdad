"""The cluster's programs, built from the Go modules under tests/cluster/binaries into the cache: a second build is a lookup.

A build is known by the digest of the module's files (go.sum pins what they import) and of the flags; the first one of Kubernetes takes about
six minutes on two cores, everything else seconds to three minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.harness.state import HarnessFailure, announce, cache, locked

SOURCES = Path(__file__).resolve().parent.parent / "binaries"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
PROGRAMS = {"helm": "helm.sh/helm/v3/cmd/helm", "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}
"""What is built from a package that cannot be imported, so that the module here pins it and holds no program of its own."""


def program(name: str) -> Path:
    """The path of one program; builds it where that has not been done."""
    module = "kubernetes" if name in KUBERNETES else name
    flags = _flags(module)
    folder = cache() / "bin" / f"{module}-{_digest(module, flags)}"
    if not (folder / name).exists():
        with locked(f"build-{module}"):
            if not (folder / name).exists():
                _build(module, flags, folder)
    return folder / name


def _build(module: str, flags: list[str], folder: Path) -> None:
    if shutil.which("go") is None:
        raise HarnessFailure(f"{module} is not built yet, and there is no Go toolchain to build it with")
    announce(f"building {module} (the first build of kubernetes takes about six minutes)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / folder.name
        target = ["-o", str(built / module), PROGRAMS.get(module, ".")]
        command = ["go", "build", "-C", str(SOURCES / module), "-mod=readonly", "-trimpath", *flags, *target]
        done = subprocess.run(command, env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HarnessFailure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-3000:]}")
        for name in KUBERNETES if module == "kubernetes" else ():
            (built / name).symlink_to(module)  # one binary: the name it is started by says which program it is
        built.rename(folder)


def _flags(module: str) -> list[str]:
    values = ["-s", "-w"]
    if module == "kubernetes":
        # The version that the API server reports; without it, clients see v0.0.0.
        version = _required("kubernetes", "k8s.io/kubernetes")
        major, minor, _ = version.removeprefix("v").split(".")
        settings = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        values += [f"-X k8s.io/component-base/version.{name}={value}" for name, value in settings.items()]
    if module == "helm":
        # The Kubernetes that `helm template` and `helm lint` render for, where no cluster is asked; without it, 1.20.
        major, minor, _ = _required("kubernetes", "k8s.io/kubernetes").removeprefix("v").split(".")
        settings = {"k8sVersionMajor": major, "k8sVersionMinor": minor}
        values += [f"-X helm.sh/helm/v3/pkg/{package}.{name}={value}" for package in ("chartutil", "lint/rules") for name, value in settings.items()]
        values += [f"-X helm.sh/helm/v3/internal/version.version={_required('helm', 'helm.sh/helm/v3')}"]
    return ["-ldflags", " ".join(values)]


def _required(module: str, path: str) -> str:
    """The version of another module that a module here requires."""
    return next(found[1] for line in (SOURCES / module / "go.mod").read_text().splitlines() if (found := line.split())[:1] == [path])


def _digest(module: str, flags: list[str]) -> str:
    digest = hashlib.sha256(repr(flags).encode())
    for file in sorted((SOURCES / module).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
