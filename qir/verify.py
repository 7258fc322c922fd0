"""The verifier: what must be true of every graph, whatever made it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from math import prod
from typing import Any

from qir.attributes import Port
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.errors import QirError, point_at
from qir.graph import Graph, Node, Value
from qir.infer import result_types
from qir.order import weights_in
from qir.text.printing import attribute
from qir.traits import Weighted
from qir.types import UNKNOWN, OptionalType, SequenceType, TensorType, Type


@dataclass(frozen=True)
class Problem:
    """One broken rule, and the node that breaks it where there is one."""

    message: str
    node: Node | None = None
    help: str | None = None

    @classmethod
    def of(cls, error: QirError, node: Node | None = None) -> Problem:
        """What `error` says, about its own node or else `node`."""
        return cls(error.message, error.node or node, error.help)

    def __str__(self) -> str:
        lines = [self.message]
        if self.node is not None:
            lines += [*point_at(self.node.loc), f"  in: {self.node}"]
        return "\n".join([*lines, *([f"help: {self.help}"] if self.help else [])])


def verify(graph: Graph) -> None:
    """Raise one QirError that lists every problem of the graph."""
    found = list(problems(graph))
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        shown = "\n".join(map(str, found[:20]))
        raise QirError(f"the graph has {count}", stage="verify", snippet=shown)


def problems(graph: Graph) -> Iterator[Problem]:
    """Every rule that the graph breaks. What the rules are, each function below says."""
    for rules in ([_vertices], [_edges, _ends], [_cycles]):
        broken = [problem for rule in rules for problem in rule(graph)]
        yield from broken
        if broken:
            return
    yield from _structure(graph)
    nodes = graph.nodes()
    for node in nodes:
        broken = list(_operator(node)) or list(_bodies(node))
        yield from broken or chain(_types(node), _encodings(node))
    yield from _weight_paths(graph, nodes)


def _vertices(graph: Graph) -> Iterator[Problem]:
    """Vertices are nodes and values of this graph, edges join the two kinds, keys are ports."""
    for vertex in graph.nx:
        if not isinstance(vertex, Node | Value):
            yield Problem(f"{vertex!r} is neither a node nor a value")
        elif vertex.graph is not graph:
            yield Problem(f"{_title(vertex)} belongs to another graph")
    for source, target, port in graph.nx.edges(keys=True):
        if not isinstance(source, Node | Value) or not isinstance(target, Node | Value):
            continue
        if isinstance(source, Value) == isinstance(target, Value):
            yield Problem(f"an edge joins {_title(source)} and {_title(target)}; one joins a node and a value")
        elif type(port) is not int or port < 0:
            yield Problem(f"the edge from {_title(source)} to {_title(target)} has {port!r} in the place of a port")


def _title(vertex: Node | Value) -> str:
    return f"%{vertex.hint}" if isinstance(vertex, Value) else f"a {vertex.op}"


def _edges(graph: Graph) -> Iterator[Problem]:
    """A value has one definition; a port has one value; results have no gaps."""
    for vertex in graph.nx:
        if isinstance(vertex, Value):
            definitions = graph.nx.pred[vertex]
            count = sum(len(ports) for ports in definitions.values())
            if count > 1:
                yield Problem(f"%{vertex.hint} is defined {count} times", next(iter(definitions)))
            if vertex.weight is not None and definitions:
                yield Problem(f"%{vertex.hint} is a weight and also computed", next(iter(definitions)))
        else:
            yield from _ports(vertex)


def _ports(node: Node) -> Iterator[Problem]:
    reads, writes = (
        sorted(port for keys in neighbours.values() for port in keys)
        for neighbours in (node.graph.nx.pred[node], node.graph.nx.succ[node])
    )
    twice = sorted({a for a, b in pairwise(reads) if a == b})
    if twice:
        yield Problem(f"{node.op} has two values for its operand {twice[0]}", node)
    if not writes:
        yield Problem(f"a {node.op} has no result{f', at {node.loc}' if node.loc else ''}")
    elif writes != list(range(len(writes))):
        yield Problem(f"the results of {node.op} are numbered {', '.join(map(str, writes))}, not from 0 on", node)


def _ends(graph: Graph) -> Iterator[Problem]:
    """Inputs and outputs are in the graph, inputs are not computed, everything read has a source."""
    inputs = set(graph.inputs)
    if len(inputs) < len(graph.inputs):
        yield Problem("an input stands twice in the list of inputs")
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value not in graph.nx:
                yield Problem(f"the {kind} %{value.hint} is not in the graph")
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
        yield Problem.of(error)


def _structure(graph: Graph) -> Iterator[Problem]:
    """The structure of the outputs names each output, in order, and nothing else."""
    if graph.structure is None:
        return
    named = [place.index for place in _ports_in(graph.structure)]
    if named != list(range(len(graph.outputs))):
        yield Problem(f"the structure names the outputs {named}, and there are {len(graph.outputs)}")


def _operator(node: Node) -> Iterator[Problem]:
    """The operator exists and takes these attributes and so many operands and results."""
    try:
        known = node.definition
        operands = node.operands
        known.check_operands(node, operands)
        kept = known.normalize(node.attrs)
        if not _same(kept, node.attrs):
            wanted = ", ".join(f"{name}={attribute(value)}" for name, value in kept.items())
            yield Problem(f"the attributes of {node.op} are not as `add` keeps them: {wanted or 'none'}", node)
        yield from _places(node, len(operands))
    except QirError as error:
        yield Problem.of(error, node)
        return
    for port, value in enumerate(operands[: known.min_operands]):
        if value is None:
            name = known.operands[port] if port < len(known.operands) else f"number {port}"
            yield Problem(f"{node.op} lacks its operand {name}", node)
    count = len(node.results)
    if count < known.min_results or (known.max_results is not None and count > known.max_results):
        yield Problem(f"{node.op} has {count} results", node)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    try:
        return a == b
    except ValueError:  # numpy's, for arrays that compare to more than one truth
        return attribute(a) == attribute(dict(sorted(b.items())))


def _places(node: Node, operands: int) -> Iterator[Problem]:
    """The arguments of an opaque call name operands that there are."""
    if node.definition.opaque:
        missing = [port.index for port in _ports_in(node.attrs) if port.index >= operands]
        if missing:
            yield Problem(f"an argument of {node.op} is its operand {missing[0]}, and it reads {operands}", node)


def _ports_in(part: Any) -> Iterator[Port]:
    if isinstance(part, Port):
        yield part
    elif isinstance(part, tuple | list | dict | slice):
        inner = (part.start, part.stop, part.step) if isinstance(part, slice) else part
        for item in inner.values() if isinstance(inner, dict) else inner:
            yield from _ports_in(item)


def _types(node: Node) -> Iterator[Problem]:
    """The stated types agree with what inference says, where both know."""
    try:
        inferred = result_types(node)
    except QirError as error:
        yield Problem.of(error, node)
        return
    for value, type in zip(node.results, inferred, strict=True):
        if not _agree(value.type, type):
            yield Problem(f"%{value.hint} is typed {value.type} but {node.op} makes {type}", node)


def _bodies(node: Node) -> Iterator[Problem]:
    """Each body is a graph without a problem, and takes the values that the node captures as its last inputs."""
    for body in node.bodies:
        if body.captured != node.captured:
            yield Problem(f"@{body.name} captures {body.captured} values and the node {node.captured}", node)
        elif len(body.inputs) < body.captured or len(node.operands) < body.captured:
            yield Problem(f"@{body.name} captures {body.captured} values and there are not so many", node)
        else:
            outer = node.operands[len(node.operands) - node.captured :]
            for value, inner in zip(outer, body.inputs[len(body.inputs) - body.captured :], strict=True):
                if value is None or not _agree(value.type, inner.type):
                    yield Problem(f"@{body.name} captures another type for its %{inner.hint}", node)
        for problem in problems(body):
            yield Problem(f"in @{body.name}: {problem.message}", problem.node or node, problem.help)


def _agree(a: Type, b: Type) -> bool:
    if isinstance(a, SequenceType | OptionalType) and isinstance(b, SequenceType | OptionalType):
        return type(a) is type(b) and _agree(a.element, b.element)
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return a == b or UNKNOWN in (a, b)
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
    axes = [axis for axis in (encoding.axis, encoding.block_axis) if axis is not None]
    if type.rank is not None and not all(0 <= axis < type.rank for axis in axes):
        yield Problem(f"the encoding has axis {max(axes, key=abs)} and the tensor {type.rank} axes", node)
    elif type.shape is not None and all(isinstance(type.shape[axis], int) for axis in axes):
        yield from _scales(node, encoding, tuple(dim if isinstance(dim, int) else 1 for dim in type.shape))
    yield from _bias_grid(node, encoding)


def _scales(node: Node, encoding: Encoding, shape: tuple[int, ...]) -> Iterator[Problem]:
    """The encoding has the scales that a tensor of this shape needs."""
    try:
        expected = encoding.scale_shape(shape)
    except QirError as error:
        yield Problem.of(error, node)
        return
    if encoding.scale is not None and encoding.scale.shape != expected:
        if encoding.block_axis is None:
            yield Problem(f"the encoding has {encoding.scale.size} scales for {prod(expected)} channels", node)
        else:
            yield Problem(f"the scales have shape {list(encoding.scale.shape)}, not {list(expected)}", node)


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


def _weight_paths(graph: Graph, nodes: list[Node]) -> Iterator[Problem]:
    """A path of the model's state belongs to one weight."""
    owners: dict[str, Value] = {}
    for value in weights_in(graph, nodes):
        for path in value.weight.paths if value.weight else ():
            if path in owners:
                yield Problem(f"two weights are called {path}; tied weights are one value")
            owners[path] = value
