"""Garbage collection: what nothing reaches goes to the trash, what has lain there for the grace period is deleted, leftovers are swept.

Kept is what a ref (with all that it can be rolled back to), a pin, a live run or a young action reaches; a young action reaches its artifact
and its inputs. Runs beside readers and committers without a lock: whoever finds an artifact in the trash brings it back, and only what lay
there unasked for the whole grace period is deleted. Ages are differences between times of the volume's own clock. Runs are never removed.
"""

from __future__ import annotations

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
    """What gc did, or would do. actions: keys; artifacts: digests; swept: paths relative to the yard; freed: bytes."""

    kept: int = 0
    forgotten: list[str] = field(default_factory=list)
    trashed: list[str] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    freed: int = 0


def collect(yard: Yard, older_than: float, *, dry_run: bool, grace: float, idle: float) -> GcReport:
    """Collect once; see Yard.gc.

    Raises Corrupt: a ref, a pin or an action cannot be read, and so it is not known what it keeps.
    """
    report = GcReport()
    now = files.volume_time(yard.layout.target("staging"))
    live = {digest for record in yard.refs.list().values() for digest in (entry.digest for entry in record.history())}
    live |= {pin.digest for pin in yard.pins.list()} | set(yard.runs.live_digests())
    actions = yard.actions.list()
    old = []
    for action in actions:
        if now - (yard.actions.used(action.key) or now) > older_than:
            old.append(action)
        else:
            live |= {action.artifact, *action.inputs.values()}
    for action in old:
        if action.artifact in live or now - (yard.actions.used(action.key) or now) <= older_than:
            continue  # its artifact is kept anyway, or it was used since the first look
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
    trash = yard.root / "trash"
    for name in files.names(trash):
        found = files.status(trash / name)
        if found is None:
            continue
        whole = is_digest(name)
        if whole and name in live and not files.status(yard.root / "artifacts" / name):
            report.revived.append(name)
            if not dry_run:
                yard.artifacts.find(name)
        elif found.st_mtime < before:
            size = _size(trash / name)
            if not dry_run and whole and not yard.artifacts.delete(name):
                continue
            if not dry_run and not whole:
                files.remove_tree(trash / name)
            report.deleted.append(name)
            report.freed += size


def _sweep(yard: Yard, report: GcReport, before: float, dry_run: bool) -> None:
    """Remove what no attempt has written to for long: the newest time below a folder counts."""
    folders = [yard.root / parent / name for parent in ("staging", "checkpoints", "leases") for name in files.names(yard.root / parent)]
    temporary = [
        yard.root / parent / entry.path
        for parent in ("actions", "refs", "pins", "runs")
        for entry in files.walk(yard.root / parent)
        if entry.kind == "file" and entry.path.endswith(".tmp")
    ]
    for path in folders + temporary:
        found = files.status(path)
        if found is None or max((found.st_mtime, *(entry.modified for entry in files.walk(path)))) >= before:
            continue
        report.swept.append(str(path.relative_to(yard.root)))
        report.freed += _size(path)
        if not dry_run:
            files.remove_tree(path)


def _size(path: Path) -> int:
    return sum(entry.size for entry in files.walk(path) if entry.kind == "file")
