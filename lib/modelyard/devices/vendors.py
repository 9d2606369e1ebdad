"""The table of vendors: what an accelerator is called, and how to see one without loading a framework.

The probe looks at device nodes and at the variables that hide them, so it takes microseconds and a step whose result is reused never loads
torch. It says "not there" for certain; "there" is confirmed by the framework when the step starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NUMBERED = re.compile(r"[A-Za-z]+[0-9]+")


@dataclass(frozen=True)
class Vendor:
    """One row.

    device: torch's name of the device. nodes: glob of its device nodes under /dev. beside: a device node without which those are not this vendor's.
    pci: the vendor's PCI id, where several vendors have nodes of that name. hidden_by: variables that list the visible ones. watch: a
    command that goes on writing `index, percent in use, MiB of memory in use`, a line per device and interval.

    On Kubernetes: resource: what the device plugin offers. taints: keys of the taints that such nodes carry by custom. labels: of nodes, whose
    value is the model. groups: those who may open the device nodes, which keep the owner that they have on the host.
    """

    name: str
    device: str
    nodes: str = ""
    beside: str = ""
    pci: str = ""
    hidden_by: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    resource: str = ""
    taints: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()

    def resource_of(self, accelerator: str) -> str:
        """What to ask Kubernetes for: `nvidia.com/mig-1g.10gb` for `nvidia-mig:1g.10gb`."""
        _, part, profile = accelerator.partition(":")
        return f"{self.resource.partition('/')[0]}/mig-{profile}" if part else self.resource

    def labels_of(self, accelerator: str) -> tuple[str, ...]:
        """The labels that may name the model: nodes with parts of GPUs have one for each kind of part."""
        return (f"{self.resource_of(accelerator)}.product", *self.labels) if ":" in accelerator else self.labels


_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=5")

_RENDER_GROUPS = (44, 109, 992, 993)
"""Groups of /dev/dri/renderD*. `video` is 44 on Debian and Ubuntu; `render` has what was free: 109 on Ubuntu 20.04 and 22.04 and in ROCm's images
(https://github.com/ROCm/ROCm-docker/pull/93), 992 on Ubuntu 24.04, 993 on Debian 13. Other hosts take an `overlay`, or a containerd that gives the
nodes to the container's user (device_ownership_from_security_context, https://github.com/containerd/containerd/pull/5122)."""

CPU = Vendor("cpu", "cpu")

NVIDIA = Vendor(
    "nvidia",
    "cuda",
    nodes="nvidia[0-9]*",
    # NVIDIA_VISIBLE_DEVICES is not among them: it tells a container runtime which nodes to put in, and where CDI does that it is always `void`.
    hidden_by=("CUDA_VISIBLE_DEVICES",),
    watch=_NVIDIA_SMI,
    # https://github.com/NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery/README.md; the last label is GKE's.
    resource="nvidia.com/gpu",
    taints=("nvidia.com/gpu",),
    labels=("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"),
)

AMD = Vendor(
    "amd",
    "cuda",  # what torch calls a device under ROCm too
    nodes="dri/renderD[0-9]*",
    beside="kfd",
    pci="0x1002",
    hidden_by=("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    # https://github.com/ROCm/k8s-device-plugin, cmd/k8s-node-labeller; the values are such as AMD_Instinct_MI300X_OAM and, of device-id, 74a1.
    resource="amd.com/gpu",
    taints=("amd.com/gpu",),
    labels=("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name", "amd.com/gpu.device-id"),
    groups=_RENDER_GROUPS,
)

INTEL = Vendor(
    "intel",
    "xpu",
    nodes="dri/renderD[0-9]*",
    pci="0x8086",
    # https://intel.github.io/intel-device-plugins-for-kubernetes, cmd/gpu_plugin/README.md: the kernel's driver gives the resource its name; xe is
    # the current one, and where i915 is loaded an overlay asks for gpu.intel.com/i915. Labels: labels.md beside it (Max_1550, Max_Series).
    resource="gpu.intel.com/xe",
    taints=("gpu.intel.com/xe", "gpu.intel.com/i915"),
    labels=("gpu.intel.com/product", "gpu.intel.com/family"),
    groups=_RENDER_GROUPS,
)

ASCEND = Vendor(
    "ascend",
    "npu",
    nodes="davinci[0-9]*",
    hidden_by=("ASCEND_RT_VISIBLE_DEVICES",),
    # https://gitcode.com/Ascend/mind-cluster: HuaweiAscend910 and ChipNameLabel in component/ascend-common; values such as 910B3, module-910b-8.
    resource="huawei.com/Ascend910",
    taints=("huawei.com/Ascend910",),
    labels=("node.kubernetes.io/npu.chip.name", "accelerator-type"),
)

VENDORS: Mapping[str, Vendor] = {vendor.name: vendor for vendor in (CPU, NVIDIA, AMD, INTEL, ASCEND)}


def vendor_of(accelerator: str) -> Vendor:
    """The row of an accelerator as resources write it (`nvidia`, `nvidia-mig:1g.10gb`)."""
    return CPU if accelerator == "none" else VENDORS[accelerator.partition(":")[0].removesuffix("-mig")]


def parse_use(line: str) -> tuple[str, dict[str, float]] | None:
    """(index, {percent, memory in bytes}) of a line that `Vendor.watch` wrote; None for a line that is none, such as `[N/A]`."""
    try:
        index, percent, mebibytes = (part.strip() for part in line.split(","))
        return index, {"percent": float(percent), "memory": float(mebibytes) * 2**20}
    except ValueError:
        return None


@dataclass(frozen=True)
class Probe:
    """How many devices of a vendor a process can see, and the evidence."""

    count: int
    evidence: str


def probe(vendor: Vendor, environ: Mapping[str, str] = os.environ, dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> Probe:
    """The devices of `vendor` that this process could use.

    A list that is empty or begins with -1 hides all (CUDA C Programming Guide, "CUDA Environment Variables"; HIP and CANN took it over).
    """
    if not vendor.nodes:
        return Probe(0, "a CPU is no accelerator")
    nodes = sorted(str(path.relative_to(dev)) for path in dev.glob(vendor.nodes) if _NUMBERED.fullmatch(path.name) and _made_by(vendor, path, sys))
    if not nodes:
        of = f" of {vendor.name}" if vendor.pci else ""
        return Probe(0, f"there is no {dev / vendor.nodes}{of}")
    if vendor.beside and not (dev / vendor.beside).exists():
        return Probe(0, f"there is no {dev / vendor.beside}")
    for variable in vendor.hidden_by:
        value = environ.get(variable)
        if value is None:
            continue
        listed = [part for part in value.split(",") if part.strip() not in ("", "-1")]
        if len(listed) < len(nodes):
            return Probe(len(listed), f"{variable}={value!r} leaves {len(listed)} of {len(nodes)}")
    return Probe(len(nodes), f"{', '.join(f'{dev}/{node}' for node in nodes)}")


def _made_by(vendor: Vendor, node: Path, sys: Path) -> bool:
    """Whether a node is this vendor's; where nothing says whose it is, it may be."""
    if not vendor.pci:
        return True
    try:
        return (sys / "class" / "drm" / node.name / "device" / "vendor").read_text().strip() == vendor.pci
    except OSError:
        return True
