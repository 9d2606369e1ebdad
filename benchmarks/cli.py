"""How long the command line takes to answer, against `hf` of huggingface_hub, which is installed beside it.

Rounds are interleaved, so that a busy machine is busy for all; the first one warms the file cache and is thrown away. Prints medians and ratios; the
exit code is 1 when a ratio is over the limit.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
LIMIT = 0.5

BIN = Path(sys.executable).parent
QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart.yaml"
PEER = "hf --help"
COMMANDS = {
    PEER: [BIN / "hf", "--help"],
    "modelyard --help": [BIN / "modelyard", "--help"],
    "modelyard check FILE": [BIN / "modelyard", "check", QUICKSTART],
}


def main() -> int:
    """Measure and print; 1 when over the limit."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            seconds[name].append(timed(command))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, median in medians.items():
        spread = f"{min(seconds[name][1:]) * 1000:.0f} to {max(seconds[name][1:]) * 1000:.0f}"
        print(f"{name:24}{median * 1000:6.0f} ms  ({spread}, n={ROUNDS})  {median / medians[PEER]:.2f} x")
    return int(any(median > LIMIT * medians[PEER] for name, median in medians.items() if name != PEER))


def timed(command: list[Path | str]) -> float:
    """Wall time of one run, which has to succeed; seconds."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}  # the peer asks nobody for a newer version
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
