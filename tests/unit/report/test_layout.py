"""Places of cards and edges: nothing overlaps, everything points one way, nothing is outside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from modelyard.report.layout import Layout, Link, arrange

CARD = (176.0, 77.0)


def shuffled(seed: int, nodes: int) -> list[Link]:
    rng = random.Random(seed)
    return [(f"n{rng.randrange(place)}", f"n{place}") for place in range(1, nodes) for _ in range(rng.randrange(1, 3))]


GRAPHS: dict[str, Sequence[Link]] = {
    "chain": [("a", "b"), ("b", "c"), ("c", "d")],
    "over layers": [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")],
    "two sources": [("a", "c"), ("b", "c")],
    "none": [],
    **{f"any {seed}": shuffled(seed, 14) for seed in range(6)},
}


def arranged(links: Sequence[Link], down: bool) -> tuple[Layout, list[str]]:
    nodes = list(dict.fromkeys([*(end for link in links for end in link), "lone", "alone"]))
    return arrange(dict.fromkeys(nodes, CARD), links, down=down), nodes


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("links", GRAPHS.values(), ids=GRAPHS)
def test_cards_lie_apart_and_inside(links: Sequence[Link], down: bool) -> None:
    layout, nodes = arranged(links, down)
    assert set(layout.at) == set(nodes)
    for place, one in enumerate(nodes):
        x, y = layout.at[one]
        assert x >= 0
        assert y >= 0
        assert x + CARD[0] <= layout.width
        assert y + CARD[1] <= layout.height
        for two in nodes[:place]:
            other = layout.at[two]
            assert abs(x - other[0]) >= CARD[0] or abs(y - other[1]) >= CARD[1], (one, two)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("links", GRAPHS.values(), ids=GRAPHS)
def test_edges_lead_forward_and_around_the_cards(links: Sequence[Link], down: bool) -> None:
    layout, nodes = arranged(links, down)
    axis = 1 if down else 0
    for (source, target), curves in layout.curves.items():
        assert layout.at[source][axis] < layout.at[target][axis]
        points = [point for curve in curves for point in curve]
        assert [point[axis] for point in points] == sorted(point[axis] for point in points)
        for (_, start), (stop, _) in pairwise(curves):  # the straight lines past a layer
            for other in nodes:
                x, y = layout.at[other]
                crossed = min(start[0], stop[0]) < x + CARD[0] and max(start[0], stop[0]) > x and min(start[1], stop[1]) < y + CARD[1]
                assert not (crossed and max(start[1], stop[1]) > y), (source, target, other)


def test_nothing_at_all() -> None:
    assert arrange({}, []).at == {}


def test_the_same_graph_gets_the_same_places() -> None:
    assert arranged(GRAPHS["any 3"], True)[0] == arranged(GRAPHS["any 3"], True)[0]
