"""Which files of a repository are taken, and why the others are not.

Weights are taken in one format: safetensors, then ONNX, then (with `trust: [pickle]` only) pickles. A pickle runs code when it is loaded, and so
does a repository's own code: neither is taken unless the step trusts it, and a repository that would be nothing without them is refused.
Everything else is taken when its suffix is one that a model or a data set has a use for; what is unknown is left out, because nothing here can
say that it is harmless. Pure: reads names only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from modelyard.errors import Failure, NoInput, Refused
from modelyard.hubs.listing import HubFile, Listing, digest_of
from modelyard.refs import RefKind


class Role(StrEnum):
    """What a file's name says that it is; the value is why such a file is left out."""

    SAFETENSORS = "weights of a model"
    ONNX = "for ONNX"
    PICKLE = "a pickle: not taken without trust: [pickle]"
    CODE = "code: not taken without trust: [code]"
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
    roles = {file.path: role_of(file.path) for file in listing.files}
    trusted = {role for role, word in _TRUST.items() if word in trust}
    weights: Role | None = None
    wanted = {Role.DATA, Role.TEXT} | trusted
    if listing.kind == "model":
        weights = next((role for role in (Role.SAFETENSORS, Role.ONNX, Role.PICKLE) if role in roles.values()), Role.UNKNOWN)
        if weights not in {Role.SAFETENSORS, Role.ONNX} | trusted:
            raise _nothing(listing, roles, trusted)
        wanted = {Role.DATA, Role.TEXT, weights} | (trusted - {Role.PICKLE})
    reasons = {path: _why_not(path, role, wanted, weights) for path, role in roles.items()}
    files = tuple(file for file in listing.files if not reasons[file.path])
    taken = {roles[file.path] for file in files}
    if not weights and not taken & {Role.DATA, Role.PICKLE} and not any(file.path.endswith(".txt") for file in files):
        raise _nothing(listing, roles, trusted)
    return Selection(
        listing.kind,
        files,
        tuple((path, reason) for path, reason in sorted(reasons.items()) if reason),
        weights.name.lower() if weights else None,
        tuple(word for role, word in _TRUST.items() if role in taken),
    )


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


def _why_not(path: str, role: Role, wanted: Collection[Role], weights: Role | None) -> str:
    """Why a file is left out; empty: it is taken. weights: the role of a model's weights."""
    folders = PurePosixPath(path.lower()).parts[:-1]
    if weights and role is not weights:
        if role is Role.PICKLE:
            return f"a pickle; the weights are there as {weights.name.lower()}"
        if weights is not Role.ONNX and "onnx" in folders:
            return Role.ONNX
        if _FOREIGN_FOLDERS.intersection(folders):
            return Role.FOREIGN
    return "" if role in wanted else role


def _nothing(listing: Listing, roles: Mapping[str, Role], trusted: Collection[Role]) -> Failure:
    """Why nothing of use is left of a repository."""
    what = "weights" if listing.kind == "model" else "data"
    for role in (Role.PICKLE, Role.CODE) if what == "data" else (Role.PICKLE,):
        if role not in trusted and (example := min((path for path, found in roles.items() if found is role), default="")):
            return Refused(
                f"its {what} are there only as {'pickles' if role is Role.PICKLE else 'code'} ({example})",
                where=str(listing.ref),
                why="loading them runs code of the repository's author",
                remedy=f"use another repository, or, if you trust this one, trust: [{_TRUST[role]}]",
            )
    remedy = "name a model with safetensors or ONNX weights" if what == "weights" else "name a data set of parquet, CSV, JSON lines or images"
    return NoInput(f"there are no {what} in it", where=str(listing.ref), why=f"it holds {', '.join(sorted(roles)[:5])}", remedy=remedy)


_TRUST = {Role.CODE: "code", Role.PICKLE: "pickle"}
"""Roles that a step may trust, and the word for it."""

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
