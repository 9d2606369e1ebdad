"""`python -m tests.cluster.harness up | down | status`: the local cluster by hand."""

from __future__ import annotations

import sys
import time

from tests.cluster.harness import images, local, packages, processes
from tests.cluster.harness.binaries import program
from tests.cluster.harness.state import HarnessFailure, announce, state


def main(words: list[str]) -> int:
    """Does one of the three; the exit status is 1 where it could not."""
    commands = {"up": _up, "down": _down, "status": _status}
    if len(words) != 1 or words[0] not in commands:
        announce(f"usage: python -m tests.cluster.harness {' | '.join(commands)}")
        return 2
    try:
        return commands[words[0]]()
    except HarnessFailure as failure:
        announce(str(failure))
        return 1


def _up() -> int:
    if lacks := packages.missing():
        raise HarnessFailure(f"a local cluster needs {', '.join(lacks)}")
    began = time.monotonic()
    cluster = local.up()
    announce(f"up in {time.monotonic() - began:.0f} s")
    _say(cluster)
    return 0


def _down() -> int:
    announce("stopped, and nothing left" if local.down() else "no cluster, nothing to stop")
    return 0


def _status() -> int:
    cluster = local.find()
    if cluster is None:
        announce(f"no cluster (processes of one: {', '.join(processes.running(state())) or 'none'})")
        return 1
    _say(cluster)
    return 0


def _say(cluster: local.LocalCluster) -> None:
    lines = (f"export KUBECONFIG={cluster.kubeconfig}", f"# kubectl: {program('kubectl')}", f"# images:  {' '.join(images.loaded(cluster.state))}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
