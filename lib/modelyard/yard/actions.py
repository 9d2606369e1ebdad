"""Actions: the records "these settings on these inputs by this code gave that artifact", by the key of all that affects the result.

    actions/<key>.json

Many actions may name one artifact. An action whose artifact is gone answers nothing: who looks one up asks for the artifact too. The file's
time says when an action was last put or used; gc goes by it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from modelyard.errors import Usage
from modelyard.yard import files
from modelyard.yard.layout import Layout
from modelyard.yard.manifest import Digest, check_digest, is_digest
from modelyard.yard.records import Record, Table


class Decision(Record):
    """A choice that was made for the user, and why."""

    value: Any
    reason: str


class Action(Record):
    """One action.

    settings: those that affect the result. inputs: artifact digests by settings field. device: what it really ran on. timings: seconds.
    details: JSON-able facts (curves, speeds). at: UTC, for people.
    """

    key: Digest
    verb: str
    artifact: Digest
    settings: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    decisions: dict[str, Decision] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    attempt: str = ""
    at: str = ""


class Actions:
    """`yard.actions`."""

    def __init__(self, layout: Layout) -> None:
        """Bind to a layout."""
        self._table = Table(layout, "actions", Action)

    def put(self, key: str, action: Action) -> None:
        """Record an action, in place of an older one of the same key; its artifact has to be committed before."""
        if action.key != key:
            raise Usage("an action is put under a key that is not its own", where=key, why=f"it says {action.key}", remedy="use its key")
        self._table.put(key, action)

    def get(self, key: str) -> Action | None:
        """The action of a key, None where there is none. Raises Corrupt: its file is torn or foreign."""
        return self._table.get(check_digest(key))

    def list(self) -> list[Action]:
        """All actions, by key."""
        return [action for key, action in self._table.all().items() if is_digest(key)]

    def touch(self, key: str) -> None:
        """Say that an action answered again: from now on it counts as young."""
        files.touch(self._table.target(check_digest(key)))

    def used(self, key: str) -> float | None:
        """When the action was last put or used, in seconds on the volume's clock; None where it is not there."""
        found = files.status(self._table.target(check_digest(key)))
        return found.st_mtime if found else None

    def forget(self, key: str) -> None:
        """Remove an action."""
        files.remove(self._table.target(check_digest(key)))
