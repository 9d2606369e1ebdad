"""What the unit tier switches off is off, here and in a child process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

REFUSED = {
    "network": "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
    "torch": "import torch",
    "part of transformers": "from transformers.utils import logging",
    "waiting": "import time; time.sleep(0)",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_refused_here(code: str) -> None:
    with pytest.raises(BaseException, match="in the unit tier") as raised:
        exec(code, {"__name__": "somebody"})
    assert type(raised.value).__name__ == "SwitchedOff"


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_refused_in_a_child(code: str) -> None:
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert "SwitchedOff" in child.stderr


def test_what_stays_possible() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.01)  # polls by sleeping
        assert child.stdin
        child.stdin.close()
    assert time.monotonic() > 0
