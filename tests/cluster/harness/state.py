"""Where the local cluster lives: one folder for what runs (state), one for what may be used again (cache), and one lock over both.

Nothing is kept anywhere else, but for what the kernel holds (network namespaces, mounts, cgroups); `leftovers` removes those.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class HarnessFailure(Exception):
    """The cluster could not be had: says what failed, and where to read more."""


@dataclass(frozen=True)
class State:
    """The folder of the cluster that runs, or ran."""

    root: Path

    @property
    def certificates(self) -> Path:
        """Keys, certificates and kubeconfigs."""
        return self.root / "certificates"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; written last, so a cluster that has one is up."""
        return self.root / "kubeconfig"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        """One file for each process: its id and when it started."""
        return self.root / "processes"

    @property
    def volumes(self) -> Path:
        """The folders behind the PersistentVolumes."""
        return self.root / "volumes"

    def node(self, name: str) -> Path:
        """What belongs to one node: containerd's, the kubelet's and the network plugins' folders."""
        return self.root / name


def state() -> State:
    """The state folder of whoever runs this: `$XDG_STATE_HOME/modelyard/cluster`."""
    return State(_base("XDG_STATE_HOME", ".local/state") / "modelyard" / "cluster")


def cache() -> Path:
    """What a second start does not make again, binaries and unpacked images: `$XDG_CACHE_HOME/modelyard/cluster`."""
    folder = _base("XDG_CACHE_HOME", ".cache") / "modelyard" / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def announce(text: str) -> None:
    """Says in one line what takes long, or changes the machine."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds one of the harness's locks: two starts, or two builds, wait for each other instead of sharing half a file."""
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _base(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback)
