"""Hubs: where refs resolve to listings, and listings to bytes.

Listing and reading only; which files are taken is `selection`. A hub is a folder for now: an address is refused with a message that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelyard.errors import NoInput, Usage
from modelyard.hubs.folder import FolderHub, PathHub
from modelyard.hubs.hub import Access, Found, Hub, Query, Reader
from modelyard.hubs.listing import HubFile, Listing
from modelyard.refs import HUB_NAMES, HubRef, PathRef, RefKind, Scheme

__all__ = ["Access", "Found", "Hub", "HubFile", "Listing", "Query", "Reader", "open_hub", "reader", "resolve"]


def open_hub(scheme: Scheme, hubs: Mapping[str, str]) -> Hub:
    """The hub that a scheme's refs resolve at, by `[hubs]` of modelyard.toml.

    Raises Usage: nothing, or an address, is set for it. NoInput: the folder is not there.
    """
    name = HUB_NAMES[scheme]
    where = hubs.get(name, "")
    if not where or "://" in where:
        what = f"{name} = {where!r} is an address" if where else f"there is no hub for {scheme}:// refs"
        raise Usage(what, where="[hubs] in modelyard.toml", why="a hub is a folder here", remedy=f'set {name} = "FOLDER", which holds OWNER/NAME/…')
    folder = Path(where).expanduser().absolute()
    if not folder.is_dir():
        raise NoInput(f"{folder} is no folder", where=f"{name} under [hubs] in modelyard.toml", remedy="make it, or correct the setting")
    return FolderHub(folder)


def resolve(ref: HubRef | PathRef, kind: RefKind, hubs: Mapping[str, str]) -> Listing:
    """What a ref stands for now. kind: what a path holds; a hub's ref says that itself.

    Raises Usage when a hub's ref is of the other kind, and what `Hub.resolve` raises.
    """
    if isinstance(ref, PathRef):
        return PathHub().resolve(ref, kind)
    if ref.kind != kind:
        raise Usage(f"{ref} names a {ref.kind}, a {kind} is expected", remedy=f"write {replace(ref, kind=kind)}")
    return open_hub(ref.scheme, hubs).resolve(ref)


def reader(listing: Listing, hubs: Mapping[str, str]) -> Reader:
    """What reads the files of a listing."""
    return PathHub() if isinstance(listing.ref, PathRef) else open_hub(listing.ref.scheme, hubs)
