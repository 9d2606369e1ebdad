"""Run the life of an open model as one typed pipeline of batch steps.

The names here are the public API; each is imported when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.hubs.cache import fetch
    from modelyard.run.submit import StepFailed, submit
    from modelyard.spec import Pipeline
    from modelyard.steps import Evaluate, Export, Fetch, Finetune, Gate, Infer, Preflight, Promote, Publish, Resources, Search

__version__ = "0.1.0"

__all__ = [
    "Evaluate",
    "Export",
    "Fetch",
    "Finetune",
    "Gate",
    "Infer",
    "Pipeline",
    "Preflight",
    "Promote",
    "Publish",
    "Resources",
    "Search",
    "StepFailed",
    "__version__",
    "fetch",
    "submit",
]

_HOMES = {
    "Pipeline": "modelyard.spec",
    "StepFailed": "modelyard.run.submit",
    "fetch": "modelyard.hubs.cache",
    "submit": "modelyard.run.submit",
}
"""Where names come from that are no step and nothing of one."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "modelyard.steps")), name)


def __dir__() -> list[str]:
    return __all__
