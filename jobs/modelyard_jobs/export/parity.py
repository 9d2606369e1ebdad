"""Whether an engine answers as another one does. Pure numpy.

The tolerance is relative to the logits' scale, since that is how float32 rounds: 1e-4 of the largest logit is some hundred times what two orders of
summation differ by, and far under what moves a probability that anybody reads.
Labels follow by arithmetic: where the two best logits of a row lie further apart than twice the largest difference, no label can change. What the
tolerance bounds is therefore also which labels may differ; `close` counts those rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit."""

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """Two engines on the same rows.

    max_abs: largest difference of a logit. scale: the largest logit of the reference, without its sign. max_rel: largest difference of a row as a
    share of that row's largest logit. agreement: share of rows with the same label. close: rows whose margin is no more than twice max_abs, the only
    ones whose label may differ. tolerance: for max_abs.
    """

    rows: int
    max_abs: float
    max_rel: float
    scale: float
    agreement: float
    close: int
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the engines answer alike."""
        return self.max_abs <= self.tolerance

    def enforce(self) -> None:
        """Raise BadData where it does not hold: the model and its export are not the same function."""
        if not self.holds:
            why = f"logits differ by {self.max_abs:.2e}, where {self.tolerance:.2e} is tolerated; {self.agreement:.1%} of the labels are equal"
            remedy = "nothing is kept; use the model with the engine torch"
            raise BadData("the exported model does not answer as the model does", why=why, remedy=remedy)


def compare(reference: Logits, found: Logits) -> Parity:
    """Both (rows, labels). Raises BadData: an engine gave no number for a row."""
    for name, logits in {"the model": reference, "the exported model": found}.items():
        if broken := int((~np.isfinite(logits).all(1)).sum()):
            raise BadData(f"{name} gave no number for {broken} of {len(logits)} rows", remedy="finetune it again")
    exact = reference.astype(np.float64)
    difference = np.abs(found - exact).max(1)
    sizes = np.abs(exact).max(1)
    ordered = np.sort(exact, axis=1)
    most, scale = float(difference.max()), float(sizes.max())
    close = ordered[:, -1] - ordered[:, -2] <= 2 * most
    relative = np.divide(difference, sizes, out=np.zeros_like(difference), where=sizes > 0)
    return Parity(
        rows=len(reference),
        max_abs=most,
        max_rel=float(relative.max()),
        scale=scale,
        agreement=float((reference.argmax(1) == found.argmax(1)).mean()),
        close=int(close.sum()),
        tolerance=TOLERANCE * scale,
    )
