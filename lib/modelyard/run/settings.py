"""What a run is told beside its pipeline: none of it is part of what the run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelyard.errors import Usage
from modelyard.spec import Pipeline


@dataclass(frozen=True)
class Settings:
    """yard: its folder. hubs: name of a hub -> folder or address. jobs: steps side by side. force: steps to do again, or all."""

    yard: Path
    hubs: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1
    force: frozenset[str] | Literal["all"] = frozenset()

    def forces(self, step: str) -> bool:
        """Whether a step is to be done again although its result is known."""
        return self.force == "all" or step in self.force

    def check(self, pipeline: Pipeline) -> None:
        """Raises Usage when a step is forced that the pipeline has not."""
        unknown = [] if self.force == "all" else sorted(self.force - set(pipeline.steps))
        if unknown:
            raise Usage(f"there is no step {unknown[0]!r} to force", why=f"the steps are {', '.join(pipeline.steps)}", remedy="correct --force")

    def record(self) -> dict[str, Any]:
        """As JSON, for the run's spec; without the yard, which the spec lies in."""
        return {"hubs": dict(self.hubs), "jobs": self.jobs, "force": self.force if self.force == "all" else sorted(self.force)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], yard: Path) -> Settings:
        """What `record` wrote down."""
        force = record["force"]
        return cls(yard, record["hubs"], record["jobs"], "all" if force == "all" else frozenset(force))
