"""The yard: the volume that holds artifacts and everything that is known about them. Correct without locks; one yard is one trust domain.

yard = Yard.open(path, write=True)
with yard.staging(attempt) as staging:
    ...write into staging.files...
    artifact = yard.artifacts.commit(staging, kind="model", format="safetensors")
yard.actions.put(key, Action(key=key, verb="fetch", artifact=artifact.digest))
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from modelyard.yard.actions import Action, Actions, Decision
from modelyard.yard.artifacts import Artifacts
from modelyard.yard.checkpoints import Checkpoints
from modelyard.yard.gc import GcReport, collect
from modelyard.yard.layout import Layout, open_layout
from modelyard.yard.leases import Lease, Leases
from modelyard.yard.manifest import Artifact
from modelyard.yard.names import Names, Pins
from modelyard.yard.runs import Runs
from modelyard.yard.staging import Staging

__all__ = ["Action", "Artifact", "Checkpoints", "Decision", "GcReport", "Lease", "Staging", "Yard"]


class Yard:
    """An opened yard."""

    def __init__(self, layout: Layout, clock: Callable[[], float]) -> None:
        """Use `Yard.open`."""
        self.layout = layout
        self.root = layout.root
        self.artifacts = Artifacts(layout)
        self.actions = Actions(layout)
        self.refs = Names(layout, self.artifacts)
        self.pins = Pins(layout, self.artifacts)
        self.leases = Leases(layout, clock)
        self.runs = Runs(layout)

    @classmethod
    def open(cls, path: Path | str, write: bool = True, *, clock: Callable[[], float] = time.monotonic) -> Yard:
        """The yard at `path`; for writing it is made where it is missing, for reading nothing is ever written.

        clock: monotonic seconds, for leases.
        Raises NoInput: there is no yard to read; VolumeFailed: the volume cannot hold one; NoPermission, NoSpace; Corrupt: another version's.
        """
        return cls(open_layout(Path(path), write), clock)

    def known(self, key: str) -> Action | None:
        """The action of a key whose artifact is there; it has answered again, so from now on it counts as young."""
        action = self.actions.get(key)
        if action is None or self.artifacts.find(action.artifact) is None:
            return None
        self.actions.touch(key)
        return action

    def staging(self, attempt: str) -> Staging:
        """A new staging folder of an attempt (`<run>.<step>.<n>`)."""
        return Staging(self.layout, attempt)

    def checkpoints(self, key: str, attempt: str) -> Checkpoints:
        """The checkpoints of a key, for an attempt of it."""
        return Checkpoints(self.layout, key, attempt)

    def gc(self, older_than: float, dry_run: bool = False) -> GcReport:
        """Trash what nothing reaches, delete what lay in the trash for long, sweep leftovers.

        older_than: seconds since its last use after which an action keeps its artifact no more. dry_run: only say what would be done.
        """
        return collect(self, older_than, dry_run=dry_run)
