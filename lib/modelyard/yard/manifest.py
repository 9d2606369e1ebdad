"""Manifests: what makes a folder complete.

An artifact and a checkpoint are both a folder of this shape:

    files/             the content
    manifest.json      kind, format; path, size and sha256 of each file; canonical JSON, so that equal content has equal bytes

A manifest says nothing of where the content comes from or when: its sha256 is the name of the content. Sealing makes files, manifest and
folders durable, so that the rename that follows can never show a folder that is not whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from modelyard.errors import BadData, Corrupt, Refused, Usage, VolumeFailed
from modelyard.spec import canonical
from modelyard.yard import files

FILES = "files"
MANIFEST = "manifest.json"
MAX_FILES = 100_000
MAX_DEPTH = 32
MAX_PATH = 1024
"""Bounds on what is taken into a yard: files, folders above one, bytes of its path."""

Kind = Literal["model", "dataset", "metrics", "plan", "checkpoint"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file. path: relative, with `/`; size: bytes; sha256: hex."""

    path: str
    size: Annotated[int, Field(ge=0, strict=True)]
    sha256: Digest


@dataclass(frozen=True)
class Manifest:
    """The content of a sealed folder; `files` sorted by path."""

    kind: Kind
    format: str | None
    files: tuple[FileEntry, ...]

    def encode(self) -> bytes:
        """The bytes of manifest.json."""
        return canonical({"kind": self.kind, "format": self.format, "files": [vars(entry) for entry in self.files]})

    @property
    def digest(self) -> str:
        """Hex sha256 of manifest.json."""
        return hashlib.sha256(self.encode()).hexdigest()


def is_digest(text: str) -> bool:
    """Whether the text is 64 hex digits."""
    return bool(_DIGEST.fullmatch(text))


def check_digest(text: str) -> str:
    """`text` if it is a digest or a key (64 hex digits) and may enter a path; Usage otherwise."""
    if not is_digest(text):
        raise Usage(f"{text!r} is no digest", why="64 hex digits are expected", remedy="modelyard yard ls shows the digests")
    return text


def check_paths(paths: Iterable[str], where: str = "") -> list[str]:
    """The relative paths of one artifact, if they can lie side by side on any file system.

    Raises Refused: a path is absolute or leaves its folder, has a backslash or a control character, is not text, is too long or too deep; two
    are equal but for case or Unicode normalisation; a file is also a folder; or there are too many. BadData: there is none.
    """
    taken: dict[str, tuple[str, bool]] = {}
    checked = list(paths)
    if not checked:
        raise BadData("there is no file in it", where=where, remedy="name a folder or repository that holds files")
    if len(checked) > MAX_FILES:
        raise Refused(f"{len(checked)} files are too many", where=where, why=f"at most {MAX_FILES} are taken")
    for path in checked:
        if reason := _unsafe(path):
            raise Refused(f"file name {path!r} is not allowed", where=where, why=reason)
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix, is_file = "/".join(parts[:depth]), depth == len(parts)
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", prefix).casefold())
            if folded not in taken:
                taken[folded] = prefix, is_file
            elif is_file or taken[folded] != (prefix, False):
                raise Refused(f"file names {path!r} and {taken[folded][0]!r} clash", where=where, why="not every file system can hold both")
    return checked


def seal(folder: Path, kind: Kind, form: str | None, known: Mapping[str, str]) -> Manifest:
    """Make folder/files durable under a manifest: check names, hash, set modes, sync; the folder may be renamed into place then.

    known: sha256 by path, of files that were hashed as they were written; the rest is read here.
    Raises Refused: a link, a device or an unsafe name is among the files; Corrupt: a known file is not there.
    """
    content = folder / FILES
    found = list(files.walk(content))
    for entry in found:
        if entry.kind == "other":
            raise Refused(f"{entry.path!r} is no regular file", where=str(content), why="links, pipes and devices are not taken into a yard")
    sizes = {entry.path: entry.size for entry in found if entry.kind == "file"}
    check_paths(sizes, str(content))
    if missing := known.keys() - sizes.keys():
        raise Corrupt(f"{min(missing)!r} is not there any more", where=str(content), remedy="run again")
    entries = []
    for path in sorted(sizes):
        files.set_mode(content / path, files.FILE_MODE)
        digest = check_digest(known[path]) if path in known else files.sha256(content / path)
        files.sync_file(content / path)
        entries.append(FileEntry(path, sizes[path], digest))
    manifest = Manifest(kind, form, tuple(entries))
    files.write_atomic(folder / MANIFEST, manifest.encode())
    for subfolder in [content / entry.path for entry in reversed(found) if entry.kind == "folder"] + [content, folder]:
        files.set_mode(subfolder, files.FOLDER_MODE)
        files.sync_folder(subfolder)
    return manifest


def load(folder: Path) -> Manifest | None:
    """The manifest of a sealed folder, None where there is none.

    Raises Corrupt: it is torn, or no manifest of ours.
    """
    path = folder / MANIFEST
    data = files.read(path)
    if data is None:
        return None
    try:
        manifest = _ADAPTER.validate_python(json.loads(data))
        check_paths(entry.path for entry in manifest.files)
        canonical_form = manifest.encode() == data
    except (ValueError, RecursionError, Refused, BadData) as error:
        raise Corrupt("the manifest is torn or not ours", where=str(path), remedy=_REMEDY) from error
    if not canonical_form:
        raise Corrupt("the manifest is not ours", where=str(path), why="it is not in canonical form", remedy=_REMEDY)
    return manifest


def problems(folder: Path, manifest: Manifest, *, rehash: bool) -> list[str]:
    """What of the folder does not match its manifest, empty when all does: sizes, and with `rehash` every byte and what is there beside."""
    found = []
    for entry in manifest.files:
        path = folder / FILES / entry.path
        status = files.status(path)
        if status is None:
            found.append(f"{entry.path}: missing")
        elif not stat.S_ISREG(status.st_mode):
            found.append(f"{entry.path}: no regular file")
        elif status.st_size != entry.size:
            found.append(f"{entry.path}: {status.st_size} bytes instead of {entry.size}")
        elif rehash:
            try:
                if (digest := files.sha256(path)) != entry.sha256:
                    found.append(f"{entry.path}: sha256 {digest} instead of {entry.sha256}")
            except VolumeFailed as error:
                found.append(f"{entry.path}: {error.why}")
    if rehash:
        listed = {entry.path for entry in manifest.files}
        found += [f"{entry.path}: not in the manifest" for entry in files.walk(folder / FILES) if entry.kind != "folder" and entry.path not in listed]
    return found


def _unsafe(path: str) -> str:
    parts = path.split("/")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if "\\" in path or any(unicodedata.category(character) == "Cc" for character in path):
        return "it holds a backslash or a control character"
    if any(part in ("", ".", "..") for part in parts):
        return "it is absolute, or leaves its folder"
    if len(parts) > MAX_DEPTH or size > MAX_PATH or any(len(part.encode()) > 255 for part in parts):
        return f"it is too long or too deep (at most {MAX_DEPTH} levels, {MAX_PATH} bytes, 255 each)"
    return ""


_REMEDY = "modelyard yard verify, then run again"
_ADAPTER = TypeAdapter(Manifest)
