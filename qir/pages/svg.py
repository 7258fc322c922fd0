"""Graphs as an SVG picture for documents and notebooks: one column for each, from top to bottom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import networkx as nx

from qir.graph import Graph
from qir.pages.layered import Layers, Net, layered, rows_of
from qir.pages.modules import BOX, Drawing, Module, Read, drawings, modules_of
from qir.pages.records import Data, markup
from qir.pages.stages import Stage, Stages, stages_of

HEIGHT, ROW_GAP, MARGIN, HEADING, LEGEND = 46.0, 30.0, 24.0, 46.0, 30.0

KINDS = ("float", "integer", "quantizer", "move", "opaque")
"""What the legend explains."""

WIDE, NARROW = 8.7, 6.3
"""How wide a letter of a title and of the smaller texts is, at most on average."""

MOST_BOXES = 150
"""A notebook shows the modules of a larger graph closed."""

FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


class Face(NamedTuple):
    """What a box says and what it looks like."""

    kind: str
    title: str
    under: str = ""
    right: str = ""


class Picture(NamedTuple):
    """Boxes, the lines between them, and where both stand."""

    faces: list[Face]
    nets: list[Net]
    layers: Layers

    @property
    def width(self) -> float:
        """The width of the widest row."""
        return max((x + width / 2 for x, width in zip(self.layers.x, self.layers.widths, strict=True)), default=0.0)

    @property
    def height(self) -> float:
        """The height of all rows."""
        return max(len(self.layers.rows) * (HEIGHT + ROW_GAP) - ROW_GAP, 0.0)


def svg(graphs: Mapping[str, Graph]) -> str:
    """The picture of graphs side by side, below their titles; what is the same operation stands at the same height.

    Quantizers of weights are told by their readers.
    """
    stages = stages_of(graphs)
    row = _common_rows(stages.stages)
    pictures = [_flat(stage, stages, row) for stage in stages.stages]
    return _drawn([stage.title for stage in stages.stages], pictures)


def notebook(graph: Graph) -> str:
    """The graph in a frame that scrolls; one that is too large with its modules closed, or told in a line."""
    stages = stages_of({f"@{graph.name}": graph})
    stage = stages.stages[0]
    picture = _flat(stage, stages, {}) if len(stage.leaves) <= MOST_BOXES else _closed(stage)
    if len(picture.faces) > MOST_BOXES:
        return f"<pre>{markup(repr(graph))}: too large to show here; qir.view(graph, 'page.html') writes a page</pre>"
    return f"<div style='max-height: 40rem; overflow: auto'>{_drawn([stage.title], [picture])}</div>"


# -- what is drawn ---------------------------------------------------------------------------------------------------


def _common_rows(stages: Sequence[Stage]) -> Mapping[int, int]:
    """A row for every operation, by its lasting number, in which all lines of all stages lead down.

    Empty where there is none, because two stages compute the same in another order.
    """
    lines = nx.DiGraph()
    for stage in stages:
        same = stage.same_as
        lines.add_edges_from((same[read.source], same[reader]) for read in stage.reads for reader in read.readers)
    if not nx.is_directed_acyclic_graph(lines):
        return {}
    order = {number: place for place, number in enumerate(nx.lexicographical_topological_sort(lines))}
    nets = [Net(order[source], tuple(order[reader] for reader in readers)) for source, readers in lines.adj.items()]
    rows = rows_of(len(order), nets)
    return {number: rows[place] for number, place in order.items()}


def _flat(stage: Stage, stages: Stages, row: Mapping[int, int]) -> Picture:
    """Every leaf of the stage, but for the quantizers of weights, in the rows given for lasting numbers."""
    readers = {reader for read in stage.reads for reader in read.readers}
    shown = [leaf for leaf, data in enumerate(stage.leaves) if "encoding" not in data or leaf in readers]
    number = {leaf: position for position, leaf in enumerate(shown)}
    quantized = {leaf["name"]: leaf for position, leaf in enumerate(stage.leaves) if position not in number}
    nets = [_net(read, number) for read in stage.reads if read.source in number]
    faces = [_face(stage.leaves[leaf], quantized, stages.tables.encodings.rows) for leaf in shown]
    given = [row.get(stage.same_as[leaf], 0) for leaf in shown] if row else None
    return Picture(faces, nets, layered([BOX] * len(shown), nets, given))


def _net(read: Read, number: Mapping[int, int]) -> Net:
    return Net(number[read.source], tuple(number[reader] for reader in read.readers))


def _closed(stage: Stage) -> Picture:
    """The outermost modules of the stage, and the leaves beside them."""
    drawing: Drawing = drawings(modules_of(stage.around, stage.reads), stage.reads)[0]
    faces = []
    for item in drawing.items:
        if isinstance(item, Module):
            faces.append(Face("move", ".".join(item.path), f"{sum(1 for _ in item.leaves())} nodes"))
        elif isinstance(item, int):
            faces.append(_face(stage.leaves[item], {}, []))
    return Picture(faces, [net for _, net in drawing.nets], drawing.layers)


def _face(leaf: Data, quantized: Mapping[str, Data], encodings: Sequence[Data]) -> Face:
    right = leaf["gives"][0][1] if leaf["gives"] else leaf["reads"][0].get("type", "") if leaf["reads"] else ""
    if "encoding" in leaf:
        right = encodings[leaf["encoding"]]["dtype"]
    weights = [quantized[read["name"]] for read in leaf["reads"] if read is not None and read.get("name") in quantized]
    grids = [encodings[weight["encoding"]]["dtype"] for weight in weights]
    names = [part for part in (leaf["path"] or leaf["name"], f"weights {', '.join(grids)}" if grids else "") if part]
    return Face(leaf["kind"], leaf["op"].rpartition(".")[2], "  ·  ".join(names), right)


# -- how it is drawn -------------------------------------------------------------------------------------------------


def _drawn(titles: Sequence[str], pictures: Sequence[Picture]) -> str:
    """The SVG of pictures below their titles."""
    width = sum(picture.width for picture in pictures) + MARGIN * 2 * (len(pictures) + 1) - MARGIN * 2
    kinds = [kind for kind in KINDS if any(face.kind == kind for picture in pictures for face in picture.faces)]
    height = max(picture.height for picture in pictures) + HEADING + MARGIN * 2 + (LEGEND if kinds else 0)
    size = f"viewBox='0 0 {width:g} {height:g}' width='{width:g}' height='{height:g}'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size}>",
        f"<title>{markup(', '.join(titles))}</title>",
        _heads(),
        f"<rect width='{width:g}' height='{height:g}' fill='{color('panel')}'/>",
    ]
    left = MARGIN
    for title, picture in zip(titles, pictures, strict=True):
        parts.append(_text(left + picture.width / 2, MARGIN + 14, title, 17, color("ink"), "middle", bold=True))
        parts += _lines(picture, left, MARGIN + HEADING)
        parts += _boxes(picture, left, MARGIN + HEADING)
        left += picture.width + MARGIN * 2
    parts += _legend(kinds, height - MARGIN)
    return "\n".join([*parts, "</svg>"]) + "\n"


@cache
def _colors() -> Mapping[str, str]:
    """The colours of the page, in light."""
    sheet = (Path(__file__).parent / "assets" / "colors.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#\w+);", sheet.partition("[data-theme")[0]))


def color(name: str) -> str:
    """A colour of the page, by the name in its style sheet."""
    return _colors()[name]


def _heads() -> str:
    marker = "<marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
    return f"<defs>{marker}<path d='M0,0 L8,4 L0,8 z' fill='{color('wire')}'/></marker></defs>"


def _legend(kinds: Sequence[str], y: float) -> Iterator[str]:
    for number, kind in enumerate(kinds):
        x, paint = MARGIN + 96 * number, f"fill='{color(f'{kind}-fill')}' stroke='{color(f'{kind}-line')}'"
        yield f"<rect x='{x:g}' y='{y - 11:g}' width='16' height='12' rx='3' {paint}/>"
        yield _text(x + 23, y, kind, 12, color("muted"), "start")


def _top(row: int) -> float:
    return row * (HEIGHT + ROW_GAP)


def _lines(picture: Picture, left: float, top: float) -> Iterator[str]:
    """A path for every reader of every net: from below its source past its bends."""
    style = f"fill='none' stroke='{color('wire')}' stroke-width='1.4' marker-end='url(#head)'"
    row, x = picture.layers.row, picture.layers.x
    for net, trunk in zip(picture.nets, picture.layers.trunks, strict=True):
        for target in net.targets:
            steps = trunk[: row[target] - row[net.source] - 1]
            parts = [f"M{left + x[net.source]:g},{top + _top(row[net.source]) + HEIGHT:g}"]
            for number, item in enumerate([*steps, target], row[net.source] + 1):
                parts.append(_curve(left + x[item], top + _top(number)))
                parts += [f"V{top + _top(number) + HEIGHT:g}"] if item != target else []
            yield f"<path d='{' '.join(parts)}' {style}/>"


def _curve(x: float, y: float) -> str:
    return f"S{x:g},{y - ROW_GAP / 2:g} {x:g},{y:g}"


def _boxes(picture: Picture, left: float, top: float) -> Iterator[str]:
    row = picture.layers.row
    for item, face in enumerate(picture.faces):
        x, y = left + picture.layers.x[item] - BOX / 2, top + _top(row[item])
        radius, inner = (23, 18) if face.kind in ("quantizer", "input", "output") else (7, 11)
        yield (
            f"<rect x='{x:g}' y='{y:g}' width='{BOX:g}' height='{HEIGHT:g}' rx='{radius}' "
            f"fill='{color(face.kind + '-fill')}' stroke='{color(face.kind + '-line')}' stroke-width='1.4'/>"
        )
        words = color(f"{face.kind}-text")
        title = _cut(face.title, (BOX - 2 * inner) / WIDE)
        yield _text(x + inner, y + 20, title, 14, words, "start", bold=True)
        right = _cut(face.right, (BOX - 2 * inner - 8 - WIDE * len(title)) / NARROW)
        yield _text(x + BOX - inner, y + 20, right, 11, words, "end")
        yield _text(x + inner, y + 37, _cut(face.under, (BOX - 2 * inner) / NARROW), 11.5, words, "start")


def _cut(text: str, most: float) -> str:
    """The text, or its beginning; nothing where there is hardly room for any."""
    if len(text) <= most:
        return text
    return f"{text[: int(most) - 1]}…" if most >= 5 else ""


def _text(x: float, y: float, words: str, size: float, fill: str, anchor: str, *, bold: bool = False) -> str:
    weight = " font-weight='600'" if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{FONT}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}"'
        f"{weight}>{markup(words)}</text>"
    )
