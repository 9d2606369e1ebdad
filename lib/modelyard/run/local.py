"""Steps as child processes of the driver, on this machine.

A step shares the driver's process group, ends when the driver does, and keeps its own log; the driver learns how it ended from its exit code
and its outcome.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from modelyard.errors import Crashed, from_exit, signal_name
from modelyard.kube.diagnosis import Diagnosis
from modelyard.kube.endings import of_ending
from modelyard.order import Order, Outcome
from modelyard.yard.runs import Attempt, Progress, Run


@dataclass(frozen=True)
class Local:
    """Executes the steps of one run as processes. The driver tries again; what runs ends with it."""

    run: Run
    retries = False
    outlives = False
    shares_yard = True

    def begin(self, order: Order) -> Process:
        """Begin an attempt. Call it from the main thread: the kernel ends a step with the thread that started it."""
        attempt = self.run.new_attempt(order.step)
        path, root = attempt.write_order(order.model_copy(update={"attempt": attempt.number})), self.run.path.parents[1]
        command = [sys.executable, "-m", "modelyard_jobs", order.verb, "--order", str(path), "--yard", str(root), "--parent", str(os.getpid())]
        with (attempt.path / "stderr.txt").open("ab") as stderr:
            popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)  # our own module, no shell
        return Process(attempt, order.key, popen)


@dataclass(frozen=True)
class Process:
    """An attempt that is a process."""

    of: Attempt
    key: str
    popen: subprocess.Popen[bytes]

    @property
    def attempt(self) -> int:
        """Its number."""
        return self.of.number

    def poll(self) -> Outcome | None:
        """How it ended: as it says itself, else by its exit code."""
        code = self.popen.poll()
        if code is None:
            return None
        outcome = self.of.outcome()
        if outcome is not None and (code or not outcome.exit_code):
            return outcome
        what = f"the step ended with {signal_name(code)} and left no outcome"
        failure = (from_exit(code) or Crashed)(what, why=self.of.last_words(), remedy=f"see {self.of.path}")
        return Outcome.of(failure, self.of.seconds(), self.key)

    def diagnosis(self, outcome: Outcome) -> Diagnosis:
        """As it says itself."""
        return of_ending(outcome, self.of.run.id, self.of.step)

    def progress(self) -> Progress | None:
        """As the frame wrote it last."""
        return self.of.progress()

    def note(self) -> str:
        """Nothing: it runs."""
        return ""

    def terminate(self) -> None:
        """SIGTERM."""
        self.popen.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self.popen.kill()
