"""Seeing an accelerator without a framework."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.devices import AMD, ASCEND, CPU, INTEL, NVIDIA, VENDORS, Vendor, parse_use, probe, vendor_of


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
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 2),  # what CDI sets in a container to which it gave both
        ({"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": "1"}, 1),
    ],
)
def test_nodes_that_are_not_hidden_are_counted(dev: Path, environ: dict[str, str], count: int) -> None:
    seen = probe(NVIDIA, environ, dev)
    assert seen.count == count
    assert seen.evidence


def test_none_is_seen_where_there_is_no_node(tmp_path: Path) -> None:
    assert probe(NVIDIA, {}, tmp_path).count == 0


def test_the_table_is_keyed_by_name() -> None:
    assert {name: vendor.name for name, vendor in VENDORS.items()} == {name: name for name in ("cpu", "nvidia", "amd", "intel", "ascend")}
    assert {name: vendor.device for name, vendor in VENDORS.items()} == {
        "cpu": "cpu",
        "nvidia": "cuda",
        "amd": "cuda",
        "intel": "xpu",
        "ascend": "npu",
    }


def test_a_cpu_is_no_accelerator(tmp_path: Path) -> None:
    assert probe(CPU, {}, tmp_path).count == 0
    assert vendor_of("none") is CPU


@pytest.mark.parametrize(
    ("accelerator", "vendor", "resource"),
    [
        ("nvidia", NVIDIA, "nvidia.com/gpu"),
        ("nvidia-mig:1g.10gb", NVIDIA, "nvidia.com/mig-1g.10gb"),
        ("amd", AMD, "amd.com/gpu"),
        ("intel", INTEL, "gpu.intel.com/xe"),
        ("ascend", ASCEND, "huawei.com/Ascend910"),
    ],
)
def test_what_kubernetes_is_asked_for(accelerator: str, vendor: Vendor, resource: str) -> None:
    assert vendor_of(accelerator) is vendor
    assert vendor.resource_of(accelerator) == resource
    assert vendor.taints
    assert vendor.labels_of(accelerator)[-len(vendor.labels) :] == vendor.labels
    assert (f"{resource}.product" in vendor.labels_of(accelerator)) is (vendor is NVIDIA)


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, Path]:
    """/dev and /sys of a machine with GPUs of two vendors and NPUs."""
    dev, sys = tmp_path / "dev", tmp_path / "sys"
    for name in ("dri/renderD128", "dri/renderD129", "dri/renderD130", "dri/card0", "kfd", "davinci0", "davinci1", "davinci_manager"):
        (dev / name).parent.mkdir(parents=True, exist_ok=True)
        (dev / name).touch()
    for name, made_by in (("renderD128", "0x8086"), ("renderD129", "0x1002"), ("renderD130", "0x1002")):
        folder = sys / "class" / "drm" / name / "device"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{made_by}\n")
    return dev, sys


@pytest.mark.parametrize(
    ("vendor", "environ", "count"),
    [
        (NVIDIA, {}, 0),
        (AMD, {}, 2),
        (AMD, {"ROCR_VISIBLE_DEVICES": "0"}, 1),
        (AMD, {"HIP_VISIBLE_DEVICES": ""}, 0),
        (AMD, {"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        (INTEL, {"CUDA_VISIBLE_DEVICES": ""}, 1),
        (ASCEND, {}, 2),
        (ASCEND, {"ASCEND_RT_VISIBLE_DEVICES": "1"}, 1),
    ],
)
def test_each_vendor_has_its_own_nodes(mixed: tuple[Path, Path], vendor: Vendor, environ: dict[str, str], count: int) -> None:
    seen = probe(vendor, environ, *mixed)
    assert seen.count == count
    assert seen.evidence


def test_without_kfd_there_is_no_rocm(mixed: tuple[Path, Path]) -> None:
    dev, sys = mixed
    (dev / "kfd").unlink()
    seen = probe(AMD, {}, dev, sys)
    assert (seen.count, "kfd" in seen.evidence) == (0, True)


def test_a_node_of_which_nothing_is_known_may_be_anyones(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    assert probe(INTEL, {}, mixed[0], tmp_path / "no-sys").count == 3


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
