"""Decides by cost which kernels compute with integers.

An operator between integer kernels does so too: nothing is converted around it, and the simulator stays exact. One that
stands beside a float operator does so only where that is faster, the conversions around it included.
"""

from __future__ import annotations

from collections.abc import Iterator

from qir.costs import Costs, elements
from qir.flow import Flow, activation_ports
from qir.graph import Node, Value


def slower_on_integers(flow: Flow, costs: Costs) -> dict[Node, str]:
    """The nodes with settings that do not pay on integers, and why.

    Starts with everything on integers and takes out one operator after the other until each of the rest is faster
    there, by the factor `costs.gain`, than it would be in float, or has no float operator beside it.
    """
    on = {node for node in flow.settings if not flow.moves(node)}
    reasons: dict[Node, str] = {}
    work = [node for node in flow.graph.nodes() if node in on]
    while work:
        node = work.pop(0)
        beside = next((other for other in _neighbours(flow, node) if other not in on), None)
        if node not in on or beside is None:
            continue
        in_float, on_integers = (_time(flow, costs, node, on, integer) for integer in (False, True))
        if on_integers * costs.gain > in_float:
            on.remove(node)
            reasons[node] = (
                f"beside {beside.op}, which is in float: with the conversions around it, integers take "
                f"{_shown(on_integers)} and float {_shown(in_float)}"
            )
            work += [other for other in _neighbours(flow, node) if other in on]
    return reasons


def _shown(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e3:.3g} µs" if nanoseconds >= 1 else "nothing"


def _neighbours(flow: Flow, node: Node) -> Iterator[Node]:
    """The kernels that the node reads from, and those that read from it."""
    for port in activation_ports(node):
        source = flow.source(node.operands[port])
        if source is not None:
            yield source
    for result in flow.ends(node):
        yield from (flow.kernel(use.node) for use in flow.readers(result))


def _time(flow: Flow, costs: Costs, node: Node, on: set[Node], integer: bool) -> float:
    """Nanoseconds of the node and of the conversions around it, on integers or in float."""
    total = costs.of(node)[integer]
    read = dict.fromkeys(node.operands[port] for port in activation_ports(node))
    for value in read:
        if value.weight is None:
            total += _reading(flow, costs, node, value, on, integer)
    for result in flow.ends(node):
        readers = {flow.kernel(use.node) for use in flow.readers(result)}
        by_integer = any(reader in on for reader in readers)
        by_float = flow.leaves(result) or any(reader not in on for reader in readers)
        if not integer and by_integer:
            total += costs.quantize * elements(result)
        elif integer and by_float and (by_integer or not _writes_float(flow, node)):
            total += costs.dequantize * elements(result)
    return total


def _reading(flow: Flow, costs: Costs, node: Node, value: Value, on: set[Node], integer: bool) -> float:
    """The conversion of an operand, if there is one that no other reader needs anyway."""
    source = flow.source(value)
    if integer:
        shared = any(flow.kernel(use.node) in on and use.node is not node for use in flow.readers(value))
        return 0.0 if source in on or shared else costs.quantize * elements(value)
    if source is None or source not in on or _writes_float(flow, source):
        return 0.0
    return costs.dequantize * elements(value)


def _writes_float(flow: Flow, node: Node) -> bool:
    """Whether the integer kernel can write its result in float."""
    writes = flow.settings[node].writes
    return writes is not None and writes.value == "if-read"
