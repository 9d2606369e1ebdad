"""Image classification from folder to predictions: digits to see it all work, Fashion-MNIST to see how well, and images that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil

from modelyard.errors import BadData, NoInput
from modelyard.steps import Evaluate, Finetune, Infer
from modelyard.yard import Artifact, Yard
from modelyard_jobs import evaluate, finetune, infer
from modelyard_jobs.finetune import image_classification as objective
from modelyard_jobs.finetune import images, loop
from modelyard_jobs.tasks.image_classification import ImageClassification
from tests.steps import picturing, real
from tests.steps.fake import FakeContext, artifact

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture
def yard(tmp_path):
    return Yard.open(tmp_path / "yard")


@pytest.fixture
def go(yard, tmp_path) -> Callable[..., FakeContext]:
    """Run a step; what it made is in `out`."""
    count = iter(range(1000))

    def run(step: Any, settings: Any, **inputs: Artifact) -> FakeContext:
        number = next(count)
        context = FakeContext(settings, inputs, yard, tmp_path / f"work-{number}", key=f"{number:064x}")
        context.produced = step.run(context)
        return context

    return run


def digits(train: int = 1200, test: int = 300) -> dict[str, bytes]:
    images, labels = picturing.digits()
    shuffled = np.random.default_rng(0).permutation(len(labels))
    chosen = {"train": shuffled[:train], "test": shuffled[train : train + test]}
    return {path: image for split, rows in chosen.items() for path, image in picturing.folder(images[rows], labels[rows], NAMES, split).items()}


def settings(**more: Any) -> Finetune:
    usual = {"model": "m", "data": "d", "task": "image-classification", "batch_size": 64, "learning_rate": 5e-3, "weight_decay": 0.01}
    return Finetune(**{**usual, **more})


def records(context: FakeContext) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.open()]


def test_digits_are_learnt_measured_and_told(yard, go, tmp_path):
    rows = artifact(yard, "dataset", digits())
    base = artifact(yard, "model", picturing.tiny_resnet(tmp_path / "base", side=32))
    tuned = go(finetune, settings(epochs=4), model=base, data=rows)
    assert tuned.decisions["labels"] == sorted(NAMES)
    assert tuned.decisions["columns"] == {"image": "image", "label": "label"}
    assert tuned.details["rows"]["faults"] == {}
    assert tuned.details["rows"]["train"] + tuned.details["rows"]["validation"] == 1200
    assert "broken" not in tuned.details
    model = artifact(yard, "model", tuned.out, format="safetensors")
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {entry.path for entry in model.files}

    measured = go(evaluate, Evaluate(model="m", data="d"), model=model, data=rows)
    document = json.loads((measured.out / "metrics.json").read_text())
    metrics = document["metrics"]
    assert metrics["accuracy"]["value"] > 0.9
    assert metrics["accuracy"]["n"] == 300
    assert metrics["accuracy"]["value"] <= metrics["accuracy_top5"]["value"] <= 1
    assert np.array(document["confusion"]).sum() == 300
    assert sum(each["n"] for each in document["calibration"]["bins"]) == 300
    assert document["overlap"] == {"split": "train", "rows": 0, "share": 0.0}
    wrong = round(300 * (1 - metrics["accuracy"]["value"]))
    assert len(document["errors"]) == min(wrong, 25) > 0
    for error in document["errors"]:
        assert error["true"] != error["predicted"]
        picture = measured.out / error["picture"]
        assert picture.stat().st_size < 50_000
        assert max(Image.open(picture).size) < 300

    told = go(infer, Infer(model="m", data="d", split="test", top_k=3), model=model, data=rows)
    said = records(told)
    assert [each["row"] for each in said] == list(range(300))
    assert all(len(each["top"]) == 3 and each["top"][0] == {"label": each["label"], "score": each["score"]} for each in said)
    predictions = [json.loads(line) for line in (measured.out / "predictions.jsonl").open()]
    assert [each["label"] for each in said] == [each["predicted"] for each in predictions]
    both = go(evaluate, Evaluate(model="m", data="d", against="c"), model=model, data=rows, against=base_with_labels(yard, tmp_path))
    differences = json.loads((both.out / "metrics.json").read_text())["metrics"]
    assert differences["accuracy"]["difference"]["low"] > 0.5
    assert differences["accuracy_top5"]["difference"]["value"] > 0


def base_with_labels(yard: Yard, tmp_path: Any) -> Artifact:
    return artifact(yard, "model", picturing.tiny_resnet(tmp_path / "labelled", side=32, labels=tuple(sorted(NAMES))))


SHADES = ("dark", "light")


def shades(count: int = 40, split: str = "train") -> dict[str, bytes]:
    """Noisy images that are dark or light."""
    chance = np.random.default_rng(len(split))
    labels = np.arange(count) % 2
    images = (chance.integers(0, 60, (count, 12, 10)) + 150 * labels[:, None, None]).astype(np.uint8)
    return picturing.folder(images, labels, SHADES, split)


@pytest.fixture
def model(yard, tmp_path) -> Artifact:
    """Random weights that count as trained for SHADES."""
    return artifact(yard, "model", picturing.tiny_resnet(tmp_path / "shades", side=16, channels=3, labels=SHADES))


def test_rows_that_are_no_image_are_errors_of_their_own(yard, go, model):
    good = shades(4, "test")
    whole = next(iter(good.values()))
    bad = {
        "test/light/a.png": whole[: len(whole) // 2],
        "test/light/b.png": b"no image",
        "test/light/c.png": b"",
        "test/light/d.gif": picturing.png(Image.new("L", (8193, 8192)), "GIF"),
    }
    rows = artifact(yard, "dataset", {**good, **bad})
    with pytest.raises(BadData, match="4 of 8 rows cannot be used.*more than max_error_rate 0.1"):
        go(infer, Infer(model="m", data="d"), model=model, data=rows)
    told = records(go(infer, Infer(model="m", data="d", max_error_rate=0.5), model=model, data=rows))
    assert [each["row"] for each in told] == list(range(8))
    faults = {each["error"]["what"].split(" (")[0] for each in told if each["error"]}
    assert faults == {
        "the image cannot be decoded",
        "the file is no image of a kind that is read here",
        "the image is empty",
        "the image has 8193 x 8192 pixels, more than 67108864",
    }
    assert all(each["label"] is None and each["top"] == [] for each in told if each["error"])
    assert all(each["label"] in SHADES for each in told if not each["error"])
    measured = go(evaluate, Evaluate(model="m", data="d", max_error_rate=0.5), model=model, data=rows)
    document = json.loads((measured.out / "metrics.json").read_text())
    assert document["rows"]["evaluated"] == 4
    assert sum(document["rows"]["faults"].values()) == 4


def test_the_same_images_give_the_same_bytes(yard, go, model):
    rows = artifact(yard, "dataset", shades(30, "test"))
    first, second = (records(go(infer, Infer(model="m", data="d", token_budget=budget), model=model, data=rows)) for budget in (16, 512))
    assert [each["label"] for each in first] == [each["label"] for each in second]
    assert max(abs(one["score"] - other["score"]) for one, other in zip(first, second, strict=True)) < 1e-5


def test_broken_images_are_left_out_of_training_and_counted(yard, go, model, monkeypatch):
    batches, collate = [], objective.ImageClassification.collate
    monkeypatch.setattr(objective.ImageClassification, "collate", lambda self, rows: batches.append(collate(self, rows)) or batches[-1])
    files = shades(60)
    broken = sorted(files)[7]
    files[broken] = files[broken][:-30]
    rows = artifact(yard, "dataset", files)
    tuned = go(finetune, settings(epochs=2, batch_size=8), model=model, data=rows)
    assert tuned.details["broken"] == {"train": 1, "validation": 0}
    unlabelled = [batch["labels"].tolist().count(-100) for batch, _ in batches]
    assert sum(unlabelled) == max(unlabelled) * 2 == 2  # once in each epoch
    assert [count for _, count in batches] == [len(batch["labels"]) - without for (batch, _), without in zip(batches, unlabelled, strict=True)]
    told = [message for message in tuned.said if message["type"] == "log" and "could not be decoded" in str(message)]
    assert len(told) == 1
    for path in sorted(files)[:12]:
        files[path] = files[path][:-30]
    with pytest.raises(BadData, match=r"\d+ of \d+ images are broken.*the image cannot be decoded"):
        go(finetune, settings(epochs=2, batch_size=8), model=model, data=artifact(yard, "dataset", files))


def test_a_step_left_with_one_image_trains(yard, go, model):
    """At 16 x 16 the last layer has one value per channel and image: of a single image there are no statistics."""
    files = shades(40)
    validation = {path.replace("train/", "validation/"): image for path, image in shades(8, "validation").items()}
    rows = artifact(yard, "dataset", {**dict(sorted(files.items())[3:]), **validation})
    tuned = go(finetune, settings(epochs=2, batch_size=12), model=model, data=rows)
    assert tuned.details["rows"]["train"] == 37
    assert tuned.details["speed"]["steps"] == 8


def test_what_was_trained_can_be_repeated_to_the_byte(yard, go, model):
    rows = artifact(yard, "dataset", shades(40))
    first, second = (go(finetune, settings(epochs=2, batch_size=8), model=model, data=rows).out / "model.safetensors" for _ in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_images_that_do_not_stay_in_memory_are_decoded_again(yard, go, model, monkeypatch):
    rows = artifact(yard, "dataset", shades(40))
    kept = go(finetune, settings(epochs=2, batch_size=8), model=model, data=rows)
    monkeypatch.setattr(images, "KEPT", 3000)
    dropped = go(finetune, settings(epochs=2, batch_size=8), model=model, data=rows)
    assert len(kept.details["history"]["train"]) >= 8
    assert kept.details["history"] == dropped.details["history"]


def test_weights_that_are_not_in_the_file_are_refused_unless_they_are_to_be_trained(yard, go, tmp_path):
    folder = picturing.tiny_resnet(tmp_path / "headless", side=16, channels=3, labels=SHADES)
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if not name.startswith("classifier")}, folder / "model.safetensors", {"format": "pt"})
    headless, rows = artifact(yard, "model", folder), artifact(yard, "dataset", {**shades(40), **shades(8, "test")})
    for step, asked in ((infer, Infer(model="m", data="d", split="test")), (evaluate, Evaluate(model="m", data="d"))):
        with pytest.raises(BadData, match="no trained head for image classification.*classifier"):
            go(step, asked, model=headless, data=rows)
    assert (go(finetune, settings(epochs=1, batch_size=8), model=headless, data=rows).out / "model.safetensors").exists()


def test_labels_that_the_model_does_not_know_are_refused(yard, go, model):
    files = {path.replace("/light/", "/blinding/"): image for path, image in shades(8, "test").items()}
    with pytest.raises(BadData, match="the labels of the data are not the model's.*blinding, dark.*the model knows dark, light"):
        go(evaluate, Evaluate(model="m", data="d"), model=model, data=artifact(yard, "dataset", files))


def test_one_label_cannot_be_learnt(yard, go, model):
    files = {path: image for path, image in shades(8).items() if "/dark/" in path}
    with pytest.raises(BadData, match="one label only: dark"):
        go(finetune, settings(), model=model, data=artifact(yard, "dataset", files))


def test_images_without_labels_cannot_be_learnt_but_told(yard, go, model):
    files = {f"train/{path.split('/')[-1]}": image for path, image in shades(8).items()}
    rows = artifact(yard, "dataset", files)
    with pytest.raises(NoInput, match="no column is clearly the label"):
        go(finetune, settings(), model=model, data=rows)
    assert len(records(go(infer, Infer(model="m", data="d"), model=model, data=rows))) == 8


def test_a_picture_can_be_made_of_any_image_and_label(tmp_path):
    task = ImageClassification(Evaluate(model="m", data="d"))
    for image in (Image.new("RGBA", (1, 900)), Image.new("L", (900, 1)), Image.new("RGB", (3000, 2000))):
        shown = Image.open(BytesIO(task.picture({"image": picturing.png(image)}, [0.2, 0.8], 0, ["\u732b", "x" * 5000])))
        assert max(shown.size) < 500


def test_a_model_whose_images_keep_their_shape_is_refused(yard, go, tmp_path):
    folder = picturing.tiny_resnet(tmp_path / "ratio", side=16, channels=3, labels=SHADES)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, do_center_crop=False).save_pretrained(folder)
    with pytest.raises(BadData, match="images of different sizes cannot share a batch"):
        go(infer, Infer(model="m", data="d"), model=artifact(yard, "model", folder), data=artifact(yard, "dataset", shades(4)))


def test_a_model_that_does_not_say_how_images_are_prepared_is_refused(yard, go, tmp_path):
    folder = picturing.tiny_resnet(tmp_path / "silent", side=16, channels=3, labels=SHADES)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(BadData, match=r"there is no preprocessor_config\.json"):
        go(infer, Infer(model="m", data="d"), model=artifact(yard, "model", folder), data=artifact(yard, "dataset", shades(4)))


def test_passes_of_a_model_with_batch_norms_are_as_large_as_set(yard, go, model, monkeypatch):
    """Its statistics are those of a pass, so that passes are not made smaller for a request to stop to be seen sooner."""
    monkeypatch.setattr(loop, "CPU_FLOPS", 1)
    tuned = go(finetune, settings(epochs=1, batch_size=8), model=model, data=artifact(yard, "dataset", shades(40)))
    assert "passes of at most" not in next(message["reason"] for message in tuned.said if message.get("name") == "batching")


@pytest.mark.slow  # three trainings of some ten seconds
def test_clothes_are_told_apart_after_ten_thousand_images(yard, go, tmp_path):
    """Fashion-MNIST, the first 10,000 images, 4 epochs from random weights; measured on the first 2,000 test images, once for each seed."""
    splits = real.fashion()
    files = {
        path: image
        for split, count in (("train", 10_000), ("test", 2_000))
        for path, image in picturing.folder(splits[split][0][:count], splits[split][1][:count], _plain(real.FASHION_LABELS), split).items()
    }
    rows = artifact(yard, "dataset", files)
    accuracies = []
    for seed in (1, 2, 3):
        base = artifact(yard, "model", picturing.tiny_resnet(tmp_path / f"base-{seed}", side=28, seed=seed))
        tuned = go(finetune, settings(epochs=4, seed=seed), model=base, data=rows)
        model = artifact(yard, "model", tuned.out, format="safetensors")
        measured = go(evaluate, Evaluate(model="m", data="d"), model=model, data=rows)
        accuracies.append(json.loads((measured.out / "metrics.json").read_text())["metrics"]["accuracy"]["value"])
    assert min(accuracies) >= 0.86, accuracies


def _plain(names: tuple[str, ...]) -> tuple[str, ...]:
    """A label is a folder here, so it holds no slash."""
    return tuple(name.replace("/", " or ") for name in names)
