"""What a ref stands for now: what the yard knows without asking, what its hub says, or what it stood for last where the hub does not answer.

The one decision that the driver, the frame and the library call share. Nothing is fetched here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelyard import refs
from modelyard.errors import Unavailable
from modelyard.hubs import Listing, resolve
from modelyard.refs import HubRef, RefKind, YardRef
from modelyard.spec import digest
from modelyard.yard import Action, Yard
from modelyard.yard.records import utc_now

OFFLINE = "MODELYARD_OFFLINE"


@dataclass(frozen=True)
class Resolved:
    """What a ref stands for: a listing, or an artifact that is in the yard.

    note: why no hub was asked, or what it did not say. stale: it is what the ref stood for last, because its hub does not answer or is not asked.
    """

    ref: refs.Ref
    listing: Listing | None = None
    artifact: str | None = None
    note: str = ""
    stale: bool = False

    def record(self) -> dict[str, Any]:
        """As a run's spec keeps it."""
        if self.listing:
            return {"ref": str(self.ref), "listing": self.listing.record(), "digest": self.listing.digest}
        return {"ref": str(self.ref), "artifact": self.artifact, **({"stale": True} if self.stale else {})}


def resolve_or_last(
    yard: Yard, ref: str, kind: RefKind, hubs: Mapping[str, str], *, trust: Collection[str] = (), fresh: bool = False, again: bool = False
) -> Resolved:
    """What a ref stands for. kind, hubs: as for `hubs.resolve`; trust, fresh: as of a fetch step. again: ask for a commit too that is known.

    Raises Unavailable: the hub does not answer or may not be asked, and nothing is known or may be used; what `hubs.resolve` raises.
    """
    parsed = refs.parse(ref)
    if isinstance(parsed, YardRef):
        return Resolved(parsed, artifact=yard.refs.get(f"{parsed.kind}s/{parsed.name}@{parsed.alias}").digest, note=ref)
    if not isinstance(parsed, HubRef):
        return Resolved(parsed, resolve(parsed, kind, hubs))
    if parsed.is_commit and not again and (known := yard.known(_last_key(ref, trust))):
        return Resolved(parsed, artifact=known.artifact, note="a commit does not change: the hub was not asked")
    try:
        if offline():
            raise Unavailable(f"{OFFLINE} is set", where=ref, remedy=f"unset {OFFLINE} to ask the hub")
        return Resolved(parsed, resolve(parsed, kind, hubs))
    except Unavailable as failure:
        last = None if fresh else yard.known(_last_key(ref, trust))
        if last is None:
            why = "; ".join(text for text in (failure.why, "" if fresh else "nothing was fetched from it before") if text)
            raise Unavailable(failure.what, where=ref, why=why, remedy=failure.remedy) from failure
        said = "the hub was not asked" if offline() else "the hub did not answer"
        return Resolved(parsed, artifact=last.artifact, note=f"{ref}: {said} ({failure.what}); this is what it stood for at {last.at}", stale=True)


def offline() -> bool:
    """Whether no hub may be asked."""
    return os.environ.get(OFFLINE) == "1"


def remember(yard: Yard, ref: str, trust: Collection[str], *, listing: Listing, artifact: str, by: str) -> None:
    """Keep what a hub's ref stands for now, and the same for the commit that it was resolved to, for which no hub has to be asked again."""
    if not isinstance(listing.ref, HubRef):
        return  # a path is always there to be asked, and is another one on another machine
    names = {ref}
    if (pinned := replace(listing.ref, revision=listing.revision)).is_commit:
        names.add(str(pinned))
    for name in names:
        key = _last_key(name, trust)
        yard.actions.put(key, Action(key=key, verb="fetch", artifact=artifact, attempt=by, at=utc_now()))


def _last_key(ref: str, trust: Collection[str]) -> str:
    """The key of the action that remembers what a ref stood for last."""
    return digest({"last": ref, "trust": sorted(trust)})
