"""Questions that need a heavy library, asked in a process of its own: `python -m modelyard_jobs.preflight.ask torch`.

A library that crashes, or hangs on a broken driver, is then a row like any other, and what it writes to stderr is the reason. ONNX Runtime is
asked apart from torch: where torch has been imported, its CUDA libraries are loaded already, and a step that runs without torch would not have them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from modelyard.errors import signal_name

ANSWER_WITHIN = 180.0
"""Seconds: the first import of torch from a cold volume takes most of a minute."""

# x + x on one float: what onnx.helper makes of it at opset 17, IR 8. In bytes, since a step that runs models needs no package `onnx`.
_ADD = (
    b'\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


class NoAnswer(Exception):
    """Raised when the process ended without an answer; the text says how."""


def ask(*question: str) -> tuple[Mapping[str, Any], str]:
    """(the answer, what was written to stderr). question: `torch`, or `onnxruntime` and the providers to ask for. Raises NoAnswer."""
    command = [sys.executable, "-m", "modelyard_jobs.preflight.ask", *question]  # our own module
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ANSWER_WITHIN, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"no answer within {ANSWER_WITHIN:g} s") from error
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        answer = None
    if done.returncode or not isinstance(answer, dict):
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise NoAnswer(f"{signal_name(done.returncode)}: {last}" if done.returncode else f"an answer that cannot be read: {last}")
    return answer, done.stderr.strip()


def _torch() -> dict[str, Any]:
    """What torch says of itself, and each device after a small sum on it."""
    import torch

    said: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": [], "error": ""}
    try:
        torch.cuda.init()
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            total_sum = float(torch.ones(8, device=f"cuda:{index}").sum())
            said["devices"].append({"name": torch.cuda.get_device_name(index), "total": total, "free": free, "works": total_sum == 8.0})
    except (RuntimeError, AssertionError) as error:  # torch's two ways to say that there is no usable device
        said["error"] = str(error).strip().splitlines()[0]
    return said


def _onnxruntime(*wanted: str) -> dict[str, Any]:
    """Which providers are there, and which a session that asked for `wanted` really has."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(_ADD, providers=list(wanted))
    two = session.run(None, {"x": np.ones(1, dtype=np.float32)})[0]
    return {
        "version": onnxruntime.__version__,
        "available": onnxruntime.get_available_providers(),
        "used": session.get_providers(),
        "works": float(two[0]) == 2.0,
    }


_QUESTIONS: Mapping[str, Callable[..., dict[str, Any]]] = {"torch": _torch, "onnxruntime": _onnxruntime}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_QUESTIONS[sys.argv[1]](*sys.argv[2:])) + "\n")
