"""What a driver shows while it works. The driver never prints; whoever starts it gives it a view."""

from __future__ import annotations

from typing import Protocol

from modelyard.yard.runs import Progress, RunStatus


class View(Protocol):
    """Somebody who watches a run."""

    def begun(self, run: str, note: str) -> None:
        """The run has its name; `note` says what is special about this beginning (attached, resumed), or nothing."""

    def changed(self, status: RunStatus) -> None:
        """A step, or the run, changed its state."""

    def progress(self, step: str, progress: Progress) -> None:
        """A running step came further."""

    def note(self, text: str) -> None:
        """Something that a person should know now."""

    def ended(self, status: RunStatus) -> None:
        """The run is over."""


class Silent:
    """A view for nobody."""

    def begun(self, run: str, note: str) -> None:
        """Nothing."""

    def changed(self, status: RunStatus) -> None:
        """Nothing."""

    def progress(self, step: str, progress: Progress) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def ended(self, status: RunStatus) -> None:
        """Nothing."""
