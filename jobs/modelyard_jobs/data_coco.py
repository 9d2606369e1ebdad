"""Data sets for object detection as COCO writes them: a JSON file with images, categories and annotations, and the images in folders beside it.

Found are `instances_*.json`, `*.coco.json`, and other files of a folder `annotations` that are not for captions, key points, panoptic or stuff. The
split is that of the file's name or folder. An image is looked for by the end of its path: `file_name` in any folder, the annotations' own and the
split's first. A row is one image: `image` (its path in the data set), `image_id`, `width`, `height`, and `objects`, lists of `bbox` (x, y, width and
height in pixels), `category` (declared with the names of all categories, in the order of their ids), `iscrowd` and `id`.
Boxes are as they are written: one without an extent, or outside of its image, is the fault of its row (tasks/objects.py). What is no box at all, or
names an image or a category that is not there, is BadData that names the annotation.
A file is read as a whole. Not read: segmentations, key points.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from modelyard.errors import BadData
from modelyard_jobs import data, data_images
from modelyard_jobs.tasks.columns import shown
from modelyard_jobs.tasks.objects import NO_BOX, clipped

_OTHERS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")
_SHOWN = 5
_LARGEST = 1 << 31
"""Pixels of a side that no image has."""
_IDS = 1 << 63


def find(paths: Sequence[str]) -> list[str]:
    """The files of a data set that are annotations in COCO's format, by their names; none where no file is an image."""
    if not any(map(data_images.is_image_file, paths)):
        return []
    files = [PurePosixPath(path) for path in sorted(paths) if path.endswith(".json")]
    named = [file for file in files if file.name.startswith("instances") or file.name.endswith(".coco.json")]
    kept = [file for file in files if file.parent.name == "annotations" and not file.name.startswith(_OTHERS)]
    return [str(file) for file in named or kept]


def read(root: Path, paths: Sequence[str], split: str, annotations: Sequence[str]) -> Any:
    """The images of a split as a datasets.Dataset. root, paths: the data set's folder and all files in it; annotations: those of the split."""
    import datasets as library

    parts = [_Annotations(root, paths, split, name) for name in annotations]
    names = parts[0].names
    for part in parts:
        if part.names != names:
            why = f"has {shown(part.names)}; {parts[0].name} has {shown(names)}"
            raise BadData(f"files of split {split} differ in their categories", where=part.name, why=why)
    number = library.Value("int64")
    objects = {
        "id": library.List(number),
        "bbox": library.List(library.List(library.Value("float64"), length=4)),
        "category": library.List(library.ClassLabel(names=names)),
        "iscrowd": library.List(library.Value("bool")),
    }
    kinds = {
        "image": library.Value("string"),
        "image_id": number,
        "width": number,
        "height": number,
        "objects": objects,
    }
    return library.Dataset.from_list([row for part in parts for row in part.rows()], features=library.Features(kinds))


class _Annotations:
    """One file, checked. names: of the categories, in the order of their ids."""

    def __init__(self, root: Path, paths: Sequence[str], split: str, name: str) -> None:
        self.split, self.name = split, name
        self.content = _load(root / name, name)
        self.categories = self._by_id("categories", "name")
        repeated = [label for label, times in Counter(str(each["name"]) for each in self.categories.values()).items() if times > 1]
        if repeated or not self.categories:
            raise BadData("the categories cannot be told apart", where=name, why=f"twice: {shown(repeated)}" if repeated else "there are none")
        self.places = {key: place for place, key in enumerate(sorted(self.categories))}
        self.names = [str(self.categories[key]["name"]) for key in self.places]
        self.images = self._by_id("images", "file_name", "width", "height")
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            self.by_name[PurePosixPath(path).name].append(path)
        self.objects = self._objects()

    def rows(self) -> list[dict[str, Any]]:
        """One for each image, in the file's order. Raises BadData: images are missing, or cannot be told apart."""
        found, missing = [], []
        for key, image in self.images.items():
            path = self._path(str(image["file_name"]))
            if path is None:
                missing.append(str(image["file_name"]))
                continue
            objects = self.objects.get(key, {"id": [], "bbox": [], "category": [], "iscrowd": []})
            size = {"width": int(image["width"]), "height": int(image["height"])}
            found.append({"image": path, "image_id": key, **size, "objects": objects})
        if missing:
            what, remedy = f"{len(missing)} of {len(self.images)} images are not in the data set", "put the folders of images beside the annotations"
            raise BadData(what, where=self.name, why=f"missing: {shown(missing)}", remedy=remedy)
        if not found:
            raise BadData("the file has no images", where=self.name)
        return found

    def _path(self, file_name: str) -> str | None:
        wanted = PurePosixPath(file_name.replace("\\", "/"))
        found = [path for path in self.by_name.get(wanted.name, []) if f"/{path}".endswith(f"/{wanted}")]
        beside = str(PurePosixPath(self.name).parent / wanted)
        first = [path for path in found if path == beside] or [path for path in found if data.split_of(PurePosixPath(path)) == self.split] or found
        if len(first) > 1:
            raise BadData("an image is there several times", where=f"{self.name}: {file_name}", why=shown(first), remedy="keep one of them")
        return first[0] if first else None

    def _by_id(self, kind: str, *fields: str) -> dict[int, dict[str, Any]]:
        entries = self.content.get(kind)
        if not isinstance(entries, list):
            raise BadData(f"the file has no list of {kind}", where=self.name, remedy="a file of COCO has images, categories and annotations")
        found: dict[int, dict[str, Any]] = {}
        for place, entry in enumerate(entries):
            if (
                not isinstance(entry, dict)
                or not isinstance(entry.get("id"), int)
                or abs(entry["id"]) >= _IDS
                or any(field not in entry for field in fields)
            ):
                raise BadData(f"an entry of {kind} lacks id (a whole number of 64 bits), {', '.join(fields)}", where=f"{self.name}: {kind}[{place}]")
            if entry["id"] in found:
                raise BadData(f"two {kind} have the id {entry['id']}", where=f"{self.name}: {kind}[{place}]", remedy="give each its own id")
            if "width" in entry and not all(isinstance(entry[side], int | float) and 1 <= entry[side] < _LARGEST for side in ("width", "height")):
                raise BadData("an image has no size", where=f"{self.name}: image {entry['id']}", why=f"{entry['width']} x {entry['height']}")
            found[entry["id"]] = entry
        return found

    def _objects(self) -> dict[int, dict[str, list[Any]]]:
        found: dict[int, dict[str, list[Any]]] = {}
        wrong: list[str] = []
        for key, entry in self._by_id("annotations", "image_id", "category_id", "bbox").items():
            image = self.images.get(entry["image_id"]) if isinstance(entry["image_id"], int) else None
            place = self.places.get(entry["category_id"]) if isinstance(entry["category_id"], int) else None
            fault = (
                "there is no such image"
                if image is None
                else f"there is no category {entry['category_id']}"
                if place is None
                else NO_BOX
                if clipped(entry["bbox"], math.inf, math.inf) == NO_BOX
                else None
            )
            if fault:
                wrong.append(f"image {entry['image_id']}, annotation {key}, box {entry['bbox']}: {fault}")
                continue
            objects = found.setdefault(entry["image_id"], {"id": [], "bbox": [], "category": [], "iscrowd": []})
            values: Mapping[str, Any] = {"id": key, "bbox": entry["bbox"], "category": place, "iscrowd": bool(entry.get("iscrowd"))}
            for name, value in values.items():
                objects[name].append(value)
        if wrong:
            why = "; ".join(wrong[:_SHOWN]) + (" …" if len(wrong) > _SHOWN else "")
            raise BadData(f"{len(wrong)} annotations cannot be used", where=self.name, why=why, remedy="mend them, or take them out of the file")
        return found


def _load(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadData(
            "the file cannot be read", where=name, why=data.reason(error), remedy="fetch it again; a download may have been cut short"
        ) from error
    if not isinstance(content, dict):
        raise BadData(
            "the file is no COCO file", where=name, why=f"it holds a JSON {type(content).__name__}", remedy="it is an object with images, …"
        )
    return content
