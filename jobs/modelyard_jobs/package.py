"""What is published of a model: which of its files, and under which names.

Only files that loading a model has a use for: safetensors, configurations, tokenizer, licence; of an export the ONNX files under onnx/, beside
the weights that it was made from. Never pickles, code, or what is of an unknown kind. A file is known by the sha256 in its artifact's manifest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelyard.errors import Refused
from modelyard.hubs import HubFile
from modelyard.hubs.listing import digest_of
from modelyard.hubs.selection import Role, role_of
from modelyard.yard import Artifact
from modelyard_jobs import exported

ONNX = "onnx"
"""The folder of what an export made."""
TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "chat_template.jinja",
        "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "spm.model", "source.spm", "target.spm", "sentencepiece.bpe.model", "bpe.codes",
        "dict.txt",
    }
)  # fmt: skip
"""What a tokenizer consists of, whichever it is."""
LICENCE_FILE = re.compile(r"(licen[cs]e|notice|copying)(\.(txt|md))?", re.IGNORECASE)
_CONFIGURATIONS = frozenset(
    {
        "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "image_processor_config.json",
        "model.safetensors.index.json",
    }
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """One file to publish: where it lies, its size in bytes and its sha256."""

    source: Path
    size: int
    sha256: str

    @classmethod
    def write(cls, source: Path, text: str) -> File:
        """A new file with this text."""
        data = text.encode()
        source.write_bytes(data)
        return cls(source, len(data), hashlib.sha256(data).hexdigest())


Package = Mapping[str, File]
"""Path in the repository -> file."""


def pack(model: Artifact, weights: Artifact) -> tuple[dict[str, File], list[str]]:
    """(what is published, which of the model's files are not).

    weights: what an export was made from, else the model itself. Raises Refused: there are no safetensors, only pickles or nothing.
    """
    packed = {entry.path: File(weights.path / entry.path, entry.size, entry.sha256) for entry in weights.files if _is_wanted(entry.path)}
    if not any(role_of(path) is Role.SAFETENSORS for path in packed):
        raise Refused(
            "there are no safetensors to publish",
            where=weights.digest,
            why=f"the model holds {', '.join(entry.path for entry in weights.files[:8])}; pickles run code when they are loaded",
            remedy="finetune it, which writes safetensors, or name a model that has them",
        )
    if model is not weights:
        exported = {f"{ONNX}/{PurePosixPath(entry.path).name}": entry for entry in model.files if _is_exported(entry.path)}
        packed |= {path: File(model.path / entry.path, entry.size, entry.sha256) for path, entry in exported.items()}
    left_out = [entry.path for entry in weights.files if not _is_wanted(entry.path)]
    return packed, left_out


def listed(package: Package) -> Iterator[HubFile]:
    """The package as a hub would list it."""
    for path, file in sorted(package.items()):
        yield HubFile(path, file.size, file.sha256, file.sha256)


def digest(package: Package) -> str:
    """64 hex digits over paths, sizes and contents: that of a listing of a model with these files."""
    return digest_of("model", listed(package))


def _is_wanted(path: str) -> bool:
    known = path in _CONFIGURATIONS or path in TOKENIZER_FILES or LICENCE_FILE.fullmatch(path)
    return "/" not in path and (role_of(path) is Role.SAFETENSORS or bool(known))


def _is_exported(path: str) -> bool:
    return role_of(path) is Role.ONNX or path == exported.NAME
