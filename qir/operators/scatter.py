"""Composites in the domain `qir.` that write elements into a tensor: by index, by mask, into a slice or a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.errors import QirError
from qir.operators.functions import Writer, floats, floor_div, function, same_type
from qir.operators.sorts import highest, lowest
from qir.types import NUMPY

if TYPE_CHECKING:
    from qir.graph import Value

_REDUCTIONS = {
    "add": "add", "sum": "add", "multiply": "mul", "prod": "mul", "amax": "max", "amin": "min", None: "none",
}  # fmt: skip


def _number(on: Writer, x: Value, number: Any) -> Value:
    """A number as a tensor of the dtype of `x`."""
    return on.graph.constant(np.array(number, NUMPY[x.type.dtype or "f32"]))


def _fitted(on: Writer, index: Value, src: Value) -> Value:
    """The part of `src` that the index reads: torch allows a larger source."""
    if index.type.shape == src.type.shape:
        return src
    axes = list(range(on.rank(index)))
    return on.Slice(src, [0] * len(axes), on.Shape(index), axes)


def _scatter(on: Writer, x: Value, index: Value, src: Value, dim: int, reduce: str | None) -> Value:
    src = _fitted(on, index, src)
    return on.ScatterElements(x, index, src, axis=dim, reduction=_REDUCTIONS[reduce])


def _scatter_add(on: Writer, x: Value, index: Value, src: Value, dim: int) -> Value:
    return _scatter(on, x, index, src, dim, "add")


def _scatter_value(on: Writer, x: Value, index: Value, dim: int, value: Any, reduce: str | None) -> Value:
    src = on.Expand(_number(on, x, value), on.Shape(index))
    return on.ScatterElements(x, index, src, axis=dim, reduction=_REDUCTIONS[reduce])


_NEUTRAL = {"sum": lambda x: 0, "mean": lambda x: 0, "prod": lambda x: 1, "amax": lowest, "amin": highest}


def _scatter_reduce(on: Writer, x: Value, index: Value, src: Value, dim: int, reduce: str, include_self: bool) -> Value:
    src = _fitted(on, index, src)

    def scattered(data: Value, what: Value, reduction: str) -> Value:
        return on.ScatterElements(data, index, what, axis=dim, reduction=reduction)

    if not include_self:
        neutral = on.Expand(_number(on, x, _NEUTRAL[reduce](x)), on.Shape(index))
        x = scattered(x, neutral, "none")
    if reduce != "mean":
        return scattered(x, src, _REDUCTIONS[reduce])
    one = on.Expand(_number(on, x, 1), on.Shape(index))
    count = on.Expand(_number(on, x, int(include_self)), on.Shape(x))
    count = on.Max(scattered(count, one, "add"), _number(on, x, 1))
    total = scattered(x, src, "add")
    return on.Div(total, count) if floats(x) else floor_div(on, total, count)


def _along(on: Writer, index: Value, like: Value, dim: int) -> Value:
    """An index of one axis, repeated to the shape of `like`."""
    rank = on.rank(like)
    others = [axis for axis in range(rank) if axis != dim % rank]
    index = on.Reshape(index, [-1]) if on.rank(index) == 0 else index
    shaped = on.Unsqueeze(index, others) if others else index
    return on.Expand(shaped, on.Shape(like))


def _index_copy(on: Writer, x: Value, index: Value, source: Value, dim: int) -> Value:
    return on.ScatterElements(x, _along(on, index, source, dim), source, axis=dim)


def _index_add(on: Writer, x: Value, index: Value, source: Value, dim: int, alpha: float) -> Value:
    source = source if alpha == 1 else on.Mul(source, _number(on, source, alpha))
    return on.ScatterElements(x, _along(on, index, source, dim), source, axis=dim, reduction="add")


def _index_reduce(on: Writer, x: Value, index: Value, source: Value, dim: int, reduce: str,
                  include_self: bool) -> Value:  # fmt: skip
    return _scatter_reduce(on, x, _along(on, index, source, dim), source, dim, reduce, include_self)


def _index_fill(on: Writer, x: Value, index: Value, dim: int, value: Any) -> Value:
    source = on.Expand(_number(on, x, value), on.Shape(on.Gather(x, index, axis=dim)))
    return _index_copy(on, x, index, source, dim)


def _index_put(on: Writer, x: Value, values: Value, *indices: Value, accumulate: bool) -> Value:
    if len(indices) == 1 and indices[0].type.dtype == "bool":
        rest = list(range(on.rank(indices[0]), on.rank(x)))
        mask = on.Unsqueeze(indices[0], rest) if rest else indices[0]
        return on.Where(mask, on.Add(x, values) if accumulate else values, x)
    total = indices[0]
    for index in indices[1:]:
        total = on.Add(on.Mul(total, 0), on.Mul(index, 0))
    places = [on.Unsqueeze(on.Expand(index, on.Shape(total)), [-1]) for index in indices]
    place = on.Concat(*places, axis=-1) if len(places) > 1 else places[0]
    shape = on.Shape(total)
    if len(indices) < on.rank(x):
        shape = on.Concat(shape, on.Shape(x, start=len(indices)), axis=0)
    updates = on.Expand(values, shape)
    return on.ScatterND(x, place, updates, reduction="add" if accumulate else "none")


def _put(on: Writer, x: Value, index: Value, source: Value, accumulate: bool) -> Value:
    flat = on.Reshape(x, [-1])
    reduction = "add" if accumulate else "none"
    put = on.ScatterElements(flat, on.Reshape(index, [-1]), on.Reshape(source, [-1]), axis=0, reduction=reduction)
    return on.Reshape(put, on.Shape(x))


def _masked_scatter(on: Writer, x: Value, mask: Value, source: Value) -> Value:
    mask = on.Expand(mask, on.Shape(x))
    count = on.CumSum(on.cast(on.Reshape(mask, [-1]), "i64"), [0])
    place = on.Reshape(on.Max(on.Sub(count, 1), 0), on.Shape(x))
    return on.Where(mask, on.Gather(on.Reshape(source, [-1]), place), x)


def _replaced(on: Writer, x: Value, src: Value, dim: int, places: Sequence[int]) -> Value:
    """`x` with `src` at these places of an axis: both side by side, and from there each place its element."""
    size = on.size(x, dim)
    chosen = np.arange(size)
    chosen[list(places)] = size + np.arange(len(places))
    return on.Gather(on.Concat(x, src, axis=dim), on.graph.constant(chosen), axis=dim)


def _select_scatter(on: Writer, x: Value, src: Value, dim: int, index: int) -> Value:
    return _replaced(on, x, on.Unsqueeze(src, [dim]), dim, [index % on.size(x, dim)])


def _slice_scatter(on: Writer, x: Value, src: Value, dim: int, start: int | None, end: int | None, step: int) -> Value:
    if not start and end in (None, 2**63 - 1) and step == 1:
        return on.Identity(src)
    return _replaced(on, x, src, dim, range(on.size(x, dim))[start:end:step])


def _diagonal_scatter(on: Writer, x: Value, src: Value, offset: int, dim1: int, dim2: int) -> Value:
    rows, columns = on.size(x, dim1), on.size(x, dim2)
    turned = on.axis_last(x, dim1, dim2)
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    if count <= 0:
        raise QirError("a diagonal without elements", on.node)
    start = offset if offset >= 0 else -offset * columns
    places = [start + number * (columns + 1) for number in range(count)]
    flat = on.Reshape(turned, [0] * (on.rank(x) - 2) + [rows * columns])
    put = _replaced(on, flat, src, -1, places)
    return on.axis_back(on.Reshape(put, on.Shape(turned)), dim1, dim2)


for _name, _operands, _write, _doc, _attributes in (
    ("Scatter", "x index src", _scatter, "x with the elements of src at these places of an axis.",
     {"dim": 0, "reduce": None}),
    ("ScatterValue", "x index", _scatter_value, "x with a number at these places of an axis.",
     {"dim": 0, "value": 0.0, "reduce": None}),
    ("ScatterAdd", "x index src", _scatter_add, "x with src added at these places of an axis.", {"dim": 0}),
    ("ScatterReduce", "x index src", _scatter_reduce, "x with src reduced into these places of an axis.",
     {"dim": 0, "reduce": "sum", "include_self": True}),
    ("IndexCopy", "x index source", _index_copy, "x with the slices of source at these places of an axis.", {"dim": 0}),
    ("IndexAdd", "x index source", _index_add, "x with the slices of source added at these places of an axis.",
     {"dim": 0, "alpha": 1}),
    ("IndexReduce", "x index source", _index_reduce, "x with slices reduced into these places of an axis.",
     {"dim": 0, "reduce": "prod", "include_self": True}),
    ("IndexFill", "x index", _index_fill, "x with a number in the slices at these places of an axis.",
     {"dim": 0, "value": 0.0}),
    ("IndexPut", "x values indices*", _index_put, "x with values where these index its first axes, or where a mask is.",
     {"accumulate": False}),
    ("Put", "x index source", _put, "x with source at these places of its elements in order.", {"accumulate": False}),
    ("MaskedScatter", "x mask source", _masked_scatter, "x with the elements of source in turn where a mask is true.",
     {}),
    ("SelectScatter", "x src", _select_scatter, "x with src at one place of an axis.", {"dim": 0, "index": 0}),
    ("SliceScatter", "x src", _slice_scatter, "x with src in a slice of an axis.",
     {"dim": 0, "start": None, "end": None, "step": 1}),
    ("DiagonalScatter", "x src", _diagonal_scatter, "x with src on a diagonal of two axes.",
     {"offset": 0, "dim1": 0, "dim2": 1}),
):  # fmt: skip
    function(_name, _operands, _write, (), same_type, _doc, **_attributes)
