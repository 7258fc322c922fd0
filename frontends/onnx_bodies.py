"""The graphs that nodes hold as attributes, and what they read from around them."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

import onnx
from onnx import AttributeProto


def bodies_of(node: onnx.NodeProto) -> dict[str, onnx.GraphProto]:
    """The bodies of `node`, by the names of their attributes, in the order of those."""
    return {a.name: a.g for a in sorted(node.attribute, key=lambda a: str(a.name)) if a.type == AttributeProto.GRAPH}


def given_names(graph: onnx.GraphProto) -> list[str]:
    """The names of what no node of `graph` computes: inputs and initializers."""
    sparse = [tensor.values.name for tensor in graph.sparse_initializer]
    return [*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer), *sparse]


def captured_names(node: onnx.NodeProto) -> list[str]:
    """The names that the bodies of `node` read and do not define, in the order of the first reading."""
    return list(dict.fromkeys(name for body in bodies_of(node).values() for name in _free(body)))


def _free(body: onnx.GraphProto) -> Iterable[str]:
    own = {*given_names(body), *(name for node in body.node for name in node.output)}
    wanted = [name for node in body.node for name in reads(node)] + [value.name for value in body.output]
    return (name for name in wanted if name and name not in own)


def reads(node: onnx.NodeProto) -> list[str]:
    """The names of the operands of `node`, those last that its bodies capture."""
    return [*node.input, *captured_names(node)]


def in_order(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """`nodes`, those computed first that others read. Raises graphlib.CycleError when there is no such order."""
    listed = list(nodes)
    makers = {name: position for position, node in enumerate(listed) for name in node.output if name}
    sorter = TopologicalSorter({i: [makers[n] for n in reads(node) if n in makers] for i, node in enumerate(listed)})
    return [listed[position] for position in sorter.static_order()]
