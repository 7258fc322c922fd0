"""Takes quantizers out of a graph."""

from __future__ import annotations

from dataclasses import dataclass

from qir.facts import CALIBRATED
from qir.graph import Graph
from qir.pipeline import Pass
from qir.quantizers import quantizers
from qir.rewrite import Note, Outcome


@dataclass(frozen=True)
class StripQuantizers(Pass, name="strip-quantizers"):
    """Let everything read tensors as they are, not rounded: the float graph, what `insert-quantizers` started from.

    graph @g(%x: f32[4]) {
      %x_q = qir.Quantize %x {encoding=$x_q} : f32[4] [x_quantizer]
      %relu = Relu %x_q : f32[4] [relu]
      %relu_q = qir.Quantize %relu {encoding=$x_q} : f32[4] [relu.output_quantizer]
      return %relu_q
      $x_q = u8 asymmetric scale=0.5 zero_point=3
    }
    -->
    graph @g(%x: f32[4]) {
      %relu = Relu %x : f32[4] [relu]
      return %relu
    }
    """

    gives = (CALIBRATED,)
    numerics = "changes"

    def run(self, graph: Graph) -> Outcome:
        """Remove every quantizer."""
        outcome = Outcome()
        for node in quantizers(graph):
            outcome.done.append(Note.of(node, "is removed"))
            graph.replace(node.result, node.operands[0])
            graph.erase(node)
        return outcome
