"""Writes opaque framework calls in ONNX operators, by the framework's own exporter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qir.errors import QirError
from qir.expansions import opaque_expansion
from qir.graph import Graph, Node, Value
from qir.infer import infer_types
from qir.pipeline import Pass
from qir.rewrite import Miss, Note, Outcome


@dataclass(frozen=True)
class ExpandOpaque(Pass, name="expand-opaque"):
    """Replace calls that no lowering covers by what torchlib makes of them; for ONNX files, after `legalize-onnx`.

    It needs torch and onnxscript, and operands of known types. What can not be written stays, and says why. An operator
    that is known stays:

        graph @g(%x: f32[2]) {
          %y = Relu %x : f32[2]
          return %y
        }
        -->
        graph @g(%x: f32[2]) {
          %y = Relu %x : f32[2]
          return %y
        }
    """

    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Expand the calls in order, so that each knows the types of what it reads."""
        outcome = Outcome()
        for node in graph.nodes():
            if node.erased or not node.definition.opaque:
                continue
            expand = opaque_expansion(node)
            if expand is None:
                why = Miss(
                    "nothing here writes calls of its framework in ONNX", "install torch and onnxscript for torch's"
                )
                outcome.missed.append(Note.of(node, why))
                continue
            infer_types(graph)
            note = Note.of(node, "is written by torchlib")
            try:
                results = expand(graph, node)
            except QirError as error:
                outcome.missed.append(Note.of(node, error.message))
                continue
            _put(graph, node.result, results)
            graph.erase_dead(node)
            outcome.done.append(note)
        infer_types(graph)
        return outcome


def _put(graph: Graph, old: Value, new: Any) -> None:
    """Let readers of `old` read `new`; where that is a tuple, those that pick an item read the item."""
    if isinstance(new, Value):
        graph.replace(old, new)
        return
    for node, _ in old.uses:
        if item := _picked(node):
            _put(graph, node.result, new[item[0]])
            graph.erase_dead(node)


def _picked(node: Node) -> tuple[int] | None:
    """Which item of its operand the call picks, if it does."""
    arguments = node.attrs.get("args", ())
    if node.op.endswith("getitem") and len(arguments) == 2 and isinstance(arguments[1], int):
        return (arguments[1],)
    return None
