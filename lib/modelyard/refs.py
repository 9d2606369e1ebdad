"""Refs: the names by which a pipeline speaks of models and data that are not made by one of its own steps.

    modelscope://owner/name@revision            a model on ModelScope
    hf://datasets/owner/name@revision           a data set on Hugging Face
    yard://models/name@champion                 what a name in the yard points to
    ./reviews.csv, /data/reviews                a file or folder of this machine

A bare word is none of these: it names a step of the same pipeline. Parsing checks every part that later enters a path or a request; it does
not ask whether the thing exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from modelyard.errors import Usage

RefKind = Literal["model", "dataset"]
Scheme = Literal["modelscope", "hf"]

HUB_NAMES: dict[Scheme, str] = {"modelscope": "modelscope", "hf": "huggingface"}
"""Scheme of a ref -> key under `[hubs]` in modelyard.toml."""

_KINDS: dict[str, RefKind] = {"models": "model", "datasets": "dataset"}
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PASSWORD = re.compile(r"[^/]*://[^/@]*:[^/@]*@")
_STEP = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class HubRef:
    """A repository on a hub at a revision; None means the hub's default branch."""

    scheme: Scheme
    kind: RefKind
    owner: str
    name: str
    revision: str | None = None

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit id: what it stands for never changes."""
        return bool(self.revision and _COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        return f"{self.scheme}://{kind}{self.owner}/{self.name}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class YardRef:
    """A mutable name in the yard: `yard://models/NAME@ALIAS`; the alias is `latest` unless it is given."""

    kind: RefKind
    name: str
    alias: str = "latest"

    def __str__(self) -> str:
        return f"yard://{self.kind}s/{self.name}@{self.alias}"


@dataclass(frozen=True)
class PathRef:
    """A file or folder of this machine."""

    path: str

    def __str__(self) -> str:
        return self.path


Ref = HubRef | YardRef | PathRef


def is_step_name(text: str) -> bool:
    """Whether the text can only be the name of a step: a lower-case word without a scheme, a dot or a slash."""
    return bool(_STEP.fullmatch(text))


def parse(text: str) -> Ref:
    """The ref that `text` writes.

    Raises Usage: the text is no ref, or a part of it is not allowed; the message says which part.
    """
    if text.startswith(("./", "../", "/")) or text in (".", ".."):
        if "\0" in text:
            raise Usage(f"{text!r} is no path", why="it holds a NUL", remedy="remove it")
        return PathRef(text)
    if _PASSWORD.match(text):
        remedy = "leave it out; a token goes into MODELSCOPE_API_TOKEN or HF_TOKEN"
        raise Usage("a ref holds no name and password", why="what is written before '@' looks like one", remedy=remedy)
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise Usage(
            f"{text!r} is neither a ref, a path nor the name of a step",
            remedy="write modelscope://owner/name, hf://owner/name, yard://models/name@alias, or a path that starts with ./ or /",
        )
    path, marked, revision = rest.partition("@")
    folder, *names = path.split("/")
    if scheme == "yard":
        if folder not in _KINDS or len(names) != 1:
            raise Usage(f"{text!r} is no ref", why="a yard's ref is yard://models/name@alias or yard://datasets/name@alias", remedy="correct it")
        return YardRef(_KINDS[folder], check_part(names[0], "name", text), check_part(revision or "latest", "alias", text))
    if scheme not in HUB_NAMES:
        known = ", ".join(f"{name}://" for name in (*HUB_NAMES, "yard"))
        raise Usage(f"{text!r} has an unknown scheme {scheme!r}", why=f"known are {known}", remedy="correct the scheme")
    kind: RefKind = "model"
    if len(names) == 2 and folder in _KINDS:
        kind, folder, names = _KINDS[folder], names[0], names[1:]
    if len(names) != 1:
        remedy = f"write {scheme}://owner/name or {scheme}://datasets/owner/name"
        raise Usage(f"{text!r} is no ref", why="a hub's ref has an owner and a name", remedy=remedy)
    owner, name = check_part(folder, "owner", text), check_part(names[0], "name", text)
    return HubRef("modelscope" if scheme == "modelscope" else "hf", kind, owner, name, check_revision(revision, text) if marked else None)


def check_part(part: str, what: str, ref: str) -> str:
    """`part` if it may stand as one component of a path and of a URL; Usage otherwise."""
    if not _PART.fullmatch(part) or ".." in part or part.endswith("."):
        why = "letters, digits, '.', '_' and '-' only, no '..', at most 96"
        raise Usage(f"{what} {part!r} is not allowed", where=ref, why=why, remedy="correct it")
    return part


def check_revision(revision: str, ref: str) -> str:
    """`revision` if it is a plain branch, tag or commit; Usage otherwise."""
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or revision.endswith(("/", ".")):
        why = "a branch, a tag or a commit id is expected after '@'"
        raise Usage(f"revision {revision!r} is not allowed", where=ref, why=why, remedy="correct it")
    return revision
