"""Container images: from buildah's storage into the nodes.

Images are imported once, into a containerd root in the cache, and only their unpacked layers are kept. A node starts with that root: a copy of
containerd's databases, and links to the unpacked layers. Containers never write to those (each has a layer of its own on top), so all nodes share
one copy, and a start costs neither time nor disk. An image that comes later is imported into each node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.cluster.harness.binaries import program
from tests.cluster.harness.processes import run
from tests.cluster.harness.state import HarnessFailure, State, cache, locked
from tests.cluster.harness.transfer import transfer

PAUSE = "localhost/modelyard-pause:1"
BUSYBOX = "localhost/modelyard-busybox:2"  # what the harness's own tests run
OURS = "localhost/modelyard"  # the project's images: those named so in buildah's storage are in the cluster from its start

IMAGES = "images.json"  # in the cache and in the cluster's folder: the name and buildah's id of each image that is there
LAYERS = "layers.json"  # the same of the layers that are unpacked there

_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
_CONTENT = "io.containerd.content.v1.content"
_METADATA = "io.containerd.metadata.v1.bolt"

_TEMPLATE = """\
version = 2
root = "{root}"
state = "{scratch}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{scratch}/containerd.sock"
"""


def prepare() -> None:
    """Brings the cached root up to date: the harness's images and the project's, as buildah has them now, and no other. Not while a cluster runs."""
    with locked("images"):
        for folder in (*cache().glob("image-*"), *cache().glob("containerd-*")):  # of a killed one: an image is gigabytes
            shutil.rmtree(folder)
        _build_small_images()
        wanted = {name: identity for name, identity in _stored().items() if name in {PAUSE, BUSYBOX} or name.startswith(f"{OURS}:")}
        root = cache() / "containerd"
        record = cache() / IMAGES
        present = json.loads(record.read_text()) if record.exists() else {}
        if present == wanted:
            return
        # Written before the work, too: a root left half done is not taken for what it was.
        kept = {name: identity for name, identity in present.items() if wanted.get(name) == identity}
        record.write_text(json.dumps(kept))
        if not present and root.exists():
            shutil.rmtree(root)
            (cache() / LAYERS).unlink(missing_ok=True)
        root.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="containerd-", dir=cache()) as scratch:
            _update(root, Path(scratch), sorted(set(present) - set(wanted)), sorted(set(wanted) - set(kept)))
        record.write_text(json.dumps(wanted))


def seed(root: Path) -> None:
    """Makes a node's containerd root from the cached one."""
    template = cache() / "containerd"
    (root / _SNAPSHOTS / "snapshots").mkdir(parents=True)
    for snapshot in (template / _SNAPSHOTS / "snapshots").iterdir():
        (root / _SNAPSHOTS / "snapshots" / snapshot.name).symlink_to(snapshot)
    shutil.copy2(template / _SNAPSHOTS / "metadata.db", root / _SNAPSHOTS)
    shutil.copytree(template / _METADATA, root / _METADATA)
    shutil.copytree(template / _CONTENT, root / _CONTENT)  # manifests and configurations: a few kilobytes


def begin(state: State) -> None:
    """Writes down what the nodes of a new cluster have: what the cached root has."""
    for name in (IMAGES, LAYERS):
        shutil.copy2(cache() / name, state.root / name)


def load(state: State, nodes: tuple[str, ...], image: str) -> None:
    """Imports an image of buildah's storage into the nodes of a running cluster; nothing to do where they have it as it is now."""
    with locked("images"):
        identity = _stored().get(image)
        if identity is None:
            raise HarnessFailure(f"buildah has no image {image}")
        record = state.root / IMAGES
        there = json.loads(record.read_text())
        if there.get(image) != identity:
            transfer(image, [state.node(node) / "containerd.sock" for node in nodes], state.root / LAYERS)
            record.write_text(json.dumps(there | {image: identity}))


def loaded(state: State) -> list[str]:
    """The images that the running cluster's nodes have."""
    return sorted(json.loads((state.root / IMAGES).read_text()))


def _stored() -> dict[str, str]:
    """Every named image of buildah's storage: its name and its id."""
    listed = json.loads(run("buildah", "images", "--json") or "[]") or []
    return {name: image["id"] for image in listed for name in image.get("names") or []}


def _build_small_images() -> None:
    """The pause container's image and the tests' own, each one static program on nothing; built anew they have the same id."""
    stored = _stored()
    if PAUSE not in stored:
        with tempfile.TemporaryDirectory(dir=cache()) as context:
            shutil.copy2(program("pause"), context)
            _build(PAUSE, Path(context), 'COPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n')
    if BUSYBOX not in stored:
        with tempfile.TemporaryDirectory(dir=cache()) as context:
            programs = Path(context) / "root" / "bin"
            programs.mkdir(parents=True)
            shutil.copy2("/bin/busybox", programs)
            for name in set(run("/bin/busybox", "--list").split()) - {"busybox"}:
                (programs / name).symlink_to("busybox")
            (Path(context) / "root" / "tmp").mkdir()
            (Path(context) / "root" / "tmp").chmod(0o1777)
            _build(BUSYBOX, Path(context), "COPY root /\nUSER 10001:10001\n")


def _build(image: str, context: Path, instructions: str) -> None:
    file = context / "Dockerfile"
    file.write_text(f"FROM scratch\n{instructions}")
    run("buildah", "build", "--timestamp", "0", "--tag", image, "--file", file, context)


def _update(root: Path, scratch: Path, removed: list[str], changed: list[str]) -> None:
    """Brings images into a containerd root and removes others, by a containerd that runs for as long as that takes."""
    (scratch / "config.toml").write_text(_TEMPLATE.format(root=root, scratch=scratch))
    socket = scratch / "containerd.sock"
    with (scratch / "log").open("wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", scratch / "config.toml"], stdout=log, stderr=log, cwd=scratch)
    try:
        deadline = time.monotonic() + 30
        while "containerd successfully booted" not in (scratch / "log").read_text():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise HarnessFailure(f"containerd does not start:\n{(scratch / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        for image in changed:
            transfer(image, [socket], cache() / LAYERS)
        # After the others, so that the layers that they share with those stay.
        for image in removed:
            run("ctr", "--address", socket, "-n", "k8s.io", "images", "rm", "--sync", image)
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
