"""Batches of other shapes, made from real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard_jobs.export import shapes
from modelyard_jobs.tasks.task import Item, Signature

AXES = ("batch", "sequence")
TEXT = Signature(dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), AXES), {"logits": ("batch", 3)})
IMAGE = Signature({"pixel_values": ("batch", "channels", "height", "width"), "pixel_mask": ("batch", "height", "width")}, {"logits": ("batch", 3)})


def text() -> dict[str, np.ndarray]:
    return {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.array([[1, 1, 1]])}


def test_a_signature_has_the_inputs_that_a_batch_has() -> None:
    assert shapes.signature_of(TEXT, text(), sized=False).inputs == {"input_ids": AXES, "attention_mask": AXES}


def test_channels_and_what_cannot_move_become_numbers() -> None:
    batch = {"pixel_values": np.zeros((2, 1, 32, 48), dtype=np.float32)}
    assert shapes.signature_of(IMAGE, batch, sized=True).inputs == {"pixel_values": ("batch", 1, "height", "width")}
    assert shapes.signature_of(IMAGE, batch, sized=False).inputs == {"pixel_values": ("batch", 1, 32, 48)}


def test_a_longer_text_is_a_text_over_and_over() -> None:
    inputs = shapes.signature_of(TEXT, text(), sized=False).inputs
    made = shapes.resized(inputs, text(), {"batch": 2, "sequence": 7})
    assert made["input_ids"].tolist() == [[5, 6, 7, 5, 6, 7, 5]] * 2
    assert shapes.sizes(inputs, made) == {"batch": 2, "sequence": 7}


def test_what_is_traced_is_short_and_has_padding_at_its_end() -> None:
    inputs = shapes.signature_of(TEXT, text(), sized=False).inputs
    made = shapes.to_trace(inputs, text(), 512)
    assert made["input_ids"].shape == (2, 16)
    assert made["attention_mask"].sum() == 31
    assert made["attention_mask"][1, -1] == 0
    assert shapes.to_trace(inputs, text(), 8)["input_ids"].shape == (2, 8)


def test_an_image_of_another_size_keeps_its_mask() -> None:
    batch = {"pixel_values": np.arange(2 * 32 * 32, dtype=np.float32).reshape(2, 1, 32, 32), "pixel_mask": np.ones((2, 32, 32), dtype=np.int64)}
    signature = shapes.signature_of(IMAGE, batch, sized=True)
    made = shapes.other_sizes(signature.inputs, batch)
    assert made["pixel_values"].shape == (1, 1, 96, 64)
    assert made["pixel_mask"].shape == (1, 96, 64)
    assert made["pixel_values"][0, 0, 0, 0] == made["pixel_values"][0, 0, 32, 32] == 0.0


class Collating(SimpleNamespace):
    """What of a task probes are made with; an item's values are its row of the batch."""

    def collate(self, items: list[Item], encoder: Any) -> dict[str, np.ndarray]:
        return {self.name: np.stack([item.values for item in items]), "unasked": np.zeros(1)}


@pytest.mark.parametrize(("side", "rows"), [(16, [1, 2, 5, 32]), (224, [1, 2, 5, 10]), (640, [1, 2, 3, 3]), (1024, [1, 2, 3, 3])])
def test_the_axis_of_rows_is_proven_by_large_images_too(side: int, rows: list[int]) -> None:
    items = [Item((side // 16) ** 2, np.zeros((3, 2, 2), dtype=np.uint8))]
    inputs = {"pixel_values": ("batch", 3, side, side)}
    made: Any = shapes.probes(inputs, Collating(name="pixel_values"), None, items, 256)  # type: ignore[arg-type]
    assert [len(probe["pixel_values"]) for probe in made] == rows
    assert all(list(probe) == ["pixel_values"] for probe in made)


@pytest.mark.parametrize(
    ("length", "tokens"), [(40, [40, 40, 40, 40, 512]), (1000, [1000, 1000, 409, 64, 1000]), (4000, [2048, 1024, 409, 64, 4000])]
)
def test_the_axis_of_rows_is_proven_by_long_texts_too(length: int, tokens: list[int]) -> None:
    items = [Item(length, np.arange(length))]
    made: Any = shapes.probes({"input_ids": AXES}, Collating(name="input_ids"), None, items, 8192)  # type: ignore[arg-type]
    assert [probe["input_ids"].shape for probe in made] == list(zip([1, 2, 5, 32, 1], tokens, strict=True))
