"""Looks up the integers of tables."""

from __future__ import annotations

from dataclasses import dataclass

from qir.graph import Graph, Node, Value
from qir.patterns import Constant, Input, Match, Op, Shared
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite

TABLE, SCALE, INDICES = Constant(), Constant(), Input()
VALUES = Shared("DequantizeLinear", TABLE, SCALE, ...)
LOOKUP = Op("Gather", VALUES, INDICES)
GATHERED = ("i8", "u8", "i16", "u16")
"""The integers that runtimes gather: whole bytes."""


@dataclass(frozen=True)
class GatherIntegers(Pass, name="gather-integers"):
    """Gather the integers of a table that is stored in integers, and dequantize what was gathered, not all of it.

    graph @g(%tokens: i64[1,2]) {
      %table = DequantizeLinear i8[3,2](1, 2, 3, 4, 5, 6), f32[2](0.5, 0.25), i8[2](0, 0) : f32[3,2] [table]
      %rows = Gather %table, %tokens : f32[1,2,2] [embed]
      return %rows
    }
    -->
    graph @g(%tokens: i64[1,2]) {
      %rows_quantized = Gather i8[3,2](1, 2, 3, 4, 5, 6), %tokens : i8[1,2,2] [embed]
      %rows = DequantizeLinear %rows_quantized, f32[2](0.5, 0.25), i8[2](0, 0) {axis=-1} : f32[1,2,2] [table]
      return %rows
    }
    """

    def run(self, graph: Graph) -> Outcome:
        """Swap every pair of the two."""
        return rewrite(graph, {LOOKUP: swapped})


def swapped(found: Match, graph: Graph) -> Value | Miss:
    """The integers gathered, then dequantized."""
    values, lookup, table = found[VALUES], found[LOOKUP], found[TABLE]
    axis = _axis(values, lookup, found[SCALE])
    if isinstance(axis, Miss):
        return axis
    if table.type.dtype not in GATHERED:
        return Miss(f"its table is of {table.type.dtype}, which no kernel gathers")
    name = lookup.result.hint
    rows = graph.add("Gather", [table, found[INDICES]], lookup.attrs, like=lookup, hint=f"{name}_quantized")
    attrs = {} if axis is None else {"axis": axis}
    return graph.add("DequantizeLinear", [rows.result, *values.operands[1:]], attrs, like=values, hint=name).result


def _axis(values: Node, lookup: Node, scale: Value) -> int | Miss | None:
    """Which axis of what is gathered has the scales, None for one scale; from the end behind the rows."""
    if values.attr("block_size"):
        return Miss("its table has a scale for each block")
    if not scale.array.ndim:
        return None
    rank = values.result.type.rank
    assert rank is not None
    axis, rows = (int(node.attr("axis") % rank) for node in (values, lookup))
    if axis == rows:
        return Miss("its table has a scale for each row, which are looked up too")
    return axis if axis < rows else axis - rank
