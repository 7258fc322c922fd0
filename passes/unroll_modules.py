"""Gives every further call of a layer a path of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from qir.facts import MODULES_UNROLLED, is_quantizer
from qir.graph import Graph
from qir.paths import Paths
from qir.pipeline import Pass
from qir.rewrite import Note, Outcome


@dataclass(frozen=True)
class UnrollModules(Pass, name="unroll-modules"):
    """Give the second and later calls of a layer paths of their own, `module_<layer>_<n>`; their weights stay tied.

    graph @g(%x: f32[2,4]) {
      %act = Relu %x : f32[2,4] [block.act]
      %act_1 = Relu %act : f32[2,4] [block.act]
      return %act_1
    }
    -->
    graph @g(%x: f32[2,4]) {
      %act = Relu %x : f32[2,4] [block.act]
      %act_1 = Relu %act : f32[2,4] [block.module_act_1]
      return %act_1
    }
    """

    gives = (MODULES_UNROLLED,)

    def run(self, graph: Graph) -> Outcome:
        """Rename the layers of repeated calls."""
        outcome, paths, calls = Outcome(), Paths(graph), Counter[str]()
        for node in graph.nodes():
            if node.module is None or is_quantizer(node):
                continue
            layer = node.module
            if number := calls[layer]:
                parent, _, child = layer.rpartition(".")
                node.module = paths.new(parent, f"module_{child}_{number}")
                outcome.done.append(Note.of(node, f"call {number + 1} of {layer}"))
            calls[layer] += 1
        return outcome
