"""Fetch: the selected files of a listing, from its hub into `out`. The work itself is modelyard.hubs.fetching; here it becomes a step."""

from __future__ import annotations

from modelyard import hubs
from modelyard.errors import VolumeFailed
from modelyard.hubs import Listing
from modelyard.hubs.fetching import Fetching, turn
from modelyard.hubs.selection import select
from modelyard_jobs.context import Context, Produced


def run(context: Context) -> Produced:
    """Fetch what `context.listing` names, or take what another process fetched meanwhile.

    Raises Refused, NoInput: of the listing (see `select`); NoSpace: before a byte is read; Corrupt: a file is not what was listed; Yielded.
    """
    listing: Listing = context.listing
    selection = select(listing, context.settings.trust)
    if selection.left_out:
        value = [f"{path}: {why}" for path, why in selection.left_out]
        context.decide("files left out", value, "weights in one safe format, no code, and nothing that a model or data set has no use for")
    if selection.trusted:
        context.decide("trusted", list(selection.trusted), "the step says `trust`: these files can run code when they are loaded")
    watch = _Watch(context)
    with context.stop.polled(), turn(context.yard, context.key, selection.size, watch, forced=context.forced) as existing:
        if existing:
            return Produced(listing.kind, selection.format, existing=existing)
        reader = hubs.reader(listing, context.hubs)
        work = Fetching(context.yard, listing, selection, reader, context.out, key=context.key, attempt=context.attempt, watch=watch)
        try:
            fetched = work.run()
        except VolumeFailed:
            # Who has finished clears the parts that others are still at; what it made is what was being made here.
            action = None if context.forced else context.yard.known(context.key)
            if action is None:
                raise
            return Produced(listing.kind, selection.format, existing=action.artifact)
        for name, value in fetched.details().items():
            context.detail(name, value)
        return Produced(listing.kind, selection.format, known=fetched.known)


class _Watch:
    """The step's progress and its stop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.progress = context.progress
        self.check = context.stop.check

    @property
    def requested(self) -> bool:
        return self._context.stop.requested

    def waiting(self) -> None:
        self._context.log.info("another process fetches this", key=self._context.key)
