"""The verifier: what must be true of every graph, whatever made it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx

from qir.encodings import Encoding, ProductEncoding
from qir.errors import QirError, point_at
from qir.graph import Graph, Node, Value
from qir.infer import result_types
from qir.traits import Weighted
from qir.types import ScalarType, TensorType, Type


@dataclass(frozen=True)
class Problem:
    """One broken rule, and the node that breaks it where there is one."""

    message: str
    node: Node | None = None

    def __str__(self) -> str:
        if self.node is None:
            return self.message
        return "\n".join([self.message, *point_at(self.node.loc), f"  in: {self.node}"])


def verify(graph: Graph) -> None:
    """Raise one QirError that lists every problem of the graph."""
    found = list(problems(graph))
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        shown = "\n".join(map(str, found[:20]))
        raise QirError(f"the graph has {count}", stage="verify", snippet=shown)


def problems(graph: Graph) -> Iterator[Problem]:
    """Every rule that the graph breaks. What the rules are, each function below says."""
    structural = [*_edges(graph), *_ends(graph), *_cycles(graph)]
    yield from structural
    if not structural:
        for node in graph.nodes():
            yield from _operator(node)
            yield from _types(node)
            yield from _encodings(node)
        yield from _weight_paths(graph)


def _edges(graph: Graph) -> Iterator[Problem]:
    """A value has one definition; ports of definitions have no gaps; required operands are there."""
    for vertex in graph.nx:
        if isinstance(vertex, Value):
            definitions = graph.nx.pred[vertex]
            if sum(len(ports) for ports in definitions.values()) > 1:
                yield Problem(f"%{vertex.hint} is defined {len(definitions)} times", next(iter(definitions)))
            if vertex.weight is not None and definitions:
                yield Problem(f"%{vertex.hint} is a weight and also computed", next(iter(definitions)))
        else:
            yield from _ports(vertex)


def _ports(node: Node) -> Iterator[Problem]:
    ports = sorted(port for keys in node.graph.nx.succ[node].values() for port in keys)
    if ports != list(range(len(ports))):
        yield Problem(f"the results of {node.op} are numbered {ports}", node)
    if not ports:
        yield Problem(f"{node.op} has no result")


def _ends(graph: Graph) -> Iterator[Problem]:
    """Inputs and outputs are in the graph, inputs are not computed, everything read has a source."""
    inputs = set(graph.inputs)
    if len(inputs) < len(graph.inputs):
        yield Problem("an input stands twice in the list of inputs")
    for value in [*graph.inputs, *graph.outputs]:
        if value not in graph.nx:
            yield Problem(f"%{value.hint} is an input or output of the graph but is not in it")
    for vertex in graph.nx:
        if isinstance(vertex, Value) and not graph.nx.pred[vertex] and vertex.weight is None and vertex not in inputs:
            reader = vertex.uses[0].node if vertex.uses else None
            yield Problem(f"%{vertex.hint} is dangling: no node computes it, and it is no input or weight", reader)
    for value in graph.inputs:
        if value in graph.nx and (graph.nx.pred[value] or value.weight is not None):
            yield Problem(f"the input %{value.hint} is also computed", value.node)


def _cycles(graph: Graph) -> Iterator[Problem]:
    """No node reads what it computes."""
    try:
        graph.nodes()
    except QirError as error:
        yield Problem(error.message, error.node)
    if not nx.is_directed_acyclic_graph(graph.nx):
        return


def _operator(node: Node) -> Iterator[Problem]:
    """The operator exists and takes these attributes and so many operands and results."""
    try:
        known = node.definition
        operands = node.operands
        known.check_operands(node, operands)
        if known.normalize(node.attrs) != node.attrs and not _has_arrays(node.attrs):
            yield Problem(f"the attributes of {node.op} are not as `add` would keep them", node)
    except QirError as error:
        yield Problem(error.message, node)
        return
    for port, value in enumerate(operands[: known.min_operands]):
        if value is None:
            name = known.operands[port] if port < len(known.operands) else f"number {port}"
            yield Problem(f"{node.op} lacks its operand {name}", node)
    count = len(node.results)
    if count < known.min_results or (known.max_results is not None and count > known.max_results):
        yield Problem(f"{node.op} has {count} results", node)


def _has_arrays(attrs: dict[str, Any]) -> bool:
    return any(hasattr(value, "shape") for value in attrs.values())


def _types(node: Node) -> Iterator[Problem]:
    """The stated types agree with what inference says, where both know."""
    try:
        inferred = result_types(node)
    except QirError as error:
        yield Problem(error.message, node)
        return
    for value, type in zip(node.results, inferred, strict=True):
        if not _agree(value.type, type):
            yield Problem(f"%{value.hint} is typed {value.type} but {node.op} makes {type}", node)


def _agree(a: Type, b: Type) -> bool:
    if isinstance(a, ScalarType) or isinstance(b, ScalarType):
        return a == b or TensorType() in (a, b)
    if None not in (a.dtype, b.dtype) and a.dtype != b.dtype:
        return False
    if a.shape is None or b.shape is None:
        return True
    sizes = zip(a.shape, b.shape, strict=False)
    return len(a.shape) == len(b.shape) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in sizes
    )


def _encodings(node: Node) -> Iterator[Problem]:
    """An encoding fits the tensor that it is for."""
    encoding = node.attrs.get("encoding")
    if not isinstance(encoding, Encoding):
        return
    type = node.operands[0].type
    if encoding.axis is not None and type.rank is not None and not 0 <= encoding.axis < type.rank:
        yield Problem(f"the encoding has axis {encoding.axis} and the tensor {type.rank} axes", node)
    elif encoding.scale is not None and encoding.scale.ndim:
        size = type.shape[encoding.axis or 0] if type.shape is not None else None
        if isinstance(size, int) and size != encoding.scale.size:
            yield Problem(f"the encoding has {encoding.scale.size} scales for {size} channels", node)
    yield from _bias_grid(node, encoding)


def _bias_grid(node: Node, encoding: Encoding) -> Iterator[Problem]:
    """A bias that an integer accumulator starts from lies on the grid of that accumulator's products."""
    for reader, port in node.result.uses:
        weighted = reader.definition.trait(Weighted)
        if weighted is None or port != weighted.bias or not isinstance(encoding, ProductEncoding):
            continue
        for factor, number in ((encoding.input, weighted.input), (encoding.weight, weighted.weight)):
            source = reader.operands[number].node
            if source is None or source.attrs.get("encoding") is not factor:
                yield Problem(f"the bias of {reader.op} lies on the grid of another input or weight", reader)


def _weight_paths(graph: Graph) -> Iterator[Problem]:
    """A path of the model's state belongs to one weight."""
    owners: dict[str, Value] = {}
    for value in graph.weights():
        for path in value.weight.paths if value.weight else ():
            if path in owners:
                yield Problem(f"two weights are called {path}; tied weights are one value")
            owners[path] = value
