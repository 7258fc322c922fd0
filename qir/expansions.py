"""Expansions of standard operators into older ones: ONNX's function bodies, and one that is shorter here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import onnx
from onnx import defs

from qir.errors import QirError
from qir.infer import promoted_types
from qir.ops import VOCABULARY_OPSET, Expansion
from qir.proto import attributes_of, node_proto
from qir.types import refined, to_proto

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value
    from qir.paths import Paths
    from qir.rewrite import Miss


def expand_swish(graph: Graph, node: Node) -> Sequence[Value]:
    """x * sigmoid(alpha * x), without the product when alpha is 1."""
    x = node.operands[0]
    alpha = node.attr("alpha")
    inner = x if alpha == 1.0 else graph.add("Mul", [x, graph.constant(alpha)], like=node).result
    gate = graph.add("Sigmoid", [inner], like=node)
    return graph.add("Mul", [x, gate.result], like=node).results


def expand_rms_normalization(graph: Graph, node: Node) -> Sequence[Value]:
    """x / sqrt(mean(x * x) + epsilon) * scale, whose types are known where those of ONNX's function body are not."""
    x, scale = node.operands
    if x.type.rank is None:
        raise QirError("an RMS norm can only be expanded for a known rank", node, help="import with example inputs")
    axis = node.attr("axis")
    axes = graph.constant(list(range(axis, 0) if axis < 0 else range(axis, x.type.rank)))
    square = graph.add("Mul", [x, x], like=node)
    mean = graph.add("ReduceMean", [square.result, axes], {"keepdims": 1}, like=node)
    shifted = graph.add("Add", [mean.result, graph.constant(node.attr("epsilon"))], like=node)
    root = graph.add("Sqrt", [shifted.result], like=node)
    quotient = graph.add("Div", [x, root.result], like=node)
    return graph.add("Mul", [quotient.result, scale], like=node).results


SHORTER: dict[str, Expansion] = {"Swish": expand_swish, "RMSNormalization": expand_rms_normalization}


def expansion_of(node: Node) -> Expansion | None:
    """How the node's operator is written in simpler ones; None when it is not."""
    known = node.definition
    if known.expand is not None:
        return known.expand
    if node.op in SHORTER:
        return SHORTER[node.op]
    if known.schema is not None and (known.schema.has_function or known.schema.has_context_dependent_function):
        return expand_function
    return None


def put_in_place(graph: Graph, node: Node, new: Sequence[Value], paths: Paths) -> list[Node]:
    """Let `new`, what was added for the results of the node, take its place; the nodes that were added, operands first.

    Where there are several, those that would have the node's layer get layers below it.
    """
    added = _added(node, new)
    for watcher in graph.watchers:
        watcher.replacing("expansion", node, dict(zip(node.results, new, strict=False)), added)
    if node.module is not None and len(added) > 1:
        for part in added:
            if part.module == node.module:
                part.module = paths.new(node.module, part.op.rpartition(".")[2].lower())
    for old, value in zip(node.results, new, strict=False):
        value.type = refined(value.type, old.type)
        graph.replace(old, value)
    graph.erase_dead(node)
    for watcher in graph.watchers:
        watcher.replaced()
    return added


def _added(node: Node, new: Sequence[Value]) -> list[Node]:
    """The nodes between the operands of `node` and the new values, operands first."""
    known = {value.node for value in node.operands if value is not None}
    found: dict[Node, None] = {}
    stack = [value.node for value in new]
    while stack:
        part = stack.pop()
        if part is None or part in known or part in found or part is node:
            continue
        found[part] = None
        stack += [value.node for value in part.operands if value is not None]
    return list(reversed(found))


OPAQUE = {"torch": ("qir.backends.torch_to_onnx", ("torch", "onnxscript"))}
"""By the first part of an opaque operator's name: the module with its `expand_opaque`, and what must be installed."""


def opaque_expansion(node: Node) -> Callable[[Graph, Node], Any] | None:
    """What writes an opaque call in ONNX and returns a value or a nest of tuples of values; None when nothing can."""
    module, needed = OPAQUE.get(node.op.partition(".")[0], ("", ("",)))
    if not module or not all(find_spec(name) for name in needed):
        return None
    expand: Callable[[Graph, Node], Any] = import_module(module).expand_opaque
    return expand


def joint_expansion(node: Node) -> Callable[[Graph, Sequence[Node], Sequence[Value]], Sequence[Value]] | None:
    """What writes several opaque calls together in ONNX, from the nodes and their results; None when nothing can."""
    if opaque_expansion(node) is None:
        return None
    module, _ = OPAQUE[node.op.partition(".")[0]]
    expand: Callable[[Graph, Sequence[Node], Sequence[Value]], Sequence[Value]] = import_module(module).expand_together
    return expand


PLAIN = {"torch": "qir.frontends.torch_computed_parameters"}
"""By the first part of an opaque operator's name: the module with its `plain_call`."""


def plain_call(node: Node, graph: Graph) -> Value | Miss | None:
    """The opaque call of a layer that computes its parameters, as that of a layer that has them; None for other calls.

    The parameters are those of evaluation; what they were computed from is gone where nothing else reads it.
    """
    module = PLAIN.get(node.op.partition(".")[0])
    if module is None or node.host is None:
        return None
    plain: Callable[[Node, Graph], Value | Miss | None] = import_module(module).plain_call
    return plain(node, graph)


def expand_function(graph: Graph, node: Node) -> Sequence[Value]:
    """The body of ONNX's function operator. Raises QirError when ONNX gives none for these operands."""
    inputs = [f"i{port}" for port in range(len(node.operands))]
    outputs = [f"o{port}" for port in range(len(node.results))]
    body = _body(node, inputs, outputs)
    if len(body.output) < len(outputs):
        raise QirError(f"ONNX has no body of {node.op} for these operands", node)
    given = dict(zip(body.input, node.operands, strict=False))
    known: dict[str, Value | None] = {name: given.get(name) for name in body.input}
    for inner in body.node:
        attrs = _resolved(inner, node)
        if inner.op_type == "Constant":
            known[inner.output[0]] = graph.constant(_constant(attrs))
            continue
        if not known.keys() >= {name for name in inner.input if name}:
            raise QirError(f"ONNX's body of {node.op} reads what it does not define", node)
        reads = [known[name] if name else None for name in inner.input]
        made = graph.add(inner.op_type, reads, attrs, results=len(inner.output), like=node)
        known.update(zip(inner.output, made.results, strict=True))
    results = [known[name] for name in body.output[: len(outputs)]]
    return [value for value in results if value is not None]


def _body(node: Node, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    schema = node.definition.schema
    if schema.has_function:
        return schema.function_body
    version = max(v for v in schema.context_dependent_function_opset_versions if v <= VOCABULARY_OPSET)
    types = [to_proto(type).SerializeToString() if type else b"" for type in promoted_types(node)]
    proto = node_proto(node, inputs, outputs)
    try:
        text = schema.get_context_dependent_function_with_opset_version(version, proto.SerializeToString(), types)
    except (RuntimeError, ValueError, defs.SchemaError) as error:
        raise QirError(f"ONNX has no body of {node.op} for these operands: {error}", node) from None
    body = onnx.FunctionProto()
    body.ParseFromString(text)
    return body


def _resolved(inner: onnx.NodeProto, node: Node) -> dict[str, Any]:
    """The attributes of a node of the body, references to the function's attributes looked up."""
    plain = onnx.NodeProto()
    plain.CopyFrom(inner)
    del plain.attribute[:]
    plain.attribute.extend(attribute for attribute in inner.attribute if not attribute.ref_attr_name)
    attrs = attributes_of(plain)
    for attribute in inner.attribute:
        if attribute.ref_attr_name and node.attr(attribute.ref_attr_name) is not None:
            attrs[attribute.name] = node.attr(attribute.ref_attr_name)
    return attrs


def _constant(attrs: dict[str, Any]) -> Any:
    import numpy as np

    (name, value), *_ = attrs.items()
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.asarray(value, kinds[name]) if name in kinds else value


def exists_at(node: Node, opset: int) -> bool:
    """Whether the standard operator is in `opset` with all attributes that the node has."""
    try:
        schema = defs.get_schema(node.op, opset)
    except defs.SchemaError:
        return False
    return all(name in schema.attributes for name in node.attrs) and not schema.deprecated
