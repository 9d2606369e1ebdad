"""Fill-mask: texts with gaps, and what a masked language model would put into each.

infer fills the mask tokens that stand in a text. To measure, the task hides tokens itself: 15 % of those of a text that are not special, one at
least, all replaced by the mask token; which ones is a function of the seed and of the text's tokens, not of a row's place. The model says of each
hidden token how likely it is, all of a text at once: their mean is the pseudo-log-likelihood of the hidden ones (J. Salazar et al., ACL 2020,
https://arxiv.org/abs/1910.14659, hides one at a time and all in turn, which takes a pass for each).
Not covered: whole words, spans, training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData
from modelyard.steps import Infer
from modelyard_jobs.tasks import columns, text
from modelyard_jobs.tasks.likelihood import Likelihood, hashed, log_shares
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Measured, Row, TextEncoder, Truths

HIDDEN = 0.15
"""Share of a text's tokens, as BERT was trained."""

_WHOLE = 1 << 30
_NOT_MEASURED = -1


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the task needs of a tokenizer beside the encoder's way from texts to tokens. mask: id of the token that stands for a hidden one."""

    mask: int
    special: frozenset[int]
    decode: Callable[[Sequence[int]], str]
    """Tokens as text, special ones too."""
    readable: Callable[[Sequence[int]], str]
    """Tokens as text, without special ones."""

    @classmethod
    def of(cls, encoder: Any) -> Vocabulary:
        """Of transformers' tokenizer, or of the `tokenizers` library's own. Raises BadData: it has no mask token."""
        tokenizer = encoder.tokenizer
        if hasattr(tokenizer, "mask_token_id"):
            mask, special = tokenizer.mask_token_id, frozenset(tokenizer.all_special_ids)
        else:
            added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
            # tokenizer.json does not say which special token is which; all that have one call it [MASK] or <mask>.
            mask, special = next((number for number, name in added.items() if name.strip("[]<>|").lower() == "mask"), None), frozenset(added)
        if mask is None:
            remedy = "take a masked language model with its own tokenizer, such as BERT"
            raise BadData("the model is not one for fill mask", why="its tokenizer has no mask token", remedy=remedy)
        decode = tokenizer.decode
        return cls(mask, special, lambda ids: str(decode(ids, skip_special_tokens=False)), lambda ids: str(decode(ids, skip_special_tokens=True)))


@dataclass(frozen=True, slots=True)
class Gaps:
    """The masks of a row, in their order. true: of each the token that it hides, -1 where that is not known."""

    places: NDArray[np.int64]
    true: NDArray[np.int64]
    vocabulary: Vocabulary


class FillMask(Likelihood):
    """The task. It fills gaps for infer; for other steps it makes them."""

    name = "fill-mask"
    auto = "AutoModelForMaskedLM"
    encoder: Literal["text", "image"] = "text"
    window = 1024
    main = "token_accuracy"
    names = MappingProxyType({"token_accuracy": main, "log_likelihood": "pseudo_log_likelihood", "perplexity": "pseudo_perplexity"})

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.hides = not isinstance(settings, Infer)

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """`text`."""
        return {"text": columns.text(dataset, self.settings.text)}

    def unfit(self, config: Any) -> str | None:
        """Nothing more than its architecture says."""
        return None

    def fault(self, row: Row) -> str | None:
        """A text that is missing, empty or no string."""
        return text.fault(row["text"])

    def prepare(self, rows: Sequence[Row], encoder: TextEncoder, max_length: int) -> list[Item | str]:
        """Token ids with gaps. Raises BadData: the tokenizer has no mask token."""
        vocabulary = Vocabulary.of(encoder)
        make = self._hidden if self.hides else self._masked
        found: list[Item | str] = text.prepare([row["text"] for row in rows], encoder, max_length)
        for place, item in enumerate(found):
            if not isinstance(item, str):
                found[place] = make(rows[place]["text"], item, encoder, vocabulary)
        return found

    def collate(self, items: Sequence[Item], encoder: TextEncoder) -> dict[str, NDArray[np.int64]]:
        """input_ids and attention_mask, (rows, longest)."""
        return text.pad_ids([item.values for item in items], encoder.pad)

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[NDArray[np.float32]]:
        """The logits at each gap of each item, (gaps, vocabulary); masked.py gives no others, a graph gives those of all tokens."""
        logits = outputs["logits"]
        if logits.ndim == 2:
            return np.split(logits, np.cumsum([len(item.about.places) for item in items])[:-1])
        return [logits[row, item.about.places] for row, item in enumerate(items)]

    def answers(self, raws: Sequence[NDArray[np.float32]], items: Sequence[Item], labels: Sequence[str]) -> list[dict[str, Any] | None]:
        """For infer the likeliest tokens of each gap, and the text filled with the first; else hidden tokens, their loss in nats, and hits."""
        make = self._measured if self.hides else self._filled
        return [make(log_shares(raw), item) if np.isfinite(raw).all() else None for raw, item in zip(raws, items, strict=True)]

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """`masks`: of each the likeliest tokens with their ids and scores, 6 digits; `filled`: the text with the first of each."""
        return dict(answer)

    def empty(self) -> dict[str, Any]:
        """No masks."""
        return {"masks": None, "filled": None}

    def measure(self, truths: Truths, answers: Answers, labels: Sequence[str]) -> Measured:
        """Also which share of the tokens was hidden."""
        found = super().measure(truths, answers, labels)
        return replace(found, document={**found.document, "hidden": HIDDEN})

    def compared(self, truth: Any, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The hidden tokens, the likeliest in their place, and the mean loss in nats, 6 digits."""
        return {"true": answer["true"], "predicted": answer["predicted"], "loss": round(answer["loss"] / answer["tokens"], 6)}

    def _masked(self, content: str, item: Item, encoder: TextEncoder, vocabulary: Vocabulary) -> Item | str:
        """The gaps that the text has."""
        ids = np.array(item.values, dtype=np.int64)
        places = np.flatnonzero(ids == vocabulary.mask)
        if item.truncated:
            whole = encoder.texts([content], _WHOLE)[0][0].count(vocabulary.mask)
            if whole > len(places):
                return f"{whole - len(places)} of its {whole} masks are cut off with what is longer than {len(ids)} tokens"
        if not len(places):
            return f"the text has no {vocabulary.decode([vocabulary.mask])} to fill"
        return Item(item.size, ids, item.truncated, Gaps(places, np.full(len(places), _NOT_MEASURED), vocabulary))

    def _hidden(self, content: str, item: Item, encoder: TextEncoder, vocabulary: Vocabulary) -> Item | str:
        """Gaps where there were tokens."""
        ids = np.array(item.values, dtype=np.int64)
        plain = np.flatnonzero(~np.isin(ids, list(vocabulary.special)))
        if not len(plain):
            return "the text has no token that could be hidden"
        hidden = np.random.default_rng([self.settings.seed, int(hashed(ids), 16)]).choice(plain, max(1, round(HIDDEN * len(plain))), replace=False)
        true = np.where(np.isin(np.arange(len(ids)), hidden), ids, _NOT_MEASURED)
        ids[hidden] = vocabulary.mask
        places = np.flatnonzero(ids == vocabulary.mask)  # those that stood there before, too: nothing is known of them
        return Item(item.size, ids, item.truncated, Gaps(places, true[places], vocabulary))

    def _filled(self, shares: NDArray[np.float64], item: Item) -> dict[str, Any]:
        gaps, ids = item.about, item.values.copy()
        count = min(self.settings.top_k, shares.shape[1])
        best = [row[np.argsort(-shares[place, row], kind="stable")] for place, row in enumerate(np.argpartition(-shares, count - 1, 1)[:, :count])]
        masks = [
            [
                {"token": gaps.vocabulary.decode([token]), "id": token, "score": round(float(np.exp(shares[place, token])), 6)}
                for token in tokens.tolist()
            ]
            for place, tokens in enumerate(best)
        ]
        ids[gaps.places] = [tokens[0] for tokens in best]
        return {"masks": masks, "filled": gaps.vocabulary.readable(ids.tolist())}

    def _measured(self, shares: NDArray[np.float64], item: Item) -> dict[str, Any]:
        gaps = item.about
        known = np.flatnonzero(gaps.true != _NOT_MEASURED)
        true, likeliest = gaps.true[known], shares[known].argmax(1)
        words = gaps.vocabulary.decode
        return {
            "tokens": len(known),
            "loss": float(-shares[known, true].sum()),
            "hits": int((likeliest == true).sum()),
            "cut": hashed(true),
            "true": [words([token]) for token in true.tolist()],
            "predicted": [words([token]) for token in likeliest.tolist()],
        }
