"""What the scripts here share: where they run, what is said of it, and what a plain matrix product reaches there."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Sequence

import torch
import transformers


def arguments(description: str, argv: Sequence[str] | None, **numbers: int) -> argparse.Namespace:
    """Options of a script: `--device`, `--tiny`, and numbers with their defaults; prints the machine."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy model and few rows: shows that the script works, measures nothing")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(78, "no CUDA device can be used here\n")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(f"{hardware}; torch {torch.__version__}, transformers {transformers.__version__}, CUDA {torch.version.cuda}", flush=True)
    return options


def peak(device: str, dtype: torch.dtype, size: int) -> float:
    """Floating point operations per second of a product of two square matrices: what a model could reach at best."""
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    spent = []
    for _ in range(6):
        begun = time.perf_counter()
        product = one @ other
        product.flatten()[0].item()  # waits for the device
        spent.append(time.perf_counter() - begun)
    return 2 * size**3 / statistics.median(spent[1:])


def held(claims: dict[str, bool], *, judged: bool = True) -> int:
    """Print the claims; 1 when one does not hold. judged: False for a run that measures nothing."""
    for claim, holds in claims.items():
        print(f"{'holds ' if holds else 'MISSED'}  {claim}")
    return int(judged and not all(claims.values()))
