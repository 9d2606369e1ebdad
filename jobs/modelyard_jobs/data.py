"""The rows of a data set artifact, memory-mapped by the `datasets` library.

Files are csv, tsv, json (a list of rows, or one row a line), jsonl, parquet, or words in lines (data_conll.py). A split is named by a file
(`test.csv`, `train-00000-of-00002.parquet`) or by a folder (`dev/a.jsonl`); where nothing names one, all files together are `train`. Where some
files name a split, those that do not are left out (https://huggingface.co/docs/datasets/repository_structure). Every file of a split has the same
columns.
Images with annotations in COCO's format are read by data_coco.py, folders and columns of images by data_images.py.
Does not run the repository's code, ask a hub, or read archives; text files are UTF-8.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, Failure, NoInput
from modelyard.yard import Artifact
from modelyard_jobs import data_conll, data_images

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
"""Suffix of a file -> the builder of `datasets` that reads it. Files of words in lines are read by data_conll.py."""

_WORDS = {"train": "train training", "validation": "validation valid val dev eval", "test": "test testing"}
SYNONYMS = {word: split for split, words in _WORDS.items() for word in words.split()}
"""Word in a file's or folder's name -> split."""

_HIDDEN = re.compile(r"(^|/)([._]|(dataset_infos?|state)\.json$)")
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5,}-of-\d{5,}")
_READ_ROWS, _READ_IMAGES = 1000, 32
_INDEX = "__index_level_0__"  # pandas makes an index of the first field when rows have one more than the header, and shifts all names


class Splits(Mapping[str, Any]):
    """Split -> datasets.Dataset, in the order train, validation, test, then others by name. A split is read when it is first asked for.

    Asking raises BadData where a file cannot be read, or has other columns than the file before it.
    """

    def __init__(self, files: Mapping[str, Sequence[str]], load: Callable[[str, Sequence[str]], Any]) -> None:
        self._files = files
        self._load = cache(lambda split: load(split, files[split]))

    def __getitem__(self, split: str) -> Any:
        return self._load(split)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read(artifact: Artifact, cache_dir: Path) -> Splits:
    """The splits of a data set; NoInput where it has no file of rows.

    cache_dir: private scratch that the rows are kept in while they are used.
    """
    from modelyard_jobs import data_coco

    paths, images = [entry.path for entry in artifact.files], data_images.Images(artifact)
    if annotations := by_split(map(PurePosixPath, data_coco.find(paths))):
        return Splits(annotations, lambda split, files: images.resolved(data_coco.read(artifact.path, paths, split, files), ""))
    known = (path for path in map(PurePosixPath, paths) if path.suffix.lower() in FORMATS or data_conll.holds(artifact.path / path))
    files = by_split(path for path in known if not _HIDDEN.search(str(path)))
    if not files and (folders := data_images.find(paths, SYNONYMS)):
        return Splits(folders, images.read)
    if not files:
        why = f"found {', '.join(entry.path for entry in artifact.files[:5])}"
        raise NoInput(
            "the data set has no file of rows",
            where=artifact.digest,
            why=why,
            remedy=f"rows are files with {', '.join([*FORMATS, *sorted(data_conll.SUFFIXES)])}",
        )
    return Splits(files, partial(_read_files, artifact.path, images, cache_dir))


def pick(splits: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """The split of that name or of its synonym, with the name that it has in `splits`; NoInput lists those that are there."""
    found = name if name in splits else SYNONYMS.get(name, name)
    if found not in splits:
        raise NoInput(f"the data set has no split {name!r}", why=f"it has {', '.join(splits)}", remedy=f"split: {next(iter(splits))}")
    return found, splits[found]


def cut(dataset: Any, column: str, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rest, cut): row numbers, about `share` of all in the second.

    A row's side is a function of its content in `column` alone: it never moves when the data grow, and equal rows fall on the same side.
    """
    inside = keys(dataset, column) < np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def sample(count: int | None, total: int, seed: int) -> NDArray[np.int64]:
    """`count` numbers below `total`, ascending, drawn without replacement; all of them for None or when there are no more."""
    if count is None or count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


def overlap(train: Any, test: Any, column: str, its: str | None = None) -> int:
    """Rows of `test` whose content in `column`, or in its own column `its`, also stands in `train`, to the character."""
    return int(np.isin(keys(test, its or column), keys(train, column)).sum())


def keys(dataset: Any, column: str) -> NDArray[np.uint64]:
    """One number of 64 bits per row: a hash of its content in `column`."""
    contents = (json.dumps([_content(value)], ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") for value in values(dataset, column))
    hashes = (int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") for content in contents)
    return np.fromiter(hashes, dtype=np.uint64, count=len(dataset))


def values(dataset: Any, column: str) -> Iterator[Any]:
    """A column row by row, as Python values."""
    for table in _tables(dataset, [column]):
        yield from _values(table[column])


def rows(dataset: Any, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Row by row, the values of some columns by role, as Python values."""
    for table in _tables(dataset, list(dict.fromkeys(columns.values()))):
        yield from by_role(table, columns)


def _tables(dataset: Any, columns: Sequence[str]) -> Iterator[Any]:
    at_once = _READ_IMAGES if any(data_images.is_image(dataset.features[column]) for column in columns) else _READ_ROWS
    yield from dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=at_once)


def _content(value: Any) -> Any:
    """What a row is told from others by: of an image its bytes, wherever they are kept; of objects those fields alone that have a value."""
    if isinstance(value, dict) and data_images.is_image(value):
        return value["sha256"] or (value["bytes"] is not None and hashlib.sha256(value["bytes"]).hexdigest()) or value["path"]
    if isinstance(value, dict):
        # In one order, whichever the file has; of a message the role first, as nearly all of them are written.
        return {name: _content(value[name]) for name in sorted(value, reverse=True) if value[name] is not None}
    return [_content(each) for each in value] if isinstance(value, list) else value


def by_role(table: Any, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of an arrow table, by role."""
    values = {role: _values(table[column]) for role, column in columns.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _values(column: Any) -> list[Any]:
    """An arrow column as Python values. What has another shape in every row, `datasets` keeps as JSON, within whatever is alike."""
    found: list[Any] = column.to_pylist()
    return [_read_json(value, column.type) for value in found] if "arrow.json" in str(column.type) else found


def _read_json(value: Any, kind: Any) -> Any:
    import pyarrow as pa

    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        return json.loads(value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_read_json(each, kind.value_type) for each in value]
    if pa.types.is_struct(kind):
        return {field.name: _read_json(value[field.name], field.type) for field in kind}
    return value


def reason(error: BaseException) -> str:
    """Why content could not be read, in a line: what happened first, since libraries wrap it. Raises that where the machine is to blame."""
    first = error
    while (inner := first.__cause__ or first.__context__) and not isinstance(first, Failure):
        first = inner
    if isinstance(first, MemoryError | Failure) or (isinstance(first, OSError) and first.errno not in {None, errno.ENOENT}):
        raise first from error
    return f"{type(first).__name__}: {str(first).strip().partition(chr(10))[0][:300]}"


def by_split(paths: Iterable[PurePosixPath]) -> dict[str, list[str]]:
    """Split -> files of rows, by their names and folders; all are train where none names a split."""
    known = sorted(paths)
    found: dict[str, list[str]] = {}
    for path in known:
        if split := split_of(path):
            found.setdefault(split, []).append(str(path))
    if known and not found:
        return {"train": [str(path) for path in known]}
    return {split: found[split] for split in dict.fromkeys([*_WORDS, *sorted(found)]) if split in found}


def split_of(path: PurePosixPath) -> str | None:
    """The split that a file's name, or else one of its folders, names."""
    if shard := _SHARD.fullmatch(path.stem):
        return SYNONYMS.get(shard[1], shard[1])
    words = (word for part in (path.stem, *reversed(path.parent.parts)) for word in re.split(r"[^a-z]+", part.lower()))
    return next((SYNONYMS[word] for word in words if word in SYNONYMS), None)


def _read_files(root: Path, images: data_images.Images, cache_dir: Path, split: str, paths: Sequence[str]) -> Any:
    import datasets as library

    library.disable_progress_bars()
    library.logging.set_verbosity(library.logging.CRITICAL)  # its errors come as exceptions too
    parts = [images.resolved(_read_file(library, root, path, cache_dir), str(PurePosixPath(path).parent)) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if set(part.column_names) != set(parts[0].column_names):
            why = f"has {', '.join(sorted(part.column_names))}; {paths[0]} has {', '.join(sorted(parts[0].column_names))}"
            raise BadData(f"files of split {split} differ in their columns", where=path, why=why, remedy="keep one kind of rows in one split")
    # A column that is empty in one file has no type there: it takes the one that it has in another, as does one that is of several types there.
    empty = library.Value("null")
    mixed = {name: part.features[name] for part in parts for name in part.column_names if "arrow.json" in str(part.data.schema.field(name).type)}
    types = {name: feature for part in parts for name, feature in part.features.items() if feature != empty} | mixed
    try:
        features = [
            {name: types.get(name, feature) if feature == empty or name in mixed else feature for name, feature in part.features.items()}
            for part in parts
        ]
        # A cast writes the rows anew.
        cast = [part if own == dict(part.features) else part.cast(library.Features(own)) for part, own in zip(parts, features, strict=True)]
        return library.concatenate_datasets(cast)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BadData(
            f"files of split {split} differ in the types of their columns", where=f"{paths[0]} to {paths[-1]}", why=reason(error)
        ) from error


def _read_file(library: Any, root: Path, name: str, cache_dir: Path) -> Any:
    path = root / name
    suffix = path.suffix.lower()
    # Only an empty field is a missing value: "NA", "None" and "null" are words that a text may consist of.
    csv = {"sep": "\t" if suffix == ".tsv" else ",", "keep_default_na": False, "na_values": [""]} if suffix in {".csv", ".tsv"} else {}
    try:
        if data_conll.holds(path):
            return data_conll.read(library, path, name, cache_dir)
        rows = library.load_dataset(FORMATS[suffix], data_files=str(path), split="train", cache_dir=str(cache_dir), **csv)
        rows.data.validate(full=True)  # arrow's readers let bytes that are no UTF-8 pass
    except Exception as error:  # pandas, pyarrow and datasets raise classes of their own; whichever it is, this file is why
        why = reason(error)
        if path.stat().st_size == 0 or "corresponds to no data" in why or "BatchSize must be greater than 0" in why:
            raise BadData("the file has no rows", where=name) from error
        line, what = _find_fault(path, suffix)
        raise BadData("the file cannot be read", where=f"{name}:{line}" if line else name, why=what or why) from error
    if _INDEX in rows.column_names:
        raise BadData("the rows have more fields than the header has names", where=name, remedy="quote fields that hold the separator")
    return rows


def _find_fault(path: Path, suffix: str) -> tuple[int, str]:
    """(line, why) of the first line that is no UTF-8 or, where each is one, no JSON object; libraries do not say it. (0, "") without one."""
    with path.open("rb") as file:
        for number, raw in enumerate(file if suffix != ".parquet" else (), 1):
            try:
                text = raw.decode("utf-8-sig")
                if suffix in {".jsonl", ".ndjson"} and text.strip():
                    if not isinstance(row := json.loads(text), dict):
                        return number, "the line is no JSON object"
                    json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                return number, f"it has half a character, {error.object[error.start : error.start + 1]!a}"
            except UnicodeDecodeError as error:
                return number, f"byte 0x{raw[error.start]:02x} is not UTF-8"
            except json.JSONDecodeError as error:
                return number, f"the line is no JSON ({error.msg})"
            except (RecursionError, ValueError) as error:  # brackets without end; a number of thousands of digits
                return number, f"the line cannot be read ({error})"
    return 0, ""
