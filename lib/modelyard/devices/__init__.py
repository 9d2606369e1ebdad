"""Accelerators: the table of vendors and what of it is usable here. Imports no framework."""

from modelyard.devices.vendors import AMD, ASCEND, CPU, INTEL, NVIDIA, VENDORS, Probe, Vendor, parse_use, probe, vendor_of

__all__ = ["AMD", "ASCEND", "CPU", "INTEL", "NVIDIA", "VENDORS", "Probe", "Vendor", "parse_use", "probe", "vendor_of"]
