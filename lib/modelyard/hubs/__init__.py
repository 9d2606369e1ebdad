"""Hubs: where refs resolve to listings, and listings to bytes.

A hub is a folder, a yard, or a server at an address, which its scheme's client speaks to. Which files are taken is `selection`; the bytes become an
artifact in `fetching`, and `cache` is the library call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelyard.errors import NoInput, Usage
from modelyard.hubs.folder import FolderHub, PathHub
from modelyard.hubs.hub import Access, Found, Hub, Query, Reader
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.yards import YardHub, is_yard
from modelyard.refs import HUB_NAMES, HubRef, PathRef, RefKind, Scheme

__all__ = ["Access", "Found", "Hub", "HubFile", "Listing", "Query", "Reader", "open_hub", "reader", "resolve"]


def open_hub(scheme: Scheme, hubs: Mapping[str, str]) -> Hub:
    """The hub that a scheme's refs resolve at, by `[hubs]` of modelyard.toml. Nothing is asked of it yet.

    Raises Usage: nothing is set for it, or no address. NoInput: the folder is not there. NoPermission: the token that is set cannot be sent.
    """
    name = HUB_NAMES[scheme]
    where = hubs.get(name, "")
    if not where:
        remedy = f'set {name} = "ADDRESS or FOLDER"'
        raise Usage(f"there is no hub for {scheme}:// refs", where="[hubs] in modelyard.toml", remedy=remedy)
    if "://" in where:
        if scheme == "modelscope":
            from modelyard.hubs.modelscope import ModelScopeHub

            return ModelScopeHub(where)
        from modelyard.hubs.huggingface import HuggingFaceHub

        return HuggingFaceHub(where)
    folder = Path(where).expanduser().absolute()
    if not folder.is_dir():
        raise NoInput(f"{folder} is no folder", where=f"{name} under [hubs] in modelyard.toml", remedy="make it, or correct the setting")
    return YardHub(folder, scheme) if is_yard(folder) else FolderHub(folder, scheme)


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
