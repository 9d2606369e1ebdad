"""Why a step's result is used again, or is not: what its key is made of now, against the actions that are in the yard.

An action does not say by which code it was made. Where its key does not come out again from what it does say and from today's code, the code was
another. Nothing is asked of a hub: what a ref stands for is what the run resolved it to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard import keys
from modelyard.devices import CPU, vendor_of
from modelyard.document import Document
from modelyard.errors import NoInput, suggest
from modelyard.hubs import Listing
from modelyard.hubs.selection import fetch_key, select
from modelyard.locked import PINNED
from modelyard.spec import digest, from_document
from modelyard.steps import Fetch, Step
from modelyard.steps import Reuse as Class
from modelyard.yard import Action, Yard
from modelyard.yard.records import Record
from modelyard.yard.runs import Run

_NEVER = {
    Class.OBSERVE: "{verb} looks anew each time",
    Class.EFFECT: "{verb} compares with what is there, and changes nothing where that is the same",
}
_SHORT = 12
"""Digits of a digest that a person is shown."""


class Change(Record):
    """One part of a key that is another one now.

    part: such as `settings.epochs`. before, now: as JSON; None where it was not there, or is not, or where only the difference is known.
    source: for an input, the step that makes it.
    """

    part: str
    before: str | None = None
    now: str | None = None
    source: str = ""

    def __str__(self) -> str:
        """`settings.epochs 2 -> 3`, `code changed`."""
        part = f"{self.part} (step {self.source})" if self.source else self.part
        if self.before is None and self.now is None:
            return f"{part} changed"
        return f"{part} {_shown(self.before)} -> {_shown(self.now)}"


class Reuse(Record):
    """Whether the result of a step would be used again.

    artifact: the one that would be; None where the step would run. by: the attempt that made it. own: that was an attempt of the run that asks.
    changes: against the action that is most alike; none where the step is reused and was not made by the run itself. against: the attempt that made
    that one. note: what else there is to know.
    """

    step: str
    verb: str
    key: str = ""
    artifact: str | None = None
    by: str = ""
    own: bool = False
    changes: tuple[Change, ...] = ()
    against: str = ""
    note: str = ""

    def __str__(self) -> str:
        """One line."""
        changed = "; ".join(map(str, self.changes)) + (f" (compared with {self.against})" if self.changes and self.against else "")
        made = ", which this run made" if self.own else f" (made by {self.by})" if self.by else ""
        head = f"reused: {self.artifact[:_SHORT]}{made}" if self.artifact else "would run"
        reason = changed or ("no earlier result" if self.own or not (self.artifact or self.note) else "")
        tail = "; ".join(filter(None, [reason, self.note]))
        return f"{head}: {tail}" if tail else head


def compare(yard: Yard, run: Run, step: str) -> Reuse:
    """Whether a step of a run would be reused if it began now, and what differs from the most alike action. Raises NoInput: there is no such step."""
    return _Comparison(yard, run).of(step)


class _Comparison:
    """One look at a run and at the actions of its yard."""

    def __init__(self, yard: Yard, run: Run) -> None:
        self._yard, self._run = yard, run
        spec = run.spec()
        self._pipeline = from_document(Document("spec.json", spec["pipeline"], {}))
        self._resolved: Mapping[str, Any] = spec["resolved"]
        self._forced: Sequence[str] = spec["settings"].get("force", ())
        self._made = {name: status.artifact for name, status in run.status().steps.items()}
        self._actions = yard.actions.list()

    def of(self, name: str) -> Reuse:
        if name not in self._pipeline.steps:
            raise NoInput(f"there is no step {name!r}", where=self._run.id, remedy=suggest(name, self._pipeline.steps))
        step = self._pipeline.steps[name]
        if step.reuse in _NEVER:
            return Reuse(step=name, verb=step.verb, note=_NEVER[step.reuse].format(verb=step.verb))
        found = self._fetched(name, step) if isinstance(step, Fetch) else self._computed(name, step)
        forced = "this run was told to do it again (--force)" if name in self._forced else ""
        return found.model_copy(update={"note": "; ".join(filter(None, [found.note, forced]))})

    # --- steps that compute

    def _computed(self, name: str, step: Step) -> Reuse:
        sources = self._pipeline.inputs(name)
        inputs, missing = dict[str, str](), list[Change]()
        for field, source in sources.items():
            made = self._made.get(source) or self.of(source).artifact
            if made:
                inputs[field] = made
            else:
                missing.append(Change(part=f"inputs.{field}", source=source))
        if missing:
            waits = ", ".join(change.source for change in missing)
            return Reuse(step=name, verb=step.verb, note=f"its inputs are not made yet ({waits} would run first)")
        ways = [keys.key_parts(step, inputs, device, versions) for device in self._devices(name) for versions in self._versions()]
        for way in ways:
            if found := self._known(digest(way)):
                asked = ways[0]["device"]
                note = f"for where no {asked} is usable: its fallback is {way['device']}" if way["device"] != asked else ""
                return self._reused(name, step, found, self._nearest(step, [way], sources), note)
        if gone := next(filter(None, (self._gone(digest(way)) for way in ways)), ""):
            return Reuse(step=name, verb=step.verb, key=digest(ways[0]), note=gone)
        changes, against = self._nearest(step, ways, sources)
        return Reuse(step=name, verb=step.verb, key=digest(ways[0]), changes=changes, against=against, note=_looks_again(changes))

    def _devices(self, name: str) -> list[str]:
        """Kinds of devices under which the step's result would be looked up, as asked for first."""
        resources = self._pipeline.resources_of(name)
        asked = vendor_of(resources.accelerator).name if resources.gpus else CPU.name
        return list(dict.fromkeys([asked, resources.fallback or asked]))

    def _versions(self) -> list[Mapping[str, str]]:
        """Versions under which it would be looked up: the driver's, the ones here, and the ones that frames of this run had."""
        known = [PINNED, keys.installed_versions(), *(action.versions for action in self._actions if self._ours(action) and action.versions)]
        return list({digest(versions): versions for versions in known}.values())

    def _nearest(self, step: Step, ways: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> tuple[tuple[Change, ...], str]:
        """What differs from the action that is most alike, of those the newest, and the attempt that made it."""
        own = {digest(way) for way in ways}
        others = [action for action in self._actions if action.verb == step.verb and action.key not in own and action.settings]
        compared = [(list(_changes(action, way, step, sources)), action) for way in ways for action in others]
        if not compared:
            return (), ""
        fewest = min(len(changes) for changes, _ in compared)
        changes, action = max((found for found in compared if len(found[0]) == fewest), key=lambda found: found[1].at)
        return tuple(changes), action.attempt

    # --- fetches

    def _fetched(self, name: str, step: Fetch) -> Reuse:
        resolved = self._resolved.get(name)
        if resolved is None:
            return Reuse(step=name, verb=step.verb, note="its ref is not resolved yet")
        if "listing" not in resolved:
            note = "the hub did not answer: it is what the ref stood for last" if resolved.get("stale") else "the ref names it"
            return Reuse(step=name, verb=step.verb, artifact=resolved["artifact"], note=note)
        selection = select(Listing.from_record(resolved["listing"]), step.trust)
        key = fetch_key(selection)
        now = {file.path: f"sha256:{file.sha256}" if file.sha256 else f"{file.size} bytes" for file in selection.files}
        before = [action for action in self._actions if action.verb == step.verb and action.key != key and _ref_of(action) == step.ref]
        changes, against = tuple[Change, ...](), ""
        for action in sorted(before, key=lambda action: action.at, reverse=True):
            if artifact := self._yard.artifacts.find(action.artifact):
                had = {
                    file.path: f"sha256:{file.sha256}" if now.get(file.path, "sha256:").startswith("sha256:") else f"{file.size} bytes"
                    for file in artifact.files
                }
                changes = tuple(_differ("files", had, now)) or (Change(part="the time of a file"),)
                against = action.attempt
                break
        if found := self._known(key):
            return self._reused(name, step, found, (changes, against), "")
        if gone := self._gone(key):
            return Reuse(step=name, verb=step.verb, key=key, note=gone)
        return Reuse(step=name, verb=step.verb, key=key, changes=changes, against=against)

    # --- both

    def _known(self, key: str) -> Action | None:
        action = self._yard.actions.get(key)
        return action if action and self._yard.artifacts.find(action.artifact) else None

    def _gone(self, key: str) -> str:
        """What to say of an action whose artifact is not there any more."""
        action = self._yard.actions.get(key)
        return f"{action.attempt} made it, and it is not in the yard any more" if action else ""

    def _reused(self, name: str, step: Step, action: Action, nearest: tuple[tuple[Change, ...], str], note: str) -> Reuse:
        own = self._ours(action)
        changes, against = nearest if own else ((), "")
        told = {"artifact": action.artifact, "by": action.attempt, "own": own, "changes": changes, "against": against, "note": note}
        return Reuse(step=name, verb=step.verb, key=action.key, **told)

    def _ours(self, action: Action) -> bool:
        return action.attempt.startswith(f"{self._run.id}.")


def _changes(action: Action, way: Mapping[str, Any], step: Step, sources: Mapping[str, str]) -> Iterator[Change]:
    """What of a key is not what it was for an action."""
    settings = {name: value for name, value in action.settings.items() if name not in step.neutral and name not in step.inputs}
    yield from _differ("settings", settings, way["settings"])
    for change in _differ("inputs", action.inputs, way["inputs"]):
        yield change.model_copy(update={"source": sources.get(change.part.partition(".")[2], "")})
    said = {"settings": settings, "inputs": action.inputs, "versions": action.versions, "device": action.device}
    if digest({**way, **said}) != action.key:
        yield Change(part="code")
    yield from _differ("versions", action.versions, way["versions"])
    if action.device != way["device"]:
        yield Change(part="device", before=json.dumps(action.device), now=json.dumps(way["device"]))


def _differ(part: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted({*before, *now}):
        was, become = (json.dumps(values[name], sort_keys=True) if name in values else None for values in (before, now))
        if was != become:
            yield Change(part=f"{part}.{name}", before=was, now=become)


def _looks_again(changes: Sequence[Change]) -> str:
    if any(change.part.startswith("versions.") for change in changes):
        return "versions are the locked ones, and the step looks again with those that are installed where it runs"
    return ""


def _ref_of(action: Action) -> str:
    return str(action.settings.get("model") or action.settings.get("dataset") or "")


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    text = value.strip('"').removeprefix("sha256:")
    return text[:_SHORT] if len(text) == 64 and set(text) <= set("0123456789abcdef") else value.strip('"') if len(value) <= 60 else f"{value[:57]}..."
