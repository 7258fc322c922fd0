"""Writes a graph in operators that an opset of ONNX has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qir.axis_orders.all_axes import stating_all_axes
from qir.errors import QirError
from qir.expansions import exists_at, expansion_of, put_in_place
from qir.facts import COMPOSITES_EXPANDED, is_quantizer
from qir.graph import Graph, Node, Value
from qir.infer import infer_types, promoted_types
from qir.operators.python_numbers import known_size
from qir.paths import Paths
from qir.pipeline import Pass
from qir.rewrite import Miss, Note, Outcome, became
from qir.traits import IdentityInInference
from qir.types import DTYPES, NUMPY, ScalarType


@dataclass(frozen=True)
class LegalizeOnnx(Pass, name="legalize-onnx"):
    """Expand composites, and operators that the opset lacks, until the opset accepts the graph; for inference.

    Dropout and the like are removed. Python numbers become tensors. Calibrated quantizers become QuantizeLinear and
    DequantizeLinear, those of weights a DequantizeLinear of integers; uncalibrated ones stay for `calibrate`. Parts of
    a layer get layers below its path.

        graph @g(%x: f32[1,4]) {
          %act = Swish %x : f32[1,4] [act]
          %drop = Dropout %act : f32[1,4] [drop]
          return %drop
        }
        -->
        graph @g(%x: f32[1,4]) {
          %act = Sigmoid %x : f32[1,4] [act.sigmoid]
          %act_1 = Mul %x, %act : f32[1,4] [act.mul]
          return %act_1
        }
    """

    gives = (COMPOSITES_EXPANDED,)
    numerics = "rounds"

    opset: int = 21

    def run(self, graph: Graph) -> Outcome:
        """Expand until nothing is left to expand."""
        outcome, paths = Outcome(), Paths(graph)
        work = list(reversed(graph.nodes()))
        while work:
            node = work.pop()
            if node.erased:
                continue
            match self.replacement(node, graph):
                case None:
                    continue
                case Miss() as miss:
                    outcome.missed.append(Note.of(node, miss))
                case new:
                    before = Note.of(node, "")
                    added = put_in_place(graph, node, new, paths)
                    outcome.done.append(replace(before, reason=became(added)))
                    work += reversed(added)
        for node in graph.nodes():
            if cast := _agree_on_dtypes(graph, node):
                outcome.done.append(
                    Note.of(node, f"reads {' and '.join(cast)} through a Cast, as its operands must agree")
                )
            outcome.add(self.bodies(node))
        infer_types(graph)
        return outcome

    def bodies(self, node: Node) -> Outcome:
        """Let the node have bodies that the opset accepts."""
        outcome = Outcome()
        for name, value in node.attrs.items():
            if isinstance(value, Graph):
                node.attrs[name] = body = value.copy()
                outcome.add(self.run(body))
        return outcome

    def replacement(self, node: Node, graph: Graph) -> Sequence[Value] | Miss | None:
        """What the results of the node become; None when it may stay."""
        if isinstance(node.result.type, ScalarType) and isinstance(number := known_size(node.result), int | float):
            return [graph.constant(number)]
        if node.definition.trait(IdentityInInference) and not _trains(node):
            return node.operands[:1]
        if node.op == "Identity" and (node.operands[0].node is not None or not node.result.is_output):
            return node.operands[:1]
        if is_quantizer(node) and not node.attrs["encoding"].calibrated:
            return Miss("the quantizer is not calibrated", "run calibrate before, or load-encodings")
        if node.definition.opaque:
            return Miss(f"it is opaque: {node.why_opaque or 'nothing lowers it yet'}", "write a lowering for it")
        if node.definition.schema is not None and exists_at(node, self.opset):
            return stating_all_axes(graph, node)
        expand = expansion_of(node)
        if expand is None:
            if node.definition.schema is None:
                return None
            raise QirError(f"{node.op} is not in opset {self.opset} and has no expansion", node,
                           help="choose a newer opset: legalize-onnx{opset=…}")  # fmt: skip
        return expand(graph, node)


def _trains(node: Node) -> bool:
    """Whether the node is told by an operand to behave as in training, or its mask is read."""
    return len(node.operands) > 2 or any(result.uses or result.is_output for result in node.results[1:])


def _agree_on_dtypes(graph: Graph, node: Node) -> list[str]:
    """Give Python numbers the dtype that the operator takes, and cast tensors that must agree; which were cast."""
    if node.definition.schema is None:
        return []
    found = []
    for port, (value, type) in enumerate(zip(node.operands, promoted_types(node), strict=True)):
        if value is None or type is None or type.dtype is None:
            continue
        if isinstance(value.type, ScalarType) and value.weight is not None:
            array = np.asarray(value.weight.data).astype(NUMPY[type.dtype])
            graph.set_operand(node, port, graph.constant(array, value.hint))
            if not value.uses and not value.is_output:
                graph.remove_weight(value)
        elif value.type.dtype is not None and value.type.dtype != type.dtype:
            cast = graph.add("Cast", [value], {"to": DTYPES[type.dtype]}, locs=node.locs)
            graph.set_operand(node, port, cast.result)
            found.append(f"%{value.hint}")
    return found
