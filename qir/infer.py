"""The types of a node's results, from ONNX's own shape inference."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

import onnx
from onnx import checker, defs, helper, shape_inference

from qir.errors import QirError
from qir.ops import VOCABULARY_OPSET, OpDef
from qir.traits import Elementwise
from qir.types import UNKNOWN, Dim, ScalarType, TensorType, Type, from_proto, is_known, refined, to_proto

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value
    from qir.weights import Weight

SMALL = 64
"""A constant of at most this many elements may hold a shape, so inference sees its data."""

_RANK = {"bool": 0, "int": 1, "float": 2}


def result_types(node: Node) -> list[Type]:
    """The types of the results of `node`, as far as its operands' types tell.

    Raises QirError when the operands do not fit the operator or each other.
    """
    definition, count = node.definition, len(node.results)
    if definition.opaque:
        return [UNKNOWN] * count
    operands = node.operands
    if scalar := _scalar_type(definition, operands):
        return [scalar] * count
    if definition.infer is not None:
        return list(definition.infer(node))
    if definition.schema is None:
        return types_by_expansion(node)
    if node.bodies:
        return _by_model(node)
    if any(value is not None and not is_known(value.type) for value in operands):
        return [UNKNOWN] * count
    return _by_schema(node, promoted_types(node))


def _scalar_type(definition: OpDef, operands: Sequence[Value | None]) -> ScalarType | None:
    """Arithmetic on Python numbers alone gives a Python number."""
    if not operands or definition.trait(Elementwise) is None:
        return None
    types = [None if value is None else value.type for value in operands]
    kinds = [type.kind for type in types if isinstance(type, ScalarType)]
    if len(kinds) < len(types):
        return None
    if definition.schema is not None and set(definition.schema.outputs[0].types) == {"tensor(bool)"}:
        return ScalarType("bool")
    return ScalarType(max(kinds, key=_RANK.__getitem__))


def promoted_types(node: Node) -> list[Type | None]:
    """The operand types, Python numbers given the dtype of the tensors that they must agree with.

    A number that alone decides the dtype of the result, the base of a Pow, takes that of the tensor beside it.
    """
    schema, operands = node.definition.schema, node.operands
    result: list[Type | None] = [None if value is None else value.type for value in operands]
    for port, type in enumerate(result):
        if isinstance(type, ScalarType):
            variable = _type_variable(schema, port)
            tensors = [(other.dtype, _type_variable(schema, number)) for number, other in enumerate(result)
                       if isinstance(other, TensorType)]  # fmt: skip
            partners = [dtype for dtype, others in tensors if others == variable]
            if not partners and node.definition.trait(Elementwise) and schema.outputs[0].type_str == variable:
                partners = [dtype for dtype, _ in tensors if dtype != "bool"]  # a Where's condition decides nothing
            dtype = partners[0] if partners and partners[0] is not None else type.dtype
            if type.kind == "float" and dtype[0] not in "fbc":
                dtype = "f32"
            result[port] = TensorType(dtype, ())
    return result


def _type_variable(schema: defs.OpSchema, port: int) -> str:
    return str(schema.inputs[min(port, len(schema.inputs) - 1)].type_str)


_KNOWN: dict[Any, list[Type]] = {}
"""What ONNX inferred before: layers repeat, and every pass that verifies asks for all types again."""


def _by_schema(node: Node, types: Sequence[Type | None]) -> list[Type]:
    _check_trusted(node)
    if any(value is not None and value.weight is not None and _is_small(value.weight) for value in node.operands):
        return _ask_onnx(node, types)
    key = (node.op, tuple(node.attrs.items()), tuple(types), len(node.results))
    try:
        known = _KNOWN.get(key)
    except TypeError:  # an attribute is an array
        return _ask_onnx(node, types)
    if known is None:
        if len(_KNOWN) > 20_000:
            _KNOWN.clear()
        known = _KNOWN[key] = _ask_onnx(node, types)
    return list(known)


def _is_small(weight: Weight) -> bool:
    return not weight.paths and weight.data is not None and weight.array.size <= SMALL


def _ask_onnx(node: Node, types: Sequence[Type | None]) -> list[Type]:
    from qir.proto import node_proto, tensor_of

    schema = node.definition.schema
    names = ["" if type is None else f"i{port}" for port, type in enumerate(types)]
    results = [f"o{port}" for port in range(len(node.results))]
    data = {
        name: tensor_of(value)
        for name, value in zip(names, node.operands, strict=True)
        if value is not None and value.weight is not None and _is_small(value.weight)
    }
    try:
        inferred = shape_inference.infer_node_outputs(
            schema,
            node_proto(node, names, results),
            {name: to_proto(type) for name, type in zip(names, types, strict=True) if type is not None},
            data,
            opset_imports=[helper.make_opsetid(schema.domain, schema.since_version)],
        )
    except (*_ONNX_ERRORS, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise QirError(f"{node.op} does not fit its operands: {_reason(error)}", node) from None
    if node.op in SILENT:
        return [types[0] or UNKNOWN]
    return [from_proto(inferred[name]) if name in inferred else UNKNOWN for name in results]


def _by_model(node: Node) -> list[Type]:
    """The types of the results of a node with bodies, which ONNX infers for whole models only."""
    from qir.proto import node_proto

    names = ["" if value is None else f"i{port}" for port, value in enumerate(node.operands)]
    results = [f"o{port}" for port in range(len(node.results))]
    inputs = {name: value.type for name, value in zip(names, node.operands, strict=True) if value is not None}
    given = [onnx.ValueInfoProto(name=name, type=to_proto(type)) for name, type in inputs.items()]
    wanted = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph([node_proto(node, names, results)], "one", given, wanted)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", VOCABULARY_OPSET)])
    try:
        inferred = shape_inference.infer_shapes(model)
    except (*_ONNX_ERRORS, RuntimeError, ValueError) as error:
        raise QirError(f"{node.op} does not fit its operands: {_reason(error)}", node) from None
    known = {size for type in inputs.values() for size in type.shape or ()}
    return [_without_new_symbols(from_proto(value.type), known) for value in inferred.graph.output]


def _without_new_symbols(type: Type, known: Container[Dim]) -> Type:
    """`type` without the symbols that ONNX made up: it numbers them from 0 on in every model."""
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    return TensorType(
        type.dtype, tuple(size if isinstance(size, int) or size in known else None for size in type.shape)
    )


SILENT = ("GroupNormalization",)
"""Operators whose result has the type of operand 0, of which ONNX's inference says nothing."""

_ONNX_ERRORS = (shape_inference.InferenceError, checker.ValidationError)


def _check_trusted(node: Node) -> None:
    """Raise QirError for what ONNX's inference trusts without a look and ends the process over."""
    axis, parts = node.attrs.get("axis", 0), node.attrs.get("num_outputs", len(node.results))
    if isinstance(axis, int) and not -(2**31) <= axis < 2**31:
        raise QirError(f"{node.op} does not fit its operands: there is no axis {axis}", node)
    if node.op == "Split" and parts != len(node.results):
        raise QirError(f"this Split has {len(node.results)} results and num_outputs={parts}", node)


def _reason(error: Exception) -> str:
    """ONNX's message without its place in ONNX's sources."""
    text = str(error).strip().splitlines()
    return text[0].rpartition("] ")[2] if text else type(error).__name__


def types_by_expansion(node: Node) -> list[Type]:
    """The types of the results of the node's expansion."""
    from qir.graph import Graph

    if node.definition.expand is None:
        return [UNKNOWN] * len(node.results)
    scratch: Graph = Graph("scratch")
    operands: list[Value | None] = []
    for value in node.operands:
        if value is None:
            operands.append(None)
        elif value.weight is not None:
            operands.append(scratch.weight(value.weight, value.type))
        else:
            operands.append(scratch.input(value.hint, value.type))
    if any(value is not None and value.type.rank is None for value in operands):
        return [UNKNOWN] * len(node.results)
    twin = scratch.add(node.op, operands, node.attrs, types=[UNKNOWN] * len(node.results), locs=node.locs)
    return [value.type for value in node.definition.expand(scratch, twin)]


def infer_types(graph: Graph) -> None:
    """Give every value the type that follows from the inputs' and weights' types now; what none tells stays."""
    for node in graph.nodes():
        for value, type in zip(node.results, result_types(node), strict=True):
            value.type = refined(type, value.type)
