"""How fast the engines answer the same rows on this machine, from a row's value to its answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard_jobs.engine import TIMED, Engine
from modelyard_jobs.tasks.task import Row

ROUNDS = 3
ROWS = 64
"""Of a round."""


def measure(engines: Mapping[str, Engine], rows: Sequence[Row]) -> dict[str, Any]:
    """Of each engine the median of rounds that take turns, so that what else the machine does meets all of them."""
    timed = rows[:ROWS]
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.answer(engine.prepare(timed), lambda _: None)
            seconds[name].append(time.perf_counter() - begun)
    return {
        name: {
            "rows_per_second": round(len(timed) / statistics.median(seconds[name]), 2),
            "rounds": [round(len(timed) / each, 2) for each in seconds[name]],
            "latency": engine.latency(rows[:TIMED]),
        }
        for name, engine in engines.items()
    } | {"rows": len(timed)}
