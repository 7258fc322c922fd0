"""Tensors that are flattened before a linear layer: the weights of the layer can take up the order of their axes.

flatten(transpose(x)) @ weight = flatten(x) @ (rows of weight in another order)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from qir.axis_orders.orders import Order
from qir.axis_orders.regrouping import sizes
from qir.graph import Node, Value
from qir.traits import Elementwise, TiesOperands, Unary, Weighted


class Rows(NamedTuple):
    """A weight whose indices along `axis` belong to the elements of a flattened tensor, from number `start` on."""

    node: Node
    port: int
    axis: int
    start: int


@dataclass
class Absorption:
    """What can take up the order of the axes of a tensor that is flattened.

    `sizes` are those of the axes behind the first, as they were written, `passed` the nodes on the way to the weights.
    """

    sizes: list[int]
    rows: list[Rows] = field(default_factory=list)
    passed: list[Node] = field(default_factory=list)

    def follow(self, value: Value, start: int) -> bool:
        """Find the weights that belong to `value`; False when something else reads it."""
        return not value.is_output and all(self._step(node, port, start) for node, port in value.uses)

    def _step(self, node: Node, port: int, start: int) -> bool:
        known = node.definition
        self.passed.append(node)
        if known.trait(Weighted) is not None:
            return self._ends(node, port, start)
        if node.op == "BatchNormalization":
            self.rows += (Rows(node, other, 0, start) for other in range(1, 5))
            return port == 0 and all(map(is_here, node.operands[1:])) and self.follow(node.result, start)
        if known.trait(Unary) and node.attrs.get("encoding") is None:
            return port == 0 and self.follow(node.result, start)
        if known.trait(Elementwise):
            return self._beside(node, port, start) and self.follow(node.result, start)
        if known.trait(TiesOperands) and node.attr("axis") in (1, -1):
            before = [value.type.shape[1] for value in node.operands[:port] if value.type.rank == 2]
            known_sizes = len(before) == port and all(isinstance(size, int) for size in before)
            return known_sizes and self.follow(node.result, start + sum(before))
        return False

    def _ends(self, node: Node, port: int, start: int) -> bool:
        """Whether the node multiplies the tensor with a matrix that is here."""
        weighted = node.definition.trait(Weighted)
        assert weighted is not None
        weight, axis = node.operands[weighted.weight], weighted.output_axis(node)
        if axis is None or weight.type.rank != 2 or not is_here(weight) or node.attrs.get("transA"):
            return False
        self.rows.append(Rows(node, weighted.weight, 1 - axis, start))
        return port == weighted.input

    def _beside(self, node: Node, port: int, start: int) -> bool:
        """Whether constants are all that the tensor is combined with."""
        others = [(number, value) for number, value in enumerate(node.operands) if number != port and value is not None]
        vectors = [(number, value) for number, value in others if value.type.rank]
        if node.operands[port].type.rank != 2 or not all(is_here(value) for _, value in vectors):
            return False
        self.rows += (Rows(node, number, value.type.rank - 1, start) for number, value in vectors
                      if value.type.static[-1] != 1)  # fmt: skip
        return True


def absorption(node: Node) -> Absorption | None:
    """What takes up the order of the axes that a node flattens; None when it flattens none, or nothing can."""
    flattened = _flattened(node)
    found = None if flattened is None else Absorption(flattened, passed=[node])
    return found if found is not None and found.follow(node.result, 0) else None


def is_kept_in_order(node: Node, order: Order) -> bool:
    """Whether a node that flattens gives the same where the axes come in this order: only those of size one move."""
    known = _flattened(node)
    moving = [axis for axis in order if known is not None and (axis == 0 or known[axis - 1] != 1)]
    return known is not None and moving == sorted(moving)


def _flattened(node: Node) -> list[int] | None:
    """The sizes of the axes that a node makes into the second and last of its result; None when it does not."""
    shape = node.operands[0].type.shape if node.op in ("Flatten", "Reshape") else None
    if shape is None or not all(isinstance(size, int) for size in shape[1:]) or node.result.type.rank != 2:
        return None
    if node.op == "Flatten":
        return list(shape[1:]) if node.attr("axis") == 1 else None
    known = sizes(node)
    return known[0][1:] if known is not None and known[0][0] == known[1][0] else None


def is_here(value: Value | None) -> bool:
    """Whether the value is a weight whose data is here."""
    return value is not None and value.weight is not None and value.weight.data is not None


def taken_up(found: Absorption, order: Order) -> Iterator[tuple[Rows, tuple[int, ...]]]:
    """The weights behind a flattened tensor, and from where each takes its rows when the axes come in `order`.

    The first axis stays. There are none where every row does.
    """
    numbers = np.arange(int(np.prod(found.sizes))).reshape(found.sizes)
    moved = numbers.transpose([axis - 1 for axis in order[1:]]).reshape(-1)
    if np.array_equal(moved, numbers.reshape(-1)):
        return
    for rows in found.rows:
        whole = np.arange(rows.node.operands[rows.port].type.static[rows.axis])
        whole[rows.start : rows.start + len(moved)] = rows.start + moved
        yield rows, tuple(whole.tolist())
