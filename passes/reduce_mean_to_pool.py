"""Writes a mean over all spatial axes as a global average pooling."""

from __future__ import annotations

from dataclasses import dataclass

from qir.graph import Graph, Node, Value
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite


@dataclass(frozen=True)
class ReduceMeanToPool(Pass, name="reduce-mean-to-pool"):
    """Replace a mean over the spatial axes by GlobalAveragePool, for which runtimes have integer kernels.

    graph @g(%x: f32[1,8,4,4]) {
      %mean = ReduceMean %x, i64[2](2, 3) {keepdims=0} : f32[1,8] [mean]
      return %mean
    }
    -->
    graph @g(%x: f32[1,8,4,4]) {
      %mean = GlobalAveragePool %x : f32[1,8,1,1] [mean]
      %mean_1 = Flatten %mean : f32[1,8]
      return %mean_1
    }
    """

    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Rewrite every mean that is a pooling."""
        return rewrite(graph, {"ReduceMean": mean_to_pool})


def mean_to_pool(node: Node, graph: Graph) -> Value | Miss:
    """The pooling that `node` is."""
    x, *axes = node.operands
    rank = x.type.rank
    if rank is None or rank < 3:
        return Miss("the tensor is not known to have spatial axes")
    chosen = {axis % rank for axis in axes[0].literal} if axes and axes[0].literal is not None else None
    if chosen != set(range(2, rank)):
        return Miss("it does not average over exactly the spatial axes")
    pooled = graph.add("GlobalAveragePool", [x], like=node).result
    if node.attr("keepdims"):
        return pooled
    return graph.add("Flatten", [pooled], hint=node.result.hint, locs=node.locs).result
