"""The process that does a step's work: loads the step's module, runs it, and tells the frame what happened.

It gets one JSON document on stdin and writes one JSON object a line to the file descriptor that the document names; stdout and stderr are
left to libraries. An exception that is no Failure is a bug of ours and is told with its traceback.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelyard.devices import CPU
from modelyard.errors import Bug, Failure, HostOom, NoAccelerator, NoPermission, NoSpace, Usage, VolumeFailed
from modelyard.hubs import Listing
from modelyard.order import Order
from modelyard.steps import Reuse
from modelyard.yard import Yard
from modelyard_jobs.context import Context, Produced, Stop

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send signal `number` to this process when the process that started it is gone.

    parent: its process id as the parent itself gave it, so that a parent that died before this call is noticed.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def main() -> int:
    """Do the work that stdin describes; the exit code is its class."""
    stop = Stop()
    stop.install()
    work = json.loads(sys.stdin.readline())
    die_with_parent(work["parent"], signal.SIGKILL)
    os.dup2(2, 1)  # what libraries print is not the protocol
    channel = os.fdopen(work["channel"], "w", encoding="utf-8", buffering=1)

    def send(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message, default=str) + "\n")  # ASCII, which holds any text, half a surrogate too

    try:
        produced = _run(work, stop, send)
    except BaseException as error:  # noqa: BLE001  # the frame turns every end into an outcome
        failure = _failure(error)
        if isinstance(failure, Bug):
            send({"type": "log", "level": "error", "event": "traceback", "traceback": traceback.format_exc()})
        send({"type": "failure", **failure.record()})
        return failure.exit_code
    send({"type": "produced", "kind": produced.kind, "format": produced.format, "known": dict(produced.known), "existing": produced.existing})
    return 0


def _run(work: Mapping[str, Any], stop: Stop, send: Any) -> Produced:
    order = Order.model_validate(work["order"], strict=False)
    if order.step_settings().reuse is not Reuse.OBSERVE:  # which finds out for itself, and tells it among the rest
        _confirm(work["device"])
    yard = Yard.open(Path(work["yard"]))
    context = Context(
        settings=order.step_settings(),
        inputs={name: yard.artifacts.get(digest) for name, digest in order.inputs.items()},
        out=Path(work["out"]),
        scratch=Path(work["scratch"]),
        yard=yard,
        key=work["key"],
        run=order.run,
        attempt=order.attempt_id,
        device=work["device"],
        threads=work["threads"],
        listing=Listing.from_record(order.listing) if order.listing else None,
        forced=order.forced,
        hubs=order.hubs,
        stop=stop,
        send=send,
    )
    module = importlib.import_module(f"modelyard_jobs.{order.verb}")
    produced: Produced = module.run(context)
    return produced


def _confirm(device: str) -> None:
    """Ask the framework whether it can use the device that the frame saw. Raises NoAccelerator."""
    if device == CPU.device or find_spec("torch") is None:  # ONNX Runtime is asked when it has a session; what needs torch fails by itself
        return
    import torch

    if not torch.cuda.is_available():
        why = f"torch {torch.__version__} was built for CUDA {torch.version.cuda}" if torch.version.cuda else f"torch {torch.__version__} has no CUDA"
        raise NoAccelerator(
            "torch cannot use the accelerator that is here", why=why, remedy="match the driver to torch's CUDA, or set `fallback: cpu`"
        )


def _failure(error: BaseException) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("modelyard"):
        return Usage(f"the package {error.name!r} is not installed", why="this step needs more than the base", remedy="pip install 'modelyard[jobs]'")
    if isinstance(error, MemoryError):
        return HostOom("the process could not get memory", why=str(error), remedy="give the step more: resources: {memory: …}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("no space is left", where=str(error.filename or ""), why=os.strerror(error.errno), remedy="free space, or use a larger volume")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return NoPermission("access was denied", where=str(error.filename or ""), why=os.strerror(error.errno), remedy="check the owner and the mode")
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE, errno.ENODEV, errno.EROFS):
        return VolumeFailed("the volume failed", where=str(error.filename or ""), why=os.strerror(error.errno), remedy="check the volume")
    last = traceback.extract_tb(error.__traceback__)[-1:] or []
    where = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return Bug(f"{type(error).__name__}: {error}", where=where, remedy="this is an error of modelyard; the step's log holds the traceback")


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # libraries' exit handlers cannot change how it ended
