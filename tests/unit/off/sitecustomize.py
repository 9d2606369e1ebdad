"""Switches off what a unit test must not need: network, the torch side, and waiting in real time.

The unit tier's conftest wraps every unit test in `switched_off`; in a process that a unit test starts, Python imports this file by its name, since
the folder is on PYTHONPATH there, and all stays off until the process ends.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder

HEAVY = frozenset({"torch", "transformers", "datasets", "onnx", "onnxruntime"})

_connect, _sleep = socket.socket.connect, time.sleep


class SwitchedOff(BaseException):
    """Raised for what the unit tier must not do; no `except Exception` of the product swallows it."""


@contextmanager
def switched_off() -> Iterator[None]:
    """Off inside, on again after."""
    finder = _NoHeavy()
    sys.meta_path.insert(0, finder)
    socket.socket.connect = _no_network  # type: ignore[method-assign]
    time.sleep = _no_waiting
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        socket.socket.connect = _connect  # type: ignore[method-assign]
        time.sleep = _sleep


class _NoHeavy(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        if fullname.partition(".")[0] in HEAVY:
            raise SwitchedOff(f"import of {fullname} in the unit tier: such a test belongs to tests/steps")


def _no_network(self: socket.socket, address: object) -> None:
    if self.family != socket.AF_UNIX:
        raise SwitchedOff(f"connection to {address} in the unit tier")
    _connect(self, address)  # type: ignore[arg-type]


def _no_waiting(seconds: float) -> None:
    # Popen.wait(timeout=…) polls by sleeping: waiting for a process that the test started is no waiting for a clock.
    if sys._getframe(1).f_globals.get("__name__") != "subprocess":
        raise SwitchedOff(f"time.sleep({seconds}) in the unit tier: pass the clock in, or replace it")
    _sleep(seconds)


if __name__ == "sitecustomize":
    _until_the_end = switched_off()  # held, since a generator that is dropped runs its `finally`
    _until_the_end.__enter__()
