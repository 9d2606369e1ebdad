"""Containers of the built images without a cluster: by runc, as tight as a pod under the `restricted` standard, and without a network but loopback.

The root is read-only, every capability is dropped, and /tmp and the home directory are fresh folders that anyone may write to, as an emptyDir is.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.processes import run
from tests.cluster.images import configuration

PATIENCE = 300
"""Seconds after which a program in a container hangs."""
WRITABLE = ("/tmp", "/home/modelyard")
NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "uts")


@dataclass(frozen=True)
class Container:
    """An image's files, ready to run programs on."""

    image: str
    root: Path
    scratch: Path

    def call(self, *words: str, given: Path | None = None, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """What `docker run IMAGE WORDS` does: the words go to the entrypoint. given: a folder to see at /given."""
        return self._run([*configuration(self.image)["Entrypoint"], *words], given, environ or {})

    def run(self, *command: str, given: Path | None = None, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command instead of the entrypoint, as a pod that names one does."""
        return self._run(list(command), given, environ or {})

    def python(self, source: str) -> Any:
        """What a Python program prints, read as JSON; it must succeed."""
        done = self.run("python", "-c", source)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(self, command: list[str], given: Path | None, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        config = configuration(self.image)
        user, group = map(int, config["User"].split(":"))
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
        ]
        name = f"modelyard-tests-{secrets.token_hex(4)}"
        for path in WRITABLE:
            empty = self.scratch / name / path.replace("/", "_")
            empty.mkdir(parents=True)
            empty.chmod(0o777)
            mounts.append({"destination": path, "type": "bind", "source": str(empty), "options": ["bind", "rw", "nosuid", "nodev"]})
        if given:
            mounts.append({"destination": "/given", "type": "bind", "source": str(given), "options": ["bind", "ro"]})
        bundle = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": command,
                "env": [*config["Env"], *(f"{name}={value}" for name, value in environ.items())],
                "cwd": config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": mounts,
            "linux": {"namespaces": [{"type": name} for name in NAMESPACES]},
        }
        (self.scratch / "config.json").write_text(json.dumps(bundle))
        words = ["runc", "--root", str(self.scratch / "runc"), "run", "--bundle", str(self.scratch), name]
        try:
            return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
        finally:
            subprocess.run(["runc", "--root", str(self.scratch / "runc"), "delete", "--force", name], capture_output=True, check=False)


@contextmanager
def container(image: str, scratch: Path) -> Iterator[Container]:
    """A container of an image in buildah's storage, for as long as the block runs."""
    name = run("buildah", "from", "--pull-never", image).strip()
    try:
        yield Container(image, Path(run("buildah", "mount", name).strip()), scratch)
    finally:
        run("buildah", "umount", name)
        run("buildah", "rm", name)
