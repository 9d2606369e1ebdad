"""pixels.py gives what transformers' own processors on Pillow give, to the bit, and refuses those that it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from modelyard.errors import BadData
from modelyard.steps import Export
from modelyard_jobs import models, tasks
from modelyard_jobs.pixels import KINDS, UNNAMED, Pixels

SIZES = [(37, 52), (52, 37), (64, 64), (224, 224), (301, 97), (33, 500), (8, 8), (256, 255), (134, 50), (300, 10)]
"""Width and height."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", {}),
    "ViT, not square, lanczos": ("ViT", {"size": {"height": 40, "width": 56}, "resample": 1}),
    "ViT, no resize, no mean": ("ViT", {"do_resize": False, "do_normalize": False}),
    "ViT, own rescale and mean": ("ViT", {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5, "image_mean": [0.1, 0.2, 0.3]}),
    "ViT, within": ("ViT", {"size": {"max_height": 48, "max_width": 64}}),
    "ConvNext, enlarged and cut": ("ConvNext", {"size": {"shortest_edge": 224}}),
    "ConvNext, cut by 0.95": ("ConvNext", {"size": {"shortest_edge": 31}, "crop_pct": 0.95}),
    "ConvNext, 384": ("ConvNext", {}),
    "CLIP": ("CLIP", {}),
    "CLIP, odd crop": ("CLIP", {"size": {"shortest_edge": 50}, "crop_size": {"height": 63, "width": 41}}),
    "Bit": ("Bit", {}),
    "DeiT": ("DeiT", {}),
    "DeiT, crop alone": ("DeiT", {"do_resize": False, "crop_size": {"height": 60, "width": 44}}),
    "Siglip": ("Siglip", {}),
    "Blip": ("Blip", {}),
    "Pvt": ("Pvt", {}),
    "MobileNetV1": ("MobileNetV1", {}),
    "Detr": ("Detr", {"size": {"shortest_edge": 80, "longest_edge": 133}}),
    "Detr, whole": ("Detr", {"size": {"shortest_edge": 37, "longest_edge": 1333}}),
    "Detr, padded to a size": ("Detr", {"size": {"shortest_edge": 60, "longest_edge": 100}, "pad_size": {"height": 120, "width": 110}}),
    "ConditionalDetr": ("ConditionalDetr", {"size": {"shortest_edge": 80, "longest_edge": 133}}),
    "DeformableDetr": ("DeformableDetr", {"size": {"shortest_edge": 80, "longest_edge": 133}}),
    "RTDetr": ("RTDetr", {}),
    "RTDetr, normalised": ("RTDetr", {"size": {"height": 64, "width": 96}, "do_normalize": True}),
}


def processor(kind: str, **settings: Any) -> Any:
    return getattr(transformers, f"{kind}ImageProcessorPil")(**settings)


def images(mode: str = "RGB") -> list[Image.Image]:
    """Noise with a gradient, so that neither a shift nor another filter goes unnoticed."""
    found = []
    for place, (width, height) in enumerate(SIZES):
        noise = np.random.default_rng(place).integers(0, 128, (height, width, 3)) + np.linspace(0, 127, width)[None, :, None]
        found.append(Image.fromarray(noise.astype(np.uint8)).convert(mode))
    return found


@pytest.mark.parametrize(("kind", "settings"), CASES.values(), ids=CASES)
def test_pixels_are_those_of_the_models_own_processor(kind: str, settings: dict[str, Any]) -> None:
    theirs = processor(kind, **settings)
    ours = Pixels(json.loads(theirs.to_json_string()), channels=3)
    for image in images():
        expected = theirs(images=image, return_tensors="np")["pixel_values"][0]
        fitted = ours.fitted(image)
        assert not isinstance(fitted, str)
        found = ours.batch([fitted])["pixel_values"][0]
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        assert ours.shape in {None, found.shape[1:]}
    assert (ours.shape is None) == (len({ours.pixels(image).shape for image in images()}) > 1)


def test_every_known_kind_is_compared() -> None:
    assert {kind for kind, _ in CASES.values()} == set(KINDS)


def test_the_page_names_every_known_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    assert f"its processors {', '.join(list(KINDS)[:-1])} and {list(KINDS)[-1]} do." in " ".join(page.split())


@pytest.mark.parametrize("kind", ["Detr", "ConditionalDetr", "DeformableDetr"])
def test_a_batch_of_several_sizes_is_padded_and_masked_alike(kind: str) -> None:
    theirs = processor(kind, size={"shortest_edge": 80, "longest_edge": 133})
    ours = Pixels(json.loads(theirs.to_json_string()), channels=3)
    expected = theirs(images=images(), return_tensors="np")
    found = ours.batch([fitted for image in images() if not isinstance(fitted := ours.fitted(image), str)])
    for name in ("pixel_values", "pixel_mask"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_models_of_one_channel_get_gray() -> None:
    theirs = processor("ViT", size={"height": 28, "width": 28}, image_mean=[0.3], image_std=[0.2])
    ours = Pixels(json.loads(theirs.to_json_string()), channels=1)
    for image, gray in zip(images(), images("L"), strict=True):
        expected = theirs(images=gray, return_tensors="np", input_data_format=None)["pixel_values"][0]
        np.testing.assert_array_equal(ours.pixels(gray), expected)
        np.testing.assert_array_equal(ours.pixels(image), expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_an_old_file_leaves_out_is_what_its_processor_does(kind: str) -> None:
    """Files of before 2022 have numbers as sizes, and say neither what is done nor how it is resampled."""
    size = {"height": 48, "width": 48} if KINDS[kind].square or kind == "RTDetr" else {"shortest_edge": 48}
    theirs = processor(kind, size={**size, "longest_edge": 1333} if KINDS[kind].pads else size)
    old = {
        "feature_extractor_type": f"{kind}FeatureExtractor",
        "size": size if kind == "RTDetr" else 48,
        "max_size": 1333 if KINDS[kind].pads else None,
    }
    old |= {name: list(getattr(theirs, name)) for name in ("image_mean", "image_std") if KINDS[kind].normalizes}
    old |= {"crop_size": theirs.crop_size["height"]} if KINDS[kind].crops else {}
    for image in images():
        np.testing.assert_array_equal(Pixels(old, 3).pixels(image), theirs(images=image, return_tensors="np")["pixel_values"][0])


def test_it_is_read_from_a_models_folder(tmp_path: Path) -> None:
    processor("ViT", size={"height": 16, "width": 16}, image_mean=[0.5], image_std=[0.5]).save_pretrained(tmp_path)
    transformers.ResNetConfig(num_channels=1).save_pretrained(tmp_path)
    assert Pixels.read(tmp_path).pixels(images()[0]).shape == (1, 16, 16)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(BadData, match=r"does not say how its images are prepared.*there is no preprocessor_config\.json"):
        Pixels.read(tmp_path)


@pytest.mark.parametrize("kind", sorted(UNNAMED))
def test_a_file_that_names_no_processor_is_for_its_models_type(tmp_path: Path, kind: str) -> None:
    """As google/vit-base-patch16-224 has it, which is read by way of config.json."""
    old = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 24, "crop_size": 24}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert type(theirs) is type(processor(UNNAMED[kind]))
    ours = Pixels.read(tmp_path)
    if kind == "vit":
        for image in images():
            np.testing.assert_array_equal(ours.pixels(image), theirs(images=image, return_tensors="np")["pixel_values"][0])


def test_the_channels_of_a_backbone_are_found(tmp_path: Path) -> None:
    processor("RTDetr").save_pretrained(tmp_path)
    backbone = transformers.RTDetrResNetConfig(num_channels=3, embedding_size=8, hidden_sizes=[8], depths=[1], out_features=["stage1"])
    transformers.RTDetrConfig(backbone_config=backbone).save_pretrained(tmp_path)
    assert Pixels.read(tmp_path).channels == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"image_processor_type": "YolosImageProcessor"}, "its processor is YolosImageProcessor.*known are ViT, .*RTDetr"),
        ({}, "its processor is not named"),
        ({"image_processor_type": "ViTImageProcessor"}, "size"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 8}}, "no size"),
        ({"image_processor_type": "ViTImageProcessor", "size": 10**9}, "sides are"),
        ({"image_processor_type": "ViTImageProcessor", "size": "large"}, "AttributeError"),
        ({"image_processor_type": "ViTImageProcessor", "size": 8}, "image_mean"),
        ({"image_processor_type": "ViTImageProcessor", "size": 8, "image_mean": [0.5], "image_std": [0.5, 0.5, 0.5]}, "1 channels, the model has 3"),
        ({"image_processor_type": "ViTImageProcessor", "size": 8, "image_mean": 0.5, "image_std": 0}, "zero"),
        ({"image_processor_type": "ViTImageProcessor", "size": 8, "resample": 99, "do_normalize": False}, "99"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 8, "crop_pct": float("nan"), "do_normalize": False}, "crop_pct"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 8, "crop_pct": 1e-320, "do_normalize": False}, "crop_pct"),
        (["ViTImageProcessor"], "JSON list"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(config: Any, words: str) -> None:
    with pytest.raises(BadData, match=words) as caught:
        Pixels(config, channels=3)
    assert caught.value.remedy or words.startswith("JSON")


def test_a_processor_that_is_not_known_is_said_before_weights_are_loaded(tmp_path: Path) -> None:
    transformers.YolosConfig().save_pretrained(tmp_path)
    processor("Yolos").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not looked at")
    model: Any = SimpleNamespace(path=tmp_path, digest="a model", files=[])
    with pytest.raises(BadData, match="images cannot be prepared for this model"):
        models.load(tasks.of("object-detection", Export(model="m", parity="d")), model, None, torch.float32)


def test_channels_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "size": 8}))
    for channels in ([3], "3", 2):
        (tmp_path / "config.json").write_text(json.dumps({"num_channels": channels}))
        with pytest.raises(BadData, match="cannot be prepared"):
            Pixels.read(tmp_path)


def test_an_image_that_a_resize_would_blow_up_is_a_fault() -> None:
    ours = Pixels(json.loads(processor("CLIP").to_json_string()), channels=3)
    found = ours.fitted(Image.new("RGB", (1, 60_000)))
    assert isinstance(found, str)
    assert "would become 224 x 13440000" in found
    with pytest.raises(BadData, match="would become"):
        ours.pixels(Image.new("RGB", (1, 60_000)))


def test_an_image_larger_than_what_it_is_padded_to_is_a_fault() -> None:
    settings = {"size": {"shortest_edge": 60, "longest_edge": 100}, "pad_size": {"height": 70, "width": 70}}
    found = Pixels(json.loads(processor("Detr", **settings).to_json_string()), channels=3).fitted(Image.new("RGB", (200, 100)))
    assert found == "the image is larger than the 70 x 70 that the model takes"
