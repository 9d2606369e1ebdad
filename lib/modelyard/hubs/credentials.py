"""Tokens: which one belongs to a hub, and how it stays out of everything that is written down.

A token comes from the hub's variable in the environment. What the hub's own SDK keeps of a login is used for that SDK's public address alone: it was
given for that address. Nothing here writes one anywhere, and nothing here says one.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from modelyard.errors import NoPermission
from modelyard.refs import Scheme

VARIABLES: dict[Scheme, tuple[str, ...]] = {
    "modelscope": ("MODELSCOPE_API_TOKEN",),
    "hf": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"),
}
"""Where a token is looked for, in this order; the first name is the one to tell people."""

PUBLIC: dict[Scheme, tuple[str, ...]] = {
    "modelscope": ("https://modelscope.cn", "https://www.modelscope.cn"),
    "hf": ("https://huggingface.co",),
}
"""The addresses that a stored login was given for."""

PAGES: dict[Scheme, str] = {"modelscope": "https://modelscope.cn/my/myaccesstoken", "hf": "https://huggingface.co/settings/tokens"}
"""Where a person makes a token."""

_SHORTEST = 6  # what is shorter is no token, and would take words out of messages
_TOKEN = re.compile(r"[\x21-\x7e]+")
_stored: set[str] = set()


def token_of(scheme: Scheme, address: str) -> str | None:
    """The token for the hub at an address, None where there is none.

    Raises NoPermission: what is set cannot be sent in a header; the message does not repeat it.
    """
    for variable in VARIABLES[scheme]:
        if text := os.environ.get(variable, "").strip():
            if not _TOKEN.fullmatch(text):
                why = "it holds characters that no token has: blanks, line ends or others that are not plain ASCII"
                raise NoPermission(f"the token in {variable} cannot be sent", why=why, remedy=f"copy it again from {PAGES[scheme]}")
            return text
    if address.rstrip("/") not in PUBLIC[scheme]:
        return None
    text = (_stored_at_modelscope(address) if scheme == "modelscope" else _stored_at_huggingface()) or ""
    if not _TOKEN.fullmatch(text):
        return None
    _stored.add(text)
    return text


def redact(text: str) -> str:
    """`text` with `***` in place of every token that this process knows, as it is, quoted for a URL or in base64."""
    known = {os.environ.get(variable, "").strip() for variables in VARIABLES.values() for variable in variables} | _stored
    for token in sorted(known, key=len, reverse=True):
        if len(token) >= _SHORTEST:
            coded = base64.b64encode(token.encode("utf-8", "replace")).decode().rstrip("=")
            for form in (token, quote(token, safe=""), coded):
                text = text.replace(form, "***")
    return text


def redact_all(value: Any) -> Any:
    """A tree as JSON has it, with every text in it redacted; what JSON does not have becomes a text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact(str(name)): redact_all(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return redact(str(value))


def _stored_at_modelscope(address: str) -> str | None:
    from modelscope_hub.config import HubConfig

    token: str | None = HubConfig(endpoint=address).token  # the SDK reads its own file in its own way
    return token


def _stored_at_huggingface() -> str | None:
    from huggingface_hub import get_token

    return get_token()
