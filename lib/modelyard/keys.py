"""Keys: the digest under which a step's result is found again.

A key holds all that decides the bytes of a result and nothing else: the settings that affect it, the digests of its inputs, the code of the
steps, the versions of the packages whose version shows in results (locked.py), and the kind of device. Resources, names, hubs and clocks are
no part of it. The driver computes it from the locked versions; where others are installed, the frame computes it again from those.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from modelyard import steps
from modelyard.errors import Usage
from modelyard.locked import PINNED
from modelyard.spec import digest
from modelyard.steps import Step


def action_key(step: Step, inputs: Mapping[str, str], device: str, versions: Mapping[str, str] | None = None) -> str:
    """The key of a pure step. inputs: field -> artifact digest; device: `cpu`, `nvidia`; versions: default the locked ones."""
    return digest(key_parts(step, inputs, device, versions))


def key_parts(step: Step, inputs: Mapping[str, str], device: str, versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the key of a pure step is made of."""
    return {
        "verb": step.verb,
        "settings": step.result_settings(),
        "inputs": dict(inputs),
        "code": code_digest(),
        "versions": dict(PINNED if versions is None else versions),
        "device": device,
    }


def installed_versions() -> dict[str, str]:
    """Installed versions of the packages that locked.py names; `absent` where one is not installed."""
    return {name: _installed(name) for name in PINNED}


@cache
def code_digest() -> str:
    """Digest of the sources that a result depends on: all of modelyard_jobs, and the settings' module."""
    package = jobs_package()
    sources = [Path(steps.__file__), *sorted(package.rglob("*.py"))]
    whole = hashlib.sha256()
    for source in sources:
        name = source.relative_to(package).as_posix() if source.is_relative_to(package) else source.name
        whole.update(f"{name}\0{hashlib.sha256(source.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def jobs_package() -> Path:
    """The folder of modelyard_jobs. Raises Usage when this installation has no steps."""
    found = importlib.util.find_spec("modelyard_jobs")
    if found is None or not found.submodule_search_locations:
        raise Usage("the steps are not installed", why="there is no package modelyard_jobs", remedy="pip install 'modelyard[jobs]'")
    return Path(found.submodule_search_locations[0])


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
