"""What a step's process is told, and what it says at the end: the two documents between a driver and a frame.

Both are JSON files of the attempt in the yard, so that they are also the record of what was asked and what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from modelyard.errors import Failure, from_record
from modelyard.steps import STEPS, Resources, Step


class Order(BaseModel):
    """One attempt at one step.

    attempt: None until the attempt begins, where the one who executes it counts the attempts. inputs: field -> digest of the artifact.
    refs: field -> ref, for inputs that the frame itself has to fetch. key: empty where only the frame can know it.
    listing: for a fetch, what the ref resolved to; None where the frame resolves it. forced: do it again although the result is known.
    pipeline: the whole of it, where whoever drives the run does not see the yard, so that the run can be written down there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    step: str
    attempt: int | None = None
    verb: str
    settings: dict[str, Any]
    resources: Resources
    inputs: dict[str, str] = {}
    refs: dict[str, str] = {}
    key: str = ""
    forced: bool = False
    listing: dict[str, Any] | None = None
    hubs: dict[str, str] = {}
    pipeline: dict[str, Any] | None = None

    @property
    def attempt_id(self) -> str:
        """`<run>.<step>.<n>`, unique for ever."""
        return f"{self.run}.{self.step}.{self.attempt}"

    def step_settings(self) -> Step:
        """The settings as their model."""
        return STEPS[self.verb].model_validate(self.settings, strict=False)


class Ending(BaseModel):
    """How an attempt, or a step, ended; empty until then. seconds: running time of the attempt; note: what a person should know all the same."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    exit_code: int | None = None
    category: str = ""
    what: str = ""
    where: str = ""
    why: str = ""
    remedy: str = ""
    key: str = ""
    artifact: str | None = None
    seconds: float | None = None
    note: str = ""

    def failure(self) -> Failure | None:
        """The failure, None when it ended well or has not ended."""
        return from_record(self.model_dump()) if self.exit_code else None


class Outcome(Ending):
    """How an attempt ended. reused: the artifact was there already.

    result: what a step that makes no artifact found or did; of one that makes metrics, their values and intervals.
    """

    exit_code: int
    category: str = "ok"
    seconds: float = 0.0
    attempt: int = 0
    reused: bool = False
    result: dict[str, Any] | None = None

    @classmethod
    def of(cls, failure: Failure, seconds: float, key: str = "", result: dict[str, Any] | None = None) -> Outcome:
        """The outcome of an attempt that failed."""
        return cls(exit_code=failure.exit_code, seconds=seconds, key=key, result=result, **failure.record())


def termination_message(outcome: Outcome, limit: int = 3072) -> bytes:
    """The outcome as JSON of at most `limit` bytes, for a container's termination log: long texts are cut, never the class.

    The result is in it where all of it has room.
    """
    whole = _encoded(outcome.model_dump(mode="json", exclude_defaults=True))
    if len(whole) <= limit:
        return whole
    fields: Mapping[str, Any] = outcome.model_dump(mode="json", exclude_defaults=True, exclude={"result"})
    allowed = limit
    while len(data := _encoded(fields)) > limit:
        allowed //= 2
        fields = {name: value[:allowed] if name in ("what", "where", "why", "remedy", "note") else value for name, value in fields.items()}
    return data


def _encoded(fields: Mapping[str, Any]) -> bytes:
    """What is no character (half a surrogate in the name of a file) is a question mark: this must never fail."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
