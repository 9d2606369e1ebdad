"""Running pipelines: the driver, and how a step is executed on this machine."""

from modelyard.run.settings import Settings
from modelyard.run.start import attach, start, start_detached
from modelyard.run.view import View

__all__ = ["Settings", "View", "attach", "start", "start_detached"]
