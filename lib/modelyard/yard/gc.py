"""Garbage collection: what nothing reaches goes to the trash, what has lain there for the grace period is deleted, leftovers are swept.

Kept is what a ref (with all that it can be rolled back to), a pin, a live run or a young action reaches; a young action reaches its artifact
and its inputs. Runs beside readers and committers without a lock: whoever finds an artifact in the trash brings it back, and only what lay
there unasked for the whole grace period is deleted. Ages are differences between times of the volume's own clock. Runs are never removed.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.yard import files
from modelyard.yard.manifest import is_digest

if TYPE_CHECKING:
    from modelyard.yard import Yard

DAY = 86_400.0
GRACE = DAY
"""Seconds that an artifact lies in the trash."""
IDLE = 7 * DAY
"""Seconds after which staging, checkpoints, leases and temporary files that nobody wrote to belong to nobody."""


@dataclass
class GcReport:
    """What gc did, or would do. forgotten: keys of actions; trashed, deleted: digests; swept: paths relative to the yard; freed: bytes."""

    kept: int = 0
    forgotten: list[str] = field(default_factory=list)
    trashed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    freed: int = 0


def collect(yard: Yard, older_than: float, *, dry_run: bool = False, grace: float = GRACE, idle: float = IDLE) -> GcReport:
    """Collect once; see Yard.gc. grace, idle: in place of GRACE and IDLE.

    Raises Corrupt: a ref, a pin or an action cannot be read, and so it is not known what it keeps.
    """
    report = GcReport()
    now = files.volume_time(yard.layout.target("staging"))
    live = {pin.digest for pin in yard.pins.list()} | set(yard.runs.live_digests())
    for record in yard.refs.list().values():
        live |= {former.digest for former in record.history()}
    old = []
    for action in yard.actions.list():
        if now - (yard.actions.used(action.key) or now) > older_than:
            old.append(action)
        else:
            live |= {action.artifact, *action.inputs.values()}
    for action in old:
        if action.artifact not in live:  # else it costs nothing, and may answer again
            report.forgotten.append(action.key)
            if not dry_run:
                yard.actions.forget(action.key)
    for digest in yard.artifacts.digests():
        if digest in live:
            report.kept += 1
        elif dry_run or yard.artifacts.discard(digest):
            report.trashed.append(digest)
    _empty_trash(yard, live, report, now - grace, dry_run)
    _sweep(yard, report, now - idle, dry_run)
    return report


def _empty_trash(yard: Yard, live: set[str], report: GcReport, before: float, dry_run: bool) -> None:
    for name in files.names(yard.root / "trash"):
        path = yard.root / "trash" / name
        found = files.status(path)
        if found is None or found.st_mtime >= before or (name in live and not files.status(yard.root / "artifacts" / name)):
            continue
        size = _size(path)
        if not dry_run:
            if is_digest(name) and not yard.artifacts.delete(name):
                continue
            files.remove_tree(path)
        report.deleted.append(name)
        report.freed += size


def _sweep(yard: Yard, report: GcReport, before: float, dry_run: bool) -> None:
    """Remove what no attempt has written to for long: the newest time below a folder counts."""
    folders = [yard.root / parent / name for parent in ("staging", "checkpoints", "leases") for name in files.names(yard.root / parent)]
    temporary = [
        yard.root / parent / path
        for parent in ("actions", "refs", "pins", "runs")
        for path, _ in files.walk(yard.root / parent)
        if path.endswith(".tmp")
    ]
    for path in folders + temporary:
        found = files.status(path)
        if found and max((found.st_mtime, *(entry.st_mtime for _, entry in files.walk(path)))) < before:
            report.swept.append(str(path.relative_to(yard.root)))
            report.freed += _size(path)
            if not dry_run:
                files.remove_tree(path)


def _size(path: Path) -> int:
    return sum(entry.st_size for _, entry in files.walk(path) if stat.S_ISREG(entry.st_mode))
