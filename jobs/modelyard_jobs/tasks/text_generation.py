"""Text generation: texts, or chats, that a causal language model goes on with; or, to train and to measure it, that it is led through.

Rows are one of
  messages             a list of {role, content}, as text by the tokenizer's chat template; what counts is what the assistant says
  prompt, completion   two texts, of which the second counts, with the token that ends a text; infer needs the prompt alone
  text                 one text, of which every token but the first counts; for infer a prompt
infer answers what precedes the last answer: a chat that ends with one is asked its last question again. A chat that is too long for `max_length` is a
fault there, for without its end it asks nothing and without its beginning it is another; a text is cut at its beginning. To train and to measure,
all are cut at the end, and a row is a fault where nothing that counts is left.
Draws (temperature above 0) are a function of seed and prompt: not of a row's place, nor of the rows beside it. Equal prompts have equal answers.
An export has no cache: it measures, and does not generate.
Not covered: tools, images in chats, several answers per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, Usage
from modelyard.steps import Infer
from modelyard_jobs.tasks import chat, columns, text, words
from modelyard_jobs.tasks.likelihood import Likelihood, hashed, log_shares
from modelyard_jobs.tasks.task import Answers, Arrays, Item, Row

PROMPTS = ("prompt", "instruction", "question", "query", "input")
COMPLETIONS = ("completion", "response", "answer", "output", "target")

_WHOLE = 1 << 30
"""Tokens that no text has."""

STOPPED, FULL, BROKEN = 0, 1, 2
"""How an answer ended: by a token that ends it; at its last token allowed; at a number that is none."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Tokens to be led through. said: which of them count, never the first; lost: tokens that count and were cut off."""

    ids: NDArray[np.int64]
    said: NDArray[np.bool_]
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """Tokens to go on with. most: how many the answer may have. draws: numbers in [0, 1), one for each of those; none where nothing is drawn."""

    ids: NDArray[np.int64]
    most: int
    draws: NDArray[np.float64] | None


class TextGeneration(Likelihood):
    """The task. It generates for infer; for other steps it follows texts that are there."""

    name = "text-generation"
    auto = "AutoModelForCausalLM"
    encoder: Literal["text", "image"] = "text"
    window = 256

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.generates = isinstance(settings, Infer)

    def columns(self, dataset: Any, *, truth: bool) -> dict[str, str]:
        """`messages`; or `prompt`, and to be followed `completion` (the settings' `label`); or `text`."""
        named = self.settings.text
        if named is None:
            known = {column.lower(): column for column in dataset.column_names}
            named = next((known[name] for name in (*chat.NAMES, *PROMPTS) if name in known), None) or columns.text(dataset, None)
        named = columns.find(dataset, "text", named, ())
        feature = dataset.features[named]
        # What is called a text and has another type in some rows is one: those rows are at fault, not the column.
        texts = words.is_string(feature) or (words.is_mixed(feature) and named.lower() in (*PROMPTS, *columns.TEXT_NAMES))
        if named.lower() in chat.NAMES or not texts:
            return {"messages": named}
        label = getattr(self.settings, "label", None)
        if named.lower() not in PROMPTS and label is None:
            return {"text": named}
        return {"prompt": named} if self.generates else {"prompt": named, "completion": columns.find(dataset, "label", label, COMPLETIONS)}

    def unfit(self, config: Any) -> str | None:
        """A decoder alone."""
        return "it reads with an encoder" if getattr(config, "is_encoder_decoder", False) else None

    def fault(self, row: Row) -> str | None:
        """A chat of a wrong shape, without a question or, to be followed, without an answer; a text that is missing, empty or no string."""
        if "messages" in row:
            return chat.fault(row["messages"], answered=not self.generates)
        faults = ((role, text.fault(value)) for role, value in row.items())
        return next((why if role == "text" else why.replace("the text", f"the {role}") for role, why in faults if why), None)

    def prepare(self, rows: Sequence[Row], encoder: Any, max_length: int) -> list[Item | str]:
        """Question of each row, for infer; Spoken otherwise."""
        make = self._question if self.generates else self._spoken
        return [self.fault(row) or make(row, encoder, max_length) for row in rows]

    def collate(self, items: Sequence[Item], encoder: Any) -> dict[str, NDArray[Any]]:
        """input_ids and attention_mask, (rows, longest), padded on the right.

        Of questions: padded on the left, with `most` (rows,) and, where tokens are drawn, `draws` (rows, most).
        """
        ids = text.pad_ids([item.values.ids for item in items], encoder.pad)
        if not self.generates:
            return ids
        for row, item in enumerate(items):
            for array in ids.values():
                array[row] = np.roll(array[row], array.shape[1] - len(item.values.ids))
        found: dict[str, NDArray[Any]] = {**ids, "most": np.array([item.values.most for item in items], dtype=np.int64)}
        if items[0].values.draws is not None:
            found["draws"] = np.zeros((len(items), int(found["most"].max())))
            for row, item in enumerate(items):
                found["draws"][row, : item.values.most] = item.values.draws
        return found

    def raws(self, outputs: Arrays, items: Sequence[Item]) -> list[Any]:
        """Of each item: the logits that follow each of its tokens, (tokens, vocabulary); or what generate.py makes of them, without padding.

        Led through: `log_probs` and `likeliest` of each token but the first. Generated: `tokens`, and how they `ended`.
        """
        if "logits" in outputs:
            return [{"logits": outputs["logits"][row, : len(item.values.ids)]} for row, item in enumerate(items)]
        if "tokens" in outputs:
            return [{"tokens": tokens[tokens >= 0], "ended": int(ended)} for tokens, ended in zip(outputs["tokens"], outputs["ended"], strict=True)]
        return [{name: array[row, : len(item.values.ids) - 1] for name, array in outputs.items()} for row, item in enumerate(items)]

    def answers(self, raws: Sequence[Any], items: Sequence[Item], labels: Sequence[str]) -> Answers:
        """Generated: text, tokens, and what ended it. Led through: tokens that count, their loss in nats, hits, and a hash of the tokens."""
        return [self._said(raw, item) if "tokens" in raw else _followed(raw, item) for raw, item in zip(raws, items, strict=True)]

    def record(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """`answer`, how many `tokens` it has, and whether it came to an end (`stop`) or was cut at max_new_tokens (`length`)."""
        return {name: answer[name] for name in self.empty()}

    def empty(self) -> dict[str, Any]:
        """No answer."""
        return {"answer": None, "tokens": None, "finish": None}

    def compared(self, truth: Any, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """Tokens that count, their mean loss in nats, and the share that was the likeliest; 6 digits."""
        count = answer["tokens"]
        return {"tokens": count, "predicted": {"loss": round(answer["loss"] / count, 6), "token_accuracy": round(answer["hits"] / count, 6)}}

    def _question(self, row: Row, encoder: Any, max_length: int) -> Item | str:
        tokenizer, room = _tokenizer(encoder), min(max_length, encoder.limit - 1)
        if "messages" in row:
            chat.template(tokenizer)
            try:
                prompt = chat.render(tokenizer, chat.question(row["messages"]), turn=True)
            except chat.Unusable as why:
                return str(why)
            ids = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
            if len(ids) > room:
                return f"the chat has more than {room} tokens (max_length, or what the model has positions for)"
        else:
            (prompt,) = row.values()
            ids = tokenizer(prompt, verbose=False)["input_ids"]
            if _is_closed(tokenizer, prompt, ids):
                ids = ids[:-1]
        if not ids:
            return text.NO_TOKEN
        kept = ids
        if len(ids) > room:
            first = ids[:1] if ids[0] == tokenizer.bos_token_id else []
            kept = first + ids[len(ids) - room + len(first) :]
        most = min(self.settings.max_new_tokens, encoder.limit - len(kept))
        question = Question(np.array(kept, dtype=np.int64), most, self._draws(ids, most))
        return Item(len(kept) + most, question, len(kept) < len(ids), tokenizer)

    def _draws(self, ids: Sequence[int], count: int) -> NDArray[np.float64] | None:
        if not self.settings.temperature:
            return None
        return np.random.default_rng([self.settings.seed, int(hashed(np.array(ids, dtype=np.int64)), 16)]).random(count)

    def _spoken(self, row: Row, encoder: Any, max_length: int) -> Item | str:
        room = min(max_length, encoder.limit)
        if "text" in row:
            (ids,), (cut,) = encoder.texts([row["text"]], room)
            if len(ids) < 2:
                return "the text has one token: none follows it" if ids else text.NO_TOKEN
            lost = len(encoder.texts([row["text"]], _WHOLE)[0][0]) - len(ids) if cut else 0
            return Item(len(ids), Spoken(np.array(ids, dtype=np.int64), np.arange(len(ids)) > 0, lost), bool(cut))
        tokenizer, ends = _tokenizer(encoder), list[int]()
        if "messages" in row:
            chat.template(tokenizer)
            try:
                whole = chat.rendered(tokenizer, row["messages"])
            except chat.Unusable as why:
                return str(why)
            content, said = whole.text, whole.said
        else:
            content, said = row["prompt"] + row["completion"], ((len(row["prompt"]), len(row["prompt"]) + len(row["completion"])),)
            ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        if not tokenizer.is_fast:
            told = f"{type(tokenizer).__name__} does not say which characters a token stands for"
            raise BadData("it cannot be told which tokens are the answer's", why=told, remedy="give a column of texts, of which all tokens count")
        batch = tokenizer(content, add_special_tokens="prompt" in row, return_offsets_mapping=True, verbose=False)
        if ends and _is_closed(tokenizer, content, batch["input_ids"]):
            ends = []
        ids, places = np.array(batch["input_ids"] + ends, dtype=np.int64), np.array(batch["offset_mapping"]).reshape(-1, 2)
        if not len(ids):
            return text.NO_TOKEN
        # A token over the boundary is not the assistant's, but with the white space behind it, which marks may take in; nor is one that stands for
        # no character.
        counts = np.zeros(len(ids), dtype=np.bool_)
        for first, last in said:
            edge = next((place for place in range(last, len(content)) if not content[place].isspace()), len(content))
            counts[: len(places)] |= (places[:, 0] >= first) & (places[:, 0] < last) & (places[:, 1] <= edge) & (places[:, 0] < places[:, 1])
        counts[len(places) :] = True
        counts[-1] |= "prompt" in row and ids[-1] == tokenizer.eos_token_id
        counts[:1] = False
        if not counts[:room].any():
            return f"the answers come after the first {room} tokens, which are kept" if counts.any() else "the answers have no token"
        return Item(min(len(ids), room), Spoken(ids[:room], counts[:room], int(counts[room:].sum())), len(ids) > room)

    def _said(self, raw: Mapping[str, Any], item: Item) -> dict[str, Any] | None:
        if raw["ended"] == BROKEN:
            return None
        said = item.about.decode(raw["tokens"], skip_special_tokens=True)
        return {"answer": said, "tokens": len(raw["tokens"]), "finish": "stop" if raw["ended"] == STOPPED else "length"}


def _followed(raw: Mapping[str, Any], item: Item) -> dict[str, Any] | None:
    """What the model said of the tokens that count."""
    following, counts = item.values.ids[1:], item.values.said[1:]
    if "logits" in raw:
        logits, following = raw["logits"][:-1][counts], following[counts]
        log_probs = log_shares(logits)[np.arange(len(following)), following]
        likeliest = logits.argmax(1) == following
    else:
        log_probs, likeliest = raw["log_probs"][counts].astype(np.float64), raw["likeliest"][counts]
    if not np.isfinite(log_probs).all():
        return None
    cut = hashed(item.values.ids[item.values.said])
    return {"tokens": int(counts.sum()), "loss": float(-log_probs.sum()), "hits": int(likeliest.sum()), "cut": cut}


def _tokenizer(encoder: Any) -> Any:
    """The encoder's tokenizer of transformers. Raises Usage: it has none, as that of an export."""
    found = getattr(encoder, "tokenizer", None)
    if not hasattr(found, "apply_chat_template"):
        remedy = "take the model that was exported and the engine torch; or evaluate on a column of texts"
        raise Usage("an exported language model can only be measured, and on plain texts", why="it has no cache and no chat template", remedy=remedy)
    return found


def _is_closed(tokenizer: Any, content: str, ids: Sequence[int]) -> bool:
    """Whether the tokenizer itself has put the token that ends a text behind it, as few do."""
    end = tokenizer.eos_token
    return end is not None and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and not content.endswith(end)
