"""Who may do what on a served hub, without a server: the token, its file, and signatures."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from modelyard.errors import NoInput, NoPermission, Usage
from modelyard.hubs.server.auth import SIGNED_SECONDS, Auth, read_token
from modelyard.hubs.source import Repo

TOKEN = "the-token-0123456789"
OPEN, GATED, PRIVATE = Repo("model", "a", "b"), Repo("model", "a", "b", gated=True), Repo("model", "a", "b", private=True)


def request(**headers):
    return Request({"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})


NONE, WRONG, RIGHT = request(), request(authorization="Bearer wrong"), request(authorization=f"Bearer {TOKEN}")
COOKIE = request(cookie=f"m_session_id={TOKEN}")


@pytest.mark.parametrize(
    ("secret", "asked", "reads", "writes", "status"),
    [
        (TOKEN, NONE, False, False, 401),
        (TOKEN, WRONG, False, False, 403),
        (TOKEN, request(authorization=f"Basic {TOKEN}"), False, False, 401),
        (TOKEN, request(authorization=f"Bearer {TOKEN}x"), False, False, 403),
        (TOKEN, request(authorization="Bearer \xff"), False, False, 403),
        (TOKEN, RIGHT, True, True, 403),
        (TOKEN, COOKIE, True, True, 403),
        (None, NONE, False, False, 403),
        (None, RIGHT, False, False, 403),
        (None, request(authorization="Bearer None"), False, False, 403),
    ],
)
def test_the_table_of_rights(secret, asked, reads, writes, status):
    auth = Auth(secret)
    auth.check_read(asked, OPEN)
    for allowed, call in (
        (reads, lambda: auth.check_read(asked, GATED)),
        (reads, lambda: auth.check_read(asked, PRIVATE)),
        (writes, lambda: auth.check_write(asked)),
    ):
        if allowed:
            call()
            continue
        with pytest.raises(NoPermission) as caught:
            call()
        assert TOKEN not in str(caught.value)
        assert ("read-only" in str(caught.value)) == (secret is None)
    assert auth.status(asked) == status


def test_a_signature_is_of_one_text_and_of_one_day():
    now = [1000.0]
    auth = Auth(TOKEN, now=lambda: now[0])
    mark = auth.sign("abc 3")
    assert auth.signed("abc 3", mark)
    assert TOKEN not in mark
    others = [mark[:-1] + ("0" if mark[-1] != "0" else "1"), mark.replace(".", "0."), "", "9" * 30 + ".x", "².é"]
    for text, other in [("abc 4", mark), *(("abc 3", other) for other in others)]:
        assert not auth.signed(text, other)
    assert not Auth("another-token", now=lambda: now[0]).signed("abc 3", mark)
    assert not Auth(None, now=lambda: now[0]).signed("abc 3", mark)
    now[0] += SIGNED_SECONDS + 1
    assert not auth.signed("abc 3", mark)
    with pytest.raises(NoPermission, match="read-only"):
        Auth(None).sign("abc 3")


def test_the_token_file(tmp_path):
    said = []
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file, said.append) == TOKEN
    assert said == []
    file.chmod(0o640)
    assert read_token(file, said.append) == TOKEN
    assert "chmod 600" in said[0]
    assert TOKEN not in said[0]
    with pytest.raises(NoInput):
        read_token(tmp_path / "absent", said.append)
    with pytest.raises(NoPermission):
        read_token(tmp_path, said.append)


@pytest.mark.parametrize(
    "text", ["", "abc-7", "two words-and-more", "line-one-here\nline-two-here", "caf\u00e9-0123456789", "x" * 5000, "a\0b-0123456789"]
)
def test_what_is_no_token(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(Usage) as caught:
        read_token(tmp_path / "token", print)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", ["\ud800", TOKEN[:-1] + "\ud800"])
def test_half_a_surrogate_is_no_token_and_no_signature(text):
    auth = Auth(TOKEN)
    assert not auth.knows(text)
    assert not auth.signed("x", f"{10**12}.{text}")
