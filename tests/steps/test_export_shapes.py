"""Batches of other shapes, made from real ones."""

from __future__ import annotations

import numpy as np

from modelyard_jobs.export import shapes
from modelyard_jobs.tasks.task import Signature

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
