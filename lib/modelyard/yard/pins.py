"""Pins: artifacts that a person wants kept, whatever points to them.

pins/<digest>.json      why, and when
"""

from __future__ import annotations

from collections.abc import Callable

from modelyard.errors import NoInput
from modelyard.yard import files, records
from modelyard.yard.artifacts import Artifacts
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import Digest, check_digest
from modelyard.yard.records import Record


class Pin(Record):
    """One pin. at: UTC, for people."""

    digest: Digest
    why: str
    at: str


class Pins:
    """`yard.pins`."""

    def __init__(self, layout: Layout, artifacts: Artifacts, now: Callable[[], str]) -> None:
        """Bind to a layout."""
        self._layout = layout
        self._artifacts = artifacts
        self._now = now

    def add(self, digest: str, why: str) -> Pin:
        """Keep an artifact, which must be there; a second pin replaces the first."""
        self._artifacts.get(digest)
        pin = Pin(digest=digest, why=why, at=self._now())
        records.store(self._layout.target("pins", digest + records.SUFFIX), pin)
        self._artifacts.get(digest)  # as with names: back from the trash, if gc was faster
        return pin

    def remove(self, digest: str) -> None:
        """Let go of an artifact. NoInput where it is not pinned."""
        if not files.remove(self._layout.target("pins", check_digest(digest) + records.SUFFIX)):
            raise NoInput(f"{digest} is not pinned", where=str(self._layout.root), remedy="modelyard yard pin without a digest shows the pins")

    def list(self) -> list[Pin]:
        """All pins."""
        folder = self._layout.root / "pins"
        return [pin for stem in records.stems(folder) if (pin := records.load(folder / (stem + records.SUFFIX), Pin))]
