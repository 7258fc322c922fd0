"""Draw docs/before_after.svg: a residual block as imported, with quantizers, and in integer operators.

The boxes are the nodes of real graphs, the arrows the values between them. Rows line up what came from one operation.
"""

from __future__ import annotations

import sys
from html import escape
from itertools import pairwise
from pathlib import Path

import networkx as nx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Graph, Node, Value
from qir.facts import is_quantizer

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "before_after.svg"

COLUMN, ROW, TOP, LEFT = 290, 62, 72, 30
WIDTH, HEIGHT = 190, 42
FLOAT = {"fill": "#fff4e5", "line": "#c2691b", "text": "#7a3d08"}
INTEGER = {"fill": "#e3f1fb", "line": "#1f6fb2", "text": "#0d3f6b"}
FONT = "font-family='Helvetica, Arial, sans-serif'"


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions beside the identity."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


def columns() -> list[tuple[str, str, Graph]]:
    """Title, what was run, and the graph."""
    torch.manual_seed(0)
    model, data = Block().eval(), torch.randn(8, 16, 8, 8)
    quantized = qir.quantize(model, data=[data])
    return [
        ("Imported", "torch.fx", qir.import_model(model, [data])),
        ("Quantized", "fold-batch-norm … calibrate", quantized.graph),
        ("As the runtime runs it", "legalize-onnx, fuse-integer", quantized.integer_graph()),
    ]


def drawn(graph: Graph) -> list[Node]:
    """The nodes that get a box: all but the quantizers of weights, which their readers show."""
    return [node for node in graph.nodes() if not (is_quantizer(node) and node.operands[0].weight is not None)]


def key(node: Node) -> str:
    """What tells which row a node belongs in: a quantizer and what becomes of it have the name of their tensor."""
    return node.result.hint.replace("_quantized", "_q")


def rows(graphs: list[Graph]) -> dict[str, int]:
    """A row for every key, in an order that agrees with every graph."""
    chains = nx.DiGraph()
    for graph in graphs:
        keys = ["input", *map(key, drawn(graph)), "output"]
        chains.add_edges_from(pairwise(keys))
    return {name: number for number, name in enumerate(nx.lexicographical_topological_sort(chains))}


def integer(value: Value) -> bool:
    """Whether the value holds integers, or floats that a quantizer put on a grid."""
    return value.type.dtype in ("u8", "i8") or (value.node is not None and is_quantizer(value.node))


def works_on_integers(node: Node) -> bool:
    """Whether the node reads or writes integers, or rounds to them."""
    around = [value for value in [*node.operands, *node.results] if value is not None]
    return is_quantizer(node) or any(value.type.dtype in ("u8", "i8") for value in around)


def label(node: Node) -> tuple[str, str]:
    """The two lines of a box: the operator; its layer, and what its weights are if they are quantized."""
    if is_quantizer(node):
        return "Quantize", f"to {node.attrs['encoding'].dtype} and back"
    weights = []
    for value in node.operands[1:]:
        source = value
        if source is not None and source.node is not None and is_quantizer(source.node):
            weights += [source.node.attrs["encoding"].dtype] * (source.node.operands[0].weight is not None)
        elif source is not None and source.type.rank and source.type.dtype in ("i8", "i32"):
            weights += [source.type.dtype] * (value.weight is not None and "zero_point" not in value.hint)
    names = f"weight {weights[0]}, bias {weights[1]}" if len(weights) == 2 else ""
    name = node.module.partition(".")[0] if node.module and "quantizer" not in node.module else ""
    return node.op.rpartition(".")[2], "  ·  ".join(part for part in (name, names) if part)


def box(x: float, y: float, height: float, colors: dict[str, str], lines: tuple[str, str], pill: bool) -> list[str]:
    """A box and its text."""
    radius = 21 if pill else 7
    middle = y + height / 2
    upper = middle - 3 if lines[1] else middle + 5
    parts = [
        f"<rect x='{x}' y='{y}' width='{WIDTH}' height='{height}' rx='{radius}' fill='{colors['fill']}'"
        f" stroke='{colors['line']}' stroke-width='1.5'/>",
        text(x + WIDTH / 2, upper, lines[0], 15, colors["text"], bold=True),
    ]
    return [*parts, text(x + WIDTH / 2, middle + 14, lines[1], 11.5, colors["text"])] if lines[1] else parts


def text(x: float, y: float, words: str, size: float, color: str, bold: bool = False, anchor: str = "middle") -> str:
    """One line of text."""
    weight = " font-weight='600'" if bold else ""
    return (
        f"<text x='{x:g}' y='{y:g}' {FONT} font-size='{size}' fill='{color}' text-anchor='{anchor}'{weight}>"
        f"{escape(words)}</text>"
    )


def arrow(path: str, on_integers: bool, width: float = 1.8) -> str:
    """A line with a head."""
    name, colors = ("i", INTEGER) if on_integers else ("f", FLOAT)
    return f"<path d='{path}' fill='none' stroke='{colors['line']}' stroke-width='{width}' marker-end='url(#{name})'/>"


def column(graph: Graph, left: float, place: dict[str, int], tall: bool) -> list[str]:
    """The drawing of one graph. With `tall`, a box covers the rows down to the next one."""
    nodes = drawn(graph)
    tops = {node: TOP + ROW * place[key(node)] for node in nodes}
    ends = [*(tops[node] for node in nodes[1:]), TOP + ROW * place["output"]]
    heights = {
        node: end - tops[node] - (ROW - HEIGHT) if tall else HEIGHT for node, end in zip(nodes, ends, strict=True)
    }
    middle, start, stop = left + WIDTH / 2, TOP + ROW * place["input"], TOP + ROW * place["output"]
    parts = [text(middle, start + 26, graph.inputs[0].hint, 15, FLOAT["text"], bold=True)]
    parts.append(text(middle, stop + 26, "output", 15, FLOAT["text"], bold=True))
    order: list[Node | None] = [None, *nodes]
    for node in nodes:
        for value in node.operands:
            if value is None or value.weight is not None or value.node not in order:
                continue
            bottom = start + 34 if value.node is None else tops[value.node] + heights[value.node]
            if order.index(value.node) == order.index(node) - 1:
                parts.append(arrow(f"M{middle:g},{bottom:g} V{tops[node] - 3:g}", integer(value)))
            else:
                out, enter, side = bottom + 7, tops[node] + heights[node] / 2, left + WIDTH + 26
                around = f"H{side - 10:g} q10,0 10,10 V{enter - 10:g} q0,10 -10,10 H{left + WIDTH + 4:g}"
                parts.append(arrow(f"M{middle:g},{out:g} {around}", integer(value)))
    last = nodes[-1]
    parts.append(arrow(f"M{middle:g},{tops[last] + heights[last]:g} V{stop + 8:g}", integer(last.result)))
    for node in nodes:
        colors = INTEGER if works_on_integers(node) else FLOAT
        parts += box(left, tops[node], heights[node], colors, label(node), is_quantizer(node))
    return parts


def picture() -> str:
    """The SVG."""
    graphs = columns()
    place = rows([graph for _, _, graph in graphs])
    width, height = LEFT * 2 + COLUMN * 2 + WIDTH + 40, TOP + ROW * len(place) + 30
    parts = [f"<rect width='{width}' height='{height}' rx='12' fill='#ffffff'/>"]
    for number, (title, how, graph) in enumerate(graphs):
        left = LEFT + COLUMN * number
        parts.append(text(left + WIDTH / 2, 44, title, 18, "#1d2733", bold=True))
        parts.append(text(left + WIDTH / 2, 66, how, 12.5, "#5b6774"))
        parts += column(graph, left, place, tall=number == 2)
    for number, (colors, words) in enumerate(
        ((FLOAT, "float32"), (INTEGER, "integers, or float32 that stands for integers"))
    ):
        x, y = LEFT + 110 * number, height - 26
        paint = f"fill='{colors['fill']}' stroke='{colors['line']}'"
        parts.append(f"<rect x='{x}' y='{y - 11}' width='14' height='14' rx='3' {paint}/>")
        parts.append(text(x + 21, y + 1, words, 12.5, "#39434e", anchor="start"))
    heads = "".join(
        f"<marker id='{name}' viewBox='0 0 8 8' refX='6' refY='4' markerWidth='6' markerHeight='6' orient='auto'>"
        f"<path d='M0,0 L8,4 L0,8 z' fill='{colors['line']}'/></marker>"
        for name, colors in (("f", FLOAT), ("i", INTEGER))
    )
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>"
    alt = "<title>A residual block: imported, quantized, and in integer operators</title>"
    return "\n".join([head, alt, f"<defs>{heads}</defs>", *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture())
    print(f"written to {PICTURE.name}", file=sys.stderr)
