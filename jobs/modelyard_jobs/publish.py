"""publish: put a model on a hub, with its card, and look whether it is there as it was sent.

In order: the gate; what is to be published, and its card; what the hub has. Where that is the same, under the tag too, nothing is sent. Else the
token is asked for, every file is hashed again, the branch is replaced by exactly these files, listed and compared, and tagged. Up to the upload
nothing is written to the hub: a refusal leaves no trace there.

The result: to, revision (the commit, where the hub has commits), tag, files (path, size, sha256), unchanged, visibility (of a repository that was
made; an existing one keeps its own), licence, gate.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import modelyard
from modelyard import hubs, refs
from modelyard.errors import Corrupt, NoInput, NoPermission, Refused, Unavailable, Usage
from modelyard.hubs import Hub, HubFile, Listing
from modelyard.hubs.credentials import VARIABLES
from modelyard.hubs.hub import OF_THE_HUB
from modelyard.hubs.resolving import OFFLINE
from modelyard.quantities import format_bytes
from modelyard.refs import HubRef
from modelyard.yard import files
from modelyard.yard.lineage import Lineage
from modelyard_jobs import card, package, provenance, release
from modelyard_jobs.card import Facts, Measured
from modelyard_jobs.context import Context, Produced
from modelyard_jobs.package import File, Package
from modelyard_jobs.provenance import Licence, Provenance, Sources

_VERIFY = "modelyard yard verify; a run makes it again"


def run(context: Context) -> Produced:
    """Publish `model` to `to`.

    Raises Refused: the gate said no, or there is nothing safe to publish; Usage: a public model has no licence, or the tag names something else;
    NoPermission: there is no token; Corrupt: a file is not what its artifact says, or what the hub lists afterwards is not what was sent.
    """
    settings = context.settings
    to = refs.parse(settings.to)
    assert isinstance(to, HubRef)  # noqa: S101  # the setting's own check
    own = {step.key for step in context.yard.runs.get(context.run).status().steps.values()}
    lineage = Lineage(context.yard.actions.list(), own)
    told: dict[str, Any] = {"to": settings.to}
    told["gate"] = release.pass_gate(context, lineage, told)
    content, licence = _content(context, lineage, to, told["gate"])
    tag = settings.tag or f"v-{package.digest(content)[:10]}"
    told |= {"tag": tag, "licence": licence.name}
    told["files"] = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in package.listed(content)]
    context.result(told)

    if os.environ.get(OFFLINE) == "1":
        raise Unavailable(f"{OFFLINE} is set", where=str(to), remedy=f"unset {OFFLINE} to publish")
    hub = hubs.open_hub(to.scheme, context.hubs)
    before, kept = _listing(hub, to), _listing(hub, replace(to, revision=tag))
    is_there = before or (to.revision and _listing(hub, replace(to, revision=None)))  # the branch may be new where the repository is not
    if kept and (why := _difference(hub, kept, content)):
        raise Usage(f"the tag {tag!r} stands for something else", where=str(to), why=why, remedy="choose another `tag`, or leave it out")
    now = before if before and not _difference(hub, before, content) else None
    unchanged = now is not None and kept is not None
    if not unchanged:
        _check_token(hub, to)
    if now is None:
        _check_content(content)
        now = _upload(context, hub, to, content, licence)
    if kept is None:
        hub.tag(to, tag)
    visibility = "as it was" if is_there else settings.visibility
    context.result({**told, "revision": now.revision, "unchanged": unchanged, "visibility": visibility})
    context.log.info("published", to=str(to), revision=now.revision, tag=tag, unchanged=unchanged, visibility=visibility)
    return Produced()


def _content(context: Context, lineage: Lineage, to: HubRef, gate: Mapping[str, Any] | None) -> tuple[dict[str, File], Licence]:
    """(what is published, its licence); the card is written into the scratch folder."""
    model, metrics = context.inputs["model"], context.inputs.get("gate.metrics")
    sources = Sources(context.yard, lineage, context.run)
    traced = provenance.trace(context.yard, lineage, sources, model, lineage.measured(metrics.digest) if metrics else ())
    licence = _licence(context, traced)
    content, left_out = package.pack(traced.model, traced.weights)
    if left_out:
        context.decide("files left out", left_out, "published are safetensors, configurations, tokenizer and licence; the card is written anew")
    task, labels = provenance.made_for(traced.weights)
    facts = Facts(
        to=replace(to, revision=None),
        version=modelyard.__version__,
        task=task,
        labels=labels,
        provenance=traced,
        licence=licence,
        paths=sorted(content),
        measured=_measured(context, lineage, sources, traced) if metrics else None,
        gate=gate,
        chats=provenance.chats(traced.weights),
    )
    configuration = {"framework": "pytorch", **({"task": card.MODELSCOPE_TASKS.get(task, task)} if task else {})}
    written = {"README.md": card.readme(facts), "configuration.json": json.dumps(configuration, indent=2) + "\n"}
    for path, text in written.items():
        content[path] = File.write(context.scratch / path, text)
    return content, licence


def _licence(context: Context, traced: Provenance) -> Licence:
    settings, of = context.settings, traced.licence
    if settings.licence:
        licence = Licence(settings.licence.strip().lower(), "the step")  # as hubs write them
        context.decide("licence", licence.name, "as the step says")
        return licence
    if of.name is None and settings.visibility == "public":
        raise Usage(
            "the licence of the model is not known",
            where="licence",
            why="neither its card nor a licence file of the model that it was made from says it, and everybody will see it",
            remedy="set `licence`, such as apache-2.0, once you know it; or publish it private",
        )
    context.decide("licence", of.name, f"that of the model it was made from, by its {of.source}" if of.name else "nothing says one; the card says so")
    return of


def _measured(context: Context, lineage: Lineage, sources: Sources, traced: Provenance) -> Measured:
    metrics = context.inputs["gate.metrics"]
    subjects = {traced.model.digest, traced.weights.digest}
    action = next(action for action in lineage.makers(metrics.digest, "evaluate") if action.inputs["model"] in subjects)
    engine = action.decisions.get("engine")
    data = sources.of(action.inputs["data"])
    return Measured(metrics.digest, release.document(metrics), data, action.inputs["model"], str(engine.value) if engine else None)


def _listing(hub: Hub, ref: HubRef) -> Listing | None:
    """What the hub has there; None where there is nothing."""
    try:
        return hub.resolve(ref)
    except NoInput:
        return None


def _difference(hub: Hub, listing: Listing, content: Package) -> str:
    """The first difference between what a hub lists and what is to be there, in words; empty: there is none."""
    found = {file.path: file for file in listing.files if file.path in content or file.path not in OF_THE_HUB}
    for path, file in sorted(content.items()):
        there = found.pop(path, None)
        if there is None:
            return f"{path!r} is not there"
        if there.size != file.size:
            return f"{path!r} has {there.size} bytes, not {file.size}"
        if (sha256 := there.sha256 or _sha256(hub, listing, there)) != file.sha256:
            return f"{path!r} has the sha256 {sha256}, not {file.sha256}"
    return f"{min(found)!r} is there too" if found else ""


def _sha256(hub: Hub, listing: Listing, file: HubFile) -> str:
    """Of a file that the hub lists without its sha256: small ones, on hubs that are Git below."""
    read = hashlib.sha256()
    for chunk in hub.read(listing, file):
        read.update(chunk)
    return read.hexdigest()


def _check_token(hub: Hub, to: HubRef) -> None:
    """Raise NoPermission where it is known that we may not write, before anything is tried."""
    access = hub.access()
    if access.writes or (access.user and access.writes is None):
        return
    if access.user is None and access.writes is False:  # a folder or a yard: no token helps
        why = "the hub is a folder that is not this user's, or a yard"
        raise NoPermission(f"nothing may be written to {to}", why=why, remedy="publish elsewhere")
    why = f"the token is {access.user}'s, and only reads" if access.user else "there is no token"
    raise NoPermission(f"nothing may be written to {to}", why=why, remedy=f"set {VARIABLES[to.scheme][0]} to a token that may write")


def _check_content(content: Package) -> None:
    """Hash every file again, links not followed. Raises Corrupt: one is not what its manifest says any more; Refused: it is no regular file."""
    for path, file in sorted(content.items()):
        found = files.status(file.source)
        if found is None or not stat.S_ISREG(found.st_mode):
            what = f"{path!r} is no regular file any more" if found else f"{path!r} is not there any more"
            raise Refused(what, where=str(file.source), why="only what its manifest names is published", remedy=_VERIFY)
        if (sha256 := files.sha256(file.source)) != file.sha256:
            raise Corrupt(f"{path!r} is not what its manifest says", where=str(file.source), why=f"its sha256 is {sha256}", remedy=_VERIFY)


def _upload(context: Context, hub: Hub, to: HubRef, content: Package, licence: Licence) -> Listing:
    """Upload, list again, compare."""
    size = sum(file.size for file in content.values())
    context.log.info("uploading", to=str(to), files=len(content), size=format_bytes(size))
    sent = {path: file.source for path, file in content.items()}
    message = f"{to.name} by modelyard {modelyard.__version__}: {package.digest(content)[:10]}"
    hub.upload(to, sent, message=message, private=context.settings.visibility == "private", licence=licence.name)
    listing = hub.resolve(to)
    if why := _difference(hub, listing, content):
        raise Corrupt("what the hub lists is not what was sent", where=str(to), why=why, remedy="run again: it is sent again")
    return listing
