"""Composites in the domain `qir.` that compare along an axis: extremes and their places, order, running results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.operators.functions import Writer, floats, function, types_if_known, types_with_places
from qir.traits import KeepsGrid
from qir.types import NUMPY, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Node, Value


def _along(reduce: str, place: str) -> Any:
    """An extreme along an axis, and where it is first."""

    def write(on: Writer, x: Value, dim: int, keepdim: bool) -> Sequence[Value]:
        keep = int(keepdim)
        return getattr(on, reduce)(x, [dim], keepdims=keep), getattr(on, place)(x, axis=dim, keepdims=keep)

    return write


def _sorted(on: Writer, x: Value, dim: int, descending: bool) -> Sequence[Value]:
    return on.several("TopK", 2, x, on.length(x, dim), axis=dim, largest=int(descending))


def _sort(on: Writer, x: Value, dim: int, descending: bool, stable: bool) -> Sequence[Value]:
    return _sorted(on, x, dim, descending)


def _order(on: Writer, x: Value, dim: int, descending: bool, stable: bool) -> Value:
    return _sorted(on, x, dim, descending)[1]


def _smallest(on: Writer, x: Value, k: int, dim: int, keepdim: bool) -> Sequence[Value]:
    found = on.several("TopK", 2, x, [k], axis=dim, largest=0)
    picked = [on.Slice(part, [k - 1], [k], [dim]) for part in found]
    return picked if keepdim else [on.Squeeze(part, [dim]) for part in picked]


def _middle(on: Writer, x: Value, dim: int, keepdim: bool) -> Sequence[Value]:
    return _smallest(on, x, (on.size(x, dim) + 1) // 2, dim, keepdim)


def _quantile(on: Writer, x: Value, q: float, dim: int | None, keepdim: bool) -> Value:
    if dim is None:
        x, dim = on.Reshape(x, [-1]), 0
    ordered = _sorted(on, x, dim, False)[0]
    place = q * (on.size(x, dim) - 1)
    low, high = (on.Slice(ordered, [at], [at + 1], [dim]) for at in (int(place), int(np.ceil(place))))
    value = on.Add(low, on.Mul(on.Sub(high, low), float(place - int(place))))
    return value if keepdim else on.Squeeze(value, [dim])


def _until(on: Writer, x: Value) -> Value:
    """For each place of the last axis, which places come no later: booleans, as many as the square of its size."""
    places = on.count_up(on.length(x, -1))
    return on.LessOrEqual(on.Unsqueeze(places, [0]), on.Unsqueeze(places, [1]))


def _running(on: Writer, x: Value, dim: int, reduce: str, neutral: Any) -> Value:
    """The reduction of each element and all before it, from the matrix of both."""
    x = on.axis_last(x, dim)
    parts = on.Where(_until(on, x), on.Unsqueeze(x, [-2]), neutral)
    return on.axis_back(getattr(on, reduce)(parts, [-1], keepdims=0), dim)


def lowest(x: Value) -> Any:
    """The smallest number of the dtype of `x`."""
    return float("-inf") if floats(x) else int(np.iinfo(NUMPY[x.type.dtype or "i64"]).min)


def highest(x: Value) -> Any:
    """The largest number of the dtype of `x`."""
    return float("inf") if floats(x) else int(np.iinfo(NUMPY[x.type.dtype or "i64"]).max)


def _running_extreme(on: Writer, x: Value, dim: int, reduce: str, neutral: Any) -> Sequence[Value]:
    """The extreme of each element and all before it, and where it is last."""
    found = _running(on, x, dim, reduce, neutral)
    moved, reached = on.axis_last(x, dim), on.axis_last(found, dim)
    is_it = on.And(_until(on, moved), on.Equal(on.Unsqueeze(moved, [-2]), on.Unsqueeze(reached, [-1])))
    places = on.Where(is_it, on.count_up(on.length(moved, -1)), 0)
    return found, on.axis_back(on.ReduceMax(places, [-1], keepdims=0), dim)


def _cumulative_max(on: Writer, x: Value, dim: int) -> Sequence[Value]:
    return _running_extreme(on, x, dim, "ReduceMax", lowest(x))


def _cumulative_min(on: Writer, x: Value, dim: int) -> Sequence[Value]:
    return _running_extreme(on, x, dim, "ReduceMin", highest(x))


def _cumulative_product(on: Writer, x: Value, dim: int) -> Value:
    return _running(on, x, dim, "ReduceProd", 1)


def _cumulative_log_sum(on: Writer, x: Value, dim: int) -> Value:
    return _running(on, x, dim, "ReduceLogSumExp", float("-inf"))


def _count_below(on: Writer, ordered: Value, values: Value, right: bool, out_int32: bool) -> Value:
    below = (on.LessOrEqual if right else on.Less)(on.Unsqueeze(ordered, [-2]), on.Unsqueeze(values, [-1]))
    return on.ReduceSum(on.cast(below, "i32" if out_int32 else "i64"), [-1], keepdims=0)


def _search(on: Writer, sorted_sequence: Value, x: Value, right: bool, out_int32: bool) -> Value:
    if on.rank(sorted_sequence) == 1 and on.rank(x) == 0:
        found = _count_below(on, sorted_sequence, on.Unsqueeze(x, [0]), right, out_int32)
        return on.Squeeze(found, [0])
    return _count_below(on, sorted_sequence, x, right, out_int32)


def _is_in(on: Writer, elements: Value, test_elements: Value, assume_unique: bool, invert: bool) -> Value:
    equal = on.Equal(on.Unsqueeze(elements, [-1]), on.Reshape(test_elements, [-1]))
    found = on.ReduceMax(equal, [-1], keepdims=0)
    return on.Not(found) if invert else found


def _two_types(node: Node) -> Sequence[Type]:
    x = node.operands[0].type
    return [x, TensorType("i64", x.shape)]


KEEPS = (KeepsGrid(),)

function("Largest", "x", _along("ReduceMax", "ArgMax"), KEEPS, None, "The largest elements along an axis, and where.",
         2, dim=0, keepdim=False)  # fmt: skip
function("Smallest", "x", _along("ReduceMin", "ArgMin"), KEEPS, None, "The smallest elements along an axis, and where.",
         2, dim=0, keepdim=False)  # fmt: skip
function("Sort", "x", _sort, KEEPS, _two_types, "The elements of each line along an axis in order, and their places.",
         2, dim=-1, descending=False, stable=False)  # fmt: skip
function("ArgSort", "x", _order, (), lambda node: _two_types(node)[1:], "The places of each line's elements in order.",
         dim=-1, descending=False, stable=False)  # fmt: skip
function("KthValue", "x", _smallest, KEEPS, None, "The k-th smallest elements along an axis, and where.", 2,
         k=1, dim=-1, keepdim=False)  # fmt: skip
function("Median", "x", _middle, KEEPS, types_with_places, "The lower middle elements along an axis, and where.", 2,
         dim=-1, keepdim=False)  # fmt: skip
function("Quantile", "x", _quantile, (), types_if_known, "What this part of the elements lies below.",
         q=0.5, dim=None, keepdim=False)  # fmt: skip
function("CumulativeMax", "x", _cumulative_max, KEEPS, _two_types, "The largest so far along an axis, and its place.",
         2, dim=0)  # fmt: skip
function("CumulativeMin", "x", _cumulative_min, KEEPS, _two_types, "The smallest so far along an axis, and its place.",
         2, dim=0)  # fmt: skip
function("CumulativeProduct", "x", _cumulative_product, (), lambda node: _two_types(node)[:1],
         "The products along an axis so far.", dim=0)  # fmt: skip
function("CumulativeLogSumExp", "x", _cumulative_log_sum, (), lambda node: _two_types(node)[:1],
         "log(sum(exp(x))) along an axis so far.", dim=0)  # fmt: skip
function("SearchSorted", "sorted_sequence x", _search, (), None,
         "How many elements of the sorted last axis are less than each value, or with `right` at most it.",
         right=False, out_int32=False)  # fmt: skip
function("IsIn", "elements test_elements", _is_in, (), None, "Whether each element is one of the others.",
         assume_unique=False, invert=False)  # fmt: skip
