"""Pictures with a few things on them, as a data set in COCO's format, and a detector small enough to learn them on one core."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Things = Sequence[tuple[NDArray[np.uint8], int]]
"""(gray picture of a thing on black, its class)."""
SIDE = 64


def shapes(count: int = 40, seed: int = 0) -> Things:
    """Two classes: filled squares, and crosses."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        size = int(rng.integers(16, 28))
        thing = np.zeros((28, 28), dtype=np.uint8)
        if number % 2:
            thing[:size, size // 3 : 2 * size // 3] = thing[size // 3 : 2 * size // 3, :size] = 220
        else:
            thing[:size, :size] = 150
        found.append((thing, number % 2))
    return found


def compose(things: Things, count: int, seed: int, side: int = SIDE) -> Iterator[tuple[NDArray[np.uint8], list[tuple[list[int], int]]]]:
    """(picture (side, side), its (tight box, class)), each with one or two things that do not overlap."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        picture = np.zeros((side, side), dtype=np.uint8)
        objects: list[tuple[list[int], int]] = []
        for _ in range(int(rng.integers(1, 3))):
            thing, label = things[int(rng.integers(len(things)))]
            rows, columns = (np.flatnonzero((thing > 20).any(axis)) for axis in (1, 0))
            tight = thing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            high, wide = tight.shape
            for _ in range(20):  # a place where nothing is yet, if there is one
                y, x = (int(rng.integers(0, side - length + 1)) for length in (high, wide))
                if not picture[y : y + high, x : x + wide].any():
                    picture[y : y + high, x : x + wide] = tight
                    objects.append(([x, y, wide, high], label))
                    break
        yield picture, objects


def dataset(splits: Mapping[str, Iterator[tuple[NDArray[np.uint8], list[tuple[list[int], int]]]]], names: Sequence[str]) -> dict[str, bytes]:
    """The files of a data set in COCO's format."""
    files = {}
    for split, scenes in splits.items():
        images, annotations = [], []
        for number, (picture, objects) in enumerate(scenes):
            file = io.BytesIO()
            Image.fromarray(picture).convert("RGB").save(file, "PNG")
            files[f"{split}/{number:05d}.png"] = file.getvalue()
            images.append({"id": number, "file_name": f"{number:05d}.png", "width": picture.shape[1], "height": picture.shape[0]})
            for box, label in objects:
                annotations.append({"id": len(annotations), "image_id": number, "category_id": label, "bbox": box})
        categories = [{"id": label, "name": name} for label, name in enumerate(names)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        files[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
    return files


def detector(folder: Path, names: Sequence[str], seed: int = 0, classifier: tuple[Things, int] | None = None) -> Path:
    """Save an RT-DETR of 0.7 million weights. classifier: things to teach its backbone to tell apart first, and for how many steps."""
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessor, RTDetrResNetConfig

    torch.manual_seed(seed)
    backbone = RTDetrResNetConfig(
        embedding_size=24,  # with basic layers it has to be the first of the hidden sizes
        hidden_sizes=[24, 32, 64, 96],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[32, 64, 96],
        feat_strides=[8, 16, 32],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        d_model=64,
        decoder_in_channels=[64, 64, 64],
        num_queries=20,
        decoder_layers=2,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        num_denoising=20,
        freeze_backbone_batch_norms=False,  # weights are random: their statistics have to be learnt
        hidden_expansion=0.5,
        id2label=dict(enumerate(names)),
        label2id={name: place for place, name in enumerate(names)},
    )
    model = RTDetrForObjectDetection(config)
    if classifier is not None:
        _teach(model.model.backbone.model, *classifier, classes=len(names), seed=seed)
    model.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def _teach(backbone, things: Things, steps: int, *, classes: int, seed: int) -> None:
    """Train the backbone to classify single things, somewhere on an empty picture of half the side."""
    import torch

    rng = np.random.default_rng(seed)
    head = torch.nn.Linear(96, classes)
    weights = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    backbone.train()
    for _ in range(steps):
        chosen = rng.integers(0, len(things), 64)
        pictures = torch.from_numpy(np.stack([np.pad(things[place][0], 2) for place in chosen]).astype(np.float32) / 255)
        features = backbone(pictures[:, None].expand(-1, 3, -1, -1)).feature_maps[-1].mean((2, 3))
        loss = torch.nn.functional.cross_entropy(head(features), torch.tensor([things[place][1] for place in chosen]))
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    backbone.eval()
