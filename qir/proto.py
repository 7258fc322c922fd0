"""Graphs and nodes as ONNX protobufs: one statement to one node, nothing rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, defs, helper, numpy_helper

from qir.attributes import TRAINING
from qir.errors import QirError
from qir.ops import VOCABULARY_OPSET, shortest
from qir.text.printing import Names, value_names
from qir.types import NUMPY, ScalarType, is_known, to_proto

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


Tensors = Callable[["Value", str], onnx.TensorProto]
"""What makes the initializer of a weight, under a name."""


def node_proto(
    node: Node, inputs: Sequence[str], outputs: Sequence[str], name: str = "", around: Iterable[str] = ()
) -> onnx.NodeProto:
    """`node` reading `inputs` (empty where an operand is left out) and writing `outputs`, as in inference.

    Its bodies name their own values beside those and the names `around`.
    """
    from qir.graph import Graph

    domain, _, op = node.op.rpartition(".")
    own = len(inputs) - node.captured
    proto = helper.make_node(op, inputs[:own], outputs, name=name, domain=domain)
    attributes = node.definition.attributes
    for key, value in {**_stated(node), **node.attrs}.items():
        kind = attributes[key].kind if key in attributes else "ANY"
        number = None if kind in ("ANY", "ENCODING") else AttributeProto.AttributeType.Value(kind)
        if value is TRAINING:
            value = 0
        elif isinstance(value, np.ndarray):
            value = numpy_helper.from_array(value)
        elif isinstance(value, Graph):
            value = _body_proto(value, inputs[own:], {*around, *inputs, *outputs})
        proto.attribute.append(helper.make_attribute(key, value, attr_type=number))
    return proto


def _stated(node: Node) -> dict[str, Any]:
    """The defaults that the node must state: ONNX's inference does not know those of an operator with a body."""
    known = node.definition
    if known.schema is None or not known.schema.has_function:
        return {}
    return {name: attribute.default for name, attribute in known.attributes.items() if attribute.default is not None}


def _body_proto(body: Graph, captured: Sequence[str], around: set[str]) -> onnx.GraphProto:
    """A body that reads the values `captured` of the graph around it by their names there."""
    own = len(body.inputs) - body.captured
    names = value_names(body, Names(dict(zip(body.inputs[own:], captured, strict=True)), around))
    return _graph_proto(body, names, around, tensor_of, lambda value: value.node is not None)


def tensor_of(value: Value, name: str = "") -> onnx.TensorProto:
    """The data of a weight or constant as a TensorProto, a Python number as a tensor of its own dtype."""
    if value.weight is None:
        raise QirError(f"%{value.hint} is not a weight")
    array = value.weight.array
    if isinstance(value.type, ScalarType):
        array = array.astype(NUMPY[value.type.dtype])
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def within(nodes: Iterable[Node]) -> Iterator[Node]:
    """`nodes` and those in their bodies, each before those in its bodies."""
    for node in nodes:
        yield node
        for body in node.bodies:
            yield from within(body.nodes())


def model_proto(
    graph: Graph,
    *,
    opset: int = VOCABULARY_OPSET,
    ir_version: int | None = None,
    domains: Mapping[str, int] = {},
    tensors: Tensors | None = None,
) -> onnx.ModelProto:
    """`graph` as an ONNX model with its weights, as `tensors` makes them; values named as the graph prints them.

    Only operators that ONNX or one of `domains` (name to version) knows are left as they are; the graph's own `opsets`
    are among them. Raises QirError, naming all others, when there are any: those are for `legalize-onnx` to expand.
    """
    versions = {**graph.opsets, **domains}
    foreign = [node for node in within(graph.nodes()) if "." in node.op and node.op.rpartition(".")[0] not in versions]
    if foreign:
        lines = "\n".join(f"{node.op}{f' at {node.loc}' if str(node.loc or '') else ''}" for node in foreign[:20])
        raise QirError(
            f"{len(foreign)} operators have no place in ONNX",
            foreign[0],
            snippet=lines,
            help="run legalize-onnx first; it expands what has an expansion",
        )
    proto = _graph_proto(graph, value_names(graph), set(), tensors or tensor_of, lambda value: True)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, version) for d, version in versions.items())]
    known = ir_version or helper.find_min_ir_version_for(imports[:1], ignore_unknown=True)
    return helper.make_model(proto, opset_imports=imports, ir_version=known, producer_name="qir")


def _graph_proto(
    graph: Graph, names: Mapping[Value, str], around: set[str], tensors: Tensors, returnable: Callable[[Value], bool]
) -> onnx.GraphProto:
    """`graph` with values called `names`, the graphs around it having the names `around`.

    A value that it returns for the second time, or that is not `returnable`, is returned under a new name.
    """
    nodes, taken = graph.nodes(), around.union(names.values())
    protos, labels = [], _node_names(nodes, names)
    for node in nodes:
        reads = ["" if value is None else names[value] for value in node.operands]
        writes = [names[value] for value in node.results]
        protos.append(node_proto(node, reads, writes, labels[node], taken))
    returned: set[Value] = set()
    outputs = []
    for number, value in enumerate(graph.outputs):
        name = names[value]
        if value in returned or not returnable(value):
            name = f"{name}_output_{number}"
            protos.append(helper.make_node("Identity", [names[value]], [name]))
        returned.add(value)
        outputs.append(_value_info(name, value))
    return helper.make_graph(
        protos,
        graph.name,
        [_value_info(names[value], value) for value in graph.inputs[: len(graph.inputs) - graph.captured]],
        outputs,
        [tensors(value, names[value]) for value in graph.weights() if value.uses or value.is_output],
        value_info=[_value_info(names[v], v) for n in nodes for v in n.results if is_known(v.type) and not v.is_output],
    )


def _node_names(nodes: Sequence[Node], values: Mapping[Value, str]) -> dict[Node, str]:
    """The name of each node: that of its layer, and where the layer has several nodes also that of its result."""
    calls, labels = Counter(node.module for node in nodes), Names()
    for node in nodes:
        if node.module is not None and calls[node.module] == 1:
            labels.name(node, node.module)
    for node in nodes:
        result = values[node.result]
        labels.name(node, f"{node.module}/{result}" if node.module else result)
    return labels.of


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
