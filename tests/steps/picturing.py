"""Folders of images, and tiny classifiers with random weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png(pixels: NDArray[np.uint8] | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """An encoded image."""
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, format, **options)
    return file.getvalue()


def folder(images: NDArray[np.uint8], labels: NDArray[Any], names: tuple[str, ...], split: str) -> dict[str, bytes]:
    """Path -> PNG, as `train/name/00017.png`."""
    return {f"{split}/{names[label]}/{place:05d}.png": png(image) for place, (image, label) in enumerate(zip(images, labels, strict=True))}


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's 1,797 digits: images (n, 8, 8), and what they show."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images * 15.9).astype(np.uint8), found.target


def tiny_resnet(path: Path, *, side: int, channels: int = 1, seed: int = 0, labels: tuple[str, ...] = ()) -> Path:
    """Save a ResNet of three blocks and 78,000 random weights, with its preprocessing; with `labels` a head for them counts as trained."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}} if labels else {}
    config = ResNetConfig(
        num_channels=channels, embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic", **(named or {"num_labels": 10})
    )
    ResNetForImageClassification(config).save_pretrained(path)
    size = {"height": side, "width": side}
    ViTImageProcessorPil(size=size, image_mean=[0.5] * channels, image_std=[0.5] * channels).save_pretrained(path)
    return path
