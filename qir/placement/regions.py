"""Decides by cost which kernels compute with integers.

Operators that no float operator stands beside compute with integers: nothing is converted around them, and what is
simulated is exact. So do those that only read what kernels without a float result write, and those of one tensor that
only integer kernels read: one rounding is there in any case. Where a float operator stands beside, the choice is the
one that takes the least time together, conversions included. It is a minimum cut: each kernel is on the side of
integers or of float and costs what it takes there, and a tensor that crosses costs its conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import networkx as nx

from qir.graph import Node, Value
from qir.placement.costs import Costs, elements
from qir.placement.flow import Flow

INTEGER, FLOAT = "integer", "float"


def slower_on_integers(flow: Flow, costs: Costs) -> dict[Node, str]:
    """The nodes with settings that do not pay on integers, and why; none of them where not one would pay."""
    able = [node for node in flow.graph.nodes() if node in flow.settings and not flow.moves(node)]
    neighbours = {node: list(dict.fromkeys(_neighbours(flow, node))) for node in able}
    if all(other in neighbours for near in neighbours.values() for other in near):
        return {}
    chosen = _cheapest(flow, costs, able)
    while more := {node for node in able if node not in chosen and _rounded_anyway(flow, node, chosen)}:
        chosen |= more
    left = nx.Graph()
    left.add_nodes_from(node for node in able if node not in chosen)
    left.add_edges_from((a, b) for a in left for b in neighbours[a] if b in left)
    reasons: dict[Node, str] = {}
    for region in nx.connected_components(left):
        around = (other for node in able if node in region for other in neighbours[node])
        beside = next((other for other in around if other not in neighbours), None)
        if beside is not None:
            reasons |= dict.fromkeys(region, _reason(flow, costs, region, chosen, beside))
    return reasons if len(reasons) < len(able) else {}


def _reason(flow: Flow, costs: Costs, region: set[Node], chosen: set[Node], beside: Node) -> str:
    on_integers, in_float = (_time(flow, costs, region, on) for on in (chosen | region, chosen))
    together = "" if len(region) == 1 else f"; {len(region)} operators together"
    return (
        f"it is beside {beside.op}, which is in float{together}: with the conversions, "
        f"{_shown(on_integers)} on integers and {_shown(in_float)} in float"
    )


def _shown(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e3:.3g} µs"


def _sources(flow: Flow, node: Node) -> list[Node | None]:
    """The kernels that the node reads from, None for what enters the graph."""
    read = (node.operands[port] for port in flow.ports(node))
    return [flow.source(value) for value in read if value.weight is None]


def _neighbours(flow: Flow, node: Node) -> Iterator[Node]:
    """The kernels that the node reads from, and those that read from it."""
    yield from filter(None, _sources(flow, node))
    for result in flow.ends(node):
        yield from (flow.kernel(use.node) for use in flow.readers(result))


def _crossing(flow: Flow, nodes: Iterable[Node]) -> dict[Value, tuple[Node | None, list[Node]]]:
    """The tensors that the nodes write or read, as kernels write them: who does, and who reads them."""
    values: dict[Value, None] = {}
    for node in nodes:
        read = (flow.origin(node.operands[port]) for port in flow.ports(node))
        values |= dict.fromkeys([*(value for value in read if value.weight is None), *flow.ends(node)])
    return {
        value: (flow.writer(value), list(dict.fromkeys(flow.kernel(use.node) for use in flow.readers(value))))
        for value in values
    }


def _time(flow: Flow, costs: Costs, nodes: Iterable[Node], on: set[Node]) -> float:
    """Nanoseconds of the nodes and of the conversions around them, when those in `on` compute with integers."""
    total = sum(costs.of(node)[node in on] for node in nodes)
    for value, (writer, readers) in _crossing(flow, nodes).items():
        by_integer = any(reader in on for reader in readers)
        by_float = flow.leaves(value) or any(reader not in on for reader in readers)
        if writer not in on and by_integer:
            total += costs.quantize * elements(value)
        elif writer in on and by_float and not _writes_float(flow, writer):
            total += costs.dequantize * elements(value)
    return total


def _cheapest(flow: Flow, costs: Costs, able: list[Node]) -> set[Node]:
    """Those of the nodes that compute with integers in the cheapest choice for all of them together."""
    cut = nx.DiGraph()
    known = set(able)
    for node in able:
        in_float, on_integers = costs.of(node)
        _arc(cut, INTEGER, node, in_float)
        _arc(cut, node, FLOAT, on_integers * costs.gain)
    for value, (writer, readers) in _crossing(flow, able).items():
        source = writer if writer in known else FLOAT
        size = elements(value)
        _arc(cut, ("quantized", value), source, costs.quantize * size)
        for reader in readers:
            if reader in known:
                cut.add_edge(reader, ("quantized", value))
        if writer is None or writer not in known or _writes_float(flow, writer):
            continue
        _arc(cut, writer, ("float", value), costs.dequantize * size)
        if flow.leaves(value) or any(reader not in known for reader in readers):
            cut.add_edge(("float", value), FLOAT)
        else:
            cut.add_edges_from((("float", value), reader) for reader in readers)
    _, (integer, _) = nx.minimum_cut(cut, INTEGER, FLOAT, flow_func=nx.algorithms.flow.boykov_kolmogorov)
    return {node for node in able if node in integer}


def _rounded_anyway(flow: Flow, node: Node, chosen: set[Node]) -> bool:
    """Whether the node rounds nothing more on integers: what it reads is rounded already, or its result is."""
    sources = _sources(flow, node)
    if sources and all(source in chosen and not _writes_float(flow, source) for source in sources):
        return True
    ends = flow.ends(node)
    after = [flow.kernel(use.node) for end in ends for use in flow.readers(end)]
    leaves = any(flow.leaves(end) for end in ends)
    return len(sources) == 1 and bool(after) and not leaves and all(reader in chosen for reader in after)


def _arc(cut: nx.DiGraph, start: object, end: object, nanoseconds: float) -> None:
    """An arc that costs so much to cut, in whole picoseconds, as flows of float numbers do not settle."""
    before = cut.edges[start, end]["capacity"] if cut.has_edge(start, end) else 0
    cut.add_edge(start, end, capacity=before + round(nanoseconds * 1e3))


def _writes_float(flow: Flow, node: Node | None) -> bool:
    """Whether the integer kernel can write its result in float."""
    found = None if node is None else flow.settings.get(node)
    writes = None if found is None else found.writes
    return writes is not None and writes.value == "if-read"
