"""A trained classifier as files that `from_pretrained` loads unchanged; the same bytes for the same weights.

The tokenizer's files are the base model's own: one that was used keeps the padding and truncation of its last call when it is saved. What names the
place where something once lay is taken out of the configurations. The base model's licence comes along.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.yard import Artifact
from modelyard_jobs.package import LICENCE_FILE, TOKENIZER_FILES
from modelyard_jobs.pixels import CONFIG as IMAGES

_PLACE = re.compile(r"_?name_or_path|\w+_file|cache_dir|is_local|local_files_only")


def write(model: Any, tokenizer: Any, base: Artifact, out: Path) -> None:
    """Write model.safetensors, config.json, what goes with them and the licence into `out`. base: the model that training started from."""
    model.config._name_or_path = ""
    model.save_pretrained(out)
    accompany(tokenizer, base, out)


def accompany(tokenizer: Any, base: Artifact, out: Path) -> None:
    """Put the tokenizer's files, or how images are prepared, and the licence beside the config.json in `out`; no names of places stay in there."""
    _rewrite(out / "config.json", {})
    wanted = {IMAGES} if tokenizer is None else TOKENIZER_FILES | set(type(tokenizer).vocab_files_names.values())
    for entry in base.files:
        if entry.path in wanted or LICENCE_FILE.fullmatch(entry.path):
            shutil.copyfile(base.path / entry.path, out / entry.path)
    if (config := out / IMAGES).exists():
        _rewrite(config, {})
    if (config := out / "tokenizer_config.json").exists():
        _rewrite(config, {} if tokenizer.pad_token is None else {"pad_token": str(tokenizer.pad_token)})  # the loader may have chosen one


def _rewrite(path: Path, missing: Mapping[str, str]) -> None:
    """Take the names of places out of a configuration; `missing`: what it gets where it says nothing of it."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if not (_PLACE.fullmatch(name) and isinstance(value, str | bool | None))}
    added = {name: value for name, value in missing.items() if kept.get(name) is None}
    path.write_text(json.dumps(kept | added, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
