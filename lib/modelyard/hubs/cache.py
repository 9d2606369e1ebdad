"""The library call: a ref as a folder of the yard, for code that loads models and data itself.

    path = modelyard.fetch("modelscope://owner/name@revision").path
    AutoModel.from_pretrained(path)

It does what a fetch step does, in this process and without a run: resolve, look it up, read what is missing, commit, remember.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

from modelyard import config, refs
from modelyard.hubs import Listing, reader
from modelyard.hubs.fetching import Fetching, turn
from modelyard.hubs.resolving import offline, remember, resolve_or_last
from modelyard.hubs.selection import Selection, fetch_key, select
from modelyard.refs import RefKind
from modelyard.yard import Action, Artifact, Yard
from modelyard.yard.records import utc_now


def fetch(
    ref: str,
    *,
    kind: RefKind | None = None,
    yard: str | Path | None = None,
    hubs: Mapping[str, str] | None = None,
    trust: Collection[str] = (),
    fresh: bool = False,
) -> Artifact:
    """The artifact that a ref stands for; its files lie, whole and verified, in the folder `.path`.

    kind: of what a path holds ("model" unless given); a hub's ref says that itself. yard, hubs: where modelyard.toml and the environment say,
    unless given. trust: as of a fetch step. fresh: fail rather than use what the ref stood for last, where its hub does not answer.
    A commit that is known is not asked for again. Where a hub does not answer, a warning says that it is what the ref stood for last.
    Raises the failures of `modelyard.errors`.
    """
    settings, parsed = config.load(), refs.parse(ref)
    opened, where = Yard.open(yard or settings.yard), settings.hubs if hubs is None else hubs
    wanted = kind or ("model" if isinstance(parsed, refs.PathRef) else parsed.kind)
    found = resolve_or_last(opened, ref, wanted, where, trust=trust, fresh=fresh)
    if found.listing is None:
        if found.stale and not offline():
            warnings.warn(found.note, stacklevel=2)
        return opened.artifacts.get(found.artifact or "")
    artifact = _obtain(opened, found.listing, select(found.listing, trust), where)
    remember(opened, ref, trust, listing=found.listing, artifact=artifact.digest, by="library")
    return artifact


def _obtain(yard: Yard, listing: Listing, selection: Selection, where: Mapping[str, str]) -> Artifact:
    """What the listing's files make: as it is known, else read, committed and recorded as the frame does it for a step."""
    key, attempt, watch = fetch_key(selection), f"library.fetch.{os.getpid()}-{secrets.token_hex(4)}", _Watch()
    if action := yard.known(key):
        return yard.artifacts.get(action.artifact)
    with yard.staging(attempt) as staging:
        with turn(yard, key, selection.size, watch) as existing:
            if existing:
                return yard.artifacts.get(existing)
            source = reader(listing, where)
            fetched = Fetching(yard, listing, selection, source, staging.files, key=key, attempt=attempt, watch=watch).run()
        artifact = yard.artifacts.commit(staging, listing.kind, selection.format, fetched.known)
    settings = {listing.kind: str(listing.ref), "trust": list(selection.trusted)}
    action = Action(key=key, verb="fetch", artifact=artifact.digest, settings=settings, details=fetched.details(), attempt=attempt, at=utc_now())
    yard.actions.put(key, action)
    yard.checkpoints(key, attempt).clear()
    yard.leases.end(key)
    return artifact


class _Watch:
    """Nobody is told anything, and nobody asks for a stop: whoever interrupts the process leaves parts, which the next call goes on with."""

    requested = False

    def check(self) -> None:
        pass

    def progress(self, done: int, total: int, unit: str) -> None:
        pass

    def waiting(self) -> None:
        pass
