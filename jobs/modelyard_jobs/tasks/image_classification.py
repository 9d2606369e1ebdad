"""Image classification: one image in, one label of a fixed list out.

Not covered: several labels per image, models whose images have sizes of their own.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data_images, pixels
from modelyard_jobs.pixels import Pixels
from modelyard_jobs.tasks import columns
from modelyard_jobs.tasks.one_label import OneLabel
from modelyard_jobs.tasks.task import Item, Row, Signature

_SHOWN = 192
_FONT, _LETTERS = 14, 40


class ImageClassification(OneLabel):
    """The task."""

    name = "image-classification"
    auto = "AutoModelForImageClassification"
    encoder: Literal["text", "image"] = "image"
    window = 512  # 77 MB of images of 224 x 224 that wait for their batch

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """`image`, and `label`."""
        found = {"image": data_images.column(dataset, self.settings.image)}
        return {**found, "label": columns.label(dataset, self.settings.label)} if truth else found

    def unfit(self, config: Any) -> str | None:
        """One label per image, of two at least."""
        single = config.problem_type in {None, "single_label_classification"} and config.num_labels >= 2
        return None if single else f"{config.problem_type}, {config.num_labels} labels: it is no classifier with one label per image"

    def fault(self, row: Row) -> str | None:
        """An image that is missing, too large, or none at all; that one is cut short is seen when it is decoded."""
        return pixels.fault(row["image"])

    def prepare(self, rows: Sequence[Row], encoder: Pixels, max_length: int) -> list[Item | str]:
        """Bytes (channels, height, width), all of one size. Raises BadData: the model does not say which."""
        if encoder.shape is None:
            remedy = "do_center_crop with a crop_size, or a size of height and width, in preprocessor_config.json"
            raise BadData("images of different sizes cannot share a batch", why="the model's preprocessing keeps their ratio of sides", remedy=remedy)
        size = pixels.patches(*encoder.shape)
        found: list[Item | str] = []
        for row in rows:
            image = pixels.opened(row["image"])
            fitted = image if isinstance(image, str) else encoder.fitted(image)
            found.append(fitted if isinstance(fitted, str) else Item(size, fitted))
        return found

    def collate(self, items: Sequence[Item], encoder: Pixels) -> dict[str, NDArray[Any]]:
        """pixel_values (images, channels, height, width)."""
        return {"pixel_values": encoder.batch([item.values for item in items])["pixel_values"]}

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The best label and its probability, 6 digits; `top`: the `top_k` best ones."""
        best = np.argsort(-np.asarray(answer), kind="stable")[: self.settings.top_k]
        top = [{"label": labels[place], "score": round(float(answer[place]), 6)} for place in best]
        return {**top[0], "top": top}

    def empty(self) -> dict[str, Any]:
        """No label, no score."""
        return {"label": None, "score": None, "top": []}

    def signature(self, labels: Sequence[str]) -> Signature:
        """Of pixels: logits of each label."""
        return Signature({"pixel_values": ("batch", "channels", "height", "width")}, {"logits": ("batch", len(labels))})

    def picture(self, row: Row, answer: Any, truth: Any | None, labels: Sequence[str]) -> bytes:
        """The image, small, above what is said of it and what is true."""
        from PIL import Image, ImageDraw, ImageFont

        image = pixels.opened(row["image"])
        if isinstance(image, str):
            raise BadData("an image that was read cannot be read again", why=image)
        factor = _SHOWN / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.convert("RGB").resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)
        best = int(np.argmax(answer))
        lines = [f"{_written(labels, best)}, {float(answer[best]):.2f}"] + ([] if truth is None else [f"true: {_written(labels, int(truth))}"])
        font = ImageFont.load_default(_FONT)
        width = max(size[0], *(int(font.getlength(line)) + 8 for line in lines))
        sheet = Image.new("RGB", (width, size[1] + len(lines) * (_FONT + 6) + 2), "white")
        sheet.paste(image, ((width - size[0]) // 2, 0))
        pen = ImageDraw.Draw(sheet)
        for place, line in enumerate(lines):
            pen.text((4, size[1] + 2 + place * (_FONT + 6)), line, fill="black", font=font)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()


def _written(labels: Sequence[str], place: int) -> str:
    """A label as Pillow's own font can write it, shortened."""
    return labels[place][:_LETTERS] if labels[place].isascii() else f"class {place}"
