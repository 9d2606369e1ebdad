"""How long a model takes to fetch, against both hubs' own SDKs and against curl, all from one served hub on this machine.

A timing is one library call in a fresh process that has made the same call for a small model before, so that everything is imported: cold into an
empty cache, warm (the call again, in another process), and eight processes at once into one empty cache. `modelyard.fetch` names a commit, as a run
does once its refs are resolved, and once more, warm, a branch. It is cold twice, with fsync and without (switched off in the measured process alone),
because no peer makes anything durable. curl is given the list of files and its hashes are taken afterwards: the least that a script has to do.

Rounds are interleaved, so that a busy machine is busy for all. Prints medians, medians of the ratios within a round, processor time (of the caller,
not of the hub), and the bytes that a warm call read and that the hub read to serve (rchar of /proc/PID/io). Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Calls = dict[str, list[dict[str, float]]]

COLD = 1.4
COLD_WITHOUT_FSYNC = 1.1
WARM = 20.0
WARM_BYTES = 1_000_000

REPOSITORY, SMALL = "bench/model", "bench/small"
TOGETHER = 8
OURS, UNSYNCED, BRANCH = "modelyard", "modelyard, no fsync", "modelyard, a branch"
MODELSCOPE, HUGGINGFACE, CURL = "modelscope", "huggingface_hub", "curl + hashlib"
COLD_SIDES = (OURS, UNSYNCED, MODELSCOPE, HUGGINGFACE, CURL)
WARM_SIDES = {OURS: (OURS, BRANCH), MODELSCOPE: (MODELSCOPE,), HUGGINGFACE: (HUGGINGFACE,)}
"""Who is measured on what a cold call of whom has left."""


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description="modelyard.fetch against snapshot_download of both SDKs and curl")
    parser.add_argument("--megabytes", type=int, default=300, help="size of the weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--call", nargs=3, metavar=("SIDE", "CACHE", "HUB"), help=argparse.SUPPRESS)  # a measured process starts itself so
    options = parser.parse_args()
    if options.call:
        side, cache, hub = options.call
        call_of(side, SMALL, Path(cache).parent / f"warm-{os.getpid()}", hub)()  # imports what is imported late
        print(json.dumps(measured(call_of(side, REPOSITORY, Path(cache), hub))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        total = make_model(folder / "hub" / REPOSITORY, options.megabytes << 20)
        make_model(folder / "hub" / SMALL, 1 << 20)
        with served(folder / "hub") as (hub, server):
            cold, warm = rounds(options.rounds, folder, hub)
            crowd = {side: together(side, folder / "together", hub, server) for side in (OURS, MODELSCOPE, HUGGINGFACE)}
    print(f"{total / 1e6:.0f} MB, {options.rounds} rounds")
    return report(cold, warm, crowd, total)


def rounds(number: int, folder: Path, hub: str) -> tuple[Calls, Calls]:
    """Cold and warm calls of every side, `number` times, each round in another order."""
    cold, warm = defaultdict(list), defaultdict(list)
    cache = folder / "cache"
    for turn in range(number):
        for side in COLD_SIDES[turn % len(COLD_SIDES) :] + COLD_SIDES[: turn % len(COLD_SIDES)]:
            os.sync()  # nobody pays for what another side left to be written
            cold[side].append(run(side, cache, hub))
            for again in WARM_SIDES.get(side, ()):
                warm[again].append(run(again, cache, hub))
            shutil.rmtree(cache)
    return cold, warm


def together(side: str, cache: Path, hub: str, server: int) -> dict[str, float]:
    """Eight processes that start at once into one cache: failures, bytes that the hub read, and the wall time of all."""
    before, start = read_bytes(server), time.perf_counter()
    processes = [start_call(side, cache, hub) for _ in range(TOGETHER)]
    outputs = [process.communicate()[0] for process in processes]
    failures = sum(process.returncode != 0 or not output for process, output in zip(processes, outputs, strict=True))
    result = {"failures": failures, "served": read_bytes(server) - before, "seconds": time.perf_counter() - start}
    shutil.rmtree(cache)
    return result


def report(cold: Calls, warm: Calls, crowd: dict[str, dict[str, float]], total: int) -> int:
    """Print what was found; 1 when a target is missed."""
    better = min((MODELSCOPE, HUGGINGFACE), key=lambda side: median(cold[side], "seconds"))
    ratios = {side: ratio(calls, cold[better]) for side, calls in cold.items()}
    for side, calls in cold.items():
        seconds = [call["seconds"] for call in calls]
        print(
            f"cold      {side:20} {statistics.median(seconds):8.3f} s   ({min(seconds):.2f} to {max(seconds):.2f})"
            f"  {ratios[side]:.2f} x {better}; processor {median(calls, 'processor'):.2f} s"
        )
    for side, calls in warm.items():
        print(f"warm      {side:20} {median(calls, 'seconds') * 1000:8.1f} ms  {median(calls, 'read') / 1e6:8.3f} MB read")
    faster = ratio(warm[MODELSCOPE], warm[OURS])
    for side, found in crowd.items():
        print(f"together  {side:20} {found['seconds']:8.2f} s   {found['served'] / total:.2f} x the model served, {found['failures']:.0f} failures")
    claims = {
        f"cold at most {COLD} x the better SDK": ratios[OURS] <= COLD,
        f"cold without fsync at most {COLD_WITHOUT_FSYNC} x": ratios[UNSYNCED] <= COLD_WITHOUT_FSYNC,
        f"warm at least {WARM:.0f} x faster than modelscope ({faster:.0f} x)": faster >= WARM,
        f"warm under {WARM_BYTES / 1e6:.0f} MB read": median(warm[OURS], "read") < WARM_BYTES,
        f"{TOGETHER} at once: none fails, the model is served about once": crowd[OURS]["failures"] == 0 and crowd[OURS]["served"] < 1.2 * total,
    }
    for claim, holds in claims.items():
        print(f"{'holds ' if holds else 'MISSED'}  {claim}")
    return int(not all(claims.values()))


def call_of(side: str, repository: str, cache: Path, hub: str) -> Callable[[], object]:
    """The call to measure."""
    cache.mkdir(parents=True, exist_ok=True)
    if side == BRANCH:
        import modelyard

        return lambda: modelyard.fetch(f"modelscope://{repository}", yard=cache / "yard")
    if side in (OURS, UNSYNCED):
        import modelyard

        if side == UNSYNCED:
            os.fsync = lambda _: None
            os.posix_fadvise = lambda *_: None  # it only begins what fsync would wait for
        commit = json.load(urllib.request.urlopen(f"{hub}/api/models/{repository}"))["sha"]
        return lambda: modelyard.fetch(f"modelscope://{repository}@{commit}", yard=cache / "yard")
    if side == MODELSCOPE:
        from modelscope_hub.compat import snapshot_download

        return lambda: snapshot_download(repository, revision="master", cache_dir=str(cache))
    if side == HUGGINGFACE:
        from huggingface_hub import snapshot_download as download

        return lambda: download(repository, cache_dir=str(cache))
    listed = json.load(urllib.request.urlopen(f"{hub}/api/models/{repository}/tree/main?recursive=true"))
    return lambda: curl([entry["path"] for entry in listed if entry["type"] == "file"], cache, f"{hub}/{repository}/resolve/main")


def curl(paths: list[str], cache: Path, base: str) -> list[str]:
    """Download with one curl process, then hash."""
    arguments = [part for path in paths for part in ("-o", str(cache / path), f"{base}/{path}")]
    subprocess.run(["curl", "-sSf", "--create-dirs", *arguments], check=True)
    hashes = []
    for path in paths:
        with (cache / path).open("rb") as stream:
            hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashes


def measured(call: Callable[[], object]) -> dict[str, float]:
    """Wall time, processor time (children's too) and bytes read of one call."""
    before, times, start = read_bytes("self"), os.times(), time.perf_counter()
    call()
    seconds, after = time.perf_counter() - start, os.times()
    return {"seconds": seconds, "processor": sum(after[:4]) - sum(times[:4]), "read": read_bytes("self") - before}


def run(side: str, cache: Path, hub: str) -> dict[str, float]:
    """One call in a process of its own, which has to succeed."""
    process = start_call(side, cache, hub)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{side} failed")
    return dict(json.loads(output.splitlines()[-1]))


def start_call(side: str, cache: Path, hub: str) -> subprocess.Popen[str]:
    """Start a process that measures one call; HOME is the cache's, so that no state of this machine takes part."""
    home = cache.parent / "home"
    environment = os.environ | {
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "MODELSCOPE_ENDPOINT": hub,
        "MODELSCOPE_CACHE": str(cache),
        "INTRA_CLOUD": "false",
        "MODELYARD_HUBS_MODELSCOPE": hub,
        "MODELYARD_HUBS_HUGGINGFACE": hub,
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, __file__, "--call", side, str(cache), hub]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if side != OURS else None, text=True)


def median(calls: list[dict[str, float]], what: str) -> float:
    """Of one figure of several calls."""
    return statistics.median(call[what] for call in calls)


def ratio(calls: list[dict[str, float]], others: list[dict[str, float]]) -> float:
    """Median of the ratios of wall time round by round: what slows a round down slows both."""
    return statistics.median(call["seconds"] / other["seconds"] for call, other in zip(calls, others, strict=True))


def read_bytes(process: int | str) -> int:
    """What a process has read, from caches too (rchar)."""
    return int(Path(f"/proc/{process}/io").read_text().split("rchar: ")[1].split()[0])


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """The folder by `modelyard hub serve`: its address and the server's process."""
    command = [Path(sys.executable).parent / "modelyard", "hub", "serve", folder, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield next(word for word in server.stdout.readline().split() if word.startswith("http://")).rstrip("/"), server.pid
        finally:
            server.terminate()


def make_model(folder: Path, size: int) -> int:
    """Write random weights of `size` bytes and the small files of a usual model; gives the bytes of all."""
    folder.mkdir(parents=True)
    header = json.dumps({"weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size // 4 * 4]}}).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for _ in range(size >> 20):
            stream.write(os.urandom(1 << 20))
    small = {"config.json": 700, "tokenizer.json": 460_000, "tokenizer_config.json": 1_200, "special_tokens_map.json": 700, "README.md": 9_000}
    for name, length in small.items():
        (folder / name).write_text(json.dumps({"padding": "x" * (length - 15)}))
    (folder / "vocab.txt").write_text("\n".join(f"word{number}" for number in range(30_000)))
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    sys.exit(main())
