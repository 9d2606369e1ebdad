"""What tasks share whose answer is one label of a list, with a probability for each. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.metrics import calibration, classification
from modelyard_jobs.metrics.interval import Metric, paired_difference, wilson
from modelyard_jobs.tasks import columns
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Measured, Truths

MAIN = "accuracy"
TOP = 5
"""Rows count as nearly right where the true label is among so many of the likeliest; measured where there are more labels than that."""


class OneLabel:
    """Measuring and recording; what differs between texts and images is their own."""

    labelled = True
    dense = True
    outputs = ("logits",)

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[NDArray[np.float32]]:
        """The logits of each item, (labels,)."""
        return list(outputs["logits"])

    def answers(self, raws: Sequence[NDArray[np.float32]], items: Sequence[Item], labels: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities, (items, labels). Raises BadData: the scores are not as many as the labels."""
        logits = np.stack(raws)
        columns.check_scores(logits.shape[1], labels)
        return probabilities(logits)

    def label_names(self, dataset: Any, columns_: Mapping[str, str]) -> list[str]:
        """The labels of the data."""
        return columns.label_names(dataset, columns_["label"])

    def truths(self, dataset: Any, columns_: Mapping[str, str], labels: Sequence[str]) -> NDArray[np.int64]:
        """Ids of the labels."""
        return columns.label_ids(dataset, columns_["label"], labels)

    def measure(self, truths: Truths, answers: Answers, labels: Sequence[str]) -> Measured:
        """Accuracy first; precision, recall and F1 macro and weighted, of each class, the confusion matrix, and calibration."""
        true, shares = np.asarray(truths, dtype=np.int64), np.asarray(answers)
        predicted = shares.argmax(1)
        found = asdict(classification.classification(classification.confusion(true, predicted, len(labels)), labels, self.settings.seed))
        metrics = {name: Metric(**metric) for name, metric in found.pop("metrics").items()}
        if len(labels) > TOP:
            metrics[f"accuracy_top{TOP}"] = wilson(int(_near(true, shares).sum()), len(true))
        right = predicted == true
        found["calibration"] = asdict(calibration.calibration(shares.max(1), right, self.settings.seed))
        wrong = np.flatnonzero(~right)
        return Measured(MAIN, metrics, right, wrong[np.argsort(-shares.max(1)[wrong], kind="stable")], found)

    def differences(self, truths: Truths, first: Answers, second: Answers, labels: Sequence[str]) -> dict[str, Metric]:
        """Accuracies by the paired difference of proportions, the others by a paired bootstrap of rows."""
        true, shares = np.asarray(truths, dtype=np.int64), [np.asarray(answers) for answers in (first, second)]
        predicted = [each.argmax(1) for each in shares]
        found = classification.differences(true, predicted[0], predicted[1], len(labels), self.settings.seed)
        if len(labels) > TOP:
            near, was_near = (_near(true, each) for each in shares)
            paired = paired_difference(int((near & ~was_near).sum()), int((was_near & ~near).sum()), len(true))
            found[f"accuracy_top{TOP}"] = Metric(**vars(paired), interval="agresti-min")
        return found

    def compared(self, truth: Any, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """True and predicted label, and the probabilities in the order of the labels, 6 digits."""
        guess = int(np.argmax(answer))
        return {"true": labels[int(truth)], "predicted": labels[guess], "probabilities": np.asarray(answer, dtype=float).round(6).tolist()}


def _near(true: NDArray[np.int64], shares: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of each row whether fewer than TOP labels are likelier than the true one; of equally likely ones the first go before, as for the best."""
    own = shares[np.arange(len(true)), true][:, None]
    before = (shares > own) | ((shares == own) & (np.arange(shares.shape[1]) < true[:, None]))
    near: NDArray[np.bool_] = before.sum(1) < TOP
    return near


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax of each row, computed in float64; a row with a logit that is no number has none either."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        shares: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return shares
