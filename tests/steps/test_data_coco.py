from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from modelyard.errors import BadData
from modelyard.steps import Finetune
from modelyard.yard import Yard
from modelyard_jobs import data, data_coco
from modelyard_jobs.tasks import objects
from modelyard_jobs.tasks.object_detection import ObjectDetection
from tests.steps.fake import artifact


@pytest.fixture
def read(tmp_path):
    yard = Yard.open(tmp_path / "yard")
    return lambda files: dict(data.read(artifact(yard, "dataset", files), tmp_path / "cache"))


def png(width=100, height=80):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


PNG = png()


def coco(**changes):
    """Two images; three objects on the first, one of them a crowd, none on the second."""
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 80}, {"id": 3, "file_name": "b.png", "width": 100, "height": 80}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 10, 20, 30], "area": 600, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 80]},
            {"id": 9, "image_id": 7, "category_id": 1, "bbox": [50.5, 40, 20.25, 10], "iscrowd": 1},
        ],
    }
    return json.dumps({**content, **changes})


def annotation(**changes):
    return coco(annotations=[{"id": 5, "image_id": 7, "category_id": 18, "bbox": [10, 10, 20, 30], **changes}])


def image_files(folder=""):
    return {f"{folder}{name}.png": PNG for name in "ab"}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"instances.json": coco(), **image_files()}, ["train"]),
        ({"annotations/instances_train2017.json": coco(), "annotations/captions_train2017.json": "{}", **image_files("train2017/")}, ["train"]),
        (
            {
                "annotations/instances_train2017.json": coco(),
                "annotations/instances_val2017.json": coco(),
                **image_files("images/train2017/"),
                **image_files("images/val2017/"),
            },
            ["train", "validation"],
        ),
        (
            {"train/_annotations.coco.json": coco(), **image_files("train/"), "test/_annotations.coco.json": coco(), **image_files("test/")},
            ["train", "test"],
        ),
        ({"annotations/train.json": coco(), "annotations/test.json": coco(), **image_files("images/")}, ["train", "test"]),
    ],
)
def test_layouts(read, files, splits):
    found = read(files)
    assert list(found) == splits
    for split, rows in found.items():
        assert rows["image_id"][:] == [7, 3]
        assert [image["path"].rpartition("/")[2] for image in rows["image"][:]] == ["a.png", "b.png"]
        if len(splits) > 1 and "images/a.png" not in files:
            assert all(data.SYNONYMS.get(image["path"].split("/")[-2].rstrip("0123456789")) == split for image in rows["image"][:])
        with open(rows[0]["image"]["file"], "rb") as file:
            assert file.read() == PNG


def test_rows(read):
    rows = read({"instances.json": coco(), **image_files()})["train"]
    first, second = rows[0]["objects"], rows[1]["objects"]
    assert first["bbox"] == [[10, 10, 20, 30], [0, 0, 100, 80], [50.5, 40, 20.25, 10]]
    assert first["category"] == [1, 0, 0]  # in the order of their ids: person, dog
    assert first["iscrowd"] == [False, False, True]
    assert second == {"id": [], "bbox": [], "category": [], "iscrowd": []}
    assert objects.label_names(rows, "objects") == ["person", "dog"]
    found = objects.truths(rows, "objects", ["cat", "dog", "person"])
    assert [each.labels.tolist() for each in found] == [[1, 2, 2], []]
    assert found[0].crowd.tolist() == [False, False, True]
    assert found[1].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ([-0.5, 70, 20, 10.75], [0, 70, 19.5, 10]),
        ([0, 0, 100.5, 80], [0, 0, 100, 80]),
        ([10, 10, 0.25, 3], [10, 10, 0.25, 3]),
        ([90, 10, 20, 30], "a box reaches out of its image"),
        ([-5, 10, 20, 30], "a box reaches out of its image"),
        ([10, 10, 20, 71.5], "a box reaches out of its image"),
        ([100.5, 10, 0.25, 3], "a box reaches out of its image"),
        ([300, 300, 10, 10], "a box reaches out of its image"),
        ([10, 10, 0, 30], "a box has no extent"),
        ([10, 10, 20, -3], "a box has no extent"),
    ],
)
def test_a_box_that_is_no_box_of_its_image_is_the_fault_of_its_row(read, box, found):
    rows = read({"instances.json": annotation(bbox=box), **image_files()})["train"]
    task = ObjectDetection(Finetune(model="m", data="d", task="object-detection"))
    assert objects.clipped(rows[0]["objects"]["bbox"][0], 100, 80) == found
    assert [task.fault(row) for row in rows] == [found if isinstance(found, str) else None, None]
    assert task.fault({"image": rows[0]["image"]}) is None  # infer does not look at them


def test_an_image_on_its_side(read):
    """Boxes are those of the image as it is seen."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (100, 80)).save(file, "JPEG", exif=exif)
    line = json.dumps({"image": "a.jpg", "objects": {"bbox": [[0, 0, 80, 100]], "category": ["cat"]}})
    row = read({"train.jsonl": line + "\n", "a.jpg": file.getvalue()})["train"][0]
    task = ObjectDetection(Finetune(model="m", data="d", task="object-detection"))
    assert task.fault(row) is None
    assert task.fault({**row, "objects": {"bbox": [[0, 0, 100, 80]], "category": ["cat"]}}) == "a box reaches out of its image"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (annotation(bbox=[10, float("nan"), 20, 3]), ["image 7, annotation 5", "not four numbers"]),
        (annotation(bbox=[10, float("inf"), 20, 3]), ["not four numbers"]),
        (annotation(bbox=[10, 10, 20]), ["not four numbers"]),
        (annotation(bbox="10 10 20 30"), ["not four numbers"]),
        (annotation(bbox=[10, 10, "20", 30]), ["not four numbers"]),
        (annotation(bbox=[10, 10, 10**400, 30]), ["not four numbers"]),
        (annotation(id=1 << 63), ["annotations[0]", "id (a whole number of 64 bits)"]),
        (coco(images=[{"id": 7, "file_name": "a.png", "width": float("inf"), "height": 80}], annotations=[]), ["image 7", "no size"]),
        (coco(images=[{"id": 7, "file_name": "a.png", "width": 10**30, "height": 80}], annotations=[]), ["image 7", "no size"]),
        (annotation(category_id=2), ["no category 2"]),
        (annotation(category_id=[1]), ["no category [1]"]),
        (annotation(image_id=8), ["image 8", "no such image"]),
        (coco(annotations=[{"id": 5}]), ["annotations[0]", "bbox"]),
        (coco(annotations=json.loads(coco())["annotations"] * 2), ["two annotations have the id 1"]),
        (coco(images=json.loads(coco())["images"] * 2), ["two images have the id 7"]),
        (coco(images=[{"id": 7, "file_name": "a.png", "width": 0, "height": 80}], annotations=[]), ["image 7", "no size"]),
        (coco(images=[{"id": 7, "file_name": "c.png", "width": 9, "height": 9}], annotations=[]), ["1 of 1 images are not in the data set", "c.png"]),
        (coco(images=[{"id": 7, "file_name": "../a.png", "width": 9, "height": 9}], annotations=[]), ["../a.png"]),
        (coco(images=[], annotations=[]), ["no images"]),
        (coco(categories=[{"id": 1, "name": "dog"}, {"id": 18, "name": "dog"}]), ["categories", "twice: dog"]),
        (coco(categories=[], annotations=[]), ["there are none"]),
        (coco(annotations=None), ["no list of annotations"]),
        (coco()[:-40], ["instances.json", "cannot be read"]),
        (coco().encode() + b"\xff", ["cannot be read"]),
        ("[]", ["no COCO file"]),
        ("[" * 100000, ["cannot be read"]),
        ("", ["cannot be read"]),
    ],
)
def test_what_cannot_be_used_is_said(read, content, said):
    with pytest.raises(BadData) as caught:
        read({"instances.json": content, **image_files()})
    for part in [*said, "instances.json"]:
        assert part in str(caught.value)


def test_of_many_faults_some_are_shown_and_all_are_counted(read):
    wrong = [{"id": number, "image_id": 7, "category_id": 18, "bbox": [10, 10, 30]} for number in range(20)]
    with pytest.raises(BadData) as caught:
        read({"instances.json": coco(annotations=wrong), **image_files()})
    assert caught.value.what == "20 annotations cannot be used"
    assert caught.value.why.count("image 7") == 5


def test_an_image_in_two_places(read):
    with pytest.raises(BadData, match="several times"):
        read({"annotations/instances.json": coco(), **image_files("x/"), **image_files("y/")})


def test_files_of_a_split_with_other_categories(read):
    other = coco(categories=[{"id": 18, "name": "wolf"}, {"id": 1, "name": "person"}])
    with pytest.raises(BadData, match="differ in their categories"):
        read({"annotations/instances_train_1.json": coco(), "annotations/instances_train_2.json": other, **image_files()})


def test_without_images_it_is_no_coco():
    assert data_coco.find(["annotations/train.json", "train.csv"]) == []
    assert data_coco.find(["annotations/train.json", "images/a.jpg"]) == ["annotations/train.json"]
    assert data_coco.find(["notes.json", "images/a.jpg"]) == []


def jsonl(*values):
    return "".join(json.dumps({"objects": value}) + "\n" for value in values)


@pytest.mark.parametrize(
    "rows",
    [
        [{"bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "category": ["b", "a"]}, {"bbox": [], "category": []}],
        [[{"bbox": [1, 2, 3, 4], "category": "b"}, {"bbox": [5, 6, 7, 8], "category": "a"}], []],
        [{"boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": ["b", "a"], "iscrowd": [0, 0]}, {"boxes": [], "labels": [], "iscrowd": []}],
    ],
)
def test_objects_of_a_column(read, rows):
    dataset = read({"train.jsonl": jsonl(*rows)})["train"]
    assert objects.label_names(dataset, "objects") == ["a", "b"]
    first, second = objects.truths(dataset, "objects", ["a", "b"])
    assert (first.boxes.tolist(), first.labels.tolist()) == ([[1, 2, 3, 4], [5, 6, 7, 8]], [1, 0])
    assert len(second.labels) == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"bbox": [[1, 2, 3, -4]], "category": ["a"]}], ["row 0", "[1, 2, 3, -4]", "no extent"]),
        ([{"bbox": [[1, 2, 3, 4]], "category": ["a"]}, {"bbox": [[-9, 2, 3, 4]], "category": ["a"]}], ["row 1", "reaches out"]),
        ([{"bbox": [[1, 2, 3]], "category": ["a"]}], ["not four numbers"]),
        ([{"bbox": [[1, 2, 3, None]], "category": ["a"]}], ["not four numbers"]),
        ([{"bbox": [[1, 2, 3, 4]], "category": ["a", "b"]}], ["differ in number"]),
        ([{"bbox": [[1, 2, 3, 4]], "category": [None]}], ["row 0", "None is no category"]),
        ([{"bbox": [[1, 2, 3, 4]], "category": ["a"]}, None], ["row 1", "the value is missing"]),
        ([{"bbox": [[1, 2, 3, 4]], "category": ["c"]}], ["the data have c", "a, b"]),
        ([{"bbox": [[1, 2, 3, 4]], "name": ["c"]}], ["no category"]),
        ([{"bbox": [1, 2, 3, 4], "category": "a"}], ["row 0", "category of a row's objects is no list", "type str"]),
        ([{"bbox": 5, "category": ["a"]}], ["row 0", "bbox of a row's objects is no list", "type int"]),
        ([[{"bbox": [1, 2, 3, 4], "category": "a"}, None]], ["row 0", "an object is missing"]),
        (["cat"], ["holds no objects"]),
    ],
)
def test_objects_that_cannot_be_used(read, rows, said):
    dataset = read({"train.jsonl": jsonl(*rows)})["train"]
    with pytest.raises(BadData) as caught:
        objects.truths(dataset, "objects", ["a", "b"])
    for part in ["column objects", *said]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [{"bbox": 5, "category": 1}, {"bbox": [5], "category": [1]}, [{"bbox": [1, 2, 3, 4], "category": "a"}, None], [5], [[1, 2, 3, 4]], 5, "a"],
)
def test_a_value_that_is_no_list_of_boxes_is_a_fault(value):
    assert objects.fault(value, 100, 80) == objects.NO_BOX
    assert objects.fault(None, 100, 80) is None
    assert objects.fault([], 100, 80) is None


def test_numbers_are_ids_where_the_model_has_no_names(read):
    dataset = read({"train.jsonl": jsonl({"bbox": [[1, 2, 3, 4]], "category": [2]})})["train"]
    assert objects.truths(dataset, "objects", ["LABEL_0", "LABEL_1", "LABEL_2"])[0].labels.tolist() == [2]
    assert objects.truths(dataset, "objects", ["1", "2"])[0].labels.tolist() == [1]
    with pytest.raises(BadData, match="the data have 2"):
        objects.truths(dataset, "objects", ["LABEL_0", "LABEL_1"])


def test_no_box_at_all(read):
    dataset = read({"train.jsonl": jsonl({"bbox": [[1, 2, 3, 4]], "category": ["a"]}, {"bbox": [], "category": []})})["train"]
    with pytest.raises(BadData, match="no box on any image"):
        objects.label_names(dataset.select([1]), "objects")


def test_a_folder_of_images_with_metadata(read):
    row = {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": ["cat"]}}
    dataset = read({"train/metadata.jsonl": json.dumps(row) + "\n", "train/a.png": PNG})["train"]
    task = ObjectDetection(Finetune(model="m", data="d", task="object-detection"))
    columns = task.columns(dataset, truth=True)
    assert columns == {"image": "file_name", "objects": "objects"}
    assert task.label_names(dataset, columns) == ["cat"]
    assert task.truths(dataset, columns, ["cat"])[0].boxes.tolist() == [[1, 2, 3, 4]]
    assert task.fault({"image": dataset[0]["file_name"]}) is None


def test_a_row_keeps_its_side_when_the_data_are_moved_or_grow(read):
    """Splits are cut by what an image is, not by where it lies."""
    one = read({"instances.json": coco(), "images/a.png": PNG, "images/b.png": png(50)})["train"]
    other = read({"annotations/instances_train.json": coco(), "c/a.png": PNG, "c/b.png": png(50), "more.txt": "x"})["train"]
    assert data.keys(one, "image").tolist() == data.keys(other, "image").tolist()
