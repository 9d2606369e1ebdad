"""The hubs tier: folders that are served, to the hubs' own clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hubs.serving import DATA, MODEL, Served, serving, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hub's folder with one model and one data set that people put there."""
    write(tmp_path / "hub/acme/bert", MODEL)
    write(tmp_path / "hub/datasets/acme/films", DATA)
    return tmp_path / "hub"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """`serving`, until the test ends: serve(folder, token=TOKEN, env={}, port=0) -> Served. Called again for one folder, it is a second server."""
    with ExitStack() as stack:
        count = iter(range(100))
        yield lambda folder, *arguments, **options: stack.enter_context(serving(folder, tmp_path / f"served{next(count)}", *arguments, **options))


@pytest.fixture
def served(serve: Callable[..., Served], folder: Path) -> Served:
    """The folder of `folder`, served with TOKEN."""
    return serve(folder)
