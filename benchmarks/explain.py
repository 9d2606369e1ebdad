"""What an answer costs: `modelyard explain` of a run that fits on no node, against a script that makes the same calls by the official client.

On the cluster that kubectl finds (KUBECONFIG or the default), in a namespace and with a volume of its own; the volume is a name only, nothing is ever
written to it. Rounds are interleaved, so that a busy machine is busy for both; the first one warms the caches and is thrown away. Prints medians and
their ratio; the exit code is 1 when it is over its limit.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROUNDS = 11
LIMIT = 1.5
"""Times as long as its peer that `explain` may take."""
WITHIN = 60.0
"""Seconds for the scheduler to say that the pod fits nowhere."""
ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PEER = ROOT / "benchmarks" / "peers" / "explain.py"
PIPELINE = "name: waits\nsteps:\n  find: {search: {query: bert}}\n"
TOO_MUCH = "500Ti"
"""Memory that no node has."""


def main() -> int:
    """Measure and print; 1 when over the limit."""
    kubectl = shutil.which("kubectl")
    if not kubectl or subprocess.run([kubectl, "get", "--raw", "/readyz", "--request-timeout=3s"], capture_output=True, check=False).returncode:
        print("no cluster answers: explain is not measured")
        return 0
    with _pending(kubectl) as (namespace, run):
        ours = [str(BIN / "modelyard"), "explain", run, "--on", "kubernetes", "-n", namespace]
        told = json.loads(_timed([*ours, "-o", "json"])[1])
        if told["category"] != "never-fits":
            sys.exit(f"the run should fit on no node, and explain says {told['category']}: {told['what']}")
        commands = {"modelyard explain": ours, "the client's same calls": [sys.executable, str(PEER), namespace, run]}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS + 1):
            for name, command in commands.items():
                seconds[name].append(_timed(command)[0])
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, median in medians.items():
        spread = f"{min(seconds[name][1:]) * 1000:.0f} to {max(seconds[name][1:]) * 1000:.0f}"
        print(f"{name:28}{median * 1000:6.0f} ms  ({spread}, n={ROUNDS})")
    ours_median, peers = medians.values()
    print(f"modelyard explain takes {ours_median / peers:.2f} x a script that makes the same calls (at most {LIMIT:g})")
    return int(ours_median > LIMIT * peers)


@contextmanager
def _pending(kubectl: str) -> Iterator[tuple[str, str]]:
    """A namespace, and a run in it whose driver's pod asks for more memory than there is."""
    name = f"bench-explain-{os.getpid()}"

    def call(*arguments: str, stdin: Any = None) -> str:
        text = None if stdin is None else json.dumps(stdin)
        return subprocess.run([kubectl, *arguments], check=True, capture_output=True, text=True, input=text).stdout

    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            **common,
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": f"/nonexistent/{name}"},
            "claimRef": {"namespace": name, "name": "modelyard"},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "modelyard"},
        "spec": {**common, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
    }
    call("create", "namespace", name)
    try:
        call("create", "-f", "-", stdin=volume)
        call("create", "-n", name, "-f", "-", stdin=claim)
        call("wait", "-n", name, "pvc/modelyard", "--for=jsonpath={.status.phase}=Bound", f"--timeout={WITHIN:g}s")
        call("apply", "-n", name, "-f", str(ROOT / "examples" / "cluster" / "access.yaml"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "waits.yaml"
            file.write_text(PIPELINE)
            submit = [str(BIN / "modelyard"), "run", str(file), "-d", "-q", "--on", "kubernetes", "-n", name]
            run = _timed(submit, MODELYARD_DRIVER_MEMORY=TOO_MUCH)[1].strip()
        until = time.monotonic() + WITHIN
        while "Unschedulable" not in call("get", "pods", "-n", name, "-o", "jsonpath={.items[*].status.conditions[*].reason}"):
            if time.monotonic() > until:
                sys.exit("the scheduler has not looked at the pod")
            time.sleep(0.5)
        yield name, run
    finally:
        call("delete", "namespace", name, "--wait=false")
        call("delete", "pv", name, "--wait=false", "--ignore-not-found")


def _timed(command: list[str], **environ: str) -> tuple[float, str]:
    """Wall time of one command, which has to succeed, in seconds, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})
    taken = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return taken, done.stdout


if __name__ == "__main__":
    sys.exit(main())
