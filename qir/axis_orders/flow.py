"""Who reads which tensor in which order of axes, past the Transposes between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from qir.axis_orders.flattening import absorption, is_here, is_kept_in_order
from qir.axis_orders.orders import Order, Reading, Reordered, as_written, compose, elementwise, first_operand, inverse
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.traits import Elementwise, MovesData, Permutes, Renumbers, TiesOperands, Unary
from qir.types import TensorType

NOTHING: Mapping[Node, Reordered] = {}


class Reader(NamedTuple):
    """An operand (or, without a node, an output of the graph) that is a tensor brought into `order`."""

    node: Node | None
    port: int
    order: Order


def permutation(node: Node) -> Order | None:
    """The order into which a node brings its operand, None for one that does something else."""
    permutes = node.definition.trait(Permutes)
    return None if permutes is None else permutes.order(node)


def renames_axes(node: Node) -> bool:
    """Whether the node computes the same on tensors in another order of axes."""
    known = node.definition
    if is_quantizer(node):
        grid = node.attrs["encoding"]
        return grid.axis is None and grid.block_axis is None
    agnostic = known.trait(Elementwise) is not None or known.trait(Renumbers) is not None
    return agnostic and not node.bodies and all(isinstance(result.type, TensorType) for result in node.results)


class OrderFlow:
    """The tensors of a graph that are no Transposes of others, and who reads them.

    `chosen` has the nodes that are to have their axes in another order than they were written with.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = [node for node in graph.nodes() if permutation(node) is None]
        self.absorbed = {node: found for node in self.nodes if (found := absorption(node)) is not None}
        self._pinned = {node for found in self.absorbed.values() for node in found.passed}
        self.chosen: dict[Node, Reordered] = {}
        self._origins: dict[Value, tuple[Value, Order]] = {}
        self.readers: dict[Value, list[Reader]] = {}
        for node in self.nodes:
            for port, value in enumerate(node.operands):
                self._note(value, node, port)
        for port, value in enumerate(graph.outputs):
            self._note(value, None, port)

    def _note(self, value: Value | None, node: Node | None, port: int) -> None:
        if value is not None and isinstance(value.type, TensorType) and value.type.rank is not None:
            base, order = self.origin(value)
            self.readers.setdefault(base, []).append(Reader(node, port, order))

    def origin(self, value: Value) -> tuple[Value, Order]:
        """The tensor of which the value is a Transpose, and its order; the value itself where it is none."""
        path: list[Value] = []
        while value not in self._origins:
            order = None if value.node is None else permutation(value.node)
            if value.node is None or order is None:
                self._origins[value] = value, as_written(value.type.rank or 0)
                break
            path.append(value)
            value = value.node.operands[0]
        base, before = self._origins[value]
        for moved in reversed(path):
            before = compose(before, permutation(moved.node) or ())  # type: ignore[arg-type]
            self._origins[moved] = base, before
        return base, before

    def can_move(self, node: Node) -> bool:
        """Whether another order may be chosen for the node."""
        return node not in self._pinned and renames_axes(node)

    def is_free(self, base: Value) -> bool:
        """Whether a tensor is a weight, whose data can be brought into every order."""
        return is_here(base)

    def takes(self, reader: Reader, stored: Order) -> bool:
        """Whether the reader flattens the tensor, and weights take up this order or it changes nothing."""
        node, order = reader.node, compose(inverse(reader.order), stored)
        if node is None or reader.port > 0 or not order or order[0] > 0:
            return False
        return node in self.absorbed or (not self.can_move(node) and is_kept_in_order(node, order))

    def differs(self, node: Node, choice: Reordered) -> bool:
        """Whether a choice for the node is another than what is chosen for it."""
        chosen = self.chosen.get(node)
        return not is_plain(choice) if chosen is None else choice != chosen

    def stored(self, base: Value, moves: Mapping[Node, Reordered] = NOTHING) -> Order:
        """The order in which a tensor is stored, with `moves` over what is chosen."""
        choice = None if base.node is None else moves.get(base.node, self.chosen.get(base.node))
        return as_written(base.type.rank or 0) if choice is None else choice.results[base.port]

    def wanted(self, reader: Reader, choice: Reordered | None = None) -> Order:
        """The order of the tensor that the reader reads, by a choice of its own or what is chosen for its node."""
        found = choice or (None if reader.node is None else self.chosen.get(reader.node))
        reading = None if found is None else found.readings.get(reader.port)
        return reader.order if reading is None else compose(reader.order, reading.order)

    def reading(self, reader: Reader, wanted: Order) -> Reordered | None:
        """The reader's node, so that it reads the tensor in that order; None where it can not."""
        node = reader.node
        if node is None or not self.can_move(node):
            return None
        order = compose(inverse(reader.order), wanted)
        return _renumbered(node, reader.port, order)

    def writing(self, base: Value, wanted: Order) -> Reordered | None:
        """The node that computes a tensor, so that it is stored in that order; None where it can not."""
        node = base.node
        if node is None or not self.can_move(node):
            return None
        known = node.definition
        renumbers = known.trait(Renumbers)
        if renumbers is not None:
            return renumbers.writing(node, wanted)
        return first_operand(node, wanted) if known.trait(Unary) else elementwise(node, wanted)


def _renumbered(node: Node, port: int, order: Order) -> Reordered | None:
    """The node that reads operand number `port` in this order."""
    known = node.definition
    renumbers = known.trait(Renumbers)
    if renumbers is not None:
        return renumbers.reading(node, order) if port == 0 or known.trait(TiesOperands) else None
    if known.trait(Unary):
        return first_operand(node, order) if port == 0 else None
    rank = node.result.type.rank
    if rank is None or rank < len(order):
        return None
    first = rank - len(order)
    whole = (*range(first), *(axis + first for axis in order))
    found = elementwise(node, whole)
    return found if found is not None and found.readings.get(port) == Reading(order) else None


def is_plain(choice: Reordered) -> bool:
    """Whether all axes stay where they are."""
    orders = (*choice.results, *(reading.order for reading in choice.readings.values()))
    return all(order == as_written(len(order)) for order in orders)


def moves_data(node: Node | None) -> bool:
    """Whether the node computes nothing, so that a Transpose beside it keeps no two computations apart."""
    return node is None or node.definition.trait(MovesData) is not None
