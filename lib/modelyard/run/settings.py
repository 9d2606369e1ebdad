"""What a run is told beside its pipeline: none of it is part of what the run is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard import __version__, config
from modelyard.errors import Usage
from modelyard.kube.place import Place
from modelyard.quantities import parse_bytes
from modelyard.spec import Pipeline

_IMAGE = re.compile(r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,120})?")
"""A reference without a digest, as https://github.com/distribution/reference has it, with room for a target's suffix."""


@dataclass(frozen=True)
class Settings:
    """yard: its folder. hubs: name of a hub -> folder or address. jobs: steps side by side. force: steps to do again."""

    yard: Path
    hubs: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1
    force: frozenset[str] = frozenset()

    def told(self) -> dict[str, Any]:
        """What a run keeps of them, as JSON values."""
        return {"hubs": dict(self.hubs), "jobs": self.jobs, "force": sorted(self.force)}

    def check(self, pipeline: Pipeline) -> None:
        """Raises Usage when a step is forced that the pipeline has not, or the address of a hub holds a secret: a run keeps both."""
        for name, text in self.hubs.items():
            config.check_hub(text, f"hubs.{name}")
        unknown = sorted(self.force - set(pipeline.steps))
        if unknown:
            raise Usage(f"there is no step {unknown[0]!r} to force", why=f"the steps are {', '.join(pipeline.steps)}", remedy="correct --force")


def place_of(in_force: config.Config, namespace: str = "") -> Place:
    """Where on a cluster runs are, by the settings in force. namespace: for where they name none, by default `default`.

    Raises Usage: the image cannot be one, of which a kubelet would say so in an event and wait for ever; the driver's memory is no size.
    """
    image, memory = in_force["image"], in_force["driver_memory"]
    try:
        parse_bytes(memory)
    except ValueError as error:
        source = in_force.values["driver_memory"].source
        raise Usage(f"{memory!r} is no size", where=source, why=str(error), remedy="write driver_memory as 1Gi") from error
    if not _IMAGE.fullmatch(image):
        why = "an image is written REGISTRY/NAME:VERSION, in lower case but for the version, without -light or -cuda and without a digest"
        raise Usage(f"{image!r} is no image", where=in_force.values["image"].source, why=why, remedy="correct image")
    tagged = ":" in image.rpartition("/")[2]
    return Place(
        namespace=in_force["namespace"] or namespace or "default",
        image=image if tagged else f"{image}:{__version__}",
        claim=in_force["yard"],
        secret=in_force["secret"],
        pull_secret=in_force["pull_secret"],
        queue=in_force["queue"],
        driver_memory=memory,
    )
