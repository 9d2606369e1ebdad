"""Where a model comes from, as far as the yard knows: the weights behind an export, what they were trained from and on, and under which licence.

Read from actions, from the runs that resolved the refs, and from the base model's own files. What is not known is None and never guessed. Refs
of this machine are told by their last component only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from modelyard import refs
from modelyard.errors import Corrupt, NoInput, Usage
from modelyard.hubs import card
from modelyard.yard import Action, Artifact, Yard, files
from modelyard.yard.lineage import Lineage
from modelyard_jobs.architectures import task_of

DEPTH = 1000
"""Models that are gone back over in search of a licence: one a night, trained from the one before."""
UNLABELLED = frozenset({"text-generation", "fill-mask"})
"""Tasks whose models give words, and whose `id2label` means nothing."""


@dataclass(frozen=True)
class Source:
    """An artifact and the ref that it came by. ref: None where no fetch of it is known; revision: the commit, where the hub has commits."""

    digest: str
    ref: str | None = None
    revision: str | None = None

    @property
    def repository(self) -> str | None:
        """`owner/name` on a hub."""
        parsed = _parsed(self.ref)
        return f"{parsed.owner}/{parsed.name}" if isinstance(parsed, refs.HubRef) else None


@dataclass(frozen=True)
class Licence:
    """An identifier such as `apache-2.0`, and the file that says it; None: nothing does."""

    name: str | None
    source: str


@dataclass(frozen=True)
class Provenance:
    """What made a model.

    weights: the model itself, or what it was exported from. base, data: what the weights were trained from and on; training: the action that did.
    export: the action that exported it. languages: as the base model's card says.
    """

    model: Artifact
    weights: Artifact
    origin: Source
    base: Source | None
    data: Source | None
    training: Action | None
    export: Action | None
    licence: Licence
    languages: tuple[str, ...]


class Sources:
    """Finds the ref that an artifact was fetched by: in this run first, then in the runs that fetched it."""

    def __init__(self, yard: Yard, lineage: Lineage, run: str) -> None:
        self._yard = yard
        self._lineage = lineage
        self._run = run

    def of(self, digest: str) -> Source:
        """The source of an artifact; without a ref where no run that is still there fetched it."""
        fetches = [action.attempt.partition(".")[0] for action in self._lineage.makers(digest, "fetch")]
        for name in dict.fromkeys([self._run, *sorted(fetches)]):
            for ref, revision in self._resolved(name, digest):
                return Source(digest, _shown(ref), revision)
        return Source(digest)

    def _resolved(self, name: str, digest: str) -> Iterator[tuple[str, str | None]]:
        try:
            run = self._yard.runs.get(name)
            steps, resolved = run.status().steps, run.spec()["resolved"]
        except (NoInput, Corrupt):  # it was removed: one source less
            return
        for step, found in resolved.items():
            if run.id == name and step in steps and steps[step].artifact == digest:
                revision = found.get("listing", {}).get("revision", "")
                yield found["ref"], revision if re.fullmatch(r"[0-9a-f]{40,64}", revision) else None


def trace(yard: Yard, lineage: Lineage, sources: Sources, model: Artifact, measured: Sequence[str] = ()) -> Provenance:
    """What is known of a model. measured: digests of models that were measured; of several weights that export to the same bytes it is one of them.

    Raises NoInput: it is an export, and the weights that it was made from are not in the yard any more.
    """
    exports = lineage.makers(model.digest, "export")
    export = next((action for action in exports if action.inputs["model"] in measured), exports[0] if exports else None)
    weights = yard.artifacts.get(export.inputs["model"]) if export else model
    training = lineage.maker(weights.digest, "finetune")
    said = list(_said(yard, lineage, weights.digest))
    return Provenance(
        model=model,
        weights=weights,
        origin=sources.of(weights.digest),
        base=sources.of(training.inputs["model"]) if training else None,
        data=sources.of(training.inputs["data"]) if training else None,
        training=training,
        export=export,
        licence=next((licence for licence, _ in said if licence.name), Licence(None, "")),
        languages=next((languages for _, languages in said if languages), ()),
    )


def _said(yard: Yard, lineage: Lineage, digest: str) -> Iterator[tuple[Licence, tuple[str, ...]]]:
    """(licence, languages) as a model's files say them, then as its base's do, and so on; files that are gone from the yard say nothing."""
    for _ in range(DEPTH):
        if found := yard.artifacts.find(digest):
            said = card.read(partial(_content, found))
            yield (Licence(said.licence, "README.md") if said.licence else _licence_file(found)), said.languages
        training = lineage.maker(digest, "finetune")
        if training is None:
            return
        digest = training.inputs["model"]


def _licence_file(model: Artifact) -> Licence:
    for entry in model.files:
        if re.fullmatch(r"(licen[cs]e|copying)(\.(txt|md))?", entry.path, re.IGNORECASE):
            text = " ".join((_content(model, entry.path) or b"").decode("utf-8", "replace").split())[:_HEAD]
            return Licence(next((name for words, name in _LICENCES.items() if words in text), None), entry.path)
    return Licence(None, "")


def _content(model: Artifact, path: str) -> bytes | None:
    """The bytes of a small file of the model."""
    return next((files.read(model.path / path) for entry in model.files if entry.path == path and entry.size <= _SMALL), None)


def made_for(model: Artifact) -> tuple[str | None, list[str]]:
    """(the task that a model is made for, its labels in the order of their ids), as far as its config.json says them."""
    try:
        config = json.loads(files.read(model.path / "config.json") or b"{}")
        known = task_of([str(each) for each in config["architectures"]])
        if known is None or known[0] in UNLABELLED:
            return (known and known[0]), []
        named = config.get("id2label", {})
        return known[0], [str(named[number]) for number in sorted(named, key=int)]
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None, []


def chats(model: Artifact) -> bool:
    """Whether its tokenizer has a chat template: a file of its own, or, as older ones have it, in tokenizer_config.json."""
    if any(entry.path == "chat_template.jinja" for entry in model.files):
        return True
    try:
        return bool(json.loads(files.read(model.path / "tokenizer_config.json") or b"{}").get("chat_template"))
    except (ValueError, AttributeError, RecursionError):
        return False


def _shown(ref: str) -> str:
    """The ref, a path by its last component alone: where it lay is nobody's business."""
    parsed = _parsed(ref)
    return ref if isinstance(parsed, refs.HubRef | refs.YardRef) else ref.rstrip("/").rpartition("/")[2]


def _parsed(ref: str | None) -> refs.Ref | None:
    try:
        return refs.parse(ref) if ref else None
    except Usage:
        return None


_SMALL = 1 << 20
_HEAD = 400  # a licence says what it is at its beginning; further on it may name others
_LICENCES = {
    "Apache License Version 2.0": "apache-2.0",
    "MIT License": "mit",
    "Permission is hereby granted, free of charge, to any person obtaining a copy": "mit",
    "GNU AFFERO GENERAL PUBLIC LICENSE Version 3": "agpl-3.0",
    "GNU LESSER GENERAL PUBLIC LICENSE Version 3": "lgpl-3.0",
    "GNU GENERAL PUBLIC LICENSE Version 3": "gpl-3.0",
    "Creative Commons Attribution 4.0 International": "cc-by-4.0",
}
"""Words at the beginning of a licence's text, with single spaces, -> its identifier."""
