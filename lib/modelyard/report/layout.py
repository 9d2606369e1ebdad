"""Where the cards of a graph come to lie: layers one after the other, edges between the cards and never through them. Pure; knows no SVG.

A card's layer is one after the last of its sources. An edge that passes over layers has a place of its own in each of them. Within a layer, cards
lie as near as they can to what they are linked with (the layered drawing of Sugiyama, Tagawa and Toda, 1981, with the mean for the median).
Layers run to the right or, for narrow pages and paper, down; `along` is that direction here, `across` the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Size = tuple[float, float]
Place = tuple[float, float]
Link = tuple[str, str]

GAP, ROOM = 44.0, 18.0
"""Between layers, and between cards of one layer."""
_PASS = 12.0
"""Across, of an edge that passes."""
_MARGIN = 4.0
_SWEEPS = 6
_LONE = 4
"""Cards without any edge in a row, where layers run to the right; two where they run down."""


@dataclass(frozen=True)
class Layout:
    """at: upper left corners. curves: of a link, (from, to) of each curve; between one's end and the next one's beginning it runs straight."""

    at: Mapping[str, Place]
    curves: Mapping[Link, Sequence[tuple[Place, Place]]]
    width: float
    height: float


def arrange(sizes: Mapping[str, Size], links: Sequence[Link], *, down: bool = False) -> Layout:
    """Places for cards of these sizes (width, height); what has no link stands in rows before all others. Links must not run in circles."""
    flip = (lambda place: (place[1], place[0])) if down else (lambda place: place)
    flipped = {each: flip(size) for each, size in sizes.items()}
    linked = {end for link in links for end in link}
    lone = [each for each in sizes if each not in linked]
    per_row = 2 if down else _LONE
    width, height = (max((size[axis] for size in sizes.values()), default=0.0) for axis in (0, 1))
    at = {each: (_MARGIN + place % per_row * (width + GAP), _MARGIN + place // per_row * (height + ROOM)) for place, each in enumerate(lone)}
    first = max((y + sizes[each][1] + ROOM for each, (_, y) in at.items()), default=_MARGIN)

    begin = flip((_MARGIN, first))
    layered = _Layered({each: flipped[each] for each in sizes if each in linked}, links)
    corner, curves = layered.placed(*begin)
    at |= {each: flip(place) for each, place in corner.items()}
    ends = [(x + sizes[each][0], y + sizes[each][1]) for each, (x, y) in at.items()]
    bends = [flip(place) for parts in curves.values() for part in parts for place in part]
    return Layout(
        at,
        {link: [(flip(one), flip(two)) for one, two in parts] for link, parts in curves.items()},
        max((x for x, _ in (*ends, *bends)), default=0.0) + _MARGIN,
        max((y for _, y in (*ends, *bends)), default=0.0) + _MARGIN,
    )


class _Layered:
    """Sizes and places are (along, across) here."""

    def __init__(self, sizes: Mapping[str, Size], links: Sequence[Link]) -> None:
        self.sizes = sizes
        layer = self._layers(links)
        self.chains = {link: _chain(link, layer) for link in links}
        for chain in self.chains.values():
            layer |= {each: layer[chain[0]] + offset for offset, each in enumerate(chain)}
        self.layers: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
        for each, number in layer.items():
            self.layers[number].append(each)
        self.across = {each: sizes[each][1] if each in sizes else _PASS for each in layer}

    def placed(self, along: float, across: float) -> tuple[dict[str, Place], dict[Link, list[tuple[Place, Place]]]]:
        """(corners, curves), all from these two on."""
        middles = self._middles()
        least = min((middles[each] - self.across[each] / 2 for each in middles), default=0.0)
        middles = {each: middle - least + across for each, middle in middles.items()}
        corners: dict[str, Place] = {}
        ends: dict[str, tuple[Place, Place]] = {}
        for layer in self.layers:
            depth = max((self.sizes[each][0] for each in layer if each in self.sizes), default=0.0)
            for each in layer:
                own = self.sizes[each][0] if each in self.sizes else depth
                corners[each] = (along, middles[each] - self.across[each] / 2)
                ends[each] = ((along, middles[each]), (along + own, middles[each]))
            along += depth + GAP
        curves = {link: [(ends[one][1], ends[two][0]) for one, two in pairwise(chain)] for link, chain in self.chains.items()}
        return {each: corners[each] for each in self.sizes}, curves

    def _layers(self, links: Sequence[Link]) -> dict[str, int]:
        sources: dict[str, list[str]] = {each: [] for each in self.sizes}
        for source, target in links:
            sources[target].append(source)
        layer: dict[str, int] = {}

        def number(each: str) -> int:
            if each not in layer:
                layer[each] = max((number(source) + 1 for source in sources[each]), default=0)
            return layer[each]

        for each in self.sizes:
            number(each)
        return layer

    def _middles(self) -> dict[str, float]:
        """Sweeps to and fro: each card wishes to be at the mean of its neighbours in the layer before, then of those in the layer after."""
        steps = [pair for chain in self.chains.values() for pair in pairwise(chain)]
        before: dict[str, list[str]] = {each: [one for one, two in steps if two == each] for each in self.across}
        after: dict[str, list[str]] = {each: [two for one, two in steps if one == each] for each in self.across}
        middles: dict[str, float] = {}
        for layer in self.layers:
            middles |= self._spread(layer, dict.fromkeys(layer, 0.0))
        for sweep in range(_SWEEPS):
            near = after if sweep % 2 else before
            for layer in reversed(self.layers) if sweep % 2 else self.layers:
                wish = {each: sum(middles[other] for other in near[each]) / len(near[each]) if near[each] else middles[each] for each in layer}
                layer.sort(key=wish.__getitem__)
                middles |= self._spread(layer, wish)
        return middles

    def _spread(self, layer: Sequence[str], wish: Mapping[str, float]) -> dict[str, float]:
        """Middles of a layer's cards: as near to their wishes as they can be without touching, the order kept.

        Cards that touch form a block, and a block lies where the mean of its cards wants it (pool adjacent violators).
        """
        blocks: list[tuple[list[str], float, float]] = []  # cards, wished beginning, extent with room
        for each in layer:
            block: tuple[list[str], float, float] = ([each], wish[each] - self.across[each] / 2, self.across[each] + ROOM)
            while blocks and blocks[-1][1] + blocks[-1][2] > block[1]:
                cards, begin, extent = blocks.pop()
                joined = (begin * len(cards) + (block[1] - extent) * len(block[0])) / (len(cards) + len(block[0]))
                block = (cards + block[0], joined, extent + block[2])
            blocks.append(block)
        middles = {}
        for cards, begin, _ in blocks:
            for each in cards:
                middles[each] = begin + self.across[each] / 2
                begin += self.across[each] + ROOM  # noqa: PLW2901  # where the next one begins
        return middles


def _chain(link: Link, layer: Mapping[str, int]) -> list[str]:
    """The link's two ends with a place in every layer between them; links of one source share theirs."""
    source, target = link
    return [source, *(f"pass {source} {number}" for number in range(layer[source] + 1, layer[target])), target]
