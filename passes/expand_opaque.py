"""Writes opaque framework calls in ONNX operators, by the framework's own exporter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qir.errors import QirError
from qir.expansions import joint_expansion, opaque_expansion
from qir.graph import Graph, Node, Value
from qir.infer import infer_types
from qir.pipeline import Pass
from qir.rewrite import Miss, Note, Outcome


@dataclass(frozen=True)
class ExpandOpaque(Pass, name="expand-opaque"):
    """Replace calls that no lowering covers by what torchlib makes of them; for ONNX files, after `legalize-onnx`.

    Calls between which complex numbers pass are written together, with what is between them. It needs torch and
    onnxscript, and operands of known types. What can not be written stays, and says why. An operator that is known
    stays:

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
                together = _complex_region(node)
                if len(together) > 1:
                    _expand_region(graph, node, together)
                else:
                    _put(graph, node.result, expand(graph, node))
                    graph.erase_dead(node)
            except QirError as error:
                outcome.missed.append(Note.of(node, error.message))
                continue
            outcome.done.append(note)
        infer_types(graph)
        return outcome


def _expand_region(graph: Graph, node: Node, region: list[Node]) -> None:
    """Put what the calls are together in their place."""
    inner = set(region)
    results = [
        result
        for each in region
        for result in each.results
        if result.is_output or any(use.node not in inner for use in result.uses)
    ]
    expand = joint_expansion(node)
    assert expand is not None
    for old, new in zip(results, expand(graph, region, results), strict=True):
        graph.replace(old, new)
    for each in reversed(region):
        graph.erase_dead(each)


def _complex_region(node: Node) -> list[Node]:
    """The node, with all that complex numbers connect it to."""
    found, stack = {node: None}, [node]
    while stack:
        seen = stack.pop()
        values = [value for value in (*seen.operands, *seen.results) if value is not None and _is_complex(value)]
        near = [each for value in values for each in (value.node, *(use.node for use in value.uses))]
        for other in near:
            if other is not None and other not in found:
                found[other] = None
                stack.append(other)
    return list(found)


def _is_complex(value: Value) -> bool:
    return value.weight is None and value.type.dtype in ("c64", "c128")


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
