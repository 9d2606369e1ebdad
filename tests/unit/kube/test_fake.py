"""The namespace in memory does what a real one does."""

from __future__ import annotations

import pytest

from .alike import *  # noqa: F403  # its tests are this module's
from .alike import Eventually, Speaks
from .fake import FakeCluster


@pytest.fixture
def client() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def eventually() -> Eventually:
    def check(done: object) -> None:
        assert callable(done)
        assert done()

    return check


@pytest.fixture
def speaks(client: FakeCluster) -> Speaks:
    def speak(name: str, lines: list[str]) -> None:
        client.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "status": {"phase": "Succeeded"}})
        client.streams[name] = [[f"2026-01-01T00:00:0{number}.000000000Z {line}".encode() for number, line in enumerate(lines)]]

    return speak
