"""Finds out the sizes of tensors that the graph computes from the sizes of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pass
from qir.rewrite import Note, Outcome
from qir.shapes import inferred_shapes, merged
from qir.types import TensorType, Type


@dataclass(frozen=True)
class InferShapes(Pass, name="infer-shapes"):
    """Let values have the sizes that follow from those of the inputs, where the graph computes with sizes too.

    ONNX's inference over the whole graph finds them. A graph that it can not take stays as it is, and says why.

        graph @g(%x: f32[n,4]) {
          %rows = Shape %x {end=1} : i64[1]
          %shape = Concat %rows, i64[2](2, 2) {axis=0} : i64[3]
          %y = Reshape %x, %shape : f32[?,?,?]
          return %y
        }
        -->
        graph @g(%x: f32[n,4]) {
          %rows = Shape %x {end=1} : i64[1]
          %shape = Concat %rows, i64[2](2, 2) {axis=0} : i64[3]
          %y = Reshape %x, %shape : f32[n,2,2]
          return %y
        }
    """

    numerics = "exact"

    def run(self, graph: Graph) -> Outcome:
        """Fill in what is not known."""
        outcome = Outcome()
        try:
            found = inferred_shapes(graph)
        except QirError as error:
            nodes = graph.nodes()
            return Outcome(missed=[Note.of(nodes[0], error.message)] if nodes else [])
        for value, type in found.items():
            if (new := merged(value.type, type)) != value.type and value.node is not None:
                value.type = new
                outcome.done.append(Note.of(value.node, f"is {new}"))
        outcome.missed += (
            Note.of(node, "its sizes do not follow from those of the inputs")
            for node in graph.nodes()
            if any(_open(result.type) for result in node.results)
        )
        return outcome


def _open(type: Type) -> bool:
    """Whether a size of a tensor is not known, not even as a symbol."""
    return isinstance(type, TensorType) and (type.shape is None or None in type.shape)
