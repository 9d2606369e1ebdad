"""Hubs: whether those that the pipeline needs answer, who they take us for, whether a token may write, and whether each ref may be read.

A pipeline's preflight asks the hubs that the pipeline names and no others: a machine without a way to the rest of the world is in order. Where the
pipeline names none, all that are set are asked, for a moment, and fail nothing. Of a ref that is still to be fetched one byte is asked for: a
gated repository lists its files to everybody, and refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from modelyard import hubs, refs
from modelyard.errors import Failure, NoPermission, Unavailable
from modelyard.hubs import Access
from modelyard.hubs.resolving import OFFLINE
from modelyard.quantities import format_bytes
from modelyard.refs import HUB_NAMES, HubRef
from modelyard.steps import Fetch, Publish, Search
from modelyard_jobs.atonce import at_once
from modelyard_jobs.preflight.row import Row
from modelyard_jobs.preflight.subject import Subject

NEEDED_WITHIN = 90.0
OTHERS_WITHIN = 10.0
"""Seconds that a hub has to answer: one that the pipeline needs, one that it does not."""

_SCHEMES = {name: scheme for scheme, name in HUB_NAMES.items()}


def rows(subject: Subject) -> Iterator[Row]:
    """A row for each hub, for each ref, and for each publish's token."""
    users = _users(subject) or {name: [] for name in subject.hubs}
    if os.environ.get(OFFLINE) == "1":
        for name, by in users.items():
            reason = f"{OFFLINE} is set: hubs are not asked"
            yield Row.bad(f"hub {name}", Unavailable, soft=True, found="not asked", needed=_by(by), reason=reason, remedy=f"unset {OFFLINE}")
        yield from _refs(subject, ask=False)
        return
    needed = sorted(name for name, by in users.items() if by)
    others = sorted(set(users) - set(needed))
    answers = at_once({name: partial(_access, subject, name) for name in needed}, NEEDED_WITHIN)
    answers |= at_once({name: partial(_access, subject, name) for name in others}, OTHERS_WITHIN)
    for name, answer in answers.items():
        yield _hub(subject, name, answer, users[name])
    yield from _refs(subject, ask=True)
    for name, step in subject.pipeline.steps.items():
        if isinstance(step, Publish):
            yield from _token(name, step, answers)


def _users(subject: Subject) -> dict[str, list[str]]:
    """Hub -> the steps that need it to answer, for every hub that the pipeline names: those that publish to it, or have something to fetch."""
    users: dict[str, list[str]] = {}
    for name, step in subject.pipeline.steps.items():
        if isinstance(step, Search):
            for hub in step.hub:
                users.setdefault(hub, [])  # it asks for itself, and one answer is enough for it
        elif isinstance(step, Publish | Fetch):
            ref = refs.parse(step.to if isinstance(step, Publish) else step.ref)
            if isinstance(ref, HubRef):
                needs = isinstance(step, Publish) or name in subject.missing
                users.setdefault(HUB_NAMES[ref.scheme], []).extend([name] if needs else [])
    return users


def _access(subject: Subject, name: str) -> Access:
    return hubs.open_hub(_SCHEMES[name], subject.hubs).access()


def _hub(subject: Subject, name: str, answer: Access | Failure, by: list[str]) -> Row:
    check, where = f"hub {name}", subject.hubs.get(name, "nowhere")
    if isinstance(answer, Failure):
        reason = ": ".join(part for part in (where, answer.why) if part)
        return Row.bad(check, type(answer), soft=not by, found=answer.what, needed=_by(by), reason=reason, remedy=answer.remedy)
    who = f"as {answer.user}" if answer.user else "to whoever asks"
    scope = {True: ", who may write", False: ", who may not write", None: ""}[answer.writes]
    return Row(check, f"it answers, {who}{scope}", _by(by), where)


def _by(by: list[str]) -> str:
    return f"for {', '.join(by)}" if by else "by no step of this pipeline"


def _token(name: str, step: Publish, answers: dict[str, Access | Failure]) -> Iterator[Row]:
    """Whether the token that is there may write where a step publishes. No row where the hub gave no answer: its own row says so."""
    ref = refs.parse(step.to)
    assert isinstance(ref, HubRef)  # noqa: S101  # the setting's own check
    hub = HUB_NAMES[ref.scheme]
    answer = answers[hub]
    if isinstance(answer, Failure):
        return
    check, needed = f"token for {name}", f"one that may write to {ref}"
    remedy = f"make a token that may write, and set it for {hub}"
    if answer.writes is False or (answer.user is None and not answer.writes):
        found = f"{answer.user}'s may not write" if answer.user else "none"
        reason = f"{hub} takes nothing from {answer.user or 'whoever has none'}"
        yield Row.bad(check, NoPermission, soft=False, found=found, needed=needed, reason=reason, remedy=remedy)
    elif answer.writes is None:
        yield Row(check, f"{answer.user}'s", needed, f"{hub} does not say what a token may do: whether it may write shows when it does")
    else:
        yield Row(check, f"{answer.user}'s may write" if answer.user else "none is asked for", needed, f"{hub} says so")


def _refs(subject: Subject, *, ask: bool) -> Iterator[Row]:
    """A row for each ref that is fetched."""
    for name, step in subject.fetches.items():
        check = f"ref {step.ref}"
        resolved = subject.resolved.get(name, {})
        if resolved.get("stale"):
            reason = "its hub was not asked or did not answer: what it stood for last is used"
            yield Row.bad(check, Unavailable, soft=True, found="in the yard, not looked up", needed=f"by {name}", reason=reason, remedy="run again")
            continue
        try:
            if made := subject.made(name):
                yield Row(check, f"in the yard as {made[:12]}", f"by {name}", "nothing is to be fetched")
                continue
            selection = subject.selections[name]
            if isinstance(selection, Failure):
                raise selection
            if ask and subject.hub_ref(name):
                _read_one_byte(subject, name)
        except Failure as failure:
            yield Row.of(check, failure, needed=f"by {name}")
        else:
            listing = subject.listing(name)
            at = f"revision {listing.revision}" if listing and listing.revision else "as it lies there"
            yield Row(check, f"{len(selection.files)} files, {format_bytes(selection.size)}", f"by {name}", at + ("; it may be read" if ask else ""))


def _read_one_byte(subject: Subject, name: str) -> None:
    """The last byte of the smallest file. Raises what reading does: NoPermission for a gated repository."""
    listing, selection = subject.listing(name), subject.selection(name)
    sized = [file for file in selection.files if file.size] if selection else []
    if listing and sized:
        file = min(sized, key=lambda file: file.size)
        for _ in hubs.reader(listing, subject.hubs).read(listing, file, file.size - 1):
            break
