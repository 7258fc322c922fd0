"""The Scan of opset 8, which scans each element of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from qir.errors import QirError
from qir.graph import Graph, Node, Value
from qir.types import TensorType, Type


def scans_batches(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the node is a Scan over a batch. Raises QirError when the sequences have lengths of their own."""
    if node.op_type != "Scan" or opset > 8:
        return False
    if node.input[:1] != [""]:
        raise QirError(
            "this Scan has sequence lengths, which Scan has not since opset 9", help="export the model again"
        )
    return True


def scan_of_batches(graph: Graph, op: str, operands: Sequence[Value], attrs: Mapping[str, Any], **options: Any) -> Node:
    """A Scan over the batch whose body is the Scan of one element, both as they are today."""
    inner = {{"directions": "scan_input_directions"}.get(name, name): value for name, value in attrs.items()}
    captured = inner["body"].captured
    own = len(operands) - captured
    body = Graph("one_of_batch")
    for port, value in enumerate(operands):
        body.input(f"operand_{port}", value.type if port >= own else _of_one(value.type))
    body.outputs = body.add(op, body.inputs, inner, results=options["results"]).results
    body.captured = captured
    return graph.add(op, operands, {"body": body, "num_scan_inputs": own}, **options)


def _of_one(type: Type) -> Type:
    """The type of an element of a batch."""
    return TensorType(type.dtype, type.shape[1:]) if isinstance(type, TensorType) and type.shape else type
