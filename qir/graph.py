"""The graph: operations and values as the two kinds of vertex of one networkx.MultiDiGraph.

    value --(key = operand number)--> node --(key = result number)--> value

An edge is a use or a definition, its key the port. Nothing else records connectivity, so nothing can disagree with it.
Read `graph.nx` with any networkx algorithm; write through the verbs of `Graph`, each linear in the uses it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from qir.attributes import Body
from qir.errors import Loc, QirError
from qir.infer import result_types
from qir.ops import OpDef, definition
from qir.order import canonical_order, weights_in
from qir.types import UNKNOWN, ScalarType, Type, type_of
from qir.weights import Weight


class Use(NamedTuple):
    """Operand number `port` of `node`."""

    node: Node
    port: int


@dataclass(eq=False, slots=True, weakref_slot=True)
class Value:
    """One tensor or Python number. `hint` is a wish for a name, never an identity."""

    graph: Graph = field(repr=False)
    hint: str
    type: Type = UNKNOWN
    weight: Weight | None = None

    @property
    def node(self) -> Node | None:
        """The node that computes this value; None for an input or a weight."""
        return next(iter(self.graph.nx._pred[self]), None)

    @property
    def port(self) -> int:
        """Which result of its node this is."""
        for ports in self.graph.nx._pred[self].values():
            return int(next(iter(ports)))
        raise QirError(f"%{self.hint} is computed by no node")

    @property
    def uses(self) -> list[Use]:
        """Every operand that this value is. Being an output of the graph is no use."""
        return [Use(node, port) for node, ports in self.graph.nx._adj[self].items() for port in ports]

    @property
    def is_output(self) -> bool:
        """Whether the graph returns this value."""
        return any(value is self for value in self.graph.outputs)

    @property
    def array(self) -> np.ndarray:
        """The data of a weight. Raises QirError when the value is computed, or the data is not here."""
        if self.weight is None:
            raise QirError(f"%{self.hint} is not a weight", self.node)
        return self.weight.array

    @property
    def literal(self) -> Any:
        """The Python value of a constant that no state dictionary names (a number or nested list), else None."""
        if self.weight is None or self.weight.paths or self.weight.data is None:
            return None
        return self.weight.array.tolist()


@dataclass(eq=False, slots=True, weakref_slot=True)
class Node:
    """One operation: `op` applied to `operands` with `attrs`.

    `module` is the path of the layer that this call belongs to, None for a functional call. `order` ranks the nodes
    that draw random numbers or update state, whose order is part of their meaning. `host` is the framework's own
    object behind an opaque call, and `why_opaque` the frontend's reason for it.
    """

    __match_args__ = ("op", "operands")
    graph: Graph = field(repr=False)
    op: str
    attrs: dict[str, Any]
    module: str | None = None
    locs: tuple[Loc, ...] = ()
    order: int | None = None
    host: Any = field(default=None, repr=False)
    why_opaque: str = ""

    @property
    def definition(self) -> OpDef:
        """What is known about the operator: operands, attributes, traits, expansion."""
        return definition(self.op)

    @property
    def operands(self) -> list[Any]:
        """The values read, by port; None where an optional operand is left out before a later one.

        Typed loosely, so that a `match` statement or an unpacking may state which operands it expects.
        """
        return _by_port(self.graph.nx._pred[self])

    @property
    def results(self) -> list[Value]:
        """The values computed, by port."""
        return _by_port(self.graph.nx._adj[self])

    @property
    def bodies(self) -> list[Graph]:
        """The graphs among the attributes: the branches of an If, the body of a Loop."""
        return [value for value in self.attrs.values() if isinstance(value, Graph)]

    @property
    def captured(self) -> int:
        """How many of the last operands are values that the bodies read from around them, each as its last inputs."""
        return max((body.captured for body in self.bodies), default=0)

    @property
    def definitions(self) -> list[Node]:
        """The nodes that compute the operands, by port; as often as they are read."""
        computed = self.graph.nx._pred
        return [node for value in self.operands if value is not None for node in computed[value]]

    @property
    def result(self) -> Value:
        """The first result."""
        return self.results[0]

    @property
    def loc(self) -> Loc | None:
        """The first location, None when the frontend knew none."""
        return self.locs[0] if self.locs else None

    @property
    def scope(self) -> str:
        """The path of the module whose forward made this call; empty for the outermost."""
        return self.locs[0].scope if self.locs else ""

    @property
    def erased(self) -> bool:
        """Whether this node has left the graph."""
        return self not in self.graph.nx

    def attr(self, name: str) -> Any:
        """Attribute `name`, or its default. Raises QirError when it is neither given nor has a default."""
        if name in self.attrs:
            return self.attrs[name]
        return self.definition.default(name)

    def operand(self, name: str) -> Value | None:
        """The operand that the operator's definition calls `name`, None when it is left out."""
        port, operands = self.definition.operands.index(name), self.operands
        return operands[port] if port < len(operands) else None

    def __str__(self) -> str:
        from qir.text import statement

        return "an erased node" if self.erased else statement(self)


def _by_port(neighbours: Mapping[Any, Iterable[int]]) -> list[Any]:
    found: list[Any] = []
    for neighbour, ports in neighbours.items():
        for port in ports:
            if port != len(found):
                return _sorted_by_port(neighbours)
            found.append(neighbour)
    return found


def _sorted_by_port(neighbours: Mapping[Any, Iterable[int]]) -> list[Any]:
    by_port = {port: neighbour for neighbour, ports in neighbours.items() for port in ports}
    return [by_port.get(port) for port in range(max(by_port) + 1)]


class Graph(Body):
    """A function from `inputs` to `outputs`.

    `structure` arranges the outputs as the model returns them: a nest of tuples, lists and dicts with the `Port` of an
    output at each leaf; `signature` is the frontend's own description of how the model takes its inputs, None where
    they are plain positional arguments. `opsets` has the version of each foreign domain of ONNX operators.
    `inference_only` says why the model computes something else in training, and is empty where it does not.

    A graph that is the body of a node takes the node's operands; the last `captured` of its inputs are values that it
    reads from around the node. Copies of the node share it, so nothing changes it in place. Two graphs are equal when
    they print the same, weights compared by content.
    """

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.nx = nx.MultiDiGraph()
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.structure: Any = None
        self.signature: Any = None
        self.opsets: dict[str, int] = {}
        self.inference_only = ""
        self.captured = 0
        self.added: list[Node] | None = None
        """Where `add` notes the new nodes, when a rewriter wants to know them."""
        self.watchers: Sequence[Any] = ()
        """Who is told of every replacement of a node while a pipeline runs: each a `qir.watch.Watcher`."""

    # -- building ------------------------------------------------------------------------------------------------

    def input(self, hint: str, type: Type = UNKNOWN) -> Value:
        """A new input, after those that there are."""
        value = self._value(hint, type)
        self.inputs.append(value)
        return value

    def weight(self, weight: Weight, type: Type | None = None, hint: str | None = None) -> Value:
        """A new value that holds `weight`, typed as its data unless told."""
        name = hint or (weight.paths[0] if weight.paths else "c")
        return self._value(name, type_of(weight.array) if type is None else type, weight)

    def constant(self, data: Any, hint: str = "c") -> Value:
        """A new literal: a Python number stays one, anything else becomes a tensor.

        Python integers in a list make a tensor of i64, floats one of f32.
        """
        if isinstance(data, bool | int | float) and not isinstance(data, np.generic):
            return self._value(hint, ScalarType(type_name(data)), Weight(data))
        array = np.asarray(data)
        if array.dtype == np.float64 and not isinstance(data, np.ndarray | np.generic):
            array = array.astype(np.float32)
        return self.weight(Weight(array), hint=hint)

    def add(
        self,
        op: str,
        operands: Sequence[Value | None],
        attrs: Mapping[str, Any] | None = None,
        *,
        results: int | None = None,
        like: Node | Sequence[Node] = (),
        module: str | None = None,
        hint: str | None = None,
        types: Sequence[Type] | None = None,
        locs: tuple[Loc, ...] | None = None,
    ) -> Node:
        """A new node, with results typed by the operator's own inference unless `types` are given.

        `like` names the nodes that it takes the place of: it inherits their locations, and from the first the module
        path and the name of its result. `results` is for operators that may have several. Attributes that equal
        their default are not kept. Raises QirError for an unknown operator or attribute and a wrong number of operands.
        """
        source = [like] if isinstance(like, Node) else list(like)
        known = definition(op)
        node = Node(self, op, known.normalize(attrs or {}), module)
        node.locs = locs if locs is not None else tuple(dict.fromkeys(loc for old in source for loc in old.locs))
        if source:
            node.module = module or source[0].module
            node.order, node.host = source[0].order, source[0].host
            hint = hint or source[0].result.hint
        known.check_operands(node, operands)
        for value in operands:
            if value is not None:
                self._own(value)
        name = hint or op.rpartition(".")[2].lower()
        count = len(types) if types is not None else known.min_results if results is None else results
        made = [Value(self, name if port == 0 else f"{name}_{port}") for port in range(count)]
        self.nx.add_node(node)
        for port, operand in enumerate(operands):
            if operand is not None:
                self.nx.add_edge(operand, node, port)
        for port, value in enumerate(made):
            self.nx.add_edge(node, value, port)
        try:
            for value, type in zip(made, types or result_types(node), strict=True):
                value.type = type
        except QirError:
            self.nx.remove_nodes_from([*made, node])
            raise
        if self.added is not None:
            self.added.append(node)
        return node

    def _own(self, value: Value) -> Value:
        """`value`, which is in this graph. Raises QirError when it is not."""
        if value not in self.nx:
            place = "has left the graph" if value.graph is self else "belongs to another graph"
            raise QirError(f"%{value.hint} {place}, so nothing here can read it")
        return value

    def _value(self, hint: str, type: Type, weight: Weight | None = None) -> Value:
        value = Value(self, hint, type, weight)
        self.nx.add_node(value)
        return value

    # -- rewriting -----------------------------------------------------------------------------------------------

    def set_operand(self, node: Node, port: int, value: Value) -> None:
        """Make `value` operand number `port` of `node`."""
        operands = node.operands
        self._own(value)
        if port < len(operands) and operands[port] is not None:
            self.nx.remove_edge(operands[port], node, key=port)
        self.nx.add_edge(value, node, key=port)

    def replace(self, old: Value, new: Value) -> None:
        """Let everything that reads or returns `old` read or return `new`."""
        self._own(new)
        for node, port in self._own(old).uses:
            self.nx.remove_edge(old, node, key=port)
            self.nx.add_edge(new, node, key=port)
        self.outputs[:] = [new if value is old else value for value in self.outputs]

    def erase(self, node: Node) -> None:
        """Remove a node whose results nothing reads, and the weights that only it read.

        Raises QirError when a result is still read or returned.
        """
        if node.erased:
            raise QirError(f"this {node.op} has left the graph already")
        for result in node.results:
            if result.uses or result.is_output:
                raise QirError(f"can not erase this node: %{result.hint} is still used", node)
        operands = {value for value in node.operands if value is not None}
        self.nx.remove_nodes_from([*node.results, node])
        for value in operands:
            if value.weight is not None and not self.nx._adj[value] and not value.is_output:
                self.nx.remove_node(value)

    def erase_dead(self, node: Node) -> None:
        """Remove `node` if nothing reads it, then what only it kept alive."""
        stack = [node]
        while stack:
            dead = stack.pop()
            if dead.erased or any(result.uses or result.is_output for result in dead.results):
                continue
            definitions = dead.definitions
            self.erase(dead)
            stack += definitions

    def remove_weight(self, value: Value) -> None:
        """Remove a weight that nothing reads. Raises QirError when something does."""
        if value.weight is None or value.uses or value.is_output:
            raise QirError(f"can not remove %{value.hint}: it is not an unread weight")
        self.nx.remove_node(value)

    # -- reading -------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """Every node, operands first, in an order that depends on the graph's shape and not on its history."""
        return canonical_order(self)

    def weights(self) -> list[Value]:
        """Every weight: those read in the order of their first use, then the unread by path."""
        return weights_in(self, self.nodes())

    def copy(self) -> Graph:
        """A graph of its own with the same nodes; weights and encodings stay shared by reference."""
        return self.copy_with_map()[0]

    def copy_with_map(self) -> tuple[Graph, dict[Node | Value, Any]]:
        """A copy, and for every node and value of this graph its twin there."""
        twin = Graph(self.name)
        twins: dict[Node | Value, Any] = {}
        for old in self.nx:
            if isinstance(old, Value):
                twins[old] = Value(twin, old.hint, old.type, old.weight)
            else:
                kept = (old.module, old.locs, old.order, old.host, old.why_opaque)
                twins[old] = Node(twin, old.op, dict(old.attrs), *kept)
        twin.nx.add_nodes_from(twins.values())
        twin.nx.add_edges_from((twins[a], twins[b], port) for a, b, port in self.nx.edges(keys=True))
        twin.inputs = [twins[value] for value in self.inputs]
        twin.outputs = [twins[value] for value in self.outputs]
        twin.structure = deepcopy(self.structure)
        twin.inference_only = self.inference_only
        twin.signature, twin.opsets, twin.captured = self.signature, dict(self.opsets), self.captured
        return twin, twins

    def __str__(self) -> str:
        from qir.text import print_graph

        return print_graph(self)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Graph) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        """What a notebook shows of the graph."""
        from qir.view_svg import notebook

        return notebook(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {sum(isinstance(n, Node) for n in self.nx)} nodes>"


def type_name(number: bool | int | float) -> str:
    """`bool`, `int` or `float`."""
    return type(number).__name__
