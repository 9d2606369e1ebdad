"""A request's body: bounded in size, and in how long nothing may come."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from modelyard.errors import Usage
from modelyard.hubs.server import face


def request(*pieces, silent=False):
    """A request whose body comes in pieces; silent: after them comes nothing, not even an end."""
    left = list(pieces)

    async def receive():
        if not left and silent:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or silent}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def test_a_body_comes_whole_or_is_too_large():
    assert asyncio.run(face.read_body(request(b"ab", b"c"), 3)) == b"abc"
    with pytest.raises(Usage):
        asyncio.run(face.read_body(request(b"ab", b"cd"), 3))


def test_a_client_that_falls_silent_is_gone(monkeypatch):
    monkeypatch.setattr(face, "SILENCE", 0.01)
    with pytest.raises(ClientDisconnect):
        asyncio.run(face.read_body(request(b"ab", silent=True), 3))
