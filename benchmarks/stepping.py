"""A step as the frame runs it, in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.yard import Artifact, Yard
from modelyard_jobs.context import Context, Stop


@dataclass(frozen=True)
class Ran:
    """What a step left: files, details and decisions by name."""

    files: Path
    details: Mapping[str, Any]
    decisions: Mapping[str, Any]


def run(
    step: Callable[[Context], Any], settings: Any, inputs: Mapping[str, Artifact], yard: Yard, out: Path, *, device: str = "cpu", threads: int = 1
) -> Ran:
    """Run it into a folder of its own, whose name is its key."""
    said: list[Mapping[str, Any]] = []
    for folder in (out / "files", out / "scratch"):
        folder.mkdir(parents=True)
    context = Context(
        settings=settings,
        inputs=inputs,
        out=out / "files",
        scratch=out / "scratch",
        yard=yard,
        key=hashlib.sha256(out.name.encode()).hexdigest(),
        run="bench-r1",
        attempt="bench-r1.it.1",
        device=device,
        threads=threads,
        listing=None,
        hubs={},
        stop=Stop(),
        send=said.append,
    )
    step(context)
    context.checkpoints.clear()
    details, decisions = ({each["name"]: each["value"] for each in said if each["type"] == kind} for kind in ("detail", "decide"))
    return Ran(out / "files", details, decisions)
