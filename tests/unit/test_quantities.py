"""Amounts of memory and spans of time, as people write and read them."""

from __future__ import annotations

import pytest

from modelyard import quantities


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1010 << 20, "1010 MiB"), (1023 << 20, "1023 MiB"), (1 << 30, "1 GiB"), (3 << 40, "3 TiB")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert quantities.format_bytes(count) == text


@pytest.mark.parametrize(("text", "count"), [("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("500M", 500_000_000), ("7", 7)])
def test_memory_as_kubernetes_writes_it(text: str, count: int) -> None:
    assert quantities.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1Gi", "1e3", "1Pi"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of memory"):
        quantities.parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("500m", 500),
        ("2", 2000),
        (2, 2000),
        ("0.5", 500),
        (".5", 500),
        ("1.", 1000),
        ("1e3", 10**6),
        ("1E3", 10**6),
        ("12e-4", 2),
        ("1E", 10**21),
        ("1Ki", 1024000),
        ("24632884Ki", 24632884 * 1024000),
        ("1.5Gi", 3 * 2**29 * 1000),
        ("1Ei", 2**60 * 1000),
        ("100n", 1),
        ("1500u", 2),
        ("0", 0),
    ],
)
def test_amounts_as_an_api_server_writes_them(text: object, milli: int) -> None:
    assert quantities.parse_milli(text) == milli


@pytest.mark.parametrize("text", ["", "m", ".", "1 Gi", "-1", "1K", "1ki", "1e", "1e+", "1e999", "1Gi2", "abc", None])
def test_what_is_no_amount(text: object) -> None:
    with pytest.raises(ValueError, match="no amount"):
        quantities.parse_milli(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), (30, 30)])
def test_durations(text: str | int, seconds: int) -> None:
    assert quantities.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1w", "-1s", "1.5h", 0, True, None])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="no duration"):
        quantities.parse_seconds(text)
