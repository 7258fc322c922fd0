"""Composites in the domain `qir.` that shape one tensor after others, and that pick diagonals and windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.operators.functions import Writer, function
from qir.traits import CopiesData, MovesData, Shapes, Unary
from qir.types import DTYPES, NUMPY, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Node, Value


def _filled(on: Writer, x: Value, dtype: str | None, value: Any, shape: Value) -> Value:
    number = on.graph.constant(np.array(value, NUMPY[dtype or x.type.dtype or "f32"]))
    return on.Expand(number, shape)


def _full_like(on: Writer, x: Value, value: Any, dtype: str | None) -> Value:
    return _filled(on, x, dtype, value, on.Shape(x))


def _new_full(on: Writer, x: Value, *sizes: Value, shape: Sequence[int | None], value: Any, dtype: str | None) -> Value:
    computed = iter(sizes)
    parts = [on.graph.constant([size]) if size is not None else on.Reshape(next(computed), [1]) for size in shape]
    joined = on.Concat(*parts, axis=0) if parts else on.graph.constant(np.zeros(0, np.int64))
    return _filled(on, x, dtype, value, joined)


def _copy_into(on: Writer, x: Value, source: Value) -> Value:
    return on.Expand(on.Cast(source, to=DTYPES[x.type.dtype or "f32"]), on.Shape(x))


def _fill_diagonal(on: Writer, x: Value, fill_value: Any) -> Value:
    rows, columns = (on.count_up(on.length(x, axis)) for axis in (0, 1))
    number = on.graph.constant(np.array(fill_value, NUMPY[x.type.dtype or "f32"]))
    return on.Where(on.Equal(on.Unsqueeze(rows, [1]), columns), number, x)


def _broadcast_shape(on: Writer, tensors: Sequence[Value]) -> Value:
    rank = max(map(on.rank, tensors))
    missing = [rank - on.rank(tensor) for tensor in tensors]
    shapes = [on.Concat([1] * count, on.Shape(tensor), axis=0) if count else on.Shape(tensor)
              for count, tensor in zip(missing, tensors, strict=True)]  # fmt: skip
    return on.Max(*shapes)


def _broadcast_tensors(on: Writer, *tensors: Value) -> Sequence[Value]:
    shape = _broadcast_shape(on, tensors)
    return [on.Expand(tensor, shape) for tensor in tensors]


def _mesh_grid(on: Writer, *tensors: Value, indexing: str) -> Sequence[Value]:
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    shaped = [on.Reshape(tensor, [-1 if axis == place else 1 for axis in range(len(tensors))])
              for tensor, place in zip(tensors, order, strict=True)]  # fmt: skip
    return _broadcast_tensors(on, *shaped)


def _cartesian_product(on: Writer, *tensors: Value) -> Value:
    if len(tensors) == 1:
        return tensors[0]
    columns = [on.Reshape(grid, [-1, 1]) for grid in _mesh_grid(on, *tensors, indexing="ij")]
    return on.Concat(*columns, axis=1)


def _block_diagonal(on: Writer, *tensors: Value) -> Value:
    blocks = [on.Unsqueeze(block, list(range(2 - on.rank(block)))) if on.rank(block) < 2 else block
              for block in tensors]  # fmt: skip
    rows = []
    for number, block in enumerate(blocks):
        widths = [[on.length(other, 1) for other in part] for part in (blocks[:number], blocks[number + 1 :])]
        before, after = (on.Sum(*part) if part else on.graph.constant([0]) for part in
                         ([on.cast(width, "f32") for width in side] for side in widths))  # fmt: skip
        sides = [on.cast(side, "i64") for side in (before, after)]
        rows.append(on.Pad(block, on.Concat(*sides, axis=0), None, [1]))
    return on.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]


def _diagonal(on: Writer, x: Value, offset: int, dim1: int, dim2: int) -> Value:
    """Every (columns + 1)-th element of the matrix, row after row."""
    turned = on.axis_last(x, dim1, dim2)
    rows, columns = on.length(turned, -2), on.length(turned, -1)
    flat = on.Reshape(turned, on.Concat(on.Shape(turned, end=on.rank(x) - 2), on.Mul(rows, columns), axis=0))
    step = on.Add(columns, 1)
    if offset >= 0:
        start, count = on.graph.constant([offset]), on.Min(rows, on.Sub(columns, offset))
    else:
        start, count = on.Mul(columns, -offset), on.Min(on.Add(rows, offset), columns)
    return on.Slice(flat, start, on.Add(start, on.Mul(count, step)), [-1], step)


def _diagonal_matrix(on: Writer, x: Value, offset: int, dim1: int, dim2: int) -> Value:
    """The elements, padded to the size of a row, where row and column differ by the offset."""
    zero = on.graph.constant(np.array(0, NUMPY[x.type.dtype or "f32"]))
    padded = on.Pad(x, [0, abs(offset)], zero, [-1]) if offset else x
    places = on.count_up(on.length(padded, -1))
    there = on.Equal(on.Add(on.Unsqueeze(places, [1]), offset), on.Unsqueeze(places, [0]))
    spread = on.Unsqueeze(padded, [-1 if offset >= 0 else -2])
    return on.axis_back(on.Where(there, spread, zero), dim1, dim2)


def _windows(on: Writer, x: Value, dimension: int, size: int, step: int) -> Value:
    """Gather of the places of every window, each window's elements moved to the last axis."""
    axis = dimension % on.rank(x)
    count = on.Add(on.Div(on.Sub(on.length(x, axis), size), step), 1)
    starts = on.Mul(on.count_up(count), step)
    places = on.Add(on.Unsqueeze(starts, [1]), on.graph.constant(np.arange(size, dtype=np.int64)))
    return on.axis_last(on.Gather(x, places, axis=axis), axis + 1)


def _take_along(on: Writer, x: Value, indices: Value, dim: int | None) -> Value:
    if dim is None:
        return on.GatherElements(on.Reshape(x, [-1]), on.Reshape(indices, [-1]), axis=0)
    axis = dim % on.rank(x)

    def other(value: Value) -> Value:
        """The shape of `value` with one element along the axis."""
        parts = [on.Shape(value, end=axis)] * bool(axis) + [on.graph.constant([1])]
        parts += [on.Shape(value, start=axis + 1)] * (axis + 1 < on.rank(x))
        return on.Concat(*parts, axis=0) if len(parts) > 1 else parts[0]

    return on.GatherElements(on.Expand(x, other(indices)), on.Expand(indices, other(x)), axis=axis)


def _pick(on: Writer, x: Value, *indices: Value, axis: int) -> Value:
    """Gather from the axes as one, at the place that the indices make together."""
    if len(indices) == 1:
        return on.Gather(x, indices[0], axis=axis)
    place = None
    for number, index in enumerate(indices):
        size = on.Squeeze(on.length(x, axis + number), [0])
        positive = on.Mod(index, size)
        place = positive if place is None else on.Add(on.Mul(place, size), positive)
    end = axis + len(indices)
    parts = [on.Shape(x, end=axis)] * bool(axis) + [on.graph.constant([-1])]
    parts += [on.Shape(x, start=end)] * (end < on.rank(x))
    joined = on.Reshape(x, on.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])
    return on.Gather(joined, place, axis=axis)


def _one_hot(on: Writer, x: Value, num_classes: int) -> Value:
    return on.OneHot(x, on.graph.constant(np.array(num_classes)), on.graph.constant(np.array([0, 1])))


def _sum_to_size(on: Writer, x: Value, size: Sequence[int]) -> Value:
    extra = on.rank(x) - len(size)
    summed = [*range(extra), *(extra + axis for axis, part in enumerate(size) if part == 1)]
    x = on.ReduceSum(x, summed, keepdims=1) if summed else x
    return on.Squeeze(x, list(range(extra))) if extra else x


def _like_other(node: Node) -> Sequence[Type]:
    """The shape of operand 1 with the dtype of operand 0."""
    return [TensorType(node.operands[0].type.dtype, node.operands[1].type.shape)]


MOVES, COPIES, SHAPES = (MovesData(),), (CopiesData(),), (Shapes(),)

function("FullLike", "x", _full_like, SHAPES, None, "A tensor of the shape of x that holds one number.",
         value=0.0, dtype=None)  # fmt: skip
function("Fill", "x", lambda on, x, value: _full_like(on, x, value, None), SHAPES, lambda node: [node.operands[0].type],
         "x with a number in the place of every element.", value=0.0)  # fmt: skip
function("NewFull", "x sizes*", _new_full, SHAPES, None,
         "A tensor of the dtype of x that holds one number; None in the shape stands for the next of the sizes.",
         shape=(), value=0.0, dtype=None)  # fmt: skip
function("CopyInto", "x source", _copy_into, (), lambda node: [node.operands[0].type],
         "The source in the shape and dtype of x.")  # fmt: skip
function("FillDiagonal", "x", _fill_diagonal, (Unary(),), lambda node: [node.operands[0].type],
         "The matrix x with a number on its diagonal.", fill_value=0.0)  # fmt: skip
function("ExpandAs", "x other", lambda on, x, other: on.Expand(x, on.Shape(other)), MOVES, _like_other,
         "x repeated to the shape of another.")  # fmt: skip
function("ReshapeAs", "x other", lambda on, x, other: on.Reshape(x, on.Shape(other)), MOVES, _like_other,
         "x in the shape of another.")  # fmt: skip
function("BroadcastTensors", "x*", _broadcast_tensors, MOVES, None, "Tensors repeated to one shape.", None)
function("MeshGrid", "x*", _mesh_grid, MOVES, None, "The coordinates of a grid, each vector along its axis.", None,
         indexing="ij")  # fmt: skip
function("CartesianProduct", "x*", _cartesian_product, (), None, "All combinations of elements of vectors, in rows.")
function("BlockDiagonal", "x*", _block_diagonal, (), None, "Matrices along the diagonal of a matrix of zeros.")
function("Diagonal", "x", _diagonal, MOVES, None, "A diagonal of two axes, as the last axis.",
         offset=0, dim1=0, dim2=1)  # fmt: skip
function("DiagonalMatrix", "x", _diagonal_matrix, (), None, "Matrices with the last axis on a diagonal, else zero.",
         offset=0, dim1=-2, dim2=-1)  # fmt: skip
function("Windows", "x", _windows, MOVES, None, "The windows along an axis, their elements in a new last axis.",
         dimension=0, size=1, step=1)  # fmt: skip
function("TakeAlong", "x indices", _take_along, COPIES, None, "The elements at these places of an axis, or of all.",
         dim=None)  # fmt: skip
function("Take", "x index", lambda on, x, index: on.Gather(on.Reshape(x, [-1]), index), COPIES, None,
         "The elements at these places of all in order.")  # fmt: skip
function("Pick", "x indices*", _pick, COPIES, None, "The elements at these places of neighbouring axes.", axis=0)
function("OneHot", "x", _one_hot, (), None, "A 1 at the place that each number says, in a new last axis of zeros.",
         num_classes=1)  # fmt: skip
function("SumToSize", "x", _sum_to_size, (), None, "x summed over the axes that broadcasting would repeat.", size=())
