"""Reference results: the graph run node by node by `onnx.reference`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import helper

from qir.errors import QirError
from qir.graph import Graph, Node, Value
from qir.infer import promoted_types
from qir.ops import VOCABULARY_OPSET
from qir.proto import node_proto
from qir.types import NUMPY, ScalarType, TensorType

Arrays = Sequence[np.ndarray]


class Runner(Protocol):
    """A compiled graph: from input arrays, in the order of `graph.inputs`, to output arrays.

    Sequences are lists.
    """

    def __call__(self, inputs: Arrays) -> list[Any]: ...


Executor = Callable[[Graph], Runner]
"""What makes a graph runnable. `reference` is one; `qir.backends.torch_module.executor` is faster."""


def reference(graph: Graph) -> Runner:
    """The executor that stands for the meaning of the graph. It is slow and asks for nothing but onnx."""
    return lambda inputs: [result if isinstance(result, list) else np.asarray(result)
                           for result in evaluate(graph, inputs)]  # fmt: skip


def evaluate(graph: Graph, inputs: Arrays, watch: Callable[[Value, Any], None] | None = None) -> list[Any]:
    """The outputs of `graph` for `inputs`; composites by their expansion, without training behaviour.

    `watch` sees every value computed. Raises QirError, naming the node, for an operator that has no reference result.
    """
    if len(inputs) != len(graph.inputs):
        raise QirError(f"the graph has {len(graph.inputs)} inputs and was given {len(inputs)}")
    known: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes():
        results = results_of(node, [None if value is None else _look_up(known, value) for value in node.operands])
        for value, result in zip(node.results, results, strict=False):
            known[value] = result
            if watch is not None:
                watch(value, result)
    return [_look_up(known, value) for value in graph.outputs]


def _look_up(known: Mapping[Value, Any], value: Value) -> Any:
    return value.array if value.weight is not None else known[value]


def results_of(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    """What `node` computes from the arrays `operands`, None for those that are left out.

    Raises QirError, naming the node, when its operator has no reference result, or not for these operands.
    """
    if node.definition.schema is not None:
        return _by_onnx(node, operands)
    if node.op == "qir.Quantize" and not node.attrs["encoding"].calibrated:
        return operands[:1]
    if node.definition.expand is None:
        raise QirError(f"{node.op} has no reference result", node, help="keep such calls out of what is evaluated")
    return _by_expansion(node, operands)


def _by_expansion(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    scratch = Graph("scratch")
    reads: list[Value | None] = []
    arrays: list[np.ndarray] = []
    for value, array in zip(node.operands, operands, strict=True):
        if value is None:
            reads.append(None)
        elif value.weight is not None:
            reads.append(scratch.weight(value.weight, value.type))
        else:
            static = value.type if isinstance(value.type, ScalarType) else _type_of(array)
            reads.append(scratch.input(value.hint, static))
            arrays.append(array)
    twin = scratch.add(node.op, reads, node.attrs, types=[value.type for value in node.results])
    assert twin.definition.expand is not None
    scratch.outputs = list(twin.definition.expand(scratch, twin))
    if not any(value.uses or value.is_output for value in twin.results):
        scratch.erase(twin)
    return evaluate(scratch, arrays)


def _type_of(array: Any) -> TensorType:
    from qir.types import type_of

    return type_of(np.asarray(array))


def _by_onnx(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    from qir.onnx_reference import evaluator

    names = ["" if operand is None else f"i{port}" for port, operand in enumerate(operands)]
    feeds: dict[str, Any] = {}
    for name, operand, type in zip(names, operands, promoted_types(node), strict=True):
        if isinstance(operand, list):
            feeds[name] = operand
        elif operand is not None:
            array = np.asarray(operand)
            promoted = isinstance(type, TensorType) and type.dtype is not None and array.ndim == 0
            feeds[name] = array.astype(NUMPY[type.dtype or ""]) if promoted and type is not None else array
    outputs = [f"o{port}" for port in range(len(node.results))]
    proto = helper.make_graph(
        [node_proto(node, names, outputs)],
        "one",
        [onnx.ValueInfoProto(name=name) for name in feeds],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", VOCABULARY_OPSET)])
    try:
        return list(evaluator(model).run(None, feeds))
    except Exception as error:  # whatever the reference implementation of an operator raises is about this node
        raise QirError(f"onnx.reference can not run this node: {error}", node) from error
