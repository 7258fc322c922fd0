"""Composites in the domain `qir.` whose results are as large as the data says, and counts of elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np

from qir.operators.functions import Writer, floats, function, types_if_known
from qir.traits import CopiesData, MovesData
from qir.types import NUMPY, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Node, Value


def _non_zero(on: Writer, x: Value) -> Value:
    return on.Transpose(on.NonZero(x), perm=[1, 0])


def _masked_select(on: Writer, x: Value, mask: Value) -> Value:
    """Compress of the elements in order, both repeated to one shape."""
    filled = on.Expand(x, on.Shape(mask))
    there = on.Expand(mask, on.Shape(x))
    return on.Compress(on.Reshape(filled, [-1]), on.Reshape(there, [-1]))


def _unique(on: Writer, x: Value, dim: int | None) -> Sequence[Value]:
    attrs = {} if dim is None else {"axis": dim}
    found, _, inverse, counts = on.several("Unique", 4, x, **attrs)
    return found, on.Reshape(inverse, on.Shape(x)) if dim is None else inverse, counts


def _unique_in_row(on: Writer, x: Value) -> Sequence[Value]:
    """Elements that differ from the one before, how many of those there were so far, and how far they are apart."""
    flat = on.Reshape(x, [-1])
    differs = on.Not(on.Equal(on.Slice(flat, [1], [2**63 - 1], [0]), on.Slice(flat, [0], [-1], [0])))
    first = on.Concat(on.graph.constant(np.array([True])), differs, axis=0)
    inverse = on.Sub(on.CumSum(on.cast(first, "i64"), [0]), 1)
    starts = on.Squeeze(on.NonZero(first), [0])
    ends = on.Concat(on.Slice(starts, [1], [2**63 - 1], [0]), on.Shape(flat), axis=0)
    return on.Compress(flat, first), on.Reshape(inverse, on.Shape(x)), on.Sub(ends, starts)


def _combinations(on: Writer, x: Value, r: int, with_replacement: bool) -> Value:
    """Gather of the places of each combination; of pairs for any size, those above the diagonal of a matrix."""
    size = None if x.type.shape is None else x.type.shape[0]
    if r == 2 and not isinstance(size, int):
        count = on.length(x, 0)
        square = on.Expand(on.graph.constant(np.array(1)), on.Concat(count, count, axis=0))
        above = on.Trilu(square, on.graph.constant(np.array(int(not with_replacement))))
        return on.Gather(x, _non_zero(on, above))
    chosen = (combinations_with_replacement if with_replacement else combinations)(range(on.size(x, 0)), r)
    return on.Gather(x, on.graph.constant(np.array(list(chosen), np.int64)))


def _count_numbers(on: Writer, x: Value, weights: Value | None = None, *, minlength: int) -> Value:
    """Ones, or the weights, added at the places that the numbers are."""
    length = on.Max(on.Add(on.ReduceMax(x, [0], keepdims=1), 1), [minlength])
    dtype = "i64" if weights is None else "f32" if weights.type.dtype == "f32" else "f64"
    nothing = on.Expand(on.graph.constant(np.array(0, NUMPY[dtype])), on.cast(length, "i64"))
    ones = on.Expand(on.graph.constant(np.array(1, NUMPY[dtype])), on.Shape(x))
    given = ones if weights is None else on.cast(weights, dtype)
    return on.ScatterElements(nothing, on.cast(x, "i64"), given, axis=0, reduction="add")


def _repeat_each(on: Writer, x: Value, repeats: int, dim: int | None) -> Value:
    x, axis = (on.Reshape(x, [-1]), 0) if dim is None else (x, dim)
    places = on.count_up(on.Mul(on.length(x, axis), repeats))
    return on.Gather(x, on.Div(places, repeats), axis=axis)


def _histogram(on: Writer, x: Value, bins: int, min: float, max: float) -> Value:
    flat = on.Reshape(x, [-1])
    place = on.Floor(on.Div(on.Mul(on.Sub(flat, min), float(bins)), max - min))
    place = on.Min(place, float(bins - 1))
    inside = on.And(on.GreaterOrEqual(flat, min), on.LessOrEqual(flat, max))
    numbers = on.graph.constant(np.arange(bins, dtype=np.float32)[:, None])
    hits = on.And(on.Equal(on.cast(numbers, x.type.dtype or "f32"), place), inside)
    return on.ReduceSum(on.cast(hits, x.type.dtype or "f32"), [1], keepdims=0)


def _angle(on: Writer, x: Value) -> Value:
    angle = on.Where(on.Less(x, 0), float(np.pi), 0.0)
    return on.Where(on.IsNaN(x), x, angle) if floats(x) else angle


def _vector(node: Node) -> Sequence[Type]:
    return [TensorType(node.operands[0].type.dtype, (None,))]


function("NonZeroPlaces", "x", _non_zero, (), None, "The places of elements that are not zero, in rows.")
function("MaskedSelect", "x mask", _masked_select, (CopiesData(),), _vector,
         "The elements where the mask is true, in order.")  # fmt: skip
function("Unique", "x", _unique, (), None, "The different elements in order, the place of each among them, and counts.",
         3, dim=None)  # fmt: skip
function("UniqueInRow", "x", _unique_in_row, (), None, "Elements that differ from the one before, places, counts.",
         3)  # fmt: skip
function("Combinations", "x", _combinations, (MovesData(),), types_if_known, "The combinations of r elements, in rows.",
         r=2, with_replacement=False)  # fmt: skip
function("CountNumbers", "x weights?", _count_numbers, (), None, "How often each whole number is there.", minlength=0)
function("RepeatEach", "x", _repeat_each, (CopiesData(),), None, "Every slice along an axis several times in turn.",
         repeats=1, dim=None)  # fmt: skip
function("Histogram", "x", _histogram, (), None, "How many elements lie in each of equal ranges between two limits.",
         bins=100, min=0.0, max=1.0)  # fmt: skip
function("RealAngle", "x", _angle, (), None, "pi for negative numbers, 0 for others.")
