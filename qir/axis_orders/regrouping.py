"""Reshape on tensors whose axes come in another order.

A Reshape makes groups of neighbouring axes into others of the same product. As long as the axes of each group stay
together, in their order, the groups may come in any.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qir.axis_orders.orders import Order, Reading, Reordered, literal, with_axes
from qir.traits import Renumbers

if TYPE_CHECKING:
    from qir.graph import Node

PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039)
"""Sizes that stand for symbols: no product of small sizes has them as a factor."""


class Group(NamedTuple):
    """Neighbouring axes and what they become; an axis of size one that goes or comes has nothing on the other side."""

    before: Order
    after: Order


def sizes(node: Node) -> tuple[list[int], list[int]] | None:
    """The sizes before and after a Reshape, a prime for each symbol; None when they are computed or not known."""
    target, shape = literal(node, 1), node.operands[0].type.shape
    if target is None or shape is None or shape.count(None) > 1 or node.attr("allowzero"):
        return None
    symbols = list(dict.fromkeys(size for size in shape if not isinstance(size, int)))
    if len(symbols) > len(PRIMES) or 0 in shape:
        return None
    before = [size if isinstance(size, int) else PRIMES[symbols.index(size)] for size in shape]
    after = [before[axis] if size == 0 else int(size) for axis, size in enumerate(target)]
    if -1 in after:
        after[after.index(-1)] = -prod(before) // prod(after)
    return (before, after) if prod(before) == prod(after) else None


def groups(before: list[int], after: list[int]) -> list[Group]:
    """The smallest groups of axes that become each other."""
    found: list[Group] = []
    start = end = 0
    while start < len(before) or end < len(after):
        last, stop = start, end
        ahead, behind = before[start : start + 1], after[end : end + 1]
        if ahead == [1] and behind != [1]:
            last += 1
        elif behind == [1] and ahead != [1]:
            stop += 1
        else:
            last, stop = start + 1, end + 1
            while (a := prod(before[start:last])) != (b := prod(after[end:stop])):
                last, stop = (last + 1, stop) if a < b else (last, stop + 1)
        found.append(Group(tuple(range(start, last)), tuple(range(end, stop))))
        start, end = last, stop
    return found


def through(order: Order, found: list[Group]) -> Order | None:
    """The order of the axes after, where those before come in `order`; None when it takes a group apart."""
    lone = {axis for group in found if not group.after for axis in group.before}
    left = [axis for axis in order if axis not in lone]
    result: list[int] = []
    while left:
        group = next(group for group in found if left[0] in group.before)
        if tuple(left[: len(group.before)]) != group.before:
            return None
        left = left[len(group.before) :]
        result += group.after
    added = [axis for group in found if not group.before for axis in group.after]
    old = sorted(result)
    return with_axes(tuple(old.index(axis) for axis in result), added)


def reading(node: Node, order: Order) -> Reordered | None:
    """Reshape that reads its tensor in this order."""
    known = sizes(node)
    if known is None:
        return None
    result = through(order, groups(*known))
    return None if result is None else _reordered(node, order, result, known[1])


def writing(node: Node, order: Order) -> Reordered | None:
    """Reshape whose result comes in this order."""
    known = sizes(node)
    if known is None:
        return None
    read = through(order, [Group(after, before) for before, after in groups(*known)])
    return None if read is None else _reordered(node, read, order, known[1])


def _reordered(node: Node, read: Order, result: Order, after: list[int]) -> Reordered | None:
    target = [after[axis] for axis in result]
    computed = [number for number, size in enumerate(target) if size >= PRIMES[0]]
    if len(computed) > 1:
        return None
    for number in computed:
        target[number] = -1
    return Reordered({0: Reading(read)}, (result,), dict(node.attrs), {1: np.array(target, np.int64)})


REGROUPING = Renumbers(reading, writing)
