"""What made what, as a graph: refs on the left, each step with what it made, and on the right where something was released.

`graph` says which nodes and edges a run has, `draw` writes them as SVG; where they come to lie is layout.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from modelyard.quantities import format_seconds
from modelyard.report.figures import Point
from modelyard.report.layout import arrange
from modelyard.report.record import RunRecord, StepRecord
from modelyard.report.words import clean, cut

_CARD, _LINE = 176, 19
"""Width of a card, height of a line in it."""
_SMALLEST = 0.76
"""Of its own size, at which the letters of a drawing can still be read; a narrower page scrolls it."""


@dataclass(frozen=True)
class Node:
    """A card. above, below, digest: lines around the title, empty ones are left out. state: of a step."""

    id: str
    kind: Literal["ref", "step", "target"]
    title: str
    above: str = ""
    below: str = ""
    digest: str = ""
    state: str = ""
    hint: str = ""

    @property
    def height(self) -> int:
        """Of its card."""
        return 20 + _LINE * (1 + sum(map(bool, (self.above, self.below, self.digest))))


@dataclass(frozen=True)
class Edge:
    """From what was used to who used it. label: the input; check: it was looked at, and is no part of what was made."""

    source: str
    target: str
    label: str = ""
    check: bool = False


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of the pipeline, edges between them by id."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph(run: RunRecord) -> Graph:
    """The lineage of a run."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    for step in run.steps:
        if step.ref:
            nodes.append(_place(f"ref {step.name}", "ref", step.ref, step.revision))
            edges.append(Edge(f"ref {step.name}", step.name))
        seconds = step.status.seconds
        took = f" · {format_seconds(seconds)}" if seconds and step.state != "reused" else ""
        made = f"{step.status.kind} {step.status.artifact[:12]}" if step.status.artifact else ""
        said = f"{step.status.verb} · {step.state}{took}"
        nodes.append(Node(step.name, "step", step.name, below=said, digest=made, state=step.state, hint=_hint(step)))
        checks = {"gate.metrics", "parity", "against"}
        edges += [Edge(source, step.name, place.removesuffix(".metrics"), place in checks) for place, source in step.inputs.items()]
        if step.to and step.state == "done" and step.release:
            nodes.append(_place(f"to {step.name}", "target", step.to, step.release.tag or ""))
            edges.append(Edge(step.name, f"to {step.name}"))
    return Graph(tuple(nodes), tuple(edges))


def draw(found: Graph, title: str, *, down: bool = False) -> str:
    """The graph as SVG. down: layers one below the other, for narrow pages and paper."""
    sizes = {node.id: (float(_CARD), float(node.height)) for node in found.nodes}
    layout = arrange(sizes, [(edge.source, edge.target) for edge in found.edges], down=down)
    paths = "".join(_path(edge, layout.curves[edge.source, edge.target], down=down) for edge in found.edges)
    cards = "".join(_card(node, *layout.at[node.id]) for node in found.nodes)
    name, width, height = escape(cut(title, 200)), layout.width, layout.height
    least, most, way = (width * _SMALLEST, width, "down") if down else (min(width, 860), width * 1.1, "right")
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" style="min-width:{least:.0f}px;max-width:{most:.0f}px"'
    return f'<svg class="figure lineage {way}" {box} role="img" aria-label="{name}"><title>{name}</title>{paths}{cards}</svg>'


def _place(node: str, kind: Literal["ref", "target"], ref: str, revision: str) -> Node:
    """The card of a ref."""
    scheme, separator, rest = ref.partition("://")
    if not separator:
        folder, _, name = ref.rpartition("/")
        return Node(node, kind, name or ref, "path", folder, hint=ref)
    path, _, written = rest.partition("@")
    owner, _, name = path.rpartition("/")
    at = f"@{written or revision}" if written or revision else ""
    return Node(node, kind, name, scheme, f"{owner} {at}".strip(), hint=f"{ref} {revision}".strip())


def _hint(step: StepRecord) -> str:
    parts = [f"{step.name}: {step.status.verb}, {step.state}"]
    if step.status.artifact:
        parts.append(f"made {step.status.kind} {step.status.artifact}")
    if step.status.what:
        parts.append(step.status.what)
    return "; ".join(parts)


# --- drawing ---------------------------------------------------------------------------------------------------------------------------------


def _card(node: Node, x: float, y: float) -> str:
    parts = [f"<title>{escape(cut(node.hint, 300))}</title>"]
    parts.append(f'<rect class="card" x="{x:.1f}" y="{y:.1f}" width="{_CARD}" height="{node.height}" rx="8"/>')
    if node.kind == "step":
        parts.append(f'<rect class="mark" x="{x:.1f}" y="{y + 10:.1f}" width="4" height="{node.height - 20}" rx="2"/>')
    written = (
        ("state", _middle(node.above, 21)),
        ("title", _middle(node.title, 18)),
        ("state", cut(node.below, 26) if node.kind == "step" else _middle(node.below, 21)),
        ("digest", cut(node.digest, 22)),
    )
    at = y + 8 + _LINE * 0.8
    for style, text in written:
        if text:
            parts.append(f'<text class="{style}" x="{x + 14:.1f}" y="{at:.1f}">{escape(text)}</text>')
            at += _LINE
    return f'<g class="node {node.kind} is-{escape(node.state or node.kind)}">{"".join(parts)}</g>'


def _path(edge: Edge, curves: Sequence[tuple[Point, Point]], *, down: bool) -> str:
    """The curves, the straight lines between them, and an arrow's head."""
    steps = []
    for place, ((x, y), (to_x, to_y)) in enumerate(curves):
        steps.append(f"{'L' if place else 'M'}{x:.1f} {y:.1f}")
        if down:
            bend = (to_y - y) / 2
            steps.append(f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y:.1f}")
        else:
            bend = (to_x - x) / 2
            steps.append(f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
    x, y = curves[-1][1]
    head = ((-4, -6), (4, -6)) if down else ((-6, -4), (-6, 4))
    steps.append(f"M{x + head[0][0]:.1f} {y + head[0][1]:.1f}L{x:.1f} {y:.1f}L{x + head[1][0]:.1f} {y + head[1][1]:.1f}")
    word = "checked by" if edge.check else "used by"
    hint = escape(cut(f"{edge.source.removeprefix('ref ')} {word} {edge.target}{' as ' + edge.label if edge.label else ''}", 200))
    return f'<path class="edge{" check" * edge.check}" d="{"".join(steps)}"><title>{hint}</title></path>'


def _middle(text: str, letters: int) -> str:
    """As `cut`, but both ends stay."""
    plain = clean(text)
    if len(plain) <= letters:
        return plain
    head = letters // 2
    return plain[:head] + "…" + plain[len(plain) - (letters - head - 1) :]
