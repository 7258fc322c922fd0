"""The canonical order of a graph's nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import networkx as nx

from qir.errors import QirError

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

Waits = Mapping["Node", Sequence["Node"]]
"""The nodes that a node with an `order` waits for: those with the order before its own."""


def canonical_order(graph: Graph) -> list[Node]:
    """Every node, operands first: depth first from the outputs, in operand order, then what no output reaches.

    Nodes with an `order` come in that order, each also waiting for the one before it. The result depends on the shape
    of the graph alone; nodes that nothing reads and that are equal but for their names come as they were added.
    Raises QirError when the graph has a cycle.
    """
    from qir.graph import Node

    everything = [vertex for vertex in graph.nx if isinstance(vertex, Node)]
    ranked = [node for node in everything if node.order is not None]
    if len({node.order for node in ranked}) == len(ranked):
        return _ordered(graph, everything, _waits(ranked))
    # Equal ranks come as they would without ranks, which is an order that depends on the shape alone.
    position = {node: number for number, node in enumerate(_ordered(graph, everything, {}))}
    return _ordered(graph, everything, _waits(sorted(ranked, key=position.__getitem__)))


def _waits(ranked: Sequence[Node]) -> Waits:
    ordered = sorted(ranked, key=lambda node: node.order or 0)
    return {node: [before] for before, node in pairwise(ordered)}


def _ordered(graph: Graph, everything: Sequence[Node], waits: Waits) -> list[Node]:
    definitions = graph.nx._pred
    done: dict[Node, None] = {}
    _visit((node for value in graph.outputs for node in definitions.get(value, ())), waits, done)
    if len(done) < len(everything):
        dead = [node for node in everything if node not in done]
        _visit(_dead_roots(graph, dead, done), waits, done)
    return list(done)


def _visit(roots: Iterable[Node], waits: Waits, done: dict[Node, None]) -> None:
    """Append each root to `done`, after everything that it waits for."""
    waiting: set[Node] = set()
    for root in roots:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in done or node in waiting:
                stack.pop()
                waiting.discard(node)
                done[node] = None
                continue
            waiting.add(node)
            for definition in reversed([*waits.get(node, ()), *node.definitions]):
                if definition in waiting:
                    raise _cycle(definition, waiting, waits)
                if definition not in done:
                    stack.append(definition)


def _cycle(node: Node, waiting: set[Node], waits: Waits) -> QirError:
    if any(other in waiting for reader in waiting for other in waits.get(reader, ())):
        help = "a node with a lower `!order` may not read one with a higher"
        return QirError("the graph has a cycle: the order of some nodes contradicts what they read", node, help=help)
    return QirError("the graph has a cycle: this node reads what it computes", node)


def _dead_roots(graph: Graph, dead: list[Node], live: dict[Node, None]) -> list[Node]:
    """The nodes among `dead` that nothing reads, sorted by what they compute."""
    chosen = set(dead)
    part = nx.subgraph_view(graph.nx, filter_node=chosen.union(v for n in dead for v in n.results).__contains__)
    try:
        ordered = [vertex for vertex in nx.topological_sort(part) if vertex in chosen]
    except nx.NetworkXUnfeasible:
        raise QirError("the graph has a cycle, in a part that no output reaches", dead[0]) from None
    known: dict[Any, str] = {node: str(position) for position, node in enumerate(live)}
    known |= {value: f"input {number}" for number, value in enumerate(graph.inputs)}
    for node in ordered:
        known[node] = _signature(node, known)
    return sorted((node for node in dead if not any(value.uses for value in node.results)), key=known.__getitem__)


def _signature(node: Node, known: Mapping[Any, str]) -> str:
    """A hash of what `node` computes; names play no part in it."""
    from qir.text.printing import attributes, location

    def operand(value: Value | None) -> str:
        if value is None or value.weight is not None:
            return "-" if value is None else _content(value)
        return known.get(value, "") if value.node is None else f"{known[value.node]}.{value.port}"

    parts = [node.op, attributes(node), str(node.module), str(node.order), *map(location, node.locs)]
    parts += [*map(operand, node.operands), *(str(result.type) for result in node.results)]
    return hashlib.blake2b("|".join(parts).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _content(value: Value) -> str:
    """What tells a weight from others, whatever its name."""
    assert value.weight is not None
    return f"{value.type} {value.weight.paths or value.weight.digest}"


def weights_in(graph: Graph, nodes: Sequence[Node]) -> list[Value]:
    """Every weight of a graph with these nodes: those read in the order of first use, then the unread by path."""
    from qir.graph import Value

    weights = [vertex for vertex in graph.nx if isinstance(vertex, Value) and vertex.weight is not None]
    if not weights:
        return []
    found: dict[Value, None] = {}
    for node in nodes:
        found.update((value, None) for value in node.operands if value is not None and value.weight is not None)
    found.update((value, None) for value in graph.outputs if value.weight is not None)
    rest = [value for value in weights if value not in found]
    return [*found, *sorted(rest, key=_content)]
