"""What submitting costs: rendering and submitting the quickstart, against tools that do alike.

`modelyard render` against importing what it stands on (PyYAML, pydantic), against TorchX's Kubernetes dry run and Hera's rendering of like Jobs, and
against kubectl's client-side dry run of the same documents where a kubectl is found. Where a cluster answers (KUBECONFIG or the default), also
`modelyard run -d` against a bare script that makes the same POSTs by the official client, in a namespace of its own whose quota admits no pod.

Rounds are interleaved, so that a busy machine is busy for all; the first one warms the caches and is thrown away. The peers have a virtual
environment of their own, made from requirements/peers.txt. Prints medians and ratios; the exit code is 1 when a ratio is over its limit.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 11
ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PEERS = ROOT / "benchmarks" / "peers"
LOCK = ROOT / "requirements" / "peers.txt"
RENDER = "modelyard render"
RUN = "modelyard run -d"
LIMITS = {"import yaml, pydantic.main": (RENDER, 3.0), "TorchX dry run": (RENDER, 1.0), "Hera to YAML": (RENDER, 1.0), "bare POSTs": (RUN, 1.5)}
"""Peer -> what of ours is measured against it, and how many times as long it may take."""

PIPELINE = """
name: {name}
resources: {{gpus: 1, fallback: cpu}}
steps:
  reviews: {{fetch: {{dataset: modelscope://datasets/hutto/movie-reviews}}}}
  tuned: {{finetune: {{model: modelscope://sentence-transformers/all-MiniLM-L6-v2, data: reviews, epochs: 2}}}}
  score: {{evaluate: {{model: tuned, data: reviews, split: test, rows: 2000}}}}
"""
Command = Callable[[int], list[str | Path]]


def main() -> int:
    """Measure and print; 1 when over a limit."""
    python = _peers()
    with tempfile.TemporaryDirectory() as folder, _namespace() as namespace:
        commands = dict(_commands(python, Path(folder), namespace))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(ROUNDS + 1):
            for name, command in commands.items():
                seconds[name].append(_timed(command(number)))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, median in medians.items():
        spread = f"{min(seconds[name][1:]) * 1000:.0f} to {max(seconds[name][1:]) * 1000:.0f}"
        print(f"{name:28}{median * 1000:6.0f} ms  ({spread}, n={ROUNDS})")
    if namespace is None:
        print("no cluster answers: submitting is not measured")
    missed = 0
    for peer, (ours, limit) in LIMITS.items():
        if peer in medians:
            ratio = medians[ours] / medians[peer]
            missed += ratio > limit
            print(f"{ours} takes {ratio:.2f} x {peer} (at most {limit:g})")
    if "kubectl dry run" in medians:
        print(f"{RENDER} takes {medians[RENDER] / medians['kubectl dry run']:.2f} x kubectl dry run")
    return int(missed > 0)


def _commands(python: Path, folder: Path, namespace: str | None) -> Iterator[tuple[str, Command]]:
    """Name -> command of a round; what is submitted has another name in each."""
    example = folder / "pipeline.yaml"
    example.write_text(PIPELINE.format(name="movie-sentiment"))
    yield RENDER, lambda _: [BIN / "modelyard", "render", example]
    yield "import yaml, pydantic.main", lambda _: [sys.executable, "-c", "import yaml, pydantic.main"]
    yield "TorchX dry run", lambda _: [python, PEERS / "torchx_job.py"]
    yield "Hera to YAML", lambda _: [python, PEERS / "hera_job.py"]
    rendered = folder / "rendered.yaml"
    rendered.write_bytes(subprocess.run([BIN / "modelyard", "render", example], check=True, capture_output=True).stdout)
    if kubectl := shutil.which("kubectl"):
        yield "kubectl dry run", lambda _: [kubectl, "create", "--dry-run=client", "--validate=false", "-o", "yaml", "-f", rendered]
    if namespace is None:
        return

    def ours(number: int) -> list[str | Path]:
        file = folder / f"ours-{number}.yaml"
        file.write_text(PIPELINE.format(name=f"ours-{number}"))
        return [BIN / "modelyard", "run", file, "-d", "--on", "kubernetes", "-n", namespace]

    def bare(number: int) -> list[str | Path]:
        file, documents = folder / f"bare-{number}.yaml", folder / f"bare-{number}.json"
        file.write_text(PIPELINE.format(name=f"bare-{number}"))
        listed = subprocess.run([BIN / "modelyard", "render", file, "-o", "json", "-n", namespace], check=True, capture_output=True).stdout
        documents.write_text(json.dumps(json.loads(listed)["items"]))
        return [sys.executable, PEERS / "bare_post.py", documents, namespace]

    yield RUN, ours
    yield "bare POSTs", bare


@contextmanager
def _namespace() -> Iterator[str | None]:
    """A namespace in which Jobs can be made and no pod starts; None where no cluster answers."""
    kubectl = shutil.which("kubectl")
    if not kubectl or subprocess.run([kubectl, "get", "--raw", "/readyz", "--request-timeout=3s"], capture_output=True, check=False).returncode:
        yield None
        return
    name = f"bench-{os.getpid()}"

    def call(*arguments: str, stdin: str | None = None) -> None:
        subprocess.run([kubectl, *arguments], check=True, capture_output=True, text=True, input=stdin)

    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "modelyard"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
    }
    call("create", "namespace", name)
    try:
        call("create", "quota", "none", "--hard=pods=0", "-n", name)
        call("apply", "-n", name, "-f", str(ROOT / "examples" / "cluster" / "access.yaml"))
        call("create", "-n", name, "-f", "-", stdin=json.dumps(claim))
        yield name
    finally:
        call("delete", "namespace", name, "--wait=false")


def _peers() -> Path:
    """The interpreter of the peers' virtual environment, which is made where it is missing or older than its lock."""
    home = ROOT / ".bench"
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < LOCK.stat().st_mtime:
        subprocess.run([BIN / "uv", "venv", "-q", "--clear", home, "--python", sys.executable], check=True)
        install = [BIN / "uv", "pip", "install", "-q", "--python", python, "--require-hashes", "--compile-bytecode", "-r", LOCK]
        subprocess.run(install, check=True)
        stamp.touch()
    return python


def _timed(command: list[str | Path]) -> float:
    """Wall time of one command, which has to succeed; seconds."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return taken


if __name__ == "__main__":
    sys.exit(main())
