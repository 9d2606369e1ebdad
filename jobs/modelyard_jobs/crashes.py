"""The name of an end that the work did not name itself: by its exit code, and by how near its memory was to the limit."""

from __future__ import annotations

import signal

from modelyard.errors import Crashed, Failure, HostOom, from_exit, signal_name
from modelyard.quantities import format_bytes

NEAR_LIMIT = 0.95
"""Share of the memory limit at which a SIGKILL that nobody sent is the kernel's."""


def named(code: int, limit: int | None, used: int, *, by_the_kernel: bool, log: str) -> Failure:
    """The failure of work that ended with an exit code, as Python counts it.

    limit, used: bytes of its group; by_the_kernel: whether that killed a process of the group at the limit meanwhile. log: where to look.
    """
    if code == -signal.SIGKILL and by_the_kernel:
        return host_oom(used, limit or 0, "the kernel killed it at the memory limit")
    if code == -signal.SIGKILL and limit and used >= NEAR_LIMIT * limit:
        return host_oom(used, limit, f"it was killed at {format_bytes(used)}")
    if (kind := from_exit(code) or Crashed) is not Crashed:
        return kind(f"the work ended with exit code {code}", remedy=f"see {log}")
    return Crashed(f"the work was ended by {signal_name(code)}", why="nothing said why", remedy=f"see {log}")


def host_oom(used: int, limit: int, why: str) -> HostOom:
    """The failure of work that reached its memory limit, with the number to ask for."""
    remedy = f"resources: {{memory: {-(-max(used, limit) * 3 // 2 // (1 << 30))}Gi}}, or a smaller batch_size"
    return HostOom(f"the memory limit of {format_bytes(limit)} was reached", why=why, remedy=remedy)
