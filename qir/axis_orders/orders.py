"""Operators on tensors whose axes come in another order.

An order `(0, 3, 1, 2)` says that axis i is axis `order[i]` of the tensor as it was: what Transpose makes with it as
`perm`. Many operators treat axes alike but for those that they name. What they look like on tensors in another order,
the functions here say, each for operators that name axes in the same way; the trait `Renumbers` holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.traits import Renumbers

if TYPE_CHECKING:
    from qir.graph import Node

Order = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """How an operand is read: in which order of its axes, and with which axes of size one put in then."""

    order: Order
    unsqueezed: Order = ()


@dataclass(frozen=True)
class Reordered:
    """A node with its axes in another order: how it reads its operands, and the order of its results.

    Operands without a reading stay as they are. `attrs` and `constants` (by operand) take the place of those that name
    axes.
    """

    readings: dict[int, Reading]
    results: tuple[Order, ...]
    attrs: dict[str, Any] = field(default_factory=dict, compare=False)
    constants: dict[int, np.ndarray] = field(default_factory=dict, compare=False)


def compose(first: Order, second: Order) -> Order:
    """The order of what is brought into the order `first`, then into `second`."""
    return tuple(first[axis] for axis in second)


def inverse(order: Order) -> Order:
    """The order that undoes `order`."""
    return tuple(order.index(axis) for axis in range(len(order)))


def as_written(rank: int) -> Order:
    """The order in which every axis stays where it is."""
    return tuple(range(rank))


def renumbered(order: Order, axes: Iterable[int]) -> list[int]:
    """Where the axes, which may count from the end, are in a tensor of this order."""
    return [order.index(axis % len(order)) for axis in axes]


def without(order: Order, dropped: Sequence[int]) -> Order:
    """The order of the axes that are left when some are dropped."""
    left = [axis for axis in range(len(order)) if axis not in dropped]
    return tuple(left.index(axis) for axis in order if axis in left)


def with_axes(order: Order, added: Sequence[int]) -> Order:
    """An order of more axes, of which those `added` stay where they are and the others come in `order`."""
    rank = len(order) + len(added)
    old = [axis for axis in range(rank) if axis not in added]
    rest = iter(order)
    return tuple(axis if axis in added else old[next(rest)] for axis in range(rank))


def elementwise(node: Node, order: Order) -> Reordered | None:
    """An operator of the elements at the same place of tensors that are broadcast to each other."""
    readings = {}
    for port, value in enumerate(node.operands):
        if value is None or value.type.rank == 0:
            continue
        if value.type.rank is None or value.type.rank > len(order):
            return None
        readings[port] = broadcast(order, value.type.rank)
    return Reordered(readings, (order,) * len(node.results), dict(node.attrs))


def broadcast(order: Order, rank: int) -> Reading:
    """How a tensor with these last axes of a larger one is read, where the larger one has the order."""
    first = len(order) - rank
    last = [axis for axis in order if axis >= first]
    start = order.index(last[0])
    gaps = tuple(place - start for place in range(start, len(order)) if order[place] < first)
    return Reading(tuple(axis - first for axis in last), gaps)


def first_operand(node: Node, order: Order) -> Reordered:
    """An operator of each element of its first operand."""
    return Reordered({0: Reading(order)}, (order,) * len(node.results), dict(node.attrs))


def along_axis(node: Node, order: Order) -> Reordered:
    """An operator along the axis that an attribute names, whose results have the axes of operand 0."""
    (axis,) = renumbered(order, [node.attr("axis")])
    return Reordered({0: Reading(order)}, (order,) * len(node.results), {**node.attrs, "axis": axis})


def joining(node: Node, order: Order) -> Reordered:
    """Concat."""
    (axis,) = renumbered(order, [node.attr("axis")])
    readings = {port: Reading(order) for port in range(len(node.operands))}
    return Reordered(readings, (order,), {**node.attrs, "axis": axis})


def along_operand(node: Node, order: Order) -> Reordered | None:
    """CumSum, whose axis is operand 1."""
    axis = literal(node, 1)
    if axis is None:
        return None
    place = np.array(renumbered(order, np.atleast_1d(axis)), np.int64).reshape(np.shape(axis))
    return Reordered({0: Reading(order)}, (order,), dict(node.attrs), {1: place})


def literal(node: Node, port: int) -> np.ndarray | None:
    """The array of an operand that is a literal; None when it is computed or left out."""
    value = node.operand(port)
    return None if value is None or value.literal is None else value.array


def _axes(node: Node, port: int, rank: int) -> list[int] | None:
    """The axes that an operand names; None when they are computed or it is left out."""
    array = literal(node, port)
    return None if array is None else [int(axis) % rank for axis in np.atleast_1d(array)]


def reducing(node: Node, order: Order, axes: Sequence[int], constants: dict[int, np.ndarray]) -> Reordered:
    """An operator that leaves out axes, or leaves them with one element where it keeps them."""
    kept = "keepdims" in node.definition.attributes and node.attr("keepdims")
    result = order if kept else without(order, axes)
    attrs = dict(node.attrs)
    if "axis" in node.definition.attributes:
        attrs["axis"] = renumbered(order, axes)[0]
    return Reordered({0: Reading(order)}, (result,) * len(node.results), attrs, constants)


def reduction(node: Node, order: Order) -> Reordered | None:
    """A reduction over axes that operand 1 names, over all where there are none."""
    axes = _axes(node, 1, len(order))
    if axes is None and node.operand(1) is not None:
        return None
    if axes or not node.attr("noop_with_empty_axes"):
        constants = {1: np.array(sorted(renumbered(order, axes)), np.int64)} if axes else {}
        return reducing(node, order, axes or range(len(order)), constants)
    return first_operand(node, order)


def choice(node: Node, order: Order) -> Reordered:
    """ArgMax and ArgMin, over the axis that an attribute names."""
    return reducing(node, order, [node.attr("axis") % len(order)], {})


def squeezing(node: Node, order: Order) -> Reordered | None:
    """Squeeze of stated axes."""
    axes = _axes(node, 1, len(order))
    if axes is None:
        return None
    return reducing(node, order, axes, {1: np.array(sorted(renumbered(order, axes)), np.int64)})


def _added(node: Node) -> list[int] | None:
    return _axes(node, 1, node.result.type.rank or 0) if node.result.type.rank else None


def unsqueezing(node: Node, order: Order) -> Reordered | None:
    """Unsqueeze that reads this order: its new axes stay where they are."""
    added = _added(node)
    return None if added is None else unsqueezed(node, with_axes(order, added))


def unsqueezed(node: Node, order: Order) -> Reordered | None:
    """Unsqueeze whose result has this order."""
    added = _added(node)
    if added is None:
        return None
    places = np.array(sorted(renumbered(order, added)), np.int64)
    return Reordered({0: Reading(without(order, added))}, (order,), dict(node.attrs), {1: places})


def before_reduction(moved: Any, node: Node, order: Order) -> Reordered | None:
    """What a node that drops axes looks like with a result of this order: what it drops stays where it is."""
    rank = node.operands[0].type.rank
    if rank is None or rank == len(order):
        return moved(node, order)  # type: ignore[no-any-return]
    named = "axis" in node.definition.attributes
    axes = [node.attr("axis") % rank] if named else _axes(node, 1, rank) or list(range(rank))
    return moved(node, with_axes(order, axes)) if len(order) + len(axes) == rank else None


def slicing(node: Node, order: Order) -> Reordered | None:
    """Slice, whose axes are operand 3, the first ones where it is left out."""
    starts = node.operand(1)
    count = None if starts is None or starts.type.shape is None else starts.type.shape[0]
    axes = _axes(node, 3, len(order)) if node.operand(3) is not None else None
    if node.operand(3) is None and isinstance(count, int):
        axes = list(range(count))
    if axes is None:
        return None
    places = np.array(renumbered(order, axes), np.int64)
    return Reordered({0: Reading(order)}, (order,), dict(node.attrs), {3: places})


def padding(node: Node, order: Order) -> Reordered | None:
    """Pad, whose axes are operand 3, all where it is left out."""
    attrs, pads, rank = dict(node.attrs), literal(node, 1), len(order)
    if node.operand(3) is None and pads is not None:
        sides = pads.reshape(2, rank)[:, list(order)].reshape(-1)
        return Reordered({0: Reading(order)}, (order,), attrs, {1: sides})
    axes = as_written(rank) if node.operand(3) is None else _axes(node, 3, rank)
    if axes is None:
        return None
    return Reordered({0: Reading(order)}, (order,), attrs, {3: np.array(renumbered(order, axes), np.int64)})


def resizing(node: Node, order: Order) -> Reordered | None:
    """Resize by scales or to sizes of all axes, or of those that an attribute names."""
    if node.operand(1) is not None:
        return None
    if node.attr("axes"):
        attrs = {**node.attrs, "axes": tuple(renumbered(order, node.attr("axes")))}
        return Reordered({0: Reading(order)}, (order,), attrs)
    return _per_axis(node, order, 2 if node.operand(2) is not None else 3)


def repeating(node: Node, order: Order) -> Reordered | None:
    """Tile and Expand, whose operand 1 has a number for each axis."""
    return _per_axis(node, order, 1) if node.operands[0].type.rank == node.result.type.rank else None


def _per_axis(node: Node, order: Order, port: int) -> Reordered | None:
    numbers = literal(node, port)
    if numbers is None:
        return None
    every = np.concatenate([np.ones(len(order) - len(numbers), numbers.dtype), numbers])
    return Reordered({0: Reading(order)}, (order,), dict(node.attrs), {port: every[list(order)]})


def gathering(node: Node, order: Order) -> Reordered | None:
    """Gather: the axes of the indices take the place of the axis that it picks from."""
    indices = node.operands[1].type.rank
    if indices is None:
        return None
    axis = node.attr("axis") % len(order)
    result: list[int] = []
    for old in order:
        if old == axis:
            result += range(axis, axis + indices)
        else:
            result.append(old if old < axis else old - 1 + indices)
    return Reordered({0: Reading(order)}, (tuple(result),), {**node.attrs, "axis": order.index(axis)})


def before_gathering(node: Node, order: Order) -> Reordered | None:
    """Gather with a result of this order, where its axes are those of what it reads, or one fewer."""
    match node.operands[1].type.rank:
        case 0:
            return gathering(node, with_axes(order, [node.attr("axis") % (len(order) + 1)]))
        case 1:
            return gathering(node, order)
    return None


def _keeping(moved: Any) -> Renumbers:
    return Renumbers(moved, moved)


ALONG_AXIS = _keeping(along_axis)
JOINING = _keeping(joining)
ALONG_OPERAND = _keeping(along_operand)
SLICING = _keeping(slicing)
PADDING = _keeping(padding)
RESIZING = _keeping(resizing)
REPEATING = _keeping(repeating)
REDUCTION = Renumbers(reduction, partial(before_reduction, reduction))
CHOICE = Renumbers(choice, partial(before_reduction, choice))
SQUEEZING = Renumbers(squeezing, partial(before_reduction, squeezing))
UNSQUEEZING = Renumbers(unsqueezing, unsqueezed)
GATHERING = Renumbers(gathering, before_gathering)
