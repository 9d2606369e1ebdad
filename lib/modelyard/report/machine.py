"""The machine behind a run: memory and devices over time, and which packages its steps ran with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelyard.quantities import format_bytes, format_seconds
from modelyard.report import figures
from modelyard.report.figures import Series
from modelyard.report.record import RunRecord
from modelyard.report.sections import Figure, drawn


@dataclass(frozen=True)
class Versions:
    """Packages that these steps ran with."""

    steps: tuple[str, ...]
    packages: tuple[tuple[str, str], ...]


def measured(run: RunRecord) -> Iterator[Figure]:
    """Memory and devices over time, of the steps that ran in this run."""
    for step in run.steps:
        samples = step.samples
        if len(samples) < 2:
            continue
        limit = samples[-1].limit
        top = max(sample.used for sample in samples)
        peak = f"peak {format_bytes(top)}" + (f" of {format_bytes(limit)} allowed" if limit else "")
        used = Series("GiB in use", [(sample.t, sample.used / 2**30) for sample in samples], style="area")
        name = f"Memory of {step.name} over time, {peak}"
        bounds = (0.0, max(top, limit or 0.0) / 2**30 * 1.08 or 1.0)
        line = (limit / 2**30, "limit") if limit else None
        chart = figures.lines(name, [used], x="running time", x_format=format_seconds, bounds=bounds, limit=line, height=170)
        yield drawn(chart, f"{step.name}: {peak}")
        devices = sorted({device for sample in samples for device in sample.devices})
        if devices:
            busy = [
                Series(
                    f"device {device}", [(sample.t, sample.devices[device].percent) for sample in samples if device in sample.devices], place % 3 + 1
                )
                for place, device in enumerate(devices[:3])
            ]
            name = f"Use of the devices of {step.name} over time"
            chart = figures.lines(name, busy, x="running time", y_format=_percent, x_format=format_seconds, bounds=(0.0, 100.0), height=170)
            yield drawn(chart, f"{step.name}: devices in use")


def versions(run: RunRecord) -> list[Versions]:
    """Packages, one entry for all steps that had the same."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for step in run.steps:
        if step.action and step.action.versions:
            found.setdefault(tuple(sorted(step.action.versions.items())), []).append(step.name)
    return [Versions(tuple(steps), packages) for packages, steps in found.items()]


def _percent(value: float) -> str:
    return f"{value:.0f} %"
