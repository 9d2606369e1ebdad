"""Builds the images `modelyard:VERSION-light` and `modelyard:VERSION-cuda`: `make images`, or `python images/build.py [light] [cuda]`.

The tool is docker, podman or buildah, whichever works first. From the environment:
    CONTAINER_TOOL  that tool instead of the first that works
    BASE            the image to build on: any with a package manager apt, or with Python >= 3.11, tar and CA certificates in it
    VARIANT         the lock of the torch side, requirements/jobs-VARIANT.txt; other than `default`, it becomes part of the tag: `-cuda-VARIANT`
    BUILD_OPTIONS   more options for the tool's `build`, such as `--network host`
    SSL_CERT_FILE, UV_DEFAULT_INDEX
                    the CA bundle and the package index to install with; they reach the build as secrets, and no layer
It pushes nothing, and needs no Python package.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("light", "cuda")
WORKS = {"docker": ["docker", "info"], "podman": ["podman", "info"], "buildah": ["buildah", "info"]}
"""The tools, and the command of each that only succeeds where it could build; an installed docker may have no daemon to talk to."""
PATIENCE = 20
"""Seconds in which that command must have answered."""


def main() -> None:
    """Build what was asked for, and print each image's name and id; the exit code is 1 when one could not be built."""
    parser = argparse.ArgumentParser(description="Build modelyard's images.", epilog="What the environment can say: see the top of this file.")
    parser.add_argument("target", nargs="*", default=TARGETS, help=f"{' or '.join(TARGETS)}; default: both")
    targets = parser.parse_args().target
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"there is no image {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    lock = ROOT / "requirements" / f"jobs-{variant()}.txt"
    if "cuda" in targets and not lock.exists():
        sys.exit(f"VARIANT={variant()}: there is no {lock.relative_to(ROOT)}")
    tool = container_tool()
    for target in targets:
        print(f"{name(target)}: {tool} builds it{f' on {base}' if (base := os.environ.get('BASE')) else ''}", flush=True)
        began = time.monotonic()
        image = build(tool, target)
        print(f"{name(target)}: {image} after {time.monotonic() - began:.0f} s", flush=True)


def name(target: str) -> str:
    """The name of a target's image, with its tag."""
    suffix = f"-{variant()}" if target == "cuda" and variant() != "default" else ""
    return f"modelyard:{version()}-{target}{suffix}"


def version() -> str:
    """modelyard's, read from its source."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "lib" / "modelyard" / "__init__.py").read_text(), re.MULTILINE)
    if not found:
        sys.exit("lib/modelyard/__init__.py has no __version__")
    return found[1]


def variant() -> str:
    """Which lock of the torch side."""
    return os.environ.get("VARIANT") or "default"


def container_tool() -> str:
    """The tool to build with; ends the program where there is none that works."""
    wanted = os.environ.get("CONTAINER_TOOL")
    if wanted and wanted not in WORKS:
        sys.exit(f"CONTAINER_TOOL={wanted}: it must be {', '.join(WORKS)}")
    for tool in [wanted] if wanted else WORKS:
        if works(tool):
            return tool
    sys.exit(f"no {wanted or 'docker, podman or buildah'} that works here: install one (Debian and Ubuntu: apt-get install buildah), or start docker")


def works(tool: str) -> bool:
    """Whether the tool is installed and able to build."""
    try:
        return subprocess.run(WORKS[tool], capture_output=True, check=False, timeout=PATIENCE).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def build(tool: str, target: str) -> str:
    """Build one target and name it; its id. Ends the program when the tool fails."""
    arguments = {"VERSION": version(), "BASE": os.environ.get("BASE"), "VARIANT": variant()}
    with tempfile.TemporaryDirectory() as scratch:
        identity = Path(scratch) / "id"
        command = [tool, "build", "--file", "images/Dockerfile", "--target", target, "--tag", name(target), "--iidfile", str(identity)]
        if tool != "docker":
            command += ["--layers", "--force-rm", "--ignorefile", "images/Dockerfile.dockerignore"]
        for key, value in arguments.items():
            if value:
                command += ["--build-arg", f"{key}={value}"]
        command += [*secrets(Path(scratch)), *shlex.split(os.environ.get("BUILD_OPTIONS", "")), "."]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False)
        if done.returncode:
            sys.exit(f"{name(target)}: {tool} failed; its words are above")
        return identity.read_text().strip()


def secrets(scratch: Path) -> list[str]:
    """The options that give the build what it may use and must not keep; a file that they need lies in scratch."""
    options = []
    if bundle := os.environ.get("SSL_CERT_FILE"):
        options += ["--secret", f"id=certificates,src={bundle}"]
    if index := os.environ.get("UV_DEFAULT_INDEX"):
        file = scratch / "index"
        file.touch(mode=0o600)
        file.write_text(index)
        options += ["--secret", f"id=index,src={file}"]
    return options


if __name__ == "__main__":
    main()
