"""Chooses the order of axes that tensors are stored in, so that the fewest are transposed.

One proposal is that a node takes another order, because it would then need no Transpose on one side. What is beside it
follows, as far as it can; of all these nodes, a minimum cut says which take the new order and which keep their own, at
the least cost of the Transposes between them. A proposal that lowers the cost is taken, until none does. Every
Transpose counts as one; among equally many, those beside a node that only moves data, or at an input or output of the
graph, cost less, so that none stands between two computations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import networkx as nx

from qir.axis_orders.flow import OrderFlow, Reader, moves_data
from qir.axis_orders.orders import Order, Reordered
from qir.graph import Node, Value

Moves = Mapping[Node, Reordered]
NEW, OLD = "new", "old"


def choose_orders(flow: OrderFlow) -> None:
    """Fill `flow.chosen`."""
    costs = _Costs(flow)
    improved = True
    while improved:
        improved = False
        for base in list(flow.readers):
            for seed, choice in _proposals(flow, costs, base):
                if _take(flow, costs, seed, choice):
                    improved = True
                    break


def _proposals(flow: OrderFlow, costs: _Costs, base: Value) -> Iterator[tuple[Node, Reordered]]:
    """Orders for the nodes around a tensor with which one of its Transposes would go."""
    stored = flow.stored(base)
    for order, readers in costs.transposes(base, {}).items():
        choice = flow.writing(base, order)
        if base.node is not None and choice is not None:
            yield base.node, choice
        for reader in readers:
            choice = flow.reading(reader, stored)
            if reader.node is not None and choice is not None:
                yield reader.node, choice


def _take(flow: OrderFlow, costs: _Costs, seed: Node, choice: Reordered) -> bool:
    """Let those of the nodes that follow the seed take their new order whose doing so costs least, if it is less."""
    region = _region(flow, seed, choice)
    touched = list(dict.fromkeys(_bases(flow, region)))
    before = sum(costs.of(base, {}) for base in touched)
    if before == 0:
        return False
    moves = costs.cheapest(touched, region)
    if sum(costs.of(base, moves) for base in touched) >= before:
        return False
    flow.chosen.update(moves)
    return True


def _region(flow: OrderFlow, seed: Node, choice: Reordered) -> dict[Node, Reordered]:
    """The nodes around the seed that can follow it, each with the order in which it needs no Transpose to there."""
    region, waiting = {seed: choice}, deque([seed])
    while waiting:
        node = waiting.popleft()
        found = region[node]
        for base in _bases(flow, {node: found}):
            for other, follows in _followers(flow, base, node, found):
                if other not in region and follows is not None and flow.differs(other, follows):
                    region[other] = follows
                    waiting.append(other)
    return region


def _bases(flow: OrderFlow, nodes: Iterable[Node]) -> Iterator[Value]:
    """The tensors that the nodes read and write, but for weights, whose order is free."""
    for node in nodes:
        for value in (*node.operands, *node.results):
            if value is not None:
                base, _ = flow.origin(value)
                if base in flow.readers and not flow.is_free(base):
                    yield base


def _followers(flow: OrderFlow, base: Value, node: Node, choice: Reordered) -> Iterator[tuple[Node, Reordered | None]]:
    """The other nodes that write and read a tensor, so that it has for them the order that it has for `node`."""
    if base.node is node:
        orders = [choice.results[base.port]]
    else:
        orders = [flow.wanted(reader, choice) for reader in flow.readers[base] if reader.node is node]
    for order in dict.fromkeys(orders):
        if base.node is not None and base.node is not node:
            yield base.node, flow.writing(base, order)
        for reader in flow.readers[base]:
            if reader.node is not None and reader.node is not node:
                yield reader.node, flow.reading(reader, order)


class _Costs:
    """What the Transposes of tensors cost under the choices of a flow, and the cheapest change of them."""

    def __init__(self, flow: OrderFlow) -> None:
        self.flow = flow
        self.unit = sum(map(len, flow.readers.values())) + 1

    def transposes(self, base: Value, moves: Moves) -> dict[Order, list[Reader]]:
        """The orders other than its own in which a tensor is read, and by whom, with `moves` over what is chosen."""
        if self.flow.is_free(base):
            return {}
        stored = self.flow.stored(base, moves)
        found: dict[Order, list[Reader]] = {}
        for reader in self.flow.readers[base]:
            order = self.flow.wanted(reader, moves.get(reader.node) if reader.node else None)
            if order != stored and not self.flow.takes(reader, stored):
                found.setdefault(order, []).append(reader)
        return found

    def of(self, base: Value, moves: Moves) -> int:
        """What the Transposes of one tensor cost."""
        return sum(self._one(base, readers) for readers in self.transposes(base, moves).values())

    def _one(self, base: Value, readers: Iterable[Reader]) -> int:
        cheap = moves_data(base.node) or all(moves_data(reader.node) for reader in readers)
        return self.unit if cheap else self.unit + 1

    def cheapest(self, bases: Iterable[Value], region: Moves) -> dict[Node, Reordered]:
        """Those of the region that take their new order in the cheapest choice."""
        cut = nx.DiGraph()
        cut.add_nodes_from([NEW, OLD, *region])
        for base in bases:
            self._connect(cut, base, region)
        # Of equally cheap choices networkx gives the one with the fewest nodes behind the sink.
        _, (_, new) = nx.minimum_cut(cut.reverse(), OLD, NEW, flow_func=nx.algorithms.flow.boykov_kolmogorov)
        return {node: choice for node, choice in region.items() if node in new}

    def _connect(self, cut: nx.DiGraph, base: Value, region: Moves) -> None:
        """Arcs that cost what the Transposes of a tensor cost, for every way to divide the region.

        Where a Transpose hangs on more than an arc can say, it counts whatever the node that computes the tensor does.
        """
        flow = self.flow
        stored = {OLD: flow.stored(base), NEW: flow.stored(base, region)}
        writer = base.node if base.node in region else OLD
        orders: dict[Order, list[tuple[Reader, bool, bool]]] = {}
        for reader in flow.readers[base]:
            if all(flow.takes(reader, order) for order in stored.values()):
                continue
            old, new = flow.wanted(reader), flow.wanted(reader, region.get(reader.node) if reader.node else None)
            for order in dict.fromkeys((old, new)):
                orders.setdefault(order, []).append((reader, old == order, new == order))
        for number, (order, readers) in enumerate(orders.items()):
            cost = self._one(base, [reader for reader, _, _ in readers])
            needs = _Needs(cut, (base, number), cost, order == stored[OLD], order == stored[NEW], writer)
            if any(old and new for _, old, new in readers):
                needs.always()
            else:
                needs.of_old([reader.node for reader, old, _ in readers if old])
                needs.of_new([reader.node for reader, _, new in readers if new])


class _Needs:
    """The arcs for one tensor in one order, which the writer stores by its old or new choice, or by neither."""

    def __init__(self, cut: nx.DiGraph, name: object, cost: int, old: bool, new: bool, writer: object) -> None:
        self.cut, self.name, self.cost, self.old, self.new, self.writer = cut, name, cost, old, new, writer

    def _arc(self, start: object, end: object) -> None:
        before = self.cut.edges[start, end]["capacity"] if self.cut.has_edge(start, end) else 0
        if start != end:
            self.cut.add_edge(start, end, capacity=before + self.cost)

    def always(self) -> None:
        """Some reader reads this order in any case: a Transpose where the writer does not store it."""
        if self.old and not self.new:
            self._arc(self.writer, OLD)
        elif self.new and not self.old:
            self._arc(NEW, self.writer)

    def of_old(self, readers: list[Node | None]) -> None:
        """These read it in this order while they keep theirs."""
        if readers and not (self.old and self.new):
            gate = ("old", self.name)
            self._arc(self.writer if self.old else NEW, gate)
            self.cut.add_edges_from((gate, reader) for reader in readers)

    def of_new(self, readers: list[Node | None]) -> None:
        """These read it in this order once they take their new one."""
        if readers and not (self.old and self.new):
            gate = ("new", self.name)
            self._arc(gate, self.writer if self.new else OLD)
            self.cut.add_edges_from((reader, gate) for reader in readers)
