"""Parts of a graph as graphs of their own."""

from __future__ import annotations

from collections.abc import Container

from qir.graph import Graph, Node, Value


def part(graph: Graph, results: list[Value], frontier: Container[Value]) -> tuple[Graph, list[Value]]:
    """A graph that computes `results` from the values in `frontier`, and those of them that it reads, in its order.

    What is not computed from the frontier is computed from the inputs of `graph`; a result in the frontier itself is
    computed all the same. Weights are shared.
    """
    wanted: set[Node] = set()
    stack = [value.node for value in results if value.node is not None]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack += [value.node for value in node.operands
                      if value is not None and value.node is not None and value not in frontier]  # fmt: skip
    made = Graph(graph.name)
    twins: dict[Value, Value] = {}
    read: list[Value] = []

    def twin(value: Value | None) -> Value | None:
        if value is None or value in twins:
            return None if value is None else twins[value]
        if value.weight is not None:
            twins[value] = made.weight(value.weight, value.type, value.hint)
        else:
            twins[value] = made.input(value.hint, value.type)
            read.append(value)
        return twins[value]

    for node in (node for node in graph.nodes() if node in wanted):
        operands = [twin(value) for value in node.operands]
        copy = made.add(node.op, operands, node.attrs, module=node.module, locs=node.locs,
                        types=[value.type for value in node.results])  # fmt: skip
        copy.order, copy.host, copy.why_opaque = node.order, node.host, node.why_opaque
        for value, own in zip(node.results, copy.results, strict=True):
            own.hint = value.hint
            if value not in frontier or value in results:
                twins.setdefault(value, own)
    made.outputs = [twins[value] for value in results]
    return made, read
