"""The report: one run as one HTML page that needs nothing beside itself, made from what the run left in the yard."""

from modelyard.report.page import render

__all__ = ["render"]
