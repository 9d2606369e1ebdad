"""Seeing an accelerator without a framework."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.devices import CPU, NVIDIA, VENDORS, parse_use, probe


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "sda"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 2),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a,GPU-2b"}, 2),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, 0),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 0),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, 2),
        ({"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "1"}, 1),
    ],
)
def test_nodes_that_are_not_hidden_are_counted(dev: Path, environ: dict[str, str], count: int) -> None:
    seen = probe(NVIDIA, environ, dev)
    assert seen.count == count
    assert seen.evidence


def test_none_is_seen_where_there_is_no_node(tmp_path: Path) -> None:
    assert probe(NVIDIA, {}, tmp_path).count == 0


def test_the_table_is_keyed_by_name() -> None:
    assert {name: vendor.name for name, vendor in VENDORS.items()} == {"cpu": "cpu", "nvidia": "nvidia"}
    assert CPU.device == "cpu"


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("0, 37, 1024", ("0", {"percent": 37.0, "memory": 1024.0 * 2**20})),
        (" 7 , 0 , 0 ", ("7", {"percent": 0.0, "memory": 0.0})),
        ("0, [N/A], 1024", None),
        ("No devices were found", None),
        ("", None),
    ],
)
def test_the_tools_lines_are_read_or_left(line: str, use: object) -> None:
    assert parse_use(line) == use
