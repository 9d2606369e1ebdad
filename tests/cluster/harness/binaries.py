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
        command = ["go", "build", "-C", str(SOURCES / module), "-mod=readonly", "-trimpath", *flags, "-o", str(built / module), "."]
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
        version = next(line.split()[-1] for line in (SOURCES / "kubernetes/go.mod").read_text().splitlines() if "k8s.io/kubernetes v" in line)
        major, minor, _ = version.removeprefix("v").split(".")
        settings = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        values += [f"-X k8s.io/component-base/version.{name}={value}" for name, value in settings.items()]
    return ["-ldflags", " ".join(values)]


def _digest(module: str, flags: list[str]) -> str:
    digest = hashlib.sha256(repr(flags).encode())
    for file in sorted((SOURCES / module).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
