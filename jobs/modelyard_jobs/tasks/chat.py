"""Messages of a chat: which can be used, and what of a rendered chat the assistant said. Needs no torch.

A chat becomes text by the tokenizer's own template. Where the assistant speaks is told by the template's `generation` blocks if it has them;
otherwise by rendering the chat up to each answer: what follows "the assistant's turn begins" is what the assistant said, to the mark that ends its
turn. Nothing is searched for, so a text that looks like the template's marks misleads nobody. What it says before anybody asked is no answer.
A template that asks for the date is told DATE, whatever day it is: equal rows are equal texts, also for a run that goes on after midnight.
Not covered: tools offered to the model, contents that are no text, removing control tokens from what users wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any

from modelyard.errors import BadData

ROLES = ("system", "user", "assistant", "tool")
NAMES = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog")
"""Usual names of the column."""

DATE = datetime(2024, 7, 26, tzinfo=UTC)
"""The day that Llama's templates take where nobody tells them."""
_TOLD = "".join(f" | replace('%{code}', '{DATE.strftime(f'%{code}')}')" for code in "aAbBdHIjmMpSyY")
_DATED = f"{{% macro strftime_now(format) %}}{{{{ format{_TOLD} }}}}{{% endmacro +%}}"

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_SHOWN = 200
_ANYTHING = "\ue000\ue001"
"""Stands for what the assistant says; of characters that no text has."""

Message = dict[str, str]


class Unusable(Exception):
    """A chat that the template cannot render, or whose answers cannot be told in what it rendered; its words say why."""


@dataclass(frozen=True)
class Rendered:
    """A chat as text. said: [first, last) character of each thing that the assistant said, the mark that ends its turn included."""

    text: str
    said: tuple[tuple[int, int], ...]


def fault(messages: object, *, answered: bool) -> str | None:
    """Why messages cannot be used, None when they can. answered: they need an answer of the assistant, to learn or to measure."""
    if messages is None:
        return "the messages are missing"
    if not isinstance(messages, list):
        return f"the messages are of type {type(messages).__name__}, not a list"
    for number, message in enumerate(messages, 1):
        if why := _fault(message, number):
            return why
    roles = [message["role"] for message in messages]
    if "user" not in roles:
        return "no message is the user's"
    if answered and "assistant" not in roles[roles.index("user") :]:
        return "no message is an answer of the assistant"
    return None


def question(messages: Sequence[Any]) -> list[Message]:
    """The messages that the model is to answer: up to the last one that is not the assistant's."""
    last = max(place for place, message in enumerate(messages) if message["role"] != "assistant")
    return _plain(messages[: last + 1])


def template(tokenizer: Any, where: str = "") -> str:
    """The chat template of a tokenizer of transformers. Raises BadData: it has none."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = found.get("default")
    if not found:
        remedy = "take a model that was made for chats and the engine torch, or give a column of texts"
        raise BadData("the model has no chat template", where=where, why="messages become text by it", remedy=remedy)
    return str(found)


def render(tokenizer: Any, messages: Sequence[Any], *, turn: bool = False) -> str:
    """A chat as text. turn: the assistant's turn is begun at its end. Raises Unusable, with the template's words."""
    try:
        text = tokenizer.apply_chat_template(_plain(messages), tokenize=False, chat_template=_dated(tokenizer), add_generation_prompt=turn)
    except Exception as error:  # a template raises whatever it likes
        why = " ".join(str(error).split())[:_SHOWN]
        raise Unusable(f"the chat template fails: {why or type(error).__name__}") from error
    return str(text)


def rendered(tokenizer: Any, messages: Sequence[Any]) -> Rendered:
    """A chat as text, with what the assistant said in it. Raises Unusable."""
    text = render(tokenizer, messages)
    if _MARKED.search(template(tokenizer)):
        return Rendered(text, _marked(tokenizer, messages, text))
    asked = next(place for place, message in enumerate(messages) if message["role"] == "user")
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant" and place > asked]
    return Rendered(text, tuple(_answer(tokenizer, messages, place, text) for place in answers))


def end_of_turn(tokenizer: Any) -> str:
    """The mark that ends an answer, as the template writes it; empty where it writes none, or where there is no template."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANYTHING}]
    try:
        return _turn(tokenizer, render(tokenizer, messages).rpartition(_ANYTHING)[2]).strip()
    except Unusable:
        return ""


def _fault(message: object, number: int) -> str | None:
    if not isinstance(message, dict):
        return f"message {number} is of type {type(message).__name__}, not an object with role and content"
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        return f"message {number} has the role {str(role)[:40]!r}, which is none of {', '.join(ROLES)}"
    if not isinstance(content, str):
        return f"message {number} ({role}) has a content of type {type(content).__name__}, not a string"
    if not content.strip():
        return f"message {number} ({role}) is empty"
    if role == "system" and number > 1:
        return f"message {number} is the system's, which only the first may be"
    return None


def _dated(tokenizer: Any) -> str:
    """The tokenizer's template with a clock that stands still: transformers passes it no functions, so it is written in front."""
    found = template(tokenizer)
    return _DATED + found if "strftime_now" in found else found


def _plain(messages: Sequence[Any]) -> list[Message]:
    """Role and content alone: a table gives every message the fields of all, most of them empty."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _marked(tokenizer: Any, messages: Sequence[Any], text: str) -> tuple[tuple[int, int], ...]:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        [_plain(messages)], chat_template=_dated(tokenizer), return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    if texts[0] != text:
        raise Unusable("the chat template renders the chat differently the second time")
    return tuple((first, last) for first, last in spans[0])


def _answer(tokenizer: Any, messages: Sequence[Any], place: int, text: str) -> tuple[int, int]:
    """[first, last) character of answer `place` in `text`."""
    begun = render(tokenizer, messages[:place], turn=True)
    other = render(tokenizer, [*messages[:place], {"role": "assistant", "content": _ANYTHING}])
    shown, found, end = other.partition(_ANYTHING)
    if not found:
        raise Unusable("the chat template does not show what the assistant says")
    # A template may begin the turn with more than answers have, such as the mark of a thought.
    first = _common(begun, other)
    if not text.startswith(shown[:first]):
        raise Unusable(f"the chat template renders what precedes message {place + 1} differently once others follow")
    # It may show an answer without the white space around it, and without its thought, or the mark of one, once others follow.
    content: str = messages[place]["content"]
    thought = content.rpartition("</think>")[2]
    for said in dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip(), thought, thought.strip())):
        for before, after in product((shown[first:], ""), dict.fromkeys((end, _turn(tokenizer, end)))):
            if text.startswith(before + said + after, first):
                return first, first + len(before + said) + len(after.rstrip() or after)
    raise Unusable(f"the chat template does not show message {place + 1} as it was written, ended as when it is the last")


def _turn(tokenizer: Any, end: str) -> str:
    """What ends a turn, of what ends the last one: behind it a template may put the token that ends a text, as Phi's do."""
    turn = end.removesuffix(tokenizer.eos_token or "")
    return turn if turn.strip() else end


def _common(one: str, other: str) -> int:
    """How many characters they begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.startswith(other[:middle]) else (low, middle - 1)
    return low
