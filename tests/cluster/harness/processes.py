"""The cluster's processes: each started in a session of its own with a log file, known by its id and start time, and stopped by that id alone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.harness.state import HarnessFailure, State

LAST_LINES = 15


def start(state: State, name: str, command: Sequence[str | Path], *, namespace: str | None = None) -> None:
    """Starts a process that outlives this one; `namespace` is the network namespace that it runs in."""
    state.logs.mkdir(parents=True, exist_ok=True)
    state.processes.mkdir(parents=True, exist_ok=True)
    # nsenter, not `ip netns exec`: that would give a mount namespace too, and containerd would not see the kubelet's mounts.
    prefix = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    with (state.logs / f"{name}.log").open("ab") as log, _uninterrupted():
        process = subprocess.Popen(
            [*prefix, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=state.root
        )
        (state.processes / name).write_text(f"{process.pid} {_started(process.pid)}")
        _mine[process.pid] = process


def stop(state: State, name: str, *, how: signal.Signals = signal.SIGTERM, within: float = 5.0) -> None:
    """Stops one process, with SIGKILL where the first signal did not do; a process that is gone already is no failure."""
    file = state.processes / name
    if (pid := _alive(file)) is not None:
        for sent, patience in ((how, within), (signal.SIGKILL, 5.0)):
            if _alive(file) is None:
                break
            os.kill(pid, sent)
            deadline = time.monotonic() + patience
            while _alive(file) is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        if _alive(file) is not None:
            raise HarnessFailure(f"process {pid} ({name}) does not end, not even by SIGKILL")
    file.unlink(missing_ok=True)


def running(state: State) -> list[str]:
    """The names of the cluster's processes that run now."""
    files = sorted(state.processes.iterdir()) if state.processes.is_dir() else []
    return [file.name for file in files if _alive(file) is not None]


def wait(state: State, what: str, ready: Callable[[], bool], *, process: str, within: float) -> None:
    """Waits until `ready()`; fails at the deadline, or as soon as the process that it waits for ended, with that process's last words."""
    deadline = time.monotonic() + within
    while not ready():
        ended = _alive(state.processes / process) is None
        if ended or time.monotonic() > deadline:
            reason = f"{process} ended" if ended else f"not within {within:.0f} s"
            raise HarnessFailure(f"{what}: {reason}\n{last_words(state, process)}")
        time.sleep(0.05)


def last_words(state: State, name: str) -> str:
    """The log's path and its last lines."""
    log = state.logs / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
    return "\n".join([f"the last lines of {log}:", *lines])


def run(*command: str | Path, stdin: str | bytes | None = None, timeout: float = 600) -> str:
    """Runs a command to its end and returns what it printed; a failure carries its last lines."""
    text = stdin.encode() if isinstance(stdin, str) else stdin
    words = list(map(str, command))
    done = subprocess.run(words, input=text or b"", capture_output=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).decode(errors="replace").splitlines()[-LAST_LINES:])
        raise HarnessFailure(f"{' '.join(words)[:300]}: exit status {done.returncode}\n{said}")
    return done.stdout.decode(errors="replace")


_mine: dict[int, subprocess.Popen[bytes]] = {}  # those that this process started: an ended one stays a zombie until it is polled


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts off Ctrl-C until the block is done: a process that started and was not written down yet would be known to nobody.

    Only the main thread is ever interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda sent, _: came.append(sent)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _alive(file: Path) -> int | None:
    """The process's id while it runs; None where it ended, or where its id belongs to another process by now."""
    if not file.exists():
        return None
    pid, started = map(int, file.read_text().split())
    if pid in _mine:
        _mine[pid].poll()
    return pid if _started(pid) == started else None


def _started(pid: int) -> int:
    """When a process started, in ticks since boot; -1 where there is none, or none but a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] == "Z" else int(fields[19])
