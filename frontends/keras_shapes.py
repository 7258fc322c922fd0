"""Lowerings of the functions of `keras.ops`, and of layers, that move and reshape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from keras import layers, ops

from qir.frontends.keras_dtypes import tensor
from qir.frontends.keras_layouts import is_last, rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known


def size_of(x: Value, axis: int) -> int:
    """The size of an axis. Raises Unlowered where it is not known."""
    size = (x.type.shape or (None,) * 9)[axis]
    known(isinstance(size, int), "an axis of unknown size")
    return int(size or 0)


def to_shape(build: KerasBuilder, x: Value, sizes: Sequence[Any]) -> Value:
    """Reshape to these sizes, of which one may be -1 or None and others may be computed."""
    listed: list[Any] = [-1 if size is None else size for size in sizes]
    computed = [number for number, size in enumerate(listed) if isinstance(size, Value)]
    if len(computed) == 1 and -1 not in listed:
        listed[computed[0]] = -1
    elif computed:
        parts = [build("Reshape", size, build.indices([1])) if isinstance(size, Value) else build.indices([size])
                 for size in listed]  # fmt: skip
        return build("Reshape", x, build("Concat", *parts, axis=0))
    static = x.type.static
    if -1 in listed and static is not None and 0 not in (*listed, *static):
        listed[listed.index(-1)] = -prod(static) // prod(map(int, listed))
    known(listed.count(-1) <= 1, "two sizes that are not known")
    return build("Reshape", x, build.indices(listed))


@lowers(ops.reshape)
def reshape(build: KerasBuilder, x: Any, newshape: Any) -> Value:
    """Reshape."""
    sizes = newshape if isinstance(newshape, list | tuple) else (newshape,)
    return to_shape(build, tensor(build, x), sizes)


@lowers(layers.Reshape)
def reshape_layer(build: KerasBuilder, inputs: Value, target_shape: Any) -> Value:
    """Reshape of all axes but the first."""
    return to_shape(build, inputs, _whole_samples(inputs, target_shape))


def _whole_samples(x: Value, target: Sequence[Any]) -> list[Any]:
    """The sizes of a batch of samples of this shape."""
    sizes = [-1 if size is None else size for size in target]
    batch = (x.type.shape or (None,))[0]
    if -1 in sizes:
        behind = (x.type.shape or (None, None))[1:]
        if all(isinstance(size, int) for size in behind):
            sizes[sizes.index(-1)] = -prod(int(size or 0) for size in behind) // prod(sizes)
        else:
            return [batch if isinstance(batch, int) else 0, *sizes]
    return [batch if isinstance(batch, int) else -1, *sizes]


@lowers(layers.Flatten)
def flatten(build: KerasBuilder, inputs: Value, data_format: str) -> Value:
    """Flatten, with the channels last."""
    rank = rank_of(inputs)
    if rank == 1:
        return build("Unsqueeze", inputs, build.indices([1]))
    last = inputs if is_last(data_format) or rank < 3 else build("Transpose", inputs, perm=(0, *range(2, rank), 1))
    return build("Flatten", last)


@lowers(layers.Permute)
def permute(build: KerasBuilder, inputs: Value, dims: Any) -> Value:
    """Transpose of all axes but the first."""
    return build("Transpose", inputs, perm=(0, *dims))


@lowers(layers.RepeatVector)
def repeat_vector(build: KerasBuilder, inputs: Value, n: int) -> Value:
    """Tile along a new second axis."""
    return build("Tile", build("Unsqueeze", inputs, build.indices([1])), build.indices([1, n, 1]))


@lowers(ops.transpose)
def transpose(build: KerasBuilder, x: Any, axes: Any = None) -> Value:
    """Transpose."""
    value = tensor(build, x)
    rank = rank_of(value)
    order = range(rank)[::-1] if axes is None else [axis % rank for axis in axes]
    return build("Transpose", value, perm=tuple(order))


@lowers(ops.swapaxes)
def swapaxes(build: KerasBuilder, x: Any, axis1: int, axis2: int) -> Value:
    """Transpose of two axes."""
    value = tensor(build, x)
    order = list(range(rank_of(value)))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return build("Transpose", value, perm=tuple(order))


@lowers(ops.moveaxis)
def moveaxis(build: KerasBuilder, x: Any, source: Any, destination: Any) -> Value:
    """Transpose."""
    value = tensor(build, x)
    rank = rank_of(value)
    pairs = [(source, destination)] if isinstance(source, int) else list(zip(source, destination, strict=True))
    placed = {to % rank: axis % rank for axis, to in pairs}
    rest = iter(axis for axis in range(rank) if axis not in placed.values())
    return build("Transpose", value, perm=tuple(placed[to] if to in placed else next(rest) for to in range(rank)))


@lowers(ops.expand_dims)
def expand_dims(build: KerasBuilder, x: Any, axis: Any) -> Value:
    """Unsqueeze."""
    value = tensor(build, x)
    axes = [axis] if isinstance(axis, int) else list(axis)
    rank = rank_of(value) + len(axes)
    return build("Unsqueeze", value, build.indices(sorted(one % rank for one in axes)))


@lowers(ops.squeeze)
def squeeze(build: KerasBuilder, x: Any, axis: Any = None) -> Value:
    """Squeeze."""
    value = tensor(build, x)
    given = [number for number, size in enumerate(value.type.shape or ()) if size == 1] if axis is None else axis
    axes = [given] if isinstance(given, int) else list(given)
    return build("Squeeze", value, build.indices(sorted(one % rank_of(value) for one in axes))) if axes else value


@lowers(ops.ravel)
def ravel(build: KerasBuilder, x: Any) -> Value:
    """Reshape to one axis."""
    return build("Reshape", tensor(build, x), build.indices([-1]))


@lowers(ops.tile)
def tile(build: KerasBuilder, x: Any, repeats: Any) -> Value:
    """Tile, axes of size one put in front where there are more repeats than axes."""
    value = tensor(build, x)
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    missing = len(counts) - rank_of(value)
    value = build("Unsqueeze", value, build.indices(range(missing))) if missing > 0 else value
    return build("Tile", value, build.indices([1] * -missing + counts))


@lowers(ops.repeat)
def repeat(build: KerasBuilder, x: Any, repeats: Any, axis: Any = None) -> Value:
    """Gather of every place several times."""
    value = tensor(build, x)
    if axis is None:
        value, axis = ravel(build, value), 0
    given = repeats.literal if isinstance(repeats, Value) else repeats
    known(given is not None, "computed counts")
    counts = np.asarray([one.literal if isinstance(one, Value) else one for one in given]
                        if isinstance(given, list | tuple) else given)  # fmt: skip
    places = np.repeat(np.arange(size_of(value, axis)), counts)
    return build("Gather", value, places, axis=axis)


@lowers(ops.broadcast_to)
def broadcast_to(build: KerasBuilder, x: Any, shape: Any) -> Value:
    """Expand."""
    known(all(isinstance(size, int) for size in shape), "a computed shape")
    return build("Expand", tensor(build, x), build.indices(list(shape)))


@lowers(ops.meshgrid)
def meshgrid(build: KerasBuilder, *x: Any, indexing: str = "xy") -> list[Value]:
    """qir.MeshGrid."""
    return build.several("qir.MeshGrid", len(x), *(tensor(build, one) for one in x), indexing=indexing)


@lowers(ops.flip)
def flip(build: KerasBuilder, x: Any, axis: Any = None) -> Value:
    """qir.Flip."""
    value = tensor(build, x)
    axes = range(rank_of(value)) if axis is None else [axis] if isinstance(axis, int) else axis
    return build("qir.Flip", value, dims=tuple(axes))


@lowers(ops.fliplr)
def fliplr(build: KerasBuilder, x: Any) -> Value:
    """qir.Flip of the second axis."""
    return flip(build, x, 1)  # type: ignore[no-any-return]


@lowers(ops.flipud)
def flipud(build: KerasBuilder, x: Any) -> Value:
    """qir.Flip of the first axis."""
    return flip(build, x, 0)  # type: ignore[no-any-return]


@lowers(ops.rot90)
def rot90(build: KerasBuilder, array: Any, k: int = 1, axes: Any = (0, 1)) -> Value:
    """A flip and a Transpose of two axes, or two flips."""
    value, (a, b) = tensor(build, array), axes
    match k % 4:
        case 1:
            return swapaxes(build, flip(build, value, b), a, b)  # type: ignore[no-any-return]
        case 2:
            return flip(build, value, (a, b))  # type: ignore[no-any-return]
        case 3:
            return flip(build, swapaxes(build, value, a, b), b)  # type: ignore[no-any-return]
    return value


@lowers(ops.roll)
def roll(build: KerasBuilder, x: Any, shift: Any, axis: Any = None) -> Value:
    """qir.Roll."""
    value = tensor(build, x)
    known(isinstance(shift, int | list | tuple), "a computed shift")
    shifts = (shift,) if isinstance(shift, int) else tuple(shift)
    if axis is None:
        return to_shape(build, build("qir.Roll", ravel(build, value), shifts=shifts, dims=(0,)), value.type.shape or ())
    axes = (axis,) * len(shifts) if isinstance(axis, int) else tuple(axis)
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    return build("qir.Roll", value, shifts=shifts, dims=axes)
