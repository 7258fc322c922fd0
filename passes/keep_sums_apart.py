"""Writes sums so that the target does not fuse them into a slower kernel."""

from __future__ import annotations

from dataclasses import dataclass

from qir.graph import Graph, Node, Value
from qir.pipeline import Pass
from qir.placement.targets import target
from qir.rewrite import Miss, Outcome, rewrite
from qir.types import ScalarType


@dataclass(frozen=True)
class KeepSumsApart(Pass, name="keep-sums-apart"):
    """Write an Add as Sum, which the target does not fuse, where what follows is faster alone: its `sum_before`.

    Measured for onnxruntime 1.31 on x86: SkipLayerNormalization, which it makes of an Add and a LayerNormalization,
    takes 2 to 7 times as long as both apart, from 8 rows of 256 elements on.

        graph @g(%x: f32[1,8,2], %y: f32[1,8,2]) {
          %add = Add %x, %y : f32[1,8,2] [add]
          %norm = LayerNormalization %add, f32[2](1, 1) : f32[1,8,2] [norm]
          return %norm
        }
        -->
        graph @g(%x: f32[1,8,2], %y: f32[1,8,2]) {
          %add = Sum %x, %y : f32[1,8,2] [add]
          %norm = LayerNormalization %add, f32[2](1, 1) : f32[1,8,2] [norm]
          return %norm
        }
    """

    numerics = "exact"

    target: str = "ort-x86-vnni"

    def __post_init__(self) -> None:
        target(self.target)

    def run(self, graph: Graph) -> Outcome:
        """Rewrite every such Add of tensors."""
        after = target(self.target).sum_before

        def apart(node: Node, graph: Graph) -> Value | Miss:
            if not any(use.port == 0 and use.node.op in after for use in node.result.uses):
                return Miss(f"{self.target} fuses it with nothing slower, as it would before {' or '.join(after)}"
                            if after else f"{self.target} fuses no sum into a slower kernel")  # fmt: skip
            if any(isinstance(value.type, ScalarType) for value in node.operands if value is not None):
                return Miss("it adds a number, and Sum takes tensors alone")
            return graph.add("Sum", node.operands, like=node).result

        return rewrite(graph, {"Add": apart})
