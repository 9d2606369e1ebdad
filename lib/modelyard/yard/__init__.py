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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.yard import gc as _gc
from modelyard.yard.actions import Action, Actions, Decision
from modelyard.yard.artifacts import Artifact, ArtifactKind, Artifacts
from modelyard.yard.checkpoints import Checkpoints
from modelyard.yard.gc import GcReport
from modelyard.yard.layout import Layout, open_layout
from modelyard.yard.leases import Lease, Leases
from modelyard.yard.manifest import FileEntry, check_digest, check_paths
from modelyard.yard.names import Names, RefRecord
from modelyard.yard.pins import Pin, Pins
from modelyard.yard.records import utc_now
from modelyard.yard.staging import Staging

if TYPE_CHECKING:
    from modelyard.yard.runs import Runs

__all__ = [
    "Action",
    "Artifact",
    "ArtifactKind",
    "Checkpoints",
    "Decision",
    "FileEntry",
    "GcReport",
    "Lease",
    "Pin",
    "RefRecord",
    "Staging",
    "Yard",
    "check_digest",
    "check_paths",
]


class Yard:
    """An opened yard."""

    def __init__(self, layout: Layout, now: Callable[[], str], clock: Callable[[], float]) -> None:
        """Use `Yard.open`."""
        self.layout = layout
        self.root = layout.root
        self.artifacts = Artifacts(layout)
        self.actions = Actions(layout)
        self.refs = Names(layout, self.artifacts, now)
        self.pins = Pins(layout, self.artifacts, now)
        self.leases = Leases(layout, clock)

    @classmethod
    def open(cls, path: Path | str, write: bool = True, *, now: Callable[[], str] = utc_now, clock: Callable[[], float] = time.monotonic) -> Yard:
        """The yard at `path`; for writing it is made where it is missing, for reading nothing is ever written.

        now: the time that records show to people. clock: monotonic seconds, for leases.
        Raises NoInput: there is no yard to read; VolumeFailed: the volume cannot hold one; NoPermission, NoSpace; Corrupt: another version's.
        """
        return cls(open_layout(Path(path), write), now, clock)

    @cached_property
    def runs(self) -> Runs:
        """Runs and their attempts."""
        from modelyard.yard.runs import Runs

        return Runs(self.layout)

    def staging(self, attempt: str) -> Staging:
        """A new staging folder of an attempt (`<run>.<step>.<n>`)."""
        return Staging(self.layout, attempt)

    def checkpoints(self, key: str, attempt: str) -> Checkpoints:
        """The checkpoints of a key, for an attempt of it."""
        return Checkpoints(self.layout, key, attempt)

    def gc(self, older_than: float, dry_run: bool = False, *, grace: float = _gc.GRACE, idle: float = _gc.IDLE) -> GcReport:
        """Trash what nothing reaches, delete what lay in the trash, sweep leftovers.

        older_than: seconds since its last use after which an action keeps its artifact no more. grace: seconds in the trash. idle: seconds
        without a write after which staging and checkpoints are swept. dry_run: only say what would be done.
        """
        return _gc.collect(self, older_than, dry_run=dry_run, grace=grace, idle=idle)
