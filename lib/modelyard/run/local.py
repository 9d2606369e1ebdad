"""Steps as child processes of the driver, on this machine.

A step shares the driver's process group, ends when the driver does, and keeps its own log; the driver learns how it ended from its exit code
and its outcome.
"""

from __future__ import annotations

import os
import subprocess
import sys

from modelyard.order import Order
from modelyard.yard.runs import Attempt


def execute(order: Order, attempt: Attempt) -> subprocess.Popen[bytes]:
    """Begin an attempt. Call it from the main thread: the kernel ends a step with the thread that started it."""
    path, root = attempt.write_order(order), attempt.run.path.parents[1]
    command = [sys.executable, "-m", "modelyard_jobs", order.verb, "--order", str(path), "--yard", str(root), "--parent", str(os.getpid())]
    with (attempt.path / "stderr.txt").open("ab") as stderr:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)  # our own module, no shell
