"""What a model is made for, by the name of its architecture. Light: the steps that publish need no more of a task than its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

ENDINGS: Mapping[str, str] = MappingProxyType(
    {
        "ForSequenceClassification": "text-classification",
        "ForTokenClassification": "token-classification",
        "ForMaskedLM": "fill-mask",
        "ForCausalLM": "text-generation",
        "LMHeadModel": "text-generation",
        "ForImageClassification": "image-classification",
        "ForObjectDetection": "object-detection",
    }
)
"""How the name of an architecture ends -> what it is made for."""


def task_of(architectures: Sequence[str]) -> tuple[str, str] | None:
    """(task, the architecture that says so); None where none of them does."""
    named = ((name, architecture) for architecture in architectures for ending, name in ENDINGS.items() if architecture.endswith(ending))
    return next(named, None)
