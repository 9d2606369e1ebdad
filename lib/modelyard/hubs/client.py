"""What the clients of both hubs share: reading, tags, what may be uploaded, and how an SDK's errors are named.

An SDK speaks to its hub, by the transport that all bytes take (transport.py); nothing of it is believed: a listing is checked whole, and its own
cache, retries and credential files are not used.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast
from urllib.parse import urlsplit

from modelyard.errors import Corrupt, Failure, NoInput, Refused, Usage
from modelyard.hubs.credentials import VARIABLES, redact, token_of
from modelyard.hubs.listing import HubFile, Listing
from modelyard.hubs.transport import Http, ahead
from modelyard.refs import HUB_NAMES, HubRef, Scheme
from modelyard.yard.manifest import check_paths


class Client:
    """One hub at an address."""

    scheme: ClassVar[Scheme]

    def __init__(self, address: str) -> None:
        """Raises Usage: this is no address of a hub; NoPermission: the token that is set cannot be sent."""
        self.address = check_address(address, self.scheme)
        self.http = Http(self.scheme, self.address, token_of(self.scheme, self.address))

    def resolve(self, ref: HubRef) -> Listing:
        """What the ref stands for now."""
        raise NotImplementedError

    def read(self, listing: Listing, file: HubFile, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes from `offset` on. Raises Corrupt when it has another size than it was listed with."""
        ref = cast(HubRef, listing.ref)
        if offset >= file.size:
            return iter(())  # a hub has no range that begins at the end
        return ahead(self.http.read(self._address_of(ref, listing.revision, file.path), offset, file.size, f"{ref}: {file.path}"))

    def tag(self, ref: HubRef, name: str) -> None:
        """Keep what the ref stands for under a name. Raises Usage when that name is something else's."""
        wanted = self.resolve(ref)
        try:
            there = self.resolve(replace(ref, revision=name))
        except NoInput:
            self._make_tag(ref, name, wanted.revision)
            there = self.resolve(replace(ref, revision=name))
        if there.digest != wanted.digest:
            why = "a tag does not move, and what it names is not what is to be tagged"
            raise Usage(f"{name!r} is the name of something else there", where=str(ref), why=why, remedy="take another name")

    def _address_of(self, ref: HubRef, revision: str, path: str) -> str:
        """Where a file's bytes are."""
        raise NotImplementedError

    def _make_tag(self, ref: HubRef, name: str, revision: str) -> None:
        raise NotImplementedError

    def _failure(self, error: Exception, where: str) -> Failure | None:
        """The failure that an error of the SDK is, None where it is none that the SDK means to raise."""
        raise NotImplementedError

    @contextmanager
    def _call(self, where: str, *, metadata: bool = True) -> Iterator[None]:
        """A call of the SDK: within the budget of one, with its errors named."""
        try:
            with self.http.call(metadata=metadata):
                yield
        except Failure as failure:  # the hub's own words may be in it
            what, why = redact(failure.what), redact(failure.why)
            raise type(failure)(what, where=_joined(where, failure.where), why=why, remedy=failure.remedy) from failure.__cause__
        except Exception as error:
            if named := self._failure(error, where):
                raise named from None  # the SDK's error holds the request with its headers
            if isinstance(error, ValueError | TypeError | KeyError | AttributeError | IndexError):
                what, why = "the hub's answer is not what its SDK expects", redact(f"{type(error).__name__}: {error}")[:300]
                raise Corrupt(what, where=where, why=why, remedy="check the hub's address; its version may be another") from error
            raise


def check_address(address: str, scheme: Scheme) -> str:
    """`address` without a slash at its end, if it is one of the web without a name or password in it; Usage otherwise."""
    where = f"{HUB_NAMES[scheme]} under [hubs]"
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise Usage(f"{redact(address)!r} is no address", where=where, why=str(error), remedy="write https://HOST") from error
    if parts.username or parts.password:
        remedy = f"write the address alone, and set {VARIABLES[scheme][0]}"
        raise Usage("the hub's address holds a name or a password", where=where, remedy=remedy)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Usage(f"{redact(address)!r} is no address of a hub", where=where, remedy="write https://HOST, or a folder")
    return address.rstrip("/")


def check_upload(ref: HubRef, files: Mapping[str, Path]) -> None:
    """Accept what is to be uploaded. Raises Usage: the ref is a commit; Refused: a name is unsafe, or something is no regular file."""
    if ref.is_commit:
        raise Usage(f"{ref} names a commit, which does not change", remedy="name a branch, or none")
    check_paths(files, str(ref))
    for name, path in files.items():
        try:
            kind = path.lstat().st_mode
        except OSError as error:
            raise NoInput(f"{name!r} is not there", where=str(path), why=error.strerror or "", remedy="run again") from error
        if not stat.S_ISREG(kind):
            raise Refused(f"{name!r} is no regular file", where=str(path), why="a link may lead anywhere", remedy="put the file itself there")


def _joined(where: str, further: str) -> str:
    return where if not further or further == where or further.startswith(where) else f"{where}: {further}"
