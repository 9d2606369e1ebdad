"""Accelerators: the table of vendors, what of it is usable here, and where on them a model lies. Imports no framework."""

from modelyard.devices.placement import HOST, WHOLE, Block, Placement, place
from modelyard.devices.vendors import AMD, ASCEND, CPU, INTEL, NVIDIA, VENDORS, Probe, Vendor, parse_use, probe, vendor_of

__all__ = [
    "AMD",
    "ASCEND",
    "CPU",
    "HOST",
    "INTEL",
    "NVIDIA",
    "VENDORS",
    "WHOLE",
    "Block",
    "Placement",
    "Probe",
    "Vendor",
    "parse_use",
    "place",
    "probe",
    "vendor_of",
]
