"""Which files of a repository are taken, and why the others are not.

Weights are taken in one format: safetensors, then ONNX, then (with `trust: [pickle]` only) pickles. A pickle runs code when it is loaded, and so
does a repository's own code: neither is taken unless the step trusts it, and a repository that would be nothing without them is refused.
Everything else is taken when its suffix is one that a model or a data set has a use for; what is unknown is left out, because nothing here can
say that it is harmless. Pure: reads names only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal

from modelyard.errors import NoInput, Refused
from modelyard.hubs.listing import HubFile, Listing, digest_of
from modelyard.refs import RefKind

Trust = Literal["pickle", "code"]


class Role(StrEnum):
    """What a file's name says that it is."""

    SAFETENSORS = "safetensors"
    ONNX = "ONNX"
    PICKLE = "a pickle, which runs code when it is loaded"
    CODE = "code"
    FOREIGN = "weights of another framework"
    DATA = "data"
    TEXT = "text"
    UNKNOWN = "of an unknown kind"


@dataclass(frozen=True)
class Selection:
    """The files to take, sorted by path, and (path, why) of each other.

    format: "safetensors", "onnx" or "pickle" for a model, None for data. trusted: which of "code" and "pickle" are among the files.
    """

    kind: RefKind
    files: tuple[HubFile, ...]
    left_out: tuple[tuple[str, str], ...]
    format: str | None
    trusted: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the files to take."""
        return sum(file.size for file in self.files)


def select(listing: Listing, trust: Collection[str] = ()) -> Selection:
    """What a fetch of `listing` takes when the step trusts `trust` ("pickle", "code").

    Raises Refused: weights or data are there only as pickles or code that are not trusted. NoInput: there are none at all.
    """
    return _model(listing, trust) if listing.kind == "model" else _dataset(listing, trust)


def fetch_key(selection: Selection) -> str:
    """The key of the fetch's action, 64 hex digits: the kind and what identifies the taken files, nothing else."""
    return digest_of(selection.kind, selection.files)


def role_of(path: str) -> Role:
    """The role of a file of that name; a compression suffix is looked through (`rows.csv.gz` is data, `rows.pkl.gz` a pickle)."""
    name = PurePosixPath(path.lower())
    suffixes = [suffix for suffix in name.suffixes if suffix not in _COMPRESSED]
    suffix = suffixes[-1] if suffixes else ""
    if suffix.startswith(".onnx") or suffixes[-2:] == [".onnx", ".data"]:
        return Role.ONNX
    if name.name.endswith(_FOREIGN_NAMES):
        return Role.FOREIGN
    for role, known in _SUFFIXES.items():
        if suffix in known:
            return role
    return Role.TEXT if name.name.split(".")[0] in _PLAIN else Role.UNKNOWN


def _model(listing: Listing, trust: Collection[str]) -> Selection:
    roles = {file.path: role_of(file.path) for file in listing.files}
    present = set(roles.values())
    weights = next((role for role in (Role.SAFETENSORS, Role.ONNX) if role in present), Role.PICKLE)
    if weights is Role.PICKLE:
        if Role.PICKLE not in present:
            names = ", ".join(sorted(roles)[:5])
            raise NoInput(
                "there are no weights in it", where=str(listing.ref), why=f"it holds {names}", remedy="name a model with safetensors or ONNX weights"
            )
        if "pickle" not in trust:
            raise _only(listing, roles, Role.PICKLE, "its weights are", "pickle")

    def why_not(path: str, role: Role) -> str | None:
        folders = PurePosixPath(path.lower()).parts[:-1]
        if role is weights:
            return None
        if role is Role.PICKLE:
            return f"a pickle; the weights are there as {weights.name.lower()}"
        if weights is not Role.ONNX and (role is Role.ONNX or "onnx" in folders):
            return f"for ONNX; the weights are there as {weights.name.lower()}"
        return str(Role.FOREIGN) if _FOREIGN_FOLDERS.intersection(folders) else _why_not_other(role, trust)

    return _selection(listing, roles, why_not, weights.name.lower())


def _dataset(listing: Listing, trust: Collection[str]) -> Selection:
    roles = {file.path: role_of(file.path) for file in listing.files}

    def why_not(_: str, role: Role) -> str | None:
        if role is Role.PICKLE:
            return None if "pickle" in trust else "a pickle: not taken without trust: [pickle]"
        return _why_not_other(role, trust)

    selection = _selection(listing, roles, why_not, None)
    if not any(roles[file.path] in (Role.DATA, Role.PICKLE) or file.path.endswith(".txt") for file in selection.files):
        for role, word in ((Role.PICKLE, "pickle"), (Role.CODE, "code")):
            if role in roles.values() and word not in trust:
                raise _only(listing, roles, role, "its data are", word)
        names = ", ".join(sorted(roles)[:5])
        raise NoInput(
            "there are no data in it", where=str(listing.ref), why=f"it holds {names}", remedy="name a data set of parquet, CSV, JSON lines or images"
        )
    return selection


def _selection(listing: Listing, roles: dict[str, Role], why_not: Callable[[str, Role], str | None], form: str | None) -> Selection:
    reasons = {path: why_not(path, role) for path, role in roles.items()}
    files = tuple(file for file in listing.files if reasons[file.path] is None)
    left_out = tuple((path, reason) for path, reason in sorted(reasons.items()) if reason is not None)
    taken = {roles[file.path] for file in files}
    trusted = tuple(word for role, word in ((Role.CODE, "code"), (Role.PICKLE, "pickle")) if role in taken)
    return Selection(listing.kind, files, left_out, form, trusted)


def _why_not_other(role: Role, trust: Collection[str]) -> str | None:
    if role is Role.CODE:
        return None if "code" in trust else "code: not taken without trust: [code]"
    return None if role in (Role.DATA, Role.TEXT) else str(role)


def _only(listing: Listing, roles: dict[str, Role], role: Role, subject: str, word: str) -> Refused:
    example = next(path for path, found in sorted(roles.items()) if found is role)
    return Refused(
        f"{subject} there only as {'pickles' if role is Role.PICKLE else 'code'} ({example})",
        where=str(listing.ref),
        why="loading them runs code of the repository's author",
        remedy=f"use another repository, or, if you trust this one, trust: [{word}]",
    )


_SUFFIXES: dict[Role, frozenset[str]] = {
    role: frozenset(suffixes.split())
    for role, suffixes in {
        Role.SAFETENSORS: ".safetensors",
        # .npy and .npz may hold pickled objects, Keras' .h5 and .keras marshalled functions; .bin is what torch.save wrote
        Role.PICKLE: ".bin .pt .pth .ckpt .pkl .pickle .p .dill .joblib .sav .npy .npz .h5 .hdf5 .keras .pt2 .ptl .mar .nemo .pdparams",
        Role.CODE: ".py .pyc .pyo .pyx .ipynb .so .dll .dylib .exe .sh .bash .bat .cmd .ps1 .js .mjs .ts .jar .whl .egg .rb .pl .lua .r .c .cpp .cu",
        Role.FOREIGN: ".msgpack .ot .ort .pb .tflite .gguf .ggml .mlmodel .mlpackage .engine .plan",
        Role.DATA: ".csv .tsv .json .jsonl .ndjson .parquet .arrow .feather .xml .conll .conllu .bio .iob .iob2 .tags .labels .names .lst"
        " .jpg .jpeg .png .gif .bmp .webp .tif .tiff .wav .mp3 .flac .ogg .mp4 .zip .tar .tgz",
        Role.TEXT: ".txt .text .md .rst .yaml .yml .toml .jinja .model .spm .vocab .voc .bpe .codes .dict .tiktoken .bib .cff",
    }.items()
}
_COMPRESSED = frozenset({".gz", ".xz", ".bz2", ".zst", ".lz4"})
_FOREIGN_FOLDERS = frozenset({"openvino", "saved_model", "coreml", "tflite", "flax"})
_FOREIGN_NAMES = (".bin.index.json", ".h5.index.json", ".msgpack.index.json", "openvino_model.bin", "openvino_model.xml")
_PLAIN = frozenset({"readme", "license", "licence", "notice", "copying", "citation", "authors"})
