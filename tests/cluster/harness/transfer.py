"""The way of an image from buildah's storage into a containerd: an OCI layout on disk, streamed as an archive, uncompressed.

A layer that the receivers have unpacked already is neither exported nor imported again: an image of gigabytes whose last layer changed takes seconds.
In place of such a layer the layout has a hollow file of its size, which takes no disk, and which buildah takes for the layer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.harness.processes import run
from tests.cluster.harness.state import HarnessFailure, cache

BLOBS = Path("blobs/sha256")  # in an OCI layout

Layers = Mapping[str, int]  # a layer's digest (in hexadecimal) and its size


def transfer(image: str, sockets: Sequence[Path], record: Path) -> None:
    """Brings an image into every containerd; `record` is the file that keeps which layers all of them have unpacked."""
    recorded = dict(json.loads(record.read_text())) if record.exists() else {}
    # The second time with every layer: a known one lies on other layers in this image, or was removed with the last image that had it.
    for known in (recorded, {}):
        with tempfile.TemporaryDirectory(prefix="image-", dir=cache()) as folder:
            written = _export(image, Path(folder), known, len(sockets))
            try:
                for socket in sockets:
                    _import(image, Path(folder), written, socket)
            except HarnessFailure:
                if not known:
                    raise
                continue
            record.write_text(json.dumps({**recorded, **_layers(Path(folder))}))
            return


def _export(image: str, layout: Path, known: Layers, receivers: int) -> list[Path]:
    """Writes an image as an OCI layout, but for the known layers; returns the blobs that it wrote."""
    blobs = layout / BLOBS
    blobs.mkdir(parents=True)
    for digest, size in known.items():
        with (blobs / digest).open("wb") as file:
            file.truncate(size)
    run("buildah", "push", "--quiet", "--disable-compression", image, f"oci:{layout}:{image}", timeout=1200)
    written = [file for file in blobs.iterdir() if file.name not in known]
    _check_space(image, layout, sum(file.stat().st_size for file in written) * 2 * receivers)
    return written


def _layers(layout: Path) -> Layers:
    """Every layer of the image in an OCI layout."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / BLOBS / _hexadecimal(index["manifests"][0]["digest"])).read_text())
    return {_hexadecimal(layer["digest"]): layer["size"] for layer in manifest["layers"]}


def _check_space(image: str, folder: Path, needed: int) -> None:
    """An archive's blobs and what is unpacked from them are there side by side for a while."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HarnessFailure(f"{image} takes up to {needed >> 20} MiB while it is loaded, and {folder.parent} has {free >> 20} MiB free")


def _import(image: str, layout: Path, written: Sequence[Path], socket: Path) -> None:
    """Streams a layout into a containerd; what was unpacked from is dropped at once."""
    archiver = ["tar", "--create", "--directory", str(layout), "index.json", "oci-layout", *(str(file.relative_to(layout)) for file in written)]
    with subprocess.Popen(archiver, stdout=subprocess.PIPE) as archive:
        command = ["ctr", "--address", str(socket), "-n", "k8s.io", "images", "import", "-"]
        imported = subprocess.run(command, stdin=archive.stdout, capture_output=True, text=True, check=False)
    if imported.returncode != 0 or archive.returncode != 0:
        raise HarnessFailure(f"import of {image}: {imported.stderr[-2000:] or imported.stdout[-2000:]}")
    run("ctr", "--address", socket, "-n", "k8s.io", "content", "prune", "references")


def _hexadecimal(digest: str) -> str:
    return digest.removeprefix("sha256:")
