"""How a step hears that it is to stop: where it stands, or when it looks, and once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from modelyard.errors import Yielded
from modelyard_jobs.context import Stop


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_raises_and_a_second_one_does_not_disturb() -> None:
    stop = Stop()
    stop.install()
    with pytest.raises(Yielded):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert stop.requested


def test_work_that_polls_is_stopped_at_its_end() -> None:
    stop, kept = Stop(), []
    stop.install()
    with pytest.raises(Yielded), stop.polled():
        signal.raise_signal(signal.SIGTERM)
        kept.append(stop.requested)
    assert kept == [True]


def test_a_part_of_polled_work_that_has_nothing_to_keep_is_stopped_where_it_stands() -> None:
    stop, kept = Stop(polled=True), []
    stop.install()
    with pytest.raises(Yielded), stop.anywhere():
        signal.raise_signal(signal.SIGTERM)
        kept.append("went on")
    assert kept == []
    signal.raise_signal(signal.SIGTERM)  # polled again
    with pytest.raises(Yielded), stop.anywhere():
        kept.append("began")
    assert kept == []
