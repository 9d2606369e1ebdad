"""Lineage: what made an artifact, and of what, read back from the actions.

An action stands here for what its step promises: an export has one only when its parity passed. Where several actions made the same content
(again under another version, or from other inputs that differ in nothing that shows), each of them counts, and `maker` is one of the run that
asks where there is one, else the first by key. An action of an artifact that gc has taken away is still told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from modelyard.yard.actions import Action


class Lineage:
    """The actions of a yard by what they made; as they were when this was made."""

    def __init__(self, actions: Iterable[Action], own: Collection[str] = ()) -> None:
        """own: keys of the run that asks; its actions go before those of others."""
        self._makers: dict[str, list[Action]] = {}
        for action in sorted(actions, key=lambda action: (action.key not in own, action.key)):
            self._makers.setdefault(action.artifact, []).append(action)

    def makers(self, digest: str, verb: str) -> list[Action]:
        """The actions of that verb which made the artifact, the run's own first."""
        return [action for action in self._makers.get(digest, ()) if action.verb == verb]

    def maker(self, digest: str, verb: str) -> Action | None:
        """One of them."""
        return next(iter(self.makers(digest, verb)), None)

    def subjects(self, model: str) -> list[str]:
        """Models whose measurement says what this one is worth: itself, and those that a parity-passed export made it from."""
        return [model, *dict.fromkeys(action.inputs["model"] for action in self.makers(model, "export"))]

    def measured(self, metrics: str) -> list[str]:
        """The models that a metrics artifact was measured on."""
        return list(dict.fromkeys(action.inputs["model"] for action in self.makers(metrics, "evaluate")))
