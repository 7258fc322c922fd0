"""Puts tensors that must lie on one grid on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from networkx.utils import UnionFind

from qir.facts import CALIBRATED, QUANTIZERS_INSERTED, is_quantizer
from qir.graph import Graph, Node
from qir.pipeline import Pass
from qir.quantizers import quantizer_of, quantizers, replace_encodings
from qir.rewrite import Note, Outcome
from qir.traits import Clamps, KeepsGrid, TiesOperands


@dataclass(frozen=True)
class PropagateEncodings(Pass, name="propagate-encodings"):
    """Let the quantizers around an operator that keeps or ties its operands' grids hold one encoding.

    Operands are tied only when clamps limit all of them alike: a Relu is free only on a grid that starts at zero. A
    quantizer that reads what is on its grid already is removed.

        graph @g(%x: f32[1,1,4,4]) {
          %x_1 = qir.Quantize %x {encoding=$x_1} : f32[1,1,4,4]
          %pool = MaxPool %x_1 {kernel_shape=(2, 2)} : f32[1,1,3,3] [pool]
          %pool_1 = qir.Quantize %pool {encoding=$pool_1} : f32[1,1,3,3]
          return %pool_1
          $x_1 = u8 asymmetric
          $pool_1 = u8 asymmetric
        }
        -->
        graph @g(%x: f32[1,1,4,4]) {
          %x_1 = qir.Quantize %x {encoding=$x_1} : f32[1,1,4,4]
          %pool = MaxPool %x_1 {kernel_shape=(2, 2)} : f32[1,1,3,3] [pool]
          %pool_1 = qir.Quantize %pool {encoding=$x_1} : f32[1,1,3,3]
          return %pool_1
          $x_1 = u8 asymmetric
        }
    """

    needs = (QUANTIZERS_INSERTED,)
    breaks = (CALIBRATED,)
    numerics = "changes"

    def run(self, graph: Graph) -> Outcome:
        """Unite the encodings, then drop what became redundant."""
        outcome, united = Outcome(), UnionFind()
        order = {node.attrs["encoding"]: rank for rank, node in reversed(list(enumerate(quantizers(graph))))}
        for node in graph.nodes():
            if node.definition.trait(KeepsGrid):
                self._tie(node, [node.operands[0]], united, outcome)
            elif node.definition.trait(TiesOperands):
                self._tie(node, node.operands, united, outcome)
        first = {
            member: min(group, key=order.__getitem__)
            for group in united.to_sets()
            for member in group
        }  # fmt: skip
        replace_encodings(graph, first)
        self._drop_redundant(graph, outcome)
        return outcome

    def _tie(self, node: Node, operands: list[Any], united: UnionFind, outcome: Outcome) -> None:
        before = [quantizer_of(value) for value in operands]
        after = [use.node for result in node.results for use in result.uses if is_quantizer(use.node)]
        if not after or None in before:
            missing = "what it reads" if None in before else "what it writes"
            outcome.missed.append(Note.of(node, f"nothing quantizes {missing}"))
            return
        sources = [quantizer for quantizer in before if quantizer is not None]
        grids = [quantizer.attrs["encoding"] for quantizer in [*sources, *after]]
        several = any(axis is not None for grid in grids for axis in (grid.axis, grid.block_axis))
        if several or len({(type(grid), grid.dtype) for grid in grids}) > 1:
            outcome.missed.append(Note.of(node, "its tensors have grids of different kinds"))
        elif len({_limits(quantizer) for quantizer in sources}) > 1:
            outcome.missed.append(Note.of(node, "a clamp limits some of its operands and not others"))
        elif len(set(grids)) > 1:
            united.union(*grids)
            outcome.done.append(Note.of(node, f"puts {len(grids)} tensors on one grid"))
        else:
            outcome.missed.append(Note.of(node, "its tensors lie on one grid already"))

    def _drop_redundant(self, graph: Graph, outcome: Outcome) -> None:
        for node in quantizers(graph):
            inner = quantizer_of(node.operands[0])
            if inner is not None and inner.attrs["encoding"] is node.attrs["encoding"]:
                outcome.done.append(Note.of(node, "read a tensor on its own grid, and is removed"))
                graph.replace(node.result, inner.result)
                graph.erase(node)


def _limits(quantizer: Node) -> tuple[float | None, float | None]:
    """The limits that a clamp sets right before the quantizer, or further up across operators that keep the grid."""
    node = quantizer.operands[0].node
    while node is not None:
        clamps = node.definition.trait(Clamps)
        if clamps is not None:
            return clamps.range(node) or (None, None)
        if not node.definition.trait(KeepsGrid) and not is_quantizer(node):
            break
        node = node.operands[0].node
    return None, None
