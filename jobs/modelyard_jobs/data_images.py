"""Images in data sets: folders of them, and columns that hold them. Nothing is decoded here, nor read before a row is asked for.

A data set of image files and no files of rows is a folder of images: `train/cat/1.png`, or `cat/1.png`, then all of it train. A folder at the top
names a split only where each one there does. The folder that an image lies in is its label; images that lie in no folder have none. Rows go by path.

In files of rows a column holds images where it has bytes, or bytes and path as the `datasets` library writes its Image, or strings that all end as
names of image files do, such as file_name in metadata.csv, in a data set that has such files. A path counts from the folder of the file that it
stands in, else from the top. Whatever it is, it finds a file of the data set's manifest, or none.

Each image is then a struct: `bytes`, or the `file` that it lies in, with its `sha256`; `path` is what was written. Only this module makes such a
struct, from the manifest, so `file` never leads out of the data set. pixels.py opens it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from modelyard.errors import BadData, NoInput
from modelyard.yard import Artifact

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
NAMES = ("image", "img", "picture", "photo", "file_name", "image_path", "filename", "file", "path")
"""Usual names of columns with images."""
FIELDS = ("bytes", "path", "file", "sha256")
IMAGE, LABEL = "image", "label"

_HIDDEN = re.compile(r"(^|/)[._]")
_LOOKED_AT = 20
_SHOWN = 5


def find(paths: Iterable[str], splits: Mapping[str, str]) -> dict[str, list[str]]:
    """Split -> the image files of a folder of images, each as its path; empty where there are none. splits: what folders call a split -> split."""
    images = sorted(path for path in paths if is_image_file(path))
    parts = [PurePosixPath(path).parts for path in images]
    depth = next(
        (depth for depth in range(_shared(parts) + 1) if all(len(each) > depth + 1 and each[depth].lower() in splits for each in parts)), None
    )
    found: dict[str, list[str]] = {}
    for path, each in zip(images, parts, strict=True):
        found.setdefault("train" if depth is None else splits[each[depth].lower()], []).append(path)
    return {split: found[split] for split in dict.fromkeys(splits.values()) if split in found}


def is_image_file(path: str) -> bool:
    """Whether a path ends as those of images do, and is not hidden."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES and not _HIDDEN.search(path)


def is_image(feature: Any) -> bool:
    """Whether a column's type is that of images."""
    return isinstance(feature, Mapping) and tuple(feature) == FIELDS


def column(dataset: Any, named: str | None) -> str:
    """The column of images named, or found: by a usual name, else the only one. NoInput where there is none; BadData: it holds something else."""
    images = [name for name, feature in dataset.features.items() if is_image(feature)]
    why = f"the data set has {', '.join(dataset.column_names)}"
    if named is not None:
        if named not in dataset.column_names:
            raise NoInput(f"the data set has no column {named!r}", why=why)
        if named not in images:
            remedy = "images are bytes, or paths of files in the data set"
            raise BadData(f"column {named} holds no images", why=f"its values are of type {dataset.features[named]}", remedy=remedy)
        return named
    known = {name.lower(): str(name) for name in images}
    found = next((known[name] for name in NAMES if name in known), str(images[0]) if len(images) == 1 else None)
    if found is None:
        raise NoInput(
            "no column clearly holds the images", why=why, remedy="image: COLUMN names it; images are bytes, or paths of files in the data set"
        )
    return found


class Images:
    """The image files of one data set."""

    def __init__(self, artifact: Artifact) -> None:
        self._root = artifact.path
        self._known = {entry.path: entry.sha256 for entry in artifact.files if is_image_file(entry.path)}

    def read(self, split: str, paths: Sequence[str]) -> Any:
        """A folder of images as a datasets.Dataset: `image` and, where they lie in folders, `label`, declared with the folders' names, sorted."""
        import datasets as library

        labels = self._labels(split, paths)
        columns: dict[str, Any] = {IMAGE: [dict(zip(FIELDS, (None, path, *self._found(path)), strict=True)) for path in paths]}
        features: dict[str, Any] = {IMAGE: _feature(library)}
        if labels:
            names = sorted(set(labels))
            columns[LABEL], features[LABEL] = [names.index(label) for label in labels], library.ClassLabel(names=names)
        return library.Dataset.from_dict(columns, features=library.Features(features))

    def resolved(self, rows: Any, folder: str) -> Any:
        """Rows whose columns of images are what this module makes of them. folder: where the file of rows lies."""
        import datasets as library

        holding = [name for name, feature in rows.features.items() if self._holds(rows.data.table[name], feature)]
        if not holding:
            return rows
        table, fresh = rows.data.table, library.Features({**rows.features, **{name: _feature(library) for name in holding}})
        for name in holding:
            table = table.set_column(table.column_names.index(name), name, self._column(table[name], folder))
        # Bytes stay where they are, in memory that is mapped from a file.
        mapped = library.table.InMemoryTable(table.cast(fresh.arrow_schema))
        return library.Dataset(mapped, info=library.DatasetInfo(features=fresh), fingerprint=f"{rows._fingerprint}-images")

    def _holds(self, values: Any, feature: Any) -> bool:
        import pyarrow as pa

        kind = values.type
        if pa.types.is_struct(kind):
            fields = {kind.field(place).name for place in range(kind.num_fields)}
            return bool(fields & {"bytes", "path", "file"}) and fields <= set(FIELDS)
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return True
        if not self._known or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or hasattr(feature, "names"):
            return False
        first = list(islice((value.as_py() for value in values if value.is_valid), _LOOKED_AT))
        return bool(first) and all(PurePosixPath(value).suffix.lower() in SUFFIXES for value in first)

    def _column(self, values: Any, folder: str) -> Any:
        import pyarrow as pa

        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("file", pa.string()), ("sha256", pa.string())])
        return pa.chunked_array([self._chunk(chunk, folder, kind) for chunk in values.chunks], type=kind)

    def _chunk(self, values: Any, folder: str, kind: Any) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        def part(name: str, wanted: Any) -> Any:
            """What of the values is of that kind: a field, or they themselves; nulls where nothing is."""
            found = values
            if pa.types.is_struct(values.type):
                if values.type.get_field_index(name) < 0:
                    return pa.nulls(len(values), wanted)
                found = pc.struct_field(values, name)
            large = pa.large_binary() if wanted == pa.binary() else pa.large_string()
            return found.cast(wanted) if found.type in {wanted, large} else pa.nulls(len(values), wanted)

        content, path = part("bytes", pa.binary()), part("path", pa.string())
        there = content.is_valid().to_pylist()
        places = [(None, None) if inside else self._found(written, folder) for inside, written in zip(there, path.to_pylist(), strict=True)]
        file, sha256 = (pa.array([place[which] for place in places], pa.string()) for which in (0, 1))
        return pa.StructArray.from_arrays([content, path, file, sha256], fields=list(kind))

    def _found(self, written: str | None, folder: str = "") -> tuple[str, str] | tuple[None, None]:
        """(where the file lies, its sha256) of a path in the data set."""
        if not written:
            return None, None
        inside = written.removeprefix(f"{self._root}/")
        for start in dict.fromkeys((folder, "")):
            path = posixpath.normpath(posixpath.join(start, inside))
            if path in self._known:
                return str(self._root / path), self._known[path]
        return None, None

    def _labels(self, split: str, paths: Sequence[str]) -> list[str]:
        """The folder of each; empty where images lie in none. Raises BadData: some do and some do not, or folders differ in case only."""
        folders = [PurePosixPath(path).parent.parts for path in paths]
        top = _shared([(*folder, "") for folder in folders])
        loose = [path for path, folder in zip(paths, folders, strict=True) if len(folder) == top]
        if len(loose) == len(paths):
            # All in one folder: it is their label, unless it is the split's own.
            name = folders[0][-1] if folders[0] else ""
            return [] if not name or name.lower() in _words(split) else [name] * len(paths)
        if loose:
            why = f"{len(loose)} of {len(paths)} images of split {split} lie beside the folders of labels, such as {', '.join(loose[:_SHOWN])}"
            raise BadData("images have no label", why=why, remedy="put each image into the folder of its label, or name the labels in a metadata.csv")
        labels = [folder[-1] for folder in folders]
        spelt: dict[str, str] = {}
        for label in labels:
            if spelt.setdefault(label.casefold(), label) != label:
                why = f"{spelt[label.casefold()]} and {label}, in split {split}"
                raise BadData("two labels differ in case only", why=why, remedy="put their images into one folder")
        return labels


def _words(split: str) -> set[str]:
    from modelyard_jobs.data import SYNONYMS

    return {split, *(word for word, of in SYNONYMS.items() if of == split)}


def _feature(library: Any) -> dict[str, Any]:
    return {"bytes": library.Value("binary"), "path": library.Value("string"), "file": library.Value("string"), "sha256": library.Value("string")}


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many folders at the top all paths have in common; the last part is the file."""
    shared = 0
    while parts and all(len(each) > shared + 1 and each[shared] == parts[0][shared] for each in parts):
        shared += 1
    return shared
