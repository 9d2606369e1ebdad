"""What tasks over texts share: which texts can be used, and token ids as padded arrays. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard_jobs.tasks.task import Item, TextEncoder

NO_TOKEN = "the model's tokenizer finds nothing in the text"  # noqa: S105  # what a tokenizer makes
"""The fault of a text of which its normalizer leaves nothing, where no special token stands beside it."""


def fault(text: object) -> str | None:
    """Why a row's text cannot be used, None when it can."""
    if text is None:
        return "the text is missing"
    if not isinstance(text, str):
        return f"the text is of type {type(text).__name__}, not a string"
    return None if text.strip() else "the text is empty"


def prepare(texts: Sequence[Any], encoder: TextEncoder, max_length: int) -> list[Item | str]:
    """Of each text its token ids as an Item, or why there are none."""
    found: list[Item | str | None] = [fault(text) for text in texts]
    good = [place for place, why in enumerate(found) if why is None]
    ids, truncated = encoder.texts([texts[place] for place in good], max_length)
    for place, row, cut in zip(good, ids, truncated, strict=True):
        found[place] = Item(len(row), row, cut) if row else NO_TOKEN
    return [each for each in found if each is not None]


def pad_ids(rows: Sequence[Sequence[int]], pad: int) -> dict[str, NDArray[np.int64]]:
    """input_ids (rows, longest), padded on the right, and attention_mask of the same shape."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    seen = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(seen.shape, pad, dtype=np.int64)
    ids[seen] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return {"input_ids": ids, "attention_mask": seen.astype(np.int64)}
