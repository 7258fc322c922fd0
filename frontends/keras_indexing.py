"""Lowerings of the functions of `keras.ops` that pick, replace and order elements."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from qir.frontends.keras_creation import standard
from qir.frontends.keras_dtypes import agreed, cast, dtype_of, tensor
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_shapes import ravel, size_of
from qir.graph import Value
from qir.lowering import known


@lowers(ops.get_item)
def get_item(build: KerasBuilder, x: Any, key: Any) -> Value:
    """qir.Index for whole numbers, slices, None and Ellipsis; Gather at places of one axis."""
    value = tensor(build, x)
    items = tuple(key) if isinstance(key, list | tuple) else (key,)
    places = [number for number, item in enumerate(items) if isinstance(item, Value)]
    if not places:
        known(all(map(_plain, items)), "an index that is computed")
        return build("qir.Index", value, index=items)
    known(len(places) == 1 and items[: places[0]].count(Ellipsis) == 0, "places of several axes")
    (place,) = places
    known(all(item == slice(None) for item in (*items[:place], *items[place + 1 :])), "places beside other parts")
    known(str(dtype_of(items[place])).startswith(("int", "uint")), "a mask, whose number of elements is not known")
    return build("Gather", value, cast(build, items[place], "int64"), axis=place)


def _plain(item: Any) -> bool:
    if isinstance(item, slice):
        return all(limit is None or isinstance(limit, int) for limit in (item.start, item.stop, item.step))
    return item is None or item is Ellipsis or (isinstance(item, int) and not isinstance(item, bool))


def _places(build: KerasBuilder, indices: Any) -> Value:
    value = build.value(np.asarray(indices, np.int64)) if isinstance(indices, int | list | tuple) else \
        tensor(build, indices)  # fmt: skip
    assert value is not None
    return value if dtype_of(value) in ("int32", "int64") else cast(build, value, "int64")


@lowers(ops.take)
def take(build: KerasBuilder, x: Any, indices: Any, axis: Any = None) -> Value:
    """Gather."""
    value = tensor(build, x)
    if axis is None:
        return build("Gather", ravel(build, value), _places(build, indices), axis=0)
    return build("Gather", value, _places(build, indices), axis=axis)


@lowers(ops.take_along_axis)
def take_along_axis(build: KerasBuilder, x: Any, indices: Any, axis: Any = None) -> Value:
    """qir.TakeAlong."""
    return build("qir.TakeAlong", tensor(build, x), cast(build, indices, "int64"), dim=axis)


@lowers(ops.slice)
def slice_of(build: KerasBuilder, inputs: Any, start_indices: Any, shape: Any) -> Value:
    """Slice from these places on, of this shape."""
    value = tensor(build, inputs)
    known(
        isinstance(start_indices, list | tuple) and all(isinstance(one, int) for one in start_indices),
        "a computed start",
    )
    ends = [start + size if size != -1 else size_of(value, axis)
            for axis, (start, size) in enumerate(zip(start_indices, shape, strict=True))]  # fmt: skip
    return build("Slice", value, build.indices(start_indices), build.indices(ends), build.indices(range(len(ends))))


@lowers(ops.slice_update)
def slice_update(build: KerasBuilder, inputs: Any, start_indices: Any, updates: Any) -> Value:
    """ScatterND of the updates at the places of a slice."""
    value = tensor(build, inputs)
    new = cast(build, updates, str(dtype_of(value)))
    known(
        isinstance(start_indices, list | tuple) and all(isinstance(one, int) for one in start_indices),
        "a computed start",
    )
    sizes = [size_of(new, axis) for axis in range(rank_of(new))]
    places = np.stack(np.meshgrid(*(start + np.arange(size) for start, size in zip(start_indices, sizes, strict=True)),
                                  indexing="ij"), -1)  # fmt: skip
    return build("ScatterND", value, places.astype(np.int64), new)


_REDUCED = {None: "none", "add": "add", "max": "max", "min": "min", "mul": "mul"}


@lowers(ops.scatter_update)
def scatter_update(build: KerasBuilder, inputs: Any, indices: Any, updates: Any, reduction: Any = None) -> Value:
    """ScatterND."""
    value = tensor(build, inputs)
    known(reduction in _REDUCED, f"a reduction {reduction!r}")
    new = cast(build, updates, str(dtype_of(value)))
    return build("ScatterND", value, cast(build, indices, "int64"), new, reduction=_REDUCED[reduction])


@lowers(ops.scatter)
def scatter(build: KerasBuilder, indices: Any, values: Any, shape: Any) -> Value:
    """ScatterND that adds to zeros."""
    known(all(isinstance(size, int) for size in shape), "a computed shape")
    new = tensor(build, values)
    zeros = build.value(np.zeros(tuple(shape), str(dtype_of(new))))
    return build("ScatterND", zeros, cast(build, indices, "int64"), new, reduction="add")


@lowers(ops.sort)
def sort(build: KerasBuilder, x: Any, axis: Any = -1) -> Value:
    """qir.Sort."""
    value = tensor(build, x)
    value, axis = (ravel(build, value), 0) if axis is None else (value, axis)
    return build.several("qir.Sort", 2, value, dim=axis)[0]


@lowers(ops.argsort)
def argsort(build: KerasBuilder, x: Any, axis: Any = -1) -> Value:
    """qir.ArgSort that keeps the order of equal elements."""
    value = tensor(build, x)
    value, axis = (ravel(build, value), 0) if axis is None else (value, axis)
    return build("qir.ArgSort", value, dim=axis, stable=True)


@lowers(ops.top_k)
def top_k(build: KerasBuilder, x: Any, k: int, sorted: bool = True) -> Any:
    """TopK of the last axis."""
    known(isinstance(k, int), "a computed number")
    return tuple(build.several("TopK", 2, tensor(build, x), build.indices([k])))


@lowers(ops.in_top_k)
def in_top_k(build: KerasBuilder, targets: Any, predictions: Any, k: int) -> Value:
    """Whether fewer than k elements are greater than that at the target's place."""
    found, places = tensor(build, predictions), cast(build, targets, "int64")
    own = build("GatherElements", found, build("Unsqueeze", places, build.indices([1])), axis=1)
    greater = cast(build, build("Greater", found, own), "int32")
    return build("Less", build("ReduceSum", greater, build.indices([1]), keepdims=0), np.array(k, np.int32))


@lowers(ops.searchsorted)
def searchsorted(build: KerasBuilder, sorted_sequence: Any, values: Any, side: str = "left") -> Value:
    """qir.SearchSorted."""
    a, b = agreed(build, sorted_sequence, values)
    return build("qir.SearchSorted", a, b, right=side == "right")


@lowers(ops.digitize)
def digitize(build: KerasBuilder, x: Any, bins: Any) -> Value:
    """How many of the limits are at most x."""
    value, limits = agreed(build, x, bins)
    hits = build("GreaterOrEqual", build("Unsqueeze", value, build.indices([rank_of(value)])), limits)
    return build("ReduceSum", cast(build, hits, "int32"), build.indices([rank_of(value)]), keepdims=0)


@lowers(ops.isin)
def isin(build: KerasBuilder, x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Value:
    """qir.IsIn."""
    return build("qir.IsIn", *agreed(build, x1, x2), invert=invert)


@lowers(ops.one_hot)
def one_hot(build: KerasBuilder, x: Any, num_classes: int, axis: int = -1, dtype: Any = None,
            sparse: bool = False) -> Value:  # fmt: skip
    """Equal to a count of the classes along a new axis, so that numbers that are no class give zeros."""
    known(not sparse, "a sparse tensor")
    value = cast(build, x, "int64")
    place = axis % (rank_of(value) + 1)
    shape = [1] * (rank_of(value) + 1)
    shape[place] = num_classes
    hits = build("Equal", build("Unsqueeze", value, build.indices([place])), np.arange(num_classes).reshape(shape))
    return cast(build, hits, standard(dtype))


@lowers(ops.extract_sequences)
def extract_sequences(build: KerasBuilder, x: Any, sequence_length: int, sequence_stride: int) -> Value:
    """Gather of the places of each window of the last axis."""
    value = tensor(build, x)
    starts = np.arange(0, size_of(value, -1) - sequence_length + 1, sequence_stride)
    return build("Gather", value, starts[:, None] + np.arange(sequence_length), axis=rank_of(value) - 1)


@lowers(ops.multi_hot)
def multi_hot(build: KerasBuilder, inputs: Any, num_classes: Any = None, axis: int = -1, dtype: Any = None,
              sparse: bool = False) -> Value:  # fmt: skip
    """The largest of the one-hot rows of a sample."""
    value = cast(build, inputs, "int64")
    hot = one_hot(build, value, num_classes, axis, dtype, sparse)
    along = 1 if rank_of(value) > 1 else 0
    return build("ReduceMax", hot, build.indices([along]), keepdims=0)


@lowers(ops.bincount)
def bincount(build: KerasBuilder, x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Value:
    """qir.CountNumbers of a row."""
    value = cast(build, x, "int64")
    known(not sparse and rank_of(value) == 1, "rows of their own, or a sparse tensor")
    return build("qir.CountNumbers", value, None if weights is None else tensor(build, weights), minlength=minlength)


@lowers(ops.select)
def select(build: KerasBuilder, condlist: Any, choicelist: Any, default: Any = 0) -> Value:
    """Where, the first condition last."""
    *choices, made = agreed(build, *choicelist, default)
    for condition, choice in reversed(list(zip(condlist, choices, strict=True))):
        made = build("Where", tensor(build, condition), choice, made)
    return made


@lowers(ops.unravel_index)
def unravel_index(build: KerasBuilder, indices: Any, shape: Any) -> Any:
    """The places along each axis of a shape."""
    value = cast(build, indices, "int64")
    found, behind = [], 1
    for size in reversed(shape):
        found.append(build("Mod", build("Div", value, np.array(behind)), np.array(size)))
        behind *= size
    return tuple(reversed(found))


def _segments(name: str, reduce: str, first: Any) -> None:
    def lowering(build: KerasBuilder, data: Any, segment_ids: Any, num_segments: Any = None,
                 sorted: bool = False) -> Value:  # fmt: skip
        value, places = tensor(build, data), cast(build, segment_ids, "int64")
        known(num_segments is not None, "a number of segments that depends on the data")
        shape = (num_segments, *(size_of(value, axis) for axis in range(1, rank_of(value))))
        dtype = np.dtype(str(dtype_of(value)))
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        start = {"min": limits.max, "max": limits.min}.get(reduce, first)
        if dtype.kind == "f" and reduce in ("min", "max"):
            start = np.inf if reduce == "min" else -np.inf
        base = build.value(np.full(shape, start, dtype))
        where = build("Unsqueeze", places, build.indices([1]))
        return build("ScatterND", base, where, value, reduction=reduce)

    lowering.__name__ = name
    lowers(getattr(ops, name))(lowering)


for _name, _reduce, _first in (("segment_sum", "add", 0), ("segment_max", "max", None), ("segment_min", "min", None),
                               ("segment_prod", "mul", 1)):  # fmt: skip
    _segments(_name, _reduce, _first)


@lowers(ops.diagonal)
def diagonal(build: KerasBuilder, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """qir.Diagonal."""
    return build("qir.Diagonal", tensor(build, x), offset=offset, dim1=axis1, dim2=axis2)


@lowers(ops.diag)
def diag(build: KerasBuilder, x: Any, k: int = 0) -> Value:
    """qir.DiagonalMatrix of a vector, qir.Diagonal of a matrix."""
    value = tensor(build, x)
    if rank_of(value) == 1:
        return build("qir.DiagonalMatrix", value, offset=k)
    return build("qir.Diagonal", value, offset=k)


@lowers(ops.diagflat)
def diagflat(build: KerasBuilder, x: Any, k: int = 0) -> Value:
    """qir.DiagonalMatrix of all elements."""
    return build("qir.DiagonalMatrix", ravel(build, tensor(build, x)), offset=k)


def _triangle(name: str, upper: int) -> None:
    def lowering(build: KerasBuilder, x: Any, k: int = 0) -> Value:
        value = tensor(build, x)
        if value.type.dtype in ("f32", "f64", "i64", "i32", "bool", "f16"):
            return build("Trilu", value, np.array(k), upper=upper)
        return cast(build, build("Trilu", cast(build, value, "int64"), np.array(k), upper=upper), str(dtype_of(value)))

    lowering.__name__ = name
    lowers(getattr(ops, name))(lowering)


_triangle("tril", 0)
_triangle("triu", 1)
