"""Graphs and nodes as ONNX protobufs: one statement to one node, nothing rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, defs, helper, numpy_helper

from qir.attributes import TRAINING
from qir.errors import QirError
from qir.ops import VOCABULARY_OPSET, shortest
from qir.text import value_names
from qir.types import NUMPY, ScalarType, to_proto

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


def node_proto(node: Node, inputs: Sequence[str], outputs: Sequence[str], name: str = "") -> onnx.NodeProto:
    """`node` reading `inputs` (empty where an operand is left out) and writing `outputs`, as in inference."""
    domain, _, op = node.op.rpartition(".")
    proto = helper.make_node(op, inputs, outputs, name=name, domain=domain)
    attributes = node.definition.attributes
    for key, value in node.attrs.items():
        kind = attributes[key].kind if key in attributes else "ANY"
        number = None if kind in ("ANY", "ENCODING") else AttributeProto.AttributeType.Value(kind)
        if value is TRAINING:
            value = 0
        elif isinstance(value, np.ndarray):
            value = numpy_helper.from_array(value)
        proto.attribute.append(helper.make_attribute(key, value, attr_type=number))
    return proto


def tensor_of(value: Value, name: str = "") -> onnx.TensorProto:
    """The data of a weight or constant as a TensorProto, a Python number as a tensor of its own dtype."""
    if value.weight is None:
        raise QirError(f"%{value.hint} is not a weight")
    array = value.weight.array
    if isinstance(value.type, ScalarType):
        array = array.astype(NUMPY[value.type.dtype])
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def model_proto(
    graph: Graph, *, opset: int = VOCABULARY_OPSET, ir_version: int | None = None, domains: Mapping[str, int] = {}
) -> onnx.ModelProto:
    """`graph` as an ONNX model with its weights, values named as the graph prints them.

    Only operators that ONNX or one of `domains` (name to version) knows are left as they are; raises QirError, naming
    all of them, when the graph has others: those are for `legalize-onnx` to expand.
    """
    nodes = graph.nodes()
    foreign = [node for node in nodes if "." in node.op and node.op.rpartition(".")[0] not in domains]
    if foreign:
        lines = "\n".join(f"{node.op}{f' at {node.loc}' if str(node.loc or '') else ''}" for node in foreign[:20])
        raise QirError(
            f"{len(foreign)} operators have no place in ONNX",
            foreign[0],
            snippet=lines,
            help="run legalize-onnx first; it expands what has an expansion",
        )
    names = value_names(graph)
    protos = []
    for position, node in enumerate(nodes):
        reads = ["" if value is None else names[value] for value in node.operands]
        writes = [names[value] for value in node.results]
        protos.append(node_proto(node, reads, writes, name=_node_name(node, writes, position)))
    returned: set[Value] = set()
    outputs = []
    for number, value in enumerate(graph.outputs):
        name = names[value]
        if value.node is None or value in returned:  # ONNX wants each output computed, under a name of its own
            name = f"{name}_output_{number}"
            protos.append(helper.make_node("Identity", [names[value]], [name]))
        returned.add(value)
        outputs.append(_value_info(name, value))
    proto = helper.make_graph(
        protos,
        graph.name,
        [_value_info(names[value], value) for value in graph.inputs],
        outputs,
        [tensor_of(value, names[value]) for value in graph.weights() if value.uses or value.is_output],
        value_info=[_value_info(names[v], v) for n in nodes for v in n.results if v.type.dtype and not v.is_output],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, version) for d, version in domains.items())]
    known = ir_version or helper.find_min_ir_version_for(imports[:1], ignore_unknown=True)
    return helper.make_model(proto, opset_imports=imports, ir_version=known, producer_name="qir")


def _node_name(node: Node, writes: Sequence[str], position: int) -> str:
    return f"{node.module}/{writes[0]}" if node.module and node.module != writes[0] else writes[0] or f"node_{position}"


def _value_info(name: str, value: Value) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, to_proto(value.type))


def has_operator(op: str, opset: int) -> bool:
    """Whether ONNX has the standard operator `op` at `opset`."""
    try:
        defs.get_schema(op, opset)
    except defs.SchemaError:
        return False
    return True


def attributes_of(proto: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a NodeProto as the graph keeps them."""
    result = {}
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif attribute.type == AttributeProto.STRINGS:
            value = tuple(item.decode(errors="replace") for item in value)
        result[attribute.name] = shortest(tuple(value) if isinstance(value, list) else value)
    return result
