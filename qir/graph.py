"""The graph: operations and values as the two kinds of vertex of one networkx.MultiDiGraph.

    value --(key = operand number)--> node --(key = result number)--> value

An edge is a use or a definition, its key the port. Nothing else records connectivity, so nothing can disagree with it.
Read `graph.nx` with any networkx algorithm; write through the verbs of `Graph`, each linear in the uses it touches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import networkx as nx
import numpy as np

from qir.attributes import Body
from qir.errors import Loc, QirError
from qir.infer import result_types
from qir.ops import definition
from qir.order import canonical_order, weights_in
from qir.types import UNKNOWN, ScalarType, Type, type_of
from qir.vertices import Node, Use, Value
from qir.weights import Weight

__all__ = ["Graph", "Node", "Use", "Value", "type_name"]


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
        from qir.text.printing import print_graph

        return print_graph(self)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Graph) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        """What a notebook shows of the graph."""
        from qir.pages.svg import notebook

        return notebook(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {sum(isinstance(n, Node) for n in self.nx)} nodes>"


def type_name(number: bool | int | float) -> str:
    """`bool`, `int` or `float`."""
    return type(number).__name__
