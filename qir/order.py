"""The canonical order of a graph's nodes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import networkx as nx

from qir.errors import QirError

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


def canonical_order(graph: Graph) -> list[Node]:
    """Every node, operands first: depth first from the outputs, in operand order, then what no output reaches.

    Nodes with an `order` come in that order, each also waiting for the one before it. The result depends on the shape
    of the graph alone. Raises QirError when the graph has a cycle.
    """
    from qir.graph import Node

    everything = [vertex for vertex in graph.nx if isinstance(vertex, Node)]
    ranked = sorted((node for node in everything if node.order is not None), key=lambda node: node.order or 0)
    previous = dict(zip(ranked[1:], ranked, strict=False))
    done: dict[Node, None] = {}
    for output in graph.outputs:
        if output.node is not None:
            _visit(output.node, previous, done)
    if len(done) < len(everything):
        dead = [node for node in everything if node not in done]
        for root in _dead_roots(graph, dead, done):
            _visit(root, previous, done)
    return list(done)


def _visit(root: Node, previous: dict[Node, Node], done: dict[Node, None]) -> None:
    """Append `root` to `done`, after everything that it waits for."""
    predecessors = root.graph.nx.pred
    waiting: dict[Node, None] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
        elif node in waiting:
            stack.pop()
            del waiting[node]
            done[node] = None
        else:
            waiting[node] = None
            needed = [definition for value in node.operands if value is not None for definition in predecessors[value]]
            if node in previous:
                needed.insert(0, previous[node])
            for definition in reversed(needed):
                if definition in waiting:
                    raise QirError("the graph has a cycle: this node reads what it computes", definition)
                if definition not in done:
                    stack.append(definition)


def _dead_roots(graph: Graph, dead: list[Node], live: dict[Node, None]) -> list[Node]:
    """The nodes among `dead` that nothing reads, sorted by what they compute."""
    chosen = set(dead)
    part = nx.subgraph_view(graph.nx, filter_node=chosen.union(v for n in dead for v in n.results).__contains__)
    try:
        ordered = [vertex for vertex in nx.topological_sort(part) if vertex in chosen]
    except nx.NetworkXUnfeasible:
        raise QirError("the graph has a cycle, in a part that no output reaches", dead[0]) from None
    rank = {node: position for position, node in enumerate(live)}
    signatures: dict[Node, str] = {}
    for node in ordered:
        signatures[node] = _signature(node, rank, signatures)
    roots = [node for node in ordered if not any(result.uses for result in node.results)]
    return sorted(roots, key=signatures.__getitem__)


def _signature(node: Node, rank: dict[Node, int], signatures: dict[Node, str]) -> str:
    from qir.text import attributes

    def operand(value: Value | None) -> str:
        if value is None:
            return "-"
        if value.node is None:
            return f"{value.hint}:{value.type}:{value.weight.paths if value.weight else ''}"
        name = rank[value.node] if value.node in rank else signatures[value.node]
        return f"{name}.{value.port}"

    parts = [node.op, attributes(node), str(node.module), *map(str, node.locs), *map(operand, node.operands)]
    return hashlib.blake2b("|".join([*parts, *(r.hint for r in node.results)]).encode(), digest_size=16).hexdigest()
