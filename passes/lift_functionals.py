"""Gives every functional call a layer of its own."""

from __future__ import annotations

from dataclasses import dataclass

from qir.facts import FUNCTIONALS_LIFTED, computes
from qir.graph import Graph
from qir.paths import Paths
from qir.pipeline import Pass
from qir.rewrite import Note, Outcome


@dataclass(frozen=True)
class LiftFunctionals(Pass, name="lift-functionals"):
    """Name a layer for every functional call of a compute operator: `module_<call>` in the module whose code it is.

    Scalars, shape arithmetic and data movement stay calls.

        graph @g(%x: f32[2,4]) {
          %relu = Relu %x : f32[2,4] @ (block)
          %relu_1 = Relu %relu : f32[2,4] @ (block)
          return %relu_1
        }
        -->
        graph @g(%x: f32[2,4]) {
          %relu = Relu %x : f32[2,4] [block.module_relu] @ (block)
          %relu_1 = Relu %relu : f32[2,4] [block.module_relu_1] @ (block)
          return %relu_1
        }
    """

    gives = (FUNCTIONALS_LIFTED,)

    def run(self, graph: Graph) -> Outcome:
        """Give paths to the calls that have none."""
        outcome, paths = Outcome(), Paths(graph)
        for node in graph.nodes():
            if node.module is None and computes(node):
                node.module = paths.new(node.scope, f"module_{node.result.hint}")
                outcome.done.append(Note.of(node, f"is the layer {node.module} now"))
            elif node.module is None:
                outcome.missed.append(Note.of(node, "moves data or computes with shapes; it needs no layer"))
        return outcome
