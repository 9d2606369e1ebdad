"""What a driver shows while it works. The driver never prints; whoever starts it gives it a view."""

from __future__ import annotations

from modelyard.kube.diagnosis import Diagnosis
from modelyard.yard.runs import Progress, RunStatus


class View:
    """Somebody who watches a run; this one says nothing of what it sees."""

    def begun(self, run: str, note: str) -> None:
        """The run has its name; `note` says what is special about this beginning (attached, resumed), or nothing."""

    def changed(self, status: RunStatus) -> None:
        """A step, or the run, changed its state."""

    def progress(self, step: str, progress: Progress) -> None:
        """A running step came further."""

    def diagnosed(self, step: str, diagnosis: Diagnosis) -> None:
        """It is known why a step failed."""

    def note(self, text: str) -> None:
        """Something that a person should know now."""
