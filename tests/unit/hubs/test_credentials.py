"""Which token goes to which hub, and that none comes out again."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from modelyard.errors import NoPermission
from modelyard.hubs.credentials import redact, redact_all, token_of

TOKEN = 'a/tok+en"with\\signs-123'


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("MODELSCOPE_API_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


def test_the_variable_is_the_token_at_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_of("hf", "http://127.0.0.1:1") is None
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "the-second")
    assert token_of("hf", "http://127.0.0.1:1") == "the-second"
    monkeypatch.setenv("HF_TOKEN", " the-first\n")
    assert token_of("hf", "http://127.0.0.1:1") == "the-first"
    assert token_of("modelscope", "http://127.0.0.1:1") is None


@pytest.mark.parametrize("token", ["two words", "line\r\nX-Other: header", "nul\x7f", "t\u00f6ken"])
def test_what_no_header_can_hold_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    with pytest.raises(NoPermission, match="MODELSCOPE_API_TOKEN") as caught:
        token_of("modelscope", "http://127.0.0.1:1")
    assert token not in json.dumps(caught.value.record(), ensure_ascii=False)


def test_no_form_of_a_token_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    coded = base64.b64encode(TOKEN.encode()).decode()
    assert (
        redact(f"Bearer {TOKEN}, a%2Ftok%2Ben%22with%5Csigns-123 {coded} and the rest")
        == f"Bearer ***, *** {'***' + coded[len(coded.rstrip('=')) :]} and the rest"
    )
    tree = {"why": [TOKEN, 7, None, True, 1.5, (f"x{TOKEN}",)], TOKEN: Path("/tmp") / "name", "fine": "words"}
    assert redact_all(tree) == {"why": ["***", 7, None, True, 1.5, ["x***"]], "***": "/tmp/name", "fine": "words"}


def test_a_short_or_missing_value_takes_no_words_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "the")
    assert redact("the words of the message") == "the words of the message"
