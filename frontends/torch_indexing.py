"""Lowerings of torch's functions that pick, part, repeat and turn elements."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends.torch_computed import has_computed_limits, is_computed, part, pattern
from qir.frontends.torch_functions import spelled
from qir.frontends.torch_lowerings import Builder, Unlowered, known, lowers
from qir.frontends.torch_tensors import reshape
from qir.graph import Value
from qir.types import ScalarType, TensorType


def whole(*items: Any) -> tuple[int, ...]:
    """The whole numbers of a call that lists them or takes them as one sequence. Raises Unlowered for others."""
    listed = tuple(items[0]) if len(items) == 1 and isinstance(items[0], list | tuple) else items
    known(all(isinstance(item, int) and not isinstance(item, bool) for item in listed), "numbers that are computed")
    return listed


def size_of(input: Value, dim: Any) -> int:
    """The size of an axis. Raises Unlowered when it is not known."""
    known(isinstance(dim, int) and input.type.rank is not None, "an axis of unknown size")
    size = None if input.type.shape is None else input.type.shape[dim]
    if not isinstance(size, int):
        raise Unlowered("an axis of unknown size")
    return size


def _tensor(value: Any) -> bool:
    """Whether the value is a tensor for sure: what an opaque call returns, or a model is given, may be a list."""
    if not isinstance(value, Value) or isinstance(value.type, ScalarType):
        return False
    return value.type.dtype is not None or (value.node is not None and not value.node.definition.opaque)


@lowers(operator.getitem, "Tensor.__getitem__")
def getitem(build: Builder, input: Any, index: Any) -> Value:
    """qir.Index, for numbers, slices with known limits, None, Ellipsis; qir.Pick for places in a tensor or list."""
    items = index if isinstance(index, tuple) else (index,)
    known(_tensor(input), "an item of what may be a list")
    items = tuple(build.indices(item) if _is_listed(item) else item for item in items)
    if has_computed_limits(items):
        return part(build, input, items)
    if any(isinstance(item, Value) for item in items):
        return _picked(build, input, items)
    known(all(map(_plain, items)) and sum(item is Ellipsis for item in items) <= 1, "an index that is computed")
    return build("qir.Index", input, index=items)


def _is_listed(item: Any) -> bool:
    """Whether it is a list of whole numbers."""
    return isinstance(item, list) and bool(item) and all(type(place) is int for place in item)


def _plain(item: Any) -> bool:
    if isinstance(item, slice):
        limits = (item.start, item.stop, item.step)
        return all(limit is None or isinstance(limit, int) for limit in limits)
    return item is None or item is Ellipsis or (isinstance(item, int) and not isinstance(item, bool))


def _picked(build: Builder, input: Value, items: tuple[Any, ...]) -> Value:
    """qir.Pick at places of neighbouring axes, the other axes whole; qir.MaskedSelect for a mask of all axes."""
    whole_axis = slice(None)
    items = _of_axes(items, input.type.rank)
    places = [number for number, item in enumerate(items) if isinstance(item, Value)]
    first, last = places[0], places[-1] + 1
    tensors, before, after = items[first:last], items[:first], items[last:]
    known(len(tensors) == len(places), "places of axes that are apart")
    dtypes = {tensor.type.dtype for tensor in tensors if not isinstance(tensor.type, ScalarType)}
    if dtypes == {"bool"} and len(items) == 1 and input.type.rank == tensors[0].type.rank is not None:
        return build("qir.MaskedSelect", input, tensors[0])
    known(None not in dtypes and "bool" not in dtypes and "u8" not in dtypes, "places of unknown dtype, or a mask")
    known(all(not isinstance(tensor.type, ScalarType) for tensor in tensors), "a place that is a Python number")
    known(all(item == whole_axis for item in before), "a part of an axis before")
    known(all(item == whole_axis or item is Ellipsis for item in after), "a part of an axis behind")
    return build("qir.Pick", input, *tensors, axis=first)


def _of_axes(items: tuple[Any, ...], rank: int | None) -> tuple[Any, ...]:
    """The items of an index, with whole axes in the place of an Ellipsis where the number of axes is known."""
    place = next((number for number, item in enumerate(items) if item is Ellipsis), None)
    if place is None or rank is None:
        return items
    taken = sum(item is not None for item in items) - 1
    return (*items[:place], *(slice(None),) * (rank - taken), *items[place + 1 :])


def at(dim: Any, item: Any) -> tuple[Any, ...]:
    """The index that takes `item` along one axis."""
    known(isinstance(dim, int), "a computed axis")
    if dim >= 0:
        return (*(slice(None),) * dim, item)
    return (Ellipsis, item, *(slice(None),) * (-dim - 1))


@lowers(*spelled("select"))
def select(build: Builder, input: Value, dim: int, index: int) -> Value:
    """qir.Index."""
    return getitem(build, input, at(dim, index))  # type: ignore[no-any-return]


@lowers(*spelled("narrow"))
def narrow(build: Builder, input: Value, dim: int, start: Any, length: Any) -> Value:
    """qir.Index."""
    known(all(is_computed(item) or isinstance(item, int) for item in (start, length)), "a start that is a tensor")
    known(not isinstance(start, int) or start >= 0, "a start that counts from the end")
    computed = isinstance(start, Value) or isinstance(length, Value)
    end = build("Add", start, length) if computed else start + length
    return getitem(build, input, at(dim, slice(start, end)))  # type: ignore[no-any-return]


def several(build: Builder, input: Value, sizes: Sequence[int], dim: int) -> list[Value]:
    """The results of a Split into parts of these sizes."""
    if len(sizes) == 1:
        return [build("Identity", input)]
    node = build.graph.add("Split", [input, build.indices(sizes)], {"axis": dim}, results=len(sizes))
    build.added.append(node)
    return list(node.results)


@lowers(*spelled("split split_with_sizes"))
def split(build: Builder, tensor: Value, split_size_or_sections: Any, dim: int = 0) -> tuple[Value, ...]:
    """Split."""
    known(_tensor(tensor), "a string that is split")
    parts = split_size_or_sections
    if isinstance(parts, int):
        size = size_of(tensor, dim)
        known(parts > 0 and size > 0, "parts without elements")
        return tuple(several(build, tensor, [min(parts, size - at) for at in range(0, size, parts)], dim))
    known(not isinstance(parts, Value), "parts of a computed size")
    return tuple(several(build, tensor, whole(tuple(parts)), dim))


@lowers(*spelled("chunk"))
def chunk(build: Builder, input: Value, chunks: Any, dim: int = 0) -> tuple[Value, ...]:
    """Split into parts of equal size, the last one maybe smaller."""
    known(isinstance(chunks, int) and chunks > 0, "a computed number of parts")
    if chunks == 2 and input.type.shape is not None and not isinstance(input.type.shape[dim], int):
        return tuple(build.several("Split", 2, input, axis=dim, num_outputs=2))  # of more, torch may return fewer
    size = size_of(input, dim)
    known(size > 0, "parts without elements")
    return split(build, input, -(-size // chunks), dim)  # type: ignore[no-any-return]


@lowers(*spelled("tensor_split"))
def tensor_split(build: Builder, input: Value, indices_or_sections: Any, dim: int = 0) -> tuple[Value, ...]:
    """Split into a number of parts, the first ones maybe larger by one, or between stated places."""
    size = size_of(input, dim)
    if isinstance(indices_or_sections, list | tuple):
        limits = [0, *(min(place % size if place < 0 else place, size) for place in whole(indices_or_sections)), size]
        sizes = [end - start for start, end in pairwise(limits)]
        known(min(sizes) > 0, "parts without elements")
        return tuple(several(build, input, sizes, dim))
    known(isinstance(indices_or_sections, int) and indices_or_sections > 0, "a computed number of parts")
    parts = indices_or_sections
    known(size >= parts, "parts without elements")
    return tuple(several(build, input, [size // parts + (part < size % parts) for part in range(parts)], dim))


@lowers(*spelled("unbind"))
def unbind(build: Builder, input: Value, dim: int = 0) -> tuple[Value, ...]:
    """qir.Index for every place of the axis."""
    return tuple(build("qir.Index", input, index=at(dim, place)) for place in range(size_of(input, dim)))


@lowers(*spelled("index_select"))
def index_select(build: Builder, input: Value, dim: int, index: Any) -> Value:
    """Gather."""
    places = build.value(index)
    known(places is not None and places.type.rank == 1, "an index of unknown rank")
    return build("Gather", input, places, axis=dim)


@lowers(*spelled("gather"))
def gather(build: Builder, input: Value, dim: int, index: Value, *, sparse_grad: bool = False) -> Value:
    """GatherElements."""
    known(not sparse_grad, "sparse gradients")
    return build("GatherElements", input, index, axis=dim)


@lowers(*spelled("flip"))
def flip(build: Builder, input: Value, *dims: Any) -> Value:
    """qir.Flip."""
    return build("qir.Flip", input, dims=whole(*dims))


@lowers(*spelled("fliplr"))
def fliplr(build: Builder, input: Value) -> Value:
    """qir.Flip of axis 1."""
    return build("qir.Flip", input, dims=(1,))


@lowers(*spelled("flipud"))
def flipud(build: Builder, input: Value) -> Value:
    """qir.Flip of axis 0."""
    return build("qir.Flip", input, dims=(0,))


@lowers(*spelled("roll"))
def roll(build: Builder, input: Value, shifts: Any, dims: Any = ()) -> Value:
    """qir.Roll along stated axes."""
    steps = whole(*(shifts if isinstance(shifts, list | tuple) else (shifts,)))
    axes = whole(*(dims if isinstance(dims, list | tuple) else (dims,)))
    known(len(axes) == len(steps) > 0, "a roll over all axes")
    return build("qir.Roll", input, shifts=steps, dims=axes)


@lowers("Tensor.expand", *spelled("broadcast_to"))
def expand(build: Builder, input: Value, *size: Any, implicit: bool = False) -> Value:
    """qir.BroadcastTo."""
    known(not implicit, "an implicit expand")
    sizes, computed = pattern(*size)
    return build("qir.BroadcastTo", input, *computed, size=sizes)


@lowers("Tensor.repeat", *spelled("tile"))
def repeat(build: Builder, input: Value, *repeats: Any, dims: Any = None) -> Value:
    """qir.Repeat, with a number for each axis."""
    counts, computed = pattern(*repeats) if dims is None else pattern(tuple(dims))
    known(input.type.rank is not None and len(counts) >= input.type.rank, "fewer repeats than axes")
    return build("qir.Repeat", input, *computed, repeats=counts)


@lowers(*spelled("unflatten"), nn.Unflatten)
def unflatten(build: Builder, input: Value, dim: Any, sizes: Any = None, unflattened_size: Any = None) -> Value:
    """qir.Unflatten."""
    given = sizes if unflattened_size is None else unflattened_size
    known(isinstance(dim, int) and isinstance(given, list | tuple), "axes with names")
    if any(map(is_computed, given)):
        known(input.type.rank is not None, "a tensor of unknown rank")
        sizes = [build("qir.AxisSize", input, axis=axis) for axis in range(input.type.rank or 0)]
        axis = dim % len(sizes)
        return reshape(build, input, [*sizes[:axis], *given, *sizes[axis + 1 :]])  # type: ignore[no-any-return]
    return build("qir.Unflatten", input, dim=dim, sizes=whole(tuple(given)))


@lowers(*spelled("movedim moveaxis"))
def movedim(build: Builder, input: Value, source: Any, destination: Any) -> Value:
    """qir.MoveAxes."""
    axes = [whole(*(item if isinstance(item, list | tuple) else (item,))) for item in (source, destination)]
    return build("qir.MoveAxes", input, source=axes[0], destination=axes[1])


@lowers(*spelled("ravel"))
def ravel(build: Builder, input: Value) -> Value:
    """Reshape to a vector."""
    return build("Reshape", input, build.indices([-1]))


@lowers(*spelled("tril"))
def tril(build: Builder, input: Value, diagonal: int = 0) -> Value:
    """Trilu, lower."""
    return build("Trilu", input, build.value(np.array(diagonal, np.int64)), upper=0)


@lowers(*spelled("triu"))
def triu(build: Builder, input: Value, diagonal: int = 0) -> Value:
    """Trilu, upper."""
    return build("Trilu", input, build.value(np.array(diagonal, np.int64)))


@lowers(F.pixel_shuffle, nn.PixelShuffle)
def pixel_shuffle(build: Builder, input: Value, upscale_factor: int) -> Value:
    """DepthToSpace whose blocks come last."""
    known(isinstance(input.type, TensorType) and input.type.rank == 4, "an image without a batch")
    return build("DepthToSpace", input, blocksize=upscale_factor, mode="CRD")


@lowers(F.pixel_unshuffle, nn.PixelUnshuffle)
def pixel_unshuffle(build: Builder, input: Value, downscale_factor: int) -> Value:
    """qir.PixelUnshuffle."""
    return build("qir.PixelUnshuffle", input, downscale_factor=downscale_factor)


@lowers(F.channel_shuffle, nn.ChannelShuffle, torch.native_channel_shuffle, F.native_channel_shuffle)
def channel_shuffle(build: Builder, input: Value, groups: int) -> Value:
    """qir.ChannelShuffle."""
    return build("qir.ChannelShuffle", input, groups=groups)
