"""Graph text as graphs. Errors name line and column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qir.errors import QirError
from qir.text.lexer import BARE, DEEPEST, NAME, Line, lines_of
from qir.text.statements import GraphReader

if TYPE_CHECKING:
    from qir.graph import Graph


def parse(text: str) -> Graph:
    """The graph that prints as `text`; its weights know their digests only.

    Raises QirError with line and column for text that is no graph.
    """
    lines = lines_of(text)
    if not lines:
        raise QirError("there is no graph in this text", stage="text:1:1", help="it starts with 'graph @name('")
    return _read(lines, 0)


def _read(lines: Sequence[Line], depth: int) -> Graph:
    """The graph that these lines are, `depth` graphs standing around it."""
    from qir.graph import Graph

    reader = GraphReader(Graph())
    if depth > DEEPEST:
        lines[0].fail(f"more than {DEEPEST} graphs stand inside each other")
    reader.header(lines[0])
    inside, blocks = _parted(lines[1:])
    for block in blocks:
        body = _read(block, depth + 1)
        if body.name in reader.bodies:
            block[0].fail(f"there are two graphs @{body.name} here")
        reader.bodies[body.name] = body
    declared = [line for line in inside if line.text.lstrip(" ").startswith("$")]
    for line in sorted(declared, key=_is_product):
        reader.encoding(line)
    closed, encodings = False, {line.number for line in declared}
    for line in inside:
        if closed:
            line.fail("nothing may follow the graph", 0, len(line.text))
        elif line.text.strip() == "}":
            closed = True
        elif line.number not in encodings:
            reader.body(line)
    if not closed or not reader.returned:
        lines[-1].fail("the graph does not end: expected 'return …' and '}'")
    return reader.graph


def _parted(lines: Sequence[Line]) -> tuple[list[Line], list[list[Line]]]:
    """The lines of a graph without those of its bodies, and the lines of each body."""
    own: list[Line] = []
    blocks: list[list[Line]] = []
    depth = 0
    for line in lines:
        opens = line.text.lstrip(" ").startswith("graph @")
        if opens and depth == 0:
            blocks.append([])
        depth += opens
        (blocks[-1] if depth else own).append(line)
        depth -= depth > 0 and line.text.strip() == "}"
    return own, blocks


_PRODUCT = re.compile(rf"\s*\$(?:{NAME.pattern})\s*=\s*{BARE.pattern}\s+product\b")


def _is_product(line: Line) -> bool:
    return bool(_PRODUCT.match(line.text))
