"""The sizes of tensors, by ONNX's inference over a whole graph, which follows sizes that are computed from sizes."""

from __future__ import annotations

import onnx
from onnx import checker, shape_inference

from qir.errors import QirError
from qir.graph import Graph, Value
from qir.infer import SMALL
from qir.proto import model_proto, tensor_of, within
from qir.text.printing import value_names
from qir.types import DTYPES, Dim, TensorType, Type, from_proto


def inferred_shapes(graph: Graph) -> dict[Value, Type]:
    """What ONNX finds out about the values of `graph`, which is not changed; symbols are those of the inputs.

    Operators that ONNX does not have are passed over. Raises QirError for attributes that ONNX can not hold.
    """
    domains = {node.op.rpartition(".")[0]: 1 for node in within(graph.nodes()) if "." in node.op}
    try:
        model = model_proto(graph, domains=domains, tensors=_outline)
        found = shape_inference.infer_shapes(model, data_prop=True).graph
    except (shape_inference.InferenceError, checker.ValidationError, TypeError, ValueError, RuntimeError) as error:
        raise QirError(f"ONNX can not infer the shapes of this graph: {str(error).splitlines()[0]}") from None
    types = {info.name: from_proto(info.type) for info in (*found.value_info, *found.output)}
    symbols = {size for value in graph.inputs for size in getattr(value.type, "shape", None) or ()}
    names = {value: name for value, name in value_names(graph).items() if value.node is not None and name in types}
    return {value: _known(types[name], symbols) for value, name in names.items()}


def _outline(value: Value, name: str) -> onnx.TensorProto:
    """A weight without its data, unless that may be a shape."""
    type = value.type
    if not isinstance(type, TensorType) or type.static is None or type.dtype is None:
        return tensor_of(value, name)
    if value.weight is not None and value.weight.data is not None and value.weight.array.size <= SMALL:
        return tensor_of(value, name)
    return onnx.TensorProto(name=name, data_type=DTYPES[type.dtype], dims=type.static)


def _known(type: Type, symbols: set[Dim]) -> Type:
    """`type` without the symbols that ONNX made up."""
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    sizes = (size if isinstance(size, int) or size in symbols else None for size in type.shape)
    return TensorType(type.dtype, tuple(sizes))


def merged(own: Type, found: Type) -> Type:
    """`own`, with what only `found` knows; `own` where they contradict each other."""
    if not isinstance(own, TensorType) or not isinstance(found, TensorType):
        return own
    if own.shape is None or found.shape is None:
        return TensorType(own.dtype or found.dtype, found.shape if own.shape is None else own.shape)
    if len(own.shape) != len(found.shape):
        return own
    sizes = (theirs if ours is None else ours for ours, theirs in zip(own.shape, found.shape, strict=True))
    return TensorType(own.dtype or found.dtype, tuple(sizes))
