"""Removes what a cluster leaves in the kernel and outside its folder: processes, mounts, network namespaces, cgroups, and a few folders.

It trusts nothing but names of the cluster's own, so it serves an ordinary stop and the remains of a killed one alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

from tests.cluster.harness import network, processes
from tests.cluster.harness.processes import run
from tests.cluster.harness.state import HarnessFailure, State

# Folders that kubelet and containerd make wherever they are told to keep theirs, and kernel settings that the kubelet changes.
OUTSIDE = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/var/log/pods", "/run/containerd", "/run/netns")
SETTINGS = (
    *(f"vm/{name}" for name in ("overcommit_memory", "panic_on_oom")),
    *(f"kernel/{name}" for name in ("panic", "panic_on_oops", "keys/root_maxkeys", "keys/root_maxbytes")),
)


def remember(state: State) -> None:
    """Writes down what the machine was like before the start, for `clean` to bring back."""
    outside = [path for path in OUTSIDE if not Path(path).exists()]
    settings = {name: (Path("/proc/sys") / name).read_text().strip() for name in SETTINGS}
    (state.root / "before.json").write_text(json.dumps({"made": outside, "settings": settings}))


def clean(state: State) -> None:
    """Ends and removes everything of the cluster, whatever state it is in; nothing to do is no failure."""
    # The kubelets first: they would start again what ends. etcd last: the others complain to their logs without it.
    order = sorted(processes.running(state), key=lambda name: (not name.endswith("kubelet"), name == "etcd"))
    for name in order:
        processes.stop(state, name, how=signal.SIGKILL)
    shims = {file.parent.name: file.read_text() for file in state.root.glob("*/containerd-state/*/k8s.io/*/address")}
    _end_containers(state)
    _unmount(state.root)
    _remove_network()
    _remove_cgroups()
    _remove_outside(state, shims)
    if state.root.exists():
        shutil.rmtree(state.root)


def found(state: State) -> list[str]:
    """What is there of a cluster now, running or left over: processes, mounts, namespaces, interfaces, cgroups and the folder itself."""
    here = [f"process {pid}" for pid in sorted(_in_cgroups() | _shims(state))]
    here += [f"process {name}" for name in processes.running(state)]
    here += [f"mount {path}" for path in mounts(state.root)]
    here += [f"namespace {name}" for name in map(network.namespace, network.NODES) if Path(f"/run/netns/{name}").exists()]
    here += [f"interface {path.name}" for path in Path("/sys/class/net").glob("modelyard*")]
    here += [f"cgroup {folder}" for folder in _cgroups()]
    return here + ([str(state.root)] if state.root.exists() else [])


def mounts(root: Path) -> list[str]:
    """What is mounted under a folder, the earliest first."""
    paths = [line.split()[4].encode().decode("unicode_escape") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [path for path in paths if path.startswith(f"{root}/")]


def cgroup_mounts() -> list[Path]:
    """Where cgroups are mounted: one folder for each controller of v1, one for v2, or both kinds side by side."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(path) for _, path, kind, *_ in lines if kind in {"cgroup", "cgroup2"}]


def _end_containers(state: State) -> None:
    """Ends everything in the nodes' cgroups, and containerd's shims, which live outside of these."""
    deadline = time.monotonic() + 10
    while pids := _in_cgroups() | _shims(state):
        if time.monotonic() > deadline:
            raise HarnessFailure(f"processes of the cluster's pods do not end: {sorted(pids)}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _in_cgroups() -> set[int]:
    return {int(pid) for folder in _cgroups() for file in folder.rglob("cgroup.procs") for pid in file.read_text().split()}


def _shims(state: State) -> set[int]:
    """The shims whose containerd had its socket in the cluster's folder: their command line says so."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = file.read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and any(word.startswith(os.fsencode(f"{state.root}/")) for word in words):
                found.add(int(file.parent.name))
    return found


def _unmount(root: Path) -> None:
    """Unmounts everything under the cluster's folder, the latest first."""
    for path in reversed(mounts(root)):
        run("umount", "-l", path)


def _remove_network() -> None:
    for node in network.NODES:
        name = network.namespace(node)
        if Path(f"/run/netns/{name}").exists():
            run("ip", "netns", "delete", name)  # and in it every interface, route and iptables chain
        # A namespace ends when its last process does, and its end of the pair with it; deleting this end is at once.
        interface = f"modelyard-{node.removeprefix('node')}"
        if Path(f"/sys/class/net/{interface}").exists():
            with contextlib.suppress(HarnessFailure):  # gone between the look and the command
                run("ip", "link", "delete", interface)
    if Path(f"/sys/class/net/{network.BRIDGE}").exists():
        run("ip", "link", "delete", network.BRIDGE)  # and with it the routes over it


def _cgroups() -> list[Path]:
    folders = [mount / network.namespace(node) for mount in cgroup_mounts() for node in network.NODES]
    return [folder for folder in folders if folder.exists()]


def _remove_cgroups() -> None:
    for top in _cgroups():
        for folder in sorted((path for path in (top, *top.rglob("*")) if path.is_dir()), key=lambda path: -len(path.parts)):
            _remove_cgroup(folder)


def _remove_cgroup(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:  # busy: a killed process leaves its cgroup a moment after it is gone
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _remove_outside(state: State, shims: dict[str, str]) -> None:
    for pod, socket in shims.items():
        Path(socket.removeprefix("unix://")).unlink(missing_ok=True)
        for result in Path("/var/lib/cni/results").glob(f"*-{pod}-*"):
            result.unlink()
    with contextlib.suppress(OSError):
        Path("/run/containerd/s").rmdir()
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{state.root}/"):
            link.unlink()
    before = state.root / "before.json"
    if before.exists():
        remembered = json.loads(before.read_text())
        for path in remembered["made"]:
            _remove_empty(Path(path))
        for name, value in remembered["settings"].items():
            file = Path("/proc/sys") / name
            if file.read_text().strip() != value:
                file.write_text(value)


def _remove_empty(top: Path) -> None:
    """Removes a folder that the cluster made, but for whatever somebody else put into it since."""
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            if name.endswith((".sock", "kubelet_internal_checkpoint", ".lock", "DEPRECATION")):
                (Path(folder) / name).unlink()
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
