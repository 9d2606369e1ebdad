"""Durations and amounts of memory as people write them, in the units that the program counts in (seconds, bytes)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_DURATION = re.compile(r"(\d+)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T|)")
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE](\d{1,2}|-\d{1,2}|\+\d{1,2})|([KMGTPE]i|[numkMGTPE]|))")
_SCALES: dict[str, int] = {letter: 1000**power for power, letter in enumerate(["", "k", "M", "G", "T", "P", "E"])}
_SCALES |= {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}
_PARTS = {"m": 3, "u": 6, "n": 9}


def parse_seconds(text: object) -> int:
    """Seconds of `90s`, `15m`, `1h`, `2d`, or of a whole number of seconds; ValueError otherwise."""
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not match or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no duration; write it as 90s, 15m, 1h or 2d")
    return int(match[1]) * _SECONDS[match[2]]


def parse_bytes(text: str) -> int:
    """Bytes of a Kubernetes quantity such as `16Gi` or `500M`; ValueError otherwise.

    Rule: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ without the exponents and milli-units.
    """
    match = _MEMORY.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no amount of memory; write it as 512Mi or 16Gi")
    return int(float(match[1]) * _SCALES[match[2]])


def parse_milli(amount: object) -> int:
    """Thousandths, rounded up, of any amount that an API server writes: 500 for `500m`, 2000 for `2` and for `2e0`; ValueError otherwise.

    Rule: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, without signs.
    """
    match = _AMOUNT.fullmatch(str(amount))
    if not match:
        raise ValueError(f"{amount!r} is no amount")
    whole, _, places = match[1].partition(".")
    suffix = match[3] or ""
    power = int(match[2] or 0) - len(places) - _PARTS.get(suffix, 0) + 3
    exact = int(whole + places) * _SCALES.get(suffix, 1)
    scale = int(10 ** abs(power))
    return exact * scale if power >= 0 else -(-exact // scale)


def format_bytes(count: float) -> str:
    """`1.5 GiB` for 1610612736: three digits and a binary unit, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 999.5 else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def format_seconds(seconds: float) -> str:
    """`4.2s`, `1m12s`, `2h05m`: a span for people."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def _memory(text: str) -> str:
    parse_bytes(text)
    return text


Seconds = Annotated[
    int,
    BeforeValidator(parse_seconds),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d+[smhd]$"}, {"type": "integer", "minimum": 1}]}),
]
"""A duration; kept in seconds."""

Memory = Annotated[str, AfterValidator(_memory), WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"})]
"""An amount of memory; kept as it was written, since it goes into manifests that way."""
