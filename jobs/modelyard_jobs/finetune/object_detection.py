"""Object detection as the loop's Objective: the model's own loss to train, AP50 to choose by.

The loss is what transformers' class of the model says: found boxes are assigned to true ones, then classes and boxes are compared, with the weights
in its config.json. It is a mean over true boxes, so the loop's items are boxes: times their number it is a sum, and steps of several passes weigh
each box alike, and images without any as if they were in one pass with the others. (DETR's part for classes is a mean over queries; there passes with
more boxes weigh more.)
Batch norms that the model freezes stay frozen; which ones, its config.json says. Crowds are no target.
Images (images.py) are not altered: no flips, no crops. A broken one is left out of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard.errors import BadData, Usage
from modelyard_jobs import batching
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.images import Images
from modelyard_jobs.finetune.loop import Batch, Score, tensors, to_device
from modelyard_jobs.finetune.order import Rows
from modelyard_jobs.metrics import boxes
from modelyard_jobs.metrics.boxes import Boxes
from modelyard_jobs.models import Loaded
from modelyard_jobs.pixels import PATCH, Pixels, patches
from modelyard_jobs.tasks.object_detection import ObjectDetection as Task
from modelyard_jobs.tasks.object_detection import boxes_of
from modelyard_jobs.tasks.objects import clipped
from modelyard_jobs.tasks.task import Item

Targets = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Of an image its labels, (boxes,), and boxes, (boxes, 4): centre, width and height as shares of the image."""

_TARGETS = ("class_labels", "boxes", "counts")
_READ = 64
"""Images that are held at once outside of a batch."""


class ObjectDetection:
    """Train on some rows, validate on others, which may be none."""

    chosen_by = "validation AP50"

    def __init__(self, task: Task, loaded: Loaded, train: Examples, validation: Examples, max_length: int) -> None:
        """Raises Usage: what the loss needs is not installed; BadData: there is nothing to learn from."""
        if find_spec("scipy") is None:
            why = "found boxes are assigned to true ones with it"
            raise Usage("the package 'scipy' is not installed", why=why, remedy="pip install scipy")
        if not any((~truth.crowd).any() for truth in train.truths):
            raise BadData(f"none of the {len(train)} training rows has a box", where=f"column {train.columns['objects']}", remedy="raise train_rows")
        self.task, self.encoder, self.labels = task, cast(Pixels, loaded.encoder), loaded.labels
        self.train, self.held_out = (_Boxed(task, self.encoder, part, max_length) for part in (train, validation))
        self.rows = train.rows
        self.lengths = self.train.sizes()
        self.truncated = {"train": 0, "validation": 0}

    @property
    def broken(self) -> dict[str, int]:
        """Split -> images that could not be decoded so far."""
        return {"train": len(self.train.broken), "validation": len(self.held_out.broken)}

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """The images with `class_labels` (boxes,), `boxes` (boxes, 4; centre, width and height as shares of the image) and `counts` of each image."""
        return self._batch(list(self.train.boxed(rows).values()))

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The model's loss, summed over boxes; NaN where the model gives boxes that are none, as one does that diverges."""
        try:
            return self._forward(model, batch).loss * max(1, len(batch["boxes"]))
        except ValueError as error:
            if "corner) format" in str(error) or "invalid numeric entries" in str(error):
                return torch.full((), torch.nan, device=batch["boxes"].device, requires_grad=True)
            raise

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """AP50, and the mean loss over boxes; broken images are left out."""
        device = next(model.parameters()).device.type
        truths, answers = list[Boxes](), list[Boxes]()
        loss = total = 0.0
        for start in range(0, len(self.held_out.examples), _READ):
            images = self.held_out.boxed(np.arange(start, min(start + _READ, len(self.held_out.examples))))
            places = [place for place in images if place not in self.held_out.broken]
            for part in batching.plan([images[place][0].size for place in places], tokens):
                pause()
                chosen = [images[places[number]] for number in part]
                items = [item for item, _ in chosen]
                batch, count = self._batch(chosen)
                found = self._forward(model, to_device(batch, device))
                loss, total = loss + float(found.loss) * max(1.0, count), total + count
                raws = self.task.raws({name: getattr(found, name).float().cpu().numpy() for name in self.task.outputs}, items)
                answers += [boxes_of(answer, self.labels) for answer in self.task.answers(raws, items, self.labels)]
                truths += [self.held_out.examples.truths[places[number]] for number in part]
        if not truths:
            return None
        ap50 = boxes.ap50(truths, answers, len(self.labels))
        return Score(ap50, loss / max(1.0, total), {"ap50": ap50})

    def _forward(self, model: nn.Module, batch: Batch) -> Any:
        inputs = {name: tensor for name, tensor in batch.items() if name not in _TARGETS}
        counts = batch["counts"].tolist()
        parts = zip(batch["class_labels"].split(counts), batch["boxes"].split(counts), strict=True)
        return model(**inputs, labels=[{"class_labels": labels, "boxes": each} for labels, each in parts])

    def _batch(self, images: Sequence[tuple[Item, Targets]]) -> tuple[Batch, float]:
        batch = tensors(self.task.collate([item for item, _ in images], self.encoder))
        batch["class_labels"] = torch.from_numpy(np.concatenate([labels for _, (labels, _) in images]))
        batch["boxes"] = torch.from_numpy(np.concatenate([each for _, (_, each) in images]))
        batch["counts"] = torch.tensor([len(labels) for _, (labels, _) in images])
        return batch, float(len(batch["boxes"]))


class _Boxed(Images):
    """Images with their targets."""

    def __init__(self, task: Task, encoder: Pixels, examples: Examples, max_length: int) -> None:
        super().__init__(task, encoder, examples, max_length)
        self._known: dict[int, Targets] = {}

    def boxed(self, places: Rows) -> dict[int, tuple[Item, Targets]]:
        """Place -> image and targets, without broken ones; a blank where all are.

        Raises BadData: too many are broken, or a box reaches out of its image.
        """
        found = {place: (item, self._targets(place, item.about)) for place, item in self.at(places).items()}
        return found or {int(places[0]): self._blank()}

    def sizes(self) -> NDArray[np.int64]:
        """Patches of each. Only where images keep their ratio of sides need they be read for it."""
        if self.encoder.shape is not None:
            return np.full(len(self.examples), patches(*self.encoder.shape), dtype=np.int64)
        found = np.ones(len(self.examples), dtype=np.int64)
        for start in range(0, len(found), _READ):
            for place, (item, _) in self.boxed(np.arange(start, min(start + _READ, len(found)))).items():
                found[place] = item.size
        return found

    def _targets(self, place: int, size: tuple[int, int]) -> Targets:
        if place not in self._known:
            self._known[place] = self._target(place, size)
        return self._known[place]

    def _target(self, place: int, size: tuple[int, int]) -> Targets:
        truth = self.examples.truths[place]
        kept = np.empty((len(truth.labels), 4))
        for number, box in enumerate(truth.boxes.tolist()):
            inside = clipped(box, *size)
            if isinstance(inside, str):
                where = f"row {self.examples.rows[place]}, counted from 0, box {box}"
                raise BadData("a box cannot be used", where=where, why=inside, remedy="mend it, or take it out")
            kept[number] = inside
        single = ~truth.crowd
        corner, extent = kept[single, :2], kept[single, 2:]
        return truth.labels[single], (np.hstack([corner + extent / 2, extent]) / np.tile(size, 2)).astype(np.float32)

    def _blank(self) -> tuple[Item, Targets]:
        height, width = self.encoder.shape or (PATCH, PATCH)
        image = np.zeros((self.encoder.channels, height, width), dtype=np.uint8)
        return Item(patches(height, width), image, about=(width, height)), (np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32))
