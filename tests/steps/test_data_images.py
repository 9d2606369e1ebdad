"""Images in data sets: folders, paths and bytes; found lazily, told apart by content, and never outside of the data set."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from modelyard.errors import BadData, NoInput
from modelyard.steps import Evaluate
from modelyard.yard import Artifact, Yard
from modelyard_jobs import data, data_images, pixels
from modelyard_jobs.tasks import columns as label_columns
from modelyard_jobs.tasks.image_classification import ImageClassification
from tests.steps.fake import artifact
from tests.steps.picturing import png


def shade(value: int) -> bytes:
    return png(np.full((4, 6), value, dtype=np.uint8))


def parquet(table: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), buffer)
    return buffer.getvalue()


@pytest.fixture
def made(tmp_path):
    yard = Yard.open(tmp_path / "yard")
    return lambda files: artifact(yard, "dataset", files)


@pytest.fixture
def read(made, tmp_path):
    return lambda files: dict(data.read(files if isinstance(files, Artifact) else made(files), tmp_path / "cache"))


def labels(dataset: Any) -> list[str]:
    return [dataset.features["label"].int2str(label) for label in dataset["label"]]


def seen(dataset: Any, column: str = "image") -> list[int | str]:
    """The shade of each image, or why there is none."""
    found = [pixels.opened(value) for value in data.values(dataset, column)]
    return [image if isinstance(image, str) else image.getpixel((0, 0)) for image in found]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["train/cat/1.png", "train/dog/2.png", "test/cat/3.png"], {"train": ["cat", "dog"], "test": ["cat"]}),
        (["cat/1.png", "dog/2.jpg"], {"train": ["cat", "dog"]}),
        (["pets/train/cat/1.png", "pets/train/dog/2.png", "pets/val/cat/3.png"], {"train": ["cat", "dog"], "validation": ["cat"]}),
        (["train/1.png", "train/2.png", "test/3.png"], {"train": None, "test": None}),
        (["1.png", "2.png"], {"train": None}),
        (["train/1.png", "bus/2.png"], {"train": ["bus", "train"]}),
        (["Train/cat/1.PNG", "TEST/cat/1.PNG"], {"train": ["cat"], "test": ["cat"]}),
        (["train/animals/cat/1.png", "train/things/cup/2.png"], {"train": ["cat", "cup"]}),
        (["test/cat/1.png", "test/dog/1.png"], {"test": ["cat", "dog"]}),
        (["cat/1.png", "dog/2.png", "README.md", "cat/.thumb.png", "__MACOSX/cat/._1.png"], {"train": ["cat", "dog"]}),
    ],
)
def test_a_folder_of_images_has_its_splits_and_labels(read, paths, expected):
    found = read({path: shade(place) for place, path in enumerate(paths)})
    assert {split: labels(rows) if "label" in rows.column_names else None for split, rows in found.items()} == expected
    assert all(isinstance(shade, int) for rows in found.values() for shade in seen(rows))


def test_rows_of_a_folder_go_by_path_and_labels_by_name(read):
    rows = read({f"train/{label}/{number}.png": shade(number) for number, label in enumerate(["b", "a", "c", "a"])})["train"]
    assert seen(rows) == [1, 3, 0, 2]
    assert labels(rows) == ["a", "a", "b", "c"]
    assert label_columns.label_names(rows, "label") == ["a", "b", "c"]


def test_images_beside_folders_of_labels_are_refused_by_name(read):
    with pytest.raises(BadData, match=r"images have no label.*1 of 3 images of split train.*train/loose\.png"):
        read({"train/cat/1.png": shade(1), "train/dog/2.png": shade(2), "train/loose.png": shade(3)})


def test_labels_that_differ_in_case_only_are_refused(read):
    with pytest.raises(BadData, match="two labels differ in case only.*Cat and cat"):
        read({"train/big/Cat/1.png": shade(1), "train/small/cat/2.png": shade(2)})


def test_a_data_set_without_images_or_rows_says_what_it_has(read):
    with pytest.raises(NoInput, match="no file of rows"):
        read({"README.md": "nothing"})


def test_one_label_is_none_to_learn(read):
    rows = read({f"train/cat/{number}.png": shade(number) for number in range(3)})["train"]
    with pytest.raises(BadData, match="one label only: cat"):
        label_columns.label_names(rows, "label")


METADATA = [{"file_name": "a.png", "label": "dark"}, {"file_name": "deep/b.png", "label": "light"}]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_names_files_beside_it(read, name):
    written = {
        "metadata.csv": "file_name,label\n" + "".join(f"{row['file_name']},{row['label']}\n" for row in METADATA),
        "metadata.jsonl": "".join(json.dumps(row) + "\n" for row in METADATA),
        "metadata.parquet": parquet(pa.Table.from_pylist(METADATA)),
    }
    images = {
        f"{split}/{row['file_name']}": shade(10 * place + number)
        for place, split in enumerate(["train", "test"])
        for number, row in enumerate(METADATA)
    }
    found = read({**images, **{f"{split}/{name}": written[name] for split in ("train", "test")}})
    assert {split: seen(rows, "file_name") for split, rows in found.items()} == {"train": [0, 1], "test": [10, 11]}
    assert found["train"]["label"][:] == ["dark", "light"]
    assert data_images.column(found["train"], None) == "file_name"


def test_images_in_rows_are_bytes_structs_or_paths(read):
    """A row each as `datasets` writes an Image that was embedded, one that was not, and bytes alone."""
    import datasets

    embedded = datasets.Dataset.from_dict({"image": [{"bytes": shade(1), "path": "a.png"}, {"bytes": None, "path": "pics/b.png"}]})
    embedded = embedded.cast_column("image", datasets.Image(decode=False))
    found = read(
        {
            "train.parquet": parquet(embedded.data.table),
            "test.parquet": parquet({"image": pa.array([shade(3), None], pa.binary())}),
            "validation.jsonl": "".join(json.dumps({"image": {"path": path}}) + "\n" for path in ("pics/b.png", "pics/none.png")),
            "pics/b.png": shade(2),
        }
    )
    assert seen(found["train"]) == [1, 2]
    assert seen(found["test"]) == [3, "the image is missing"]
    assert seen(found["validation"]) == [2, "the image's file is not in the data set"]


def test_a_data_set_that_the_library_wrote_is_read_without_decoding(read):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    buffer = io.BytesIO()
    rows = {"image": [{"bytes": shade(1), "path": "a.png"}, {"bytes": b"broken", "path": "b.png"}], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    found = read({"train.parquet": buffer.getvalue()})["train"]
    first, second = seen(found)
    assert first == 1
    assert "no image of a kind" in second
    assert labels(found) == ["dark", "light"]
    assert found[1]["image"]["bytes"] == b"broken"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../../../etc/passwd", "pics/../../secret.png", "file:///etc/passwd", "https://example.org/a.png", "", "pics", "a\\b.png"],
)
def test_a_path_never_leads_out_of_the_data_set(read, tmp_path, path):
    (tmp_path / "secret.png").write_bytes(shade(9))
    written = [{"image": {"bytes": None, "path": each, "file": "/etc/passwd", "sha256": "00"}} for each in (path, "pics/b.png")]
    rows = read({"train.jsonl": "".join(json.dumps(row) + "\n" for row in written), "pics/b.png": shade(2)})["train"]
    first, second = seen(rows)
    assert first in {"the image's file is not in the data set", "the image is missing"}
    assert second == 2
    assert [value["file"] is None for value in data.values(rows, "image")] == [True, False]


def test_a_struct_that_claims_to_be_ours_is_made_anew(read):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("file", pa.string()), ("sha256", pa.string())])
    claimed = pa.array([{"bytes": None, "path": "x.png", "file": "/etc/passwd", "sha256": "0" * 64}], kind)
    rows = read({"train.parquet": parquet({"image": claimed})})["train"]
    assert list(data.values(rows, "image")) == [{"bytes": None, "path": "x.png", "file": None, "sha256": None}]


def test_texts_that_end_like_names_of_images_stay_texts_where_there_are_no_images(read):
    rows = read({"train.csv": "text,label\nlook at this.png,a\nthat.png,b\n"})["train"]
    assert list(data.values(rows, "text")) == ["look at this.png", "that.png"]


def test_other_columns_stay_as_they_are(read):
    table = {"image": pa.array([shade(1)], pa.binary()), "text": ["hi"], "label": [1], "objects": [{"bbox": [[1.0, 2.0, 3.0, 4.0]]}]}
    rows = read({"train.parquet": parquet(table)})["train"]
    assert rows[0]["text"] == "hi"
    assert rows[0]["objects"] == {"bbox": [[1.0, 2.0, 3.0, 4.0]]}


def test_an_image_is_told_apart_by_its_bytes_wherever_they_are(read):
    """Its name and folder do not count: a copy of a training image in the test split is an overlap."""
    found = read({"train/cat/1.png": shade(1), "train/dog/2.png": shade(2), "test/bird/9.png": shade(2), "test/dog/8.png": shade(3)})
    inside = read({"train.parquet": parquet({"image": pa.array([shade(2)], pa.binary())})})["train"]
    assert data.overlap(found["train"], found["test"], "image") == 1
    assert data.keys(inside, "image")[0] == data.keys(found["train"], "image")[1]
    kept = [value["sha256"] for value in data.values(found["train"], "image")]
    assert kept == [hashlib.sha256(shade(number)).hexdigest() for number in (1, 2)]


def test_nothing_is_opened_before_a_row_is_asked_for(made, read, monkeypatch):
    source = made({**{f"train/{label}/{number}.png": shade(number) for number in range(5) for label in "ab"}})
    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
        patched.setattr(pixels, "open", lambda *_, **__: pytest.fail("a file was opened"), raising=False)
        rows = read(source)["train"]
        task = ImageClassification(Evaluate(model="m", data="d"))
        columns = task.columns(rows, truth=True)
        data.cut(rows, columns["image"], 0.5)
        task.truths(rows, columns, ["a", "b"])
    assert columns == {"image": "image", "label": "label"}
    assert [why for row in data.rows(rows, columns) if (why := task.fault(row))] == []


def test_several_files_of_a_split_are_one(read):
    first, second = ({"image": pa.array([shade(place)], pa.binary()), "label": [str(place)]} for place in (1, 2))
    rows = read({"train-00000-of-00002.parquet": parquet(first), "train-00001-of-00002.parquet": parquet(second)})["train"]
    assert seen(rows) == [1, 2]


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [(None, NoInput, "no column clearly holds the images"), ("nope", NoInput, "no column 'nope'"), ("text", BadData, "column text holds no images")],
)
def test_a_column_of_images_that_is_not_there_is_named(read, named, error, words):
    rows = read({"train.csv": "text,label\na,b\n"})["train"]
    with pytest.raises(error, match=words):
        data_images.column(rows, named)


def test_of_several_columns_of_images_the_usual_name_or_the_named_one_counts(read):
    images = pa.array([shade(1)], pa.binary())
    rows = read({"train.parquet": parquet({"mask": images, "image": images})})["train"]
    assert data_images.column(rows, None) == "image"
    assert data_images.column(rows, "mask") == "mask"
    other = read({"train.parquet": parquet({"left": images, "right": images})})["train"]
    with pytest.raises(NoInput, match="no column clearly holds the images"):
        data_images.column(other, None)


def test_a_parquet_file_cut_short_is_named(read):
    whole = parquet({"image": pa.array([shade(1)] * 50, pa.binary())})
    with pytest.raises(BadData, match=r"train\.parquet: the file cannot be read"):
        read({"train.parquet": whole[: len(whole) // 2]})


def test_files_are_found_where_the_yard_lies(made, read):
    """The struct holds the file's place; the row's key does not."""
    source = made({"train/a/1.png": shade(1), "train/b/2.png": shade(2)})
    rows = read(source)["train"]
    files = [value["file"] for value in data.values(rows, "image")]
    assert [Path(file).read_bytes() for file in files] == [shade(1), shade(2)]
    assert all(Path(file).is_relative_to(source.path) for file in files)
