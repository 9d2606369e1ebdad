"""Steps as child processes of the driver, on this machine.

A step shares the driver's process group, ends when the driver does, and keeps its own log; the driver learns how it ended from its exit code
and its outcome.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from modelyard.order import Order
from modelyard.yard.runs import Attempt


class LocalExecution:
    """A step that runs as a process."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self._process = process
        self._errors = errors

    def poll(self) -> int | None:
        """The exit code as Python counts it, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to stop: it keeps what it can and ends with 75."""
        self._process.terminate()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def last_words(self) -> str:
        """The last line that it wrote to stderr: what there is when it could not even leave an outcome."""
        lines = self._errors.read_text(errors="replace").strip().splitlines() if self._errors.exists() else []
        return lines[-1] if lines else ""


class LocalExecutor:
    """Starts steps on this machine. Call it from the main thread: the kernel ends a step with the thread that started it."""

    def __init__(self, yard: Path) -> None:
        self._yard = yard

    def start(self, order: Order, attempt: Attempt) -> LocalExecution:
        """Begin an attempt."""
        path = attempt.write_order(order)
        errors = attempt.path / "stderr.txt"
        command = [sys.executable, "-m", "modelyard_jobs", order.verb, "--order", str(path), "--yard", str(self._yard), "--parent", str(os.getpid())]
        with errors.open("ab") as stderr:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)  # our own module, no shell
        return LocalExecution(process, errors)
