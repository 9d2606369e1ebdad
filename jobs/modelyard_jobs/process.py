"""What the frame needs of the operating system to have a child, and a tool beside it, and nothing left over when they have ended."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from modelyard.devices import Vendor
from modelyard.hubs.credentials import VARIABLES
from modelyard_jobs.child import die_with_parent

TOKENS = frozenset(chain(*VARIABLES.values()))
"""What work that needs no hub does not get to see."""


def environment(threads: int, scratch: Path, *, network: bool) -> dict[str, str]:
    """The child's environment: threads, caches in the scratch folder; for work that needs no hub no network for the libraries, and no token."""
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
    quiet = "HF_HUB_DISABLE_TELEMETRY ORT_DISABLE_TELEMETRY HF_HUB_DISABLE_PROGRESS_BARS TQDM_DISABLE PYTHONUNBUFFERED"
    folders = {"HF_HOME": "hf", "XDG_CACHE_HOME": "cache", "TRITON_CACHE_DIR": "triton", "CUDA_CACHE_PATH": "cuda", "MODELSCOPE_CACHE": "modelscope"}
    caches = {name: str(scratch / folder) for name, folder in folders.items()} | {"TMPDIR": str(scratch)}
    pools["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
    # Threads that wait by spinning wait for ever on a core that somebody else uses: on shared cores two of them were seven times slower than one.
    waiting = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    whole = {**waiting, **os.environ, **pools, **dict.fromkeys(quiet.split(), "1"), **caches}
    login = "HF_TOKEN_PATH"
    if network:  # a login that the SDK keeps lies where its caches are unless it is told otherwise
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return {login: str(Path(os.environ.get("HF_HOME") or Path(cache, "huggingface"), "token"))} | whole
    return {name: value for name, value in whole.items() if name not in TOKENS | {login}} | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@contextmanager
def watching(device: Vendor) -> Iterator[subprocess.Popen[bytes] | None]:
    """The vendor's tool, which goes on writing about the use of devices; None where there is no such tool."""
    tool, parent = shutil.which(device.watch[0]) if device.watch else None, os.getpid()
    if tool is None:
        yield None
        return
    gauge = subprocess.Popen(
        [tool, *device.watch[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),  # noqa: PLW1509  # the frame has one thread
    )
    with gauge:
        try:
            yield gauge
        finally:
            gauge.kill()


def reap(*ours: subprocess.Popen[bytes] | None) -> None:
    """Take note of the end of processes that are not ours: the first process of a container inherits what its children leave behind."""
    pids = {process.pid for process in ours if process and process.poll() is None}
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in pids:
            os.waitpid(ended.si_pid, 0)


class Lines:
    """Whole lines from several pipes, each to its own hearer."""

    def __init__(self, hearers: Mapping[int, Callable[[bytes], None]]) -> None:
        self._selector = selectors.DefaultSelector()
        self._rest = dict.fromkeys(hearers, b"")
        for descriptor, hear in hearers.items():
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, hear)

    @property
    def open(self) -> bool:
        """Whether anything may still come."""
        return bool(self._selector.get_map())

    def wait(self, seconds: float) -> bool:
        """Hand on what arrives within `seconds`; whether anything did."""
        if not self.open:
            time.sleep(seconds)
            return False
        ready = self._selector.select(seconds)
        for key, _ in ready:
            data = os.read(key.fd, 1 << 16)
            *lines, self._rest[key.fd] = (self._rest[key.fd] + (data or b"\n")).split(b"\n")
            if not data:
                self._selector.unregister(key.fd)
            for line in filter(None, lines):
                key.data(line)
        return bool(ready)
