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
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class FileEntry:
    """One file. path: relative, with `/`; size: bytes; sha256: hex."""

    path: str
    size: Annotated[int, Field(ge=0, strict=True)]
    sha256: Digest


@dataclass(frozen=True)
class Artifact:
    """A sealed folder. digest: sha256 of its manifest; path: the folder of its files; files: sorted by path."""

    digest: Digest
    kind: Kind
    format: str | None
    path: Path
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def is_digest(text: str) -> bool:
    """Whether the text is 64 hex digits."""
    return bool(re.fullmatch(r"[0-9a-f]{64}", text))


def check_digest(text: str) -> str:
    """`text` if it is a digest or a key (64 hex digits) and may enter a path; Usage otherwise."""
    if not is_digest(text):
        raise Usage(f"{text!r} is no digest", why="64 hex digits are expected", remedy="modelyard yard ls shows the digests")
    return text


def check_name(text: str, what: str) -> str:
    """`text` if it may be one component of a path in the yard; Usage otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", text):
        raise Usage(f"{what} {text!r} is not allowed", why="letters, digits, '.', '_' and '-', no dot first, at most 200", remedy="correct it")
    return text


def check_paths(paths: Iterable[str], where: str = "") -> None:
    """Accept the relative paths of one artifact if they can lie side by side on any file system.

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


def seal(folder: Path, kind: Kind, form: str | None, known: Mapping[str, str]) -> Artifact:
    """Make folder/files durable under a manifest: check names, hash, set modes, sync; the folder may be renamed into place then.

    known: sha256 by path, of files that were hashed as they were written; the rest is read here.
    Raises Refused: a link, a device or an unsafe name is among the files; Corrupt: a known file is not there.
    """
    content = folder / FILES
    sizes, folders = dict[str, int](), [folder, content]
    for path, found in files.walk(content):
        if stat.S_ISDIR(found.st_mode):
            folders.append(content / path)
        elif stat.S_ISREG(found.st_mode):
            sizes[path] = found.st_size
        else:
            raise Refused(f"{path!r} is no regular file", where=str(content), why="links, pipes and devices are not taken into a yard")
    check_paths(sizes, str(content))
    if missing := known.keys() - sizes.keys():
        raise Corrupt(f"{min(missing)!r} is not there any more", where=str(content), remedy="run again")
    entries = []
    for path in sorted(sizes):
        files.sync(content / path, files.FILE_MODE)
        digest = check_digest(known[path]) if path in known else files.sha256(content / path)
        entries.append(FileEntry(path, sizes[path], digest))
    data = _encode(kind, form, entries)
    files.write_atomic(folder / MANIFEST, data)
    for subfolder in reversed(folders):
        files.sync(subfolder, files.FOLDER_MODE)
    return Artifact(hashlib.sha256(data).hexdigest(), kind, form, content, tuple(entries))


def load(folder: Path) -> Artifact:
    """What the manifest of a sealed folder says. Raises Corrupt: there is none, it is torn, or not ours."""
    path = folder / MANIFEST
    data = files.read(path) or b""
    try:
        fields = {**json.loads(data), "digest": hashlib.sha256(data).hexdigest(), "path": folder / FILES}
        loaded = _ADAPTER.validate_python(fields)
        check_paths(entry.path for entry in loaded.files)
        if _encode(loaded.kind, loaded.format, loaded.files) == data:
            return loaded
    except (ValueError, TypeError, RecursionError, Refused, BadData):
        pass
    raise Corrupt("the manifest is missing, torn or not ours", where=str(path), remedy="modelyard yard verify, then run again")


def problems(sealed: Artifact, *, rehash: bool) -> list[str]:
    """What does not match the manifest, empty when all does: sizes, and with `rehash` every byte and what is there beside."""
    found = []
    for entry in sealed.files:
        status = files.status(sealed.path / entry.path)
        if status is None:
            found.append(f"{entry.path}: missing")
        elif not stat.S_ISREG(status.st_mode):
            found.append(f"{entry.path}: no regular file")
        elif status.st_size != entry.size:
            found.append(f"{entry.path}: {status.st_size} bytes instead of {entry.size}")
        elif rehash:
            try:
                if (digest := files.sha256(sealed.path / entry.path)) != entry.sha256:
                    found.append(f"{entry.path}: sha256 {digest} instead of {entry.sha256}")
            except VolumeFailed as error:
                found.append(f"{entry.path}: {error.why}")
    if rehash:
        listed = {entry.path for entry in sealed.files}
        found += [f"{path}: not in the manifest" for path, entry in files.walk(sealed.path) if path not in listed and not stat.S_ISDIR(entry.st_mode)]
    return found


def _encode(kind: Kind, form: str | None, entries: Sequence[FileEntry]) -> bytes:
    return canonical({"kind": kind, "format": form, "files": [vars(entry) for entry in entries]})


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


_ADAPTER = TypeAdapter(Artifact)
