"""Object detection: one image in, boxes with a label and a score out.

What the model says of each of its queries becomes an answer as transformers' own post-processing has it. Where there is one score more than there
are labels, the last one is `nothing`: scores are a softmax, and a query has one label (DETR, YOLOS). Where there are as many, each is a sigmoid of
its own, and the best pairs of query and label are taken, as many as there are queries (RT-DETR, D-FINE, Deformable and Conditional DETR).
An answer keeps all of them, for evaluate; `threshold` decides which are written and drawn. Images of different sizes are padded in a batch, and a
model that takes a mask is told so. Not covered: masks of objects, boxes asked for in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard_jobs import data_images, pixels
from modelyard_jobs.drawing import Panel, draw
from modelyard_jobs.metrics import boxes
from modelyard_jobs.metrics.boxes import Boxes
from modelyard_jobs.metrics.interval import Metric
from modelyard_jobs.tasks import columns, objects
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Measured, Row, Signature, Truths

OBJECT_NAMES = ("objects", "object", "annotations")
MAIN = "map"


class ObjectDetection:
    """Measurable and Illustrated.

    An answer is `boxes` (x, y, width, height, in pixels of the image), `labels` and `scores`, lists of one length, the surest first.
    """

    name = "object-detection"
    auto = "AutoModelForObjectDetection"
    encoder: Literal["text", "image"] = "image"
    labelled = True
    dense = False
    window = 64  # images wait for their batch as bytes: 3 MB each at the size of DETR
    outputs: tuple[str, ...] = ("logits", "pred_boxes")

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """image; with `truth` also objects."""
        found = {"image": data_images.column(dataset, self.settings.image)}
        return {**found, "objects": columns.find(dataset, "label", self.settings.label, OBJECT_NAMES)} if truth else found

    def unfit(self, config: Any) -> str | None:
        """None: a model that loads as a detector is one."""
        return None

    def fault(self, row: Row) -> str | None:
        """Why the image cannot be used, as far as its first bytes tell, or what is wrong with its boxes, where the row has them."""
        size = pixels.size(row["image"])
        return size if isinstance(size, str) else objects.fault(row.get("objects"), *size)

    def prepare(self, rows: Sequence[Row], encoder: Any, max_length: int) -> list[Item | str]:
        """Items of bytes, (channels, height, width); about: width and height of the image itself."""
        return [self._item(row["image"], encoder) for row in rows]

    def collate(self, items: Sequence[Item], encoder: Any) -> dict[str, NDArray[Any]]:
        """pixel_values, and pixel_mask for a model that takes one."""
        batch: dict[str, NDArray[Any]] = encoder.batch([item.values for item in items])
        return batch

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[dict[str, NDArray[np.float32]]]:
        """Of each image logits (queries, classes) and pred_boxes (queries, 4), centre x, centre y, width and height as shares of the image."""
        return [{name: outputs[name][place] for name in self.outputs} for place in range(len(items))]

    def answers(self, raws: Sequence[Any], items: Sequence[Item], labels: Sequence[str]) -> list[Any]:
        """Hundredths of a pixel, and scores with 6 digits."""
        return [
            _answer(raw["logits"].astype(np.float64), raw["pred_boxes"].astype(np.float64), item.about, labels)
            for raw, item in zip(raws, items, strict=True)
        ]

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """`objects`, those with a score of `threshold` at least: category, score, bbox."""
        found = self._found(answer, labels)
        listed = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        return {"objects": [{"category": labels[label], "score": score, "bbox": box} for label, score, box in listed]}

    def empty(self) -> dict[str, Any]:
        """No objects is a list without any; no answer is none."""
        return {"objects": None}

    def signature(self, labels: Sequence[str]) -> Signature:
        """pixel_values, and for a model that is told of padding pixel_mask, to logits and pred_boxes."""
        inputs: dict[str, tuple[str | int, ...]] = {
            "pixel_values": ("batch", "channels", "height", "width"),
            "pixel_mask": ("batch", "height", "width"),
        }
        return Signature(inputs, {"logits": ("batch", "queries", "classes"), "pred_boxes": ("batch", "queries", 4)})

    def label_names(self, dataset: Any, columns_: Mapping[str, str]) -> list[str]:
        """The categories."""
        return objects.label_names(dataset, columns_["objects"])

    def truths(self, dataset: Any, columns_: Mapping[str, str], labels: Sequence[str]) -> list[Boxes]:
        """The boxes of each image."""
        return objects.truths(dataset, columns_["objects"], labels)

    def measure(self, truths: Truths, answers: Answers, labels: Sequence[str]) -> Measured:
        """The mean AP over overlaps first; AP50 and AP75, each class, and curves.

        An image is right when at `threshold` all of its boxes are found at IoU 0.5, and no other. The worst have the most that is wrong: missed
        boxes, and the scores of boxes that should not be there. Raises BadData: no image has a box.
        """
        if not any((~truth.crowd).any() for truth in truths):
            raise BadData("no image has a box", why="average precision is a statement about boxes", remedy="take a split whose images have objects")
        matches = boxes.match(list(truths), [boxes_of(answer, labels) for answer in answers], len(labels))
        found = boxes.measure(matches, labels, self.settings.seed)
        missed, false = boxes.errors(matches, self.settings.threshold)
        wrong = np.flatnonzero(missed + false)
        worst = wrong[np.argsort(-(missed + false)[wrong], kind="stable")]
        document = {
            "classes": [asdict(scores) for scores in found.classes],
            "curves": [asdict(curve) for curve in found.curves],
            "threshold": self.settings.threshold,
            "boxes": {"true": int(matches.true.sum()), "missed": int(missed.sum())},
        }
        return Measured(MAIN, found.metrics, missed + false == 0, worst, document)

    def differences(self, truths: Truths, first: Answers, second: Answers, labels: Sequence[str]) -> dict[str, Metric]:
        """By a paired bootstrap of images."""
        one, other = (boxes.match(list(truths), [boxes_of(answer, labels) for answer in answers], len(labels)) for answers in (first, second))
        return boxes.differences(one, other, self.settings.seed)

    def compared(self, truth: Any, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """What is true and what was predicted, lists of objects; predicted are those with a score of `threshold` at least."""
        listed = zip(truth.labels.tolist(), truth.boxes.round(2).tolist(), truth.crowd.tolist(), strict=True)
        true = [{"category": labels[label], "bbox": box, "iscrowd": crowd} for label, box, crowd in listed]
        return {"true": true, "predicted": self.record(answer, labels)["objects"]}

    def picture(self, row: Row, answer: Any, truth: Any | None, labels: Sequence[str]) -> bytes:
        """The boxes that are written, beside the true ones where they are known."""
        image = pixels.opened(row["image"])
        if isinstance(image, str):
            raise BadData("an image that was read before cannot be read", why=image)
        panels = [Panel(f"predicted, score {self.settings.threshold:g} or more", self._found(answer, labels), scored=True)]
        return draw(image, panels if truth is None else [*panels, Panel("true", truth, scored=False)], labels)

    def _item(self, value: Any, encoder: Any) -> Item | str:
        image = pixels.opened(value)
        if isinstance(image, str):
            return image
        fitted = encoder.fitted(image)
        if isinstance(fitted, str):
            return fitted
        return Item(pixels.patches(*fitted.shape[1:]), fitted, about=image.size)

    def _found(self, answer: Any, labels: Sequence[str]) -> Boxes:
        found = boxes_of(answer, labels)
        sure = found.scores >= self.settings.threshold
        return Boxes(found.boxes[sure], found.labels[sure], found.scores[sure], found.crowd[sure])


def boxes_of(answer: Mapping[str, Any] | None, labels: Sequence[str]) -> Boxes:
    """The boxes of an answer, in ids of `labels`; none of one that is None."""
    places = {name: place for place, name in enumerate(labels)}
    return Boxes.of([], []) if answer is None else Boxes.of(answer["boxes"], [places[name] for name in answer["labels"]], answer["scores"])


def _answer(logits: NDArray[np.float64], shares: NDArray[np.float64], size: tuple[int, int], labels: Sequence[str]) -> dict[str, Any] | None:
    if not (np.isfinite(logits).all() and np.isfinite(shares).all()):
        return None
    queries, classes = logits.shape
    if classes == len(labels) + 1:
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        of_query = (exponents / exponents.sum(1, keepdims=True))[:, :-1]
        ids, scores = of_query.argmax(1), of_query.max(1)
        order = np.argsort(-scores, kind="stable")
        query, ids, scores = order, ids[order], scores[order]
    elif classes == len(labels):
        flat = (1 / (1 + np.exp(-np.clip(logits, -500, 500)))).ravel()
        best = np.argsort(-flat, kind="stable")[:queries]
        query, ids, scores = best // classes, best % classes, flat[best]
    else:
        raise BadData(f"the model gives {classes} scores for {len(labels)} labels", remedy="its config.json names other labels than it has")
    centre, extent = shares[query, :2], shares[query, 2:]
    found = np.hstack([centre - extent / 2, extent]) * np.tile(size, 2)
    return {"boxes": found.round(2).tolist(), "labels": [labels[label] for label in ids], "scores": scores.round(6).tolist()}
