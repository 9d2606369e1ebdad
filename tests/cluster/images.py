"""The project's images, built on this machine for the tests: by buildah, as root, on a Debian made by debootstrap instead of one from a registry.

An image is built when what it is made of has changed, else looked up. Both images are in buildah's storage under their own names, and their packages
stay there as a layer of their own, so that a change of the code costs seconds. `python -m tests.cluster.images [light] [cuda]` does the same by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelyard
from tests.cluster.harness import packages
from tests.cluster.harness.processes import run
from tests.cluster.harness.state import HarnessFailure, locked

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("light", "cuda")
MADE_OF = "modelyard.tests.made-of"
"""The label that keeps the digest of all that an image was made of."""
FILES = ("images/Dockerfile", "images/Dockerfile.dockerignore", "images/build.py", "pyproject.toml", "README.md", "LICENSE", "requirements/dev.txt")
TREES = ("lib", "jobs")
"""What an image is made of, beside its lock."""
SUITE = "bookworm"
INCLUDED = ("ca-certificates", "python3")
LEFT_OUT = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache/apt/archives", "var/lib/apt/lists", "var/log")
"""Folders of the base image that are emptied, as published Debian images do."""
OF_THIS_MACHINE = ("etc/hostname", "etc/resolv.conf")
"""Files that debootstrap copies from the machine that it runs on."""


def name(target: str) -> str:
    """The name of a target's image in buildah's storage."""
    return f"localhost/modelyard:{modelyard.__version__}-{target}"


def image(target: str) -> str:
    """The name of a target's image, made from the sources as they are now."""
    with locked(f"build-{target}"):
        made_of = digest(target)
        old = stored(name(target))
        if old and labels(old).get(MADE_OF) == made_of:
            return name(target)
        build(target, f"--label {MADE_OF}={made_of}")
        if old and old != stored(name(target)):
            # Its packages go with it unless the new one has the same. One that a container still uses stays, without a name.
            subprocess.run(["buildah", "rmi", old], capture_output=True, check=False)
        return name(target)


def build(target: str, options: str = "", root: Path = ROOT, **environ: str) -> None:
    """Run images/build.py of a checkout as its users do; what it prints is shown when it fails."""
    told = {"CONTAINER_TOOL": "buildah", "BASE": base(), "BUILD_OPTIONS": f"--network host {options}"}
    command = [sys.executable, str(root / "images" / "build.py"), target]
    done = subprocess.run(command, env={**os.environ, **told, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise HarnessFailure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}")


def base() -> str:
    """The name of a small Debian with Python in it, made once on this machine."""
    recipe = json.dumps([SUITE, INCLUDED, LEFT_OUT, OF_THIS_MACHINE])
    wanted = f"localhost/modelyard-tests-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked("build-base"):
        packages.install()
        if not stored(wanted):
            _bootstrap(wanted)
    return wanted


def digest(target: str) -> str:
    """Of the sources that an image is made of."""
    lock = {"light": "light", "cuda": "jobs-default"}[target]
    whole = hashlib.sha256(base().encode())
    for path in [ROOT / "requirements" / f"{lock}.txt", *_sources()]:
        whole.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def stored(name: str) -> str:
    """The id of an image in buildah's storage; empty where it is not there."""
    done = subprocess.run(["buildah", "images", "--quiet", "--no-trunc", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def configuration(name: str) -> dict[str, Any]:
    """An image's configuration: User, Env, Entrypoint, Labels and so on, and its history."""
    inspected = json.loads(run("buildah", "inspect", "--type", "image", name))["OCIv1"]
    return {**inspected["config"], "history": inspected["history"]}


def labels(name: str) -> dict[str, str]:
    """The labels of an image."""
    return configuration(name).get("Labels") or {}


def _sources() -> Iterator[Path]:
    for file in FILES:
        yield ROOT / file
    for tree in TREES:
        yield from sorted(path for path in (ROOT / tree).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _bootstrap(name: str) -> None:
    """Makes the base image inside a container of buildah's."""
    container = run("buildah", "from", "scratch").strip()
    try:
        tree = Path(run("buildah", "mount", container).strip())
        run("debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE, tree)
        for folder in LEFT_OUT:
            for entry in (tree / folder).iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        for file in OF_THIS_MACHINE:
            (tree / file).unlink(missing_ok=True)
        run("buildah", "umount", container)
        run("buildah", "commit", "--quiet", container, name)
    finally:
        run("buildah", "rm", container)


if __name__ == "__main__":
    if lacks := packages.missing():
        sys.exit(f"building images here needs {', '.join(lacks)}")
    for wanted in sys.argv[1:] or TARGETS:
        sys.stdout.write(f"{image(wanted)} {stored(name(wanted))}\n")
