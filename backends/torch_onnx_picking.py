"""ONNX's operators that pick, place, sort and count elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
"""What torch calls ONNX's ways of joining several elements in one place."""


def _positive(indices: Tensor, size: int) -> Tensor:
    whole = indices.to(torch.int64)
    return torch.where(whole < 0, whole + size, whole)


@computes("Gather")
def gather(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Slices of `x` along the axis, `indices` in the place of it."""
    axis = axis % x.ndim
    picked = x.index_select(axis, _positive(indices, x.shape[axis]).reshape(-1))
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@computes("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """An element of `x` for each index, from its place along the axis."""
    return torch.gather(x, axis, _positive(indices, x.shape[axis]))


@computes("GatherND")
def gather_nd(x: Tensor, indices: Tensor, batch_dims: int) -> Tensor:
    """Slices of `x` at places that the last axis of `indices` holds."""
    batch = x.shape[:batch_dims]
    count = indices.shape[-1]
    rows = x.reshape(math.prod(batch), *x.shape[batch_dims:])
    places = indices.to(torch.int64).reshape(math.prod(batch), -1, count)
    number = torch.arange(len(rows)).reshape(-1, 1).expand(places.shape[:2])
    found = rows[(number, *places.unbind(-1))]
    return found.reshape([*indices.shape[:-1], *x.shape[batch_dims + count :]])


@computes("ScatterElements")
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, axis: int, reduction: str) -> Tensor:
    """`x` with an update for each index at its place along the axis."""
    places = _positive(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, REDUCTIONS[reduction])


@computes("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """`x` with updates at places that the last axis of `indices` holds."""
    count = indices.shape[-1]
    sizes = x.shape[:count]
    places = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for number, size in enumerate(sizes):
        places = places * size + _positive(indices[..., number], size)
    rows, new = x.reshape(math.prod(sizes), -1), updates.reshape(places.numel(), -1)
    if reduction == "none":
        return rows.index_put((places.reshape(-1),), new).reshape(x.shape)
    spread = places.reshape(-1, 1).expand_as(new)
    return rows.scatter_reduce(0, spread, new, REDUCTIONS[reduction]).reshape(x.shape)


@computes("Compress")
def compress(x: Tensor, condition: Tensor, axis: int | None) -> Tensor:
    """The slices, or elements, for which the condition holds."""
    flat = x.reshape(-1) if axis is None else x
    return flat.index_select(axis or 0, condition.nonzero().reshape(-1))


@computes("NonZero")
def nonzero(x: Tensor) -> Tensor:
    """The places of elements that are not zero, one axis a row."""
    return x.nonzero().t()


@computes("OneHot")
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, axis: int) -> Tensor:
    """A new axis with the second of the values at the index, and the first elsewhere."""
    size = int(depth.reshape(-1)[0])
    hit = _positive(indices, size).unsqueeze(-1) == torch.arange(size)
    return torch.where(hit, values[1], values[0]).movedim(-1, axis)


@computes("TopK")
def top_k(x: Tensor, k: Tensor, axis: int, largest: int) -> tuple[Tensor, Tensor]:
    """The `k` largest or smallest along the axis, in order, and where they were; of equals the first."""
    ordered, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return ordered.narrow(axis, 0, int(k)), places.narrow(axis, 0, int(k))


@computes("ArgMax", "ArgMin")
def place_of_extreme(x: Tensor, axis: int, keepdims: int, select_last_index: int, op: str) -> Tensor:
    """Where the largest or smallest element lies along the axis; of equals the first or last."""
    function = torch.argmax if op == "ArgMax" else torch.argmin
    if not select_last_index:
        return function(x, axis, bool(keepdims))
    return x.shape[axis] - 1 - function(x.flip(axis), axis, bool(keepdims))


@computes("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, batch_axis: int, time_axis: int) -> Tensor:
    """The first elements of each sequence of the batch in reverse, as many as its length says."""
    time, length = torch.arange(x.shape[time_axis]), lengths.reshape(-1, 1)
    places = torch.where(time < length, length - 1 - time, time)
    moved = x.movedim((batch_axis, time_axis), (0, 1))
    places = places.reshape(*places.shape, *[1] * (moved.ndim - 2)).expand_as(moved)
    return torch.gather(moved, 1, places).movedim((0, 1), (batch_axis, time_axis))


@computes("CumSum", "CumProd")
def running(x: Tensor, axis: Tensor, exclusive: int, reverse: int, op: str) -> Tensor:
    """The sum or product of the elements up to each, without itself if `exclusive`, from the end if `reverse`."""
    along = int(axis)
    x = x.flip(along) if reverse else x
    result = (torch.cumsum if op == "CumSum" else torch.cumprod)(x, along, dtype=x.dtype)
    if exclusive:
        first = torch.full_like(result.narrow(along, 0, min(1, x.shape[along])), 0 if op == "CumSum" else 1)
        result = torch.cat([first, result.narrow(along, 0, max(0, x.shape[along] - 1))], along)
    return result.flip(along) if reverse else result
