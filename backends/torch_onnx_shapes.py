"""ONNX's operators on shapes, and those that move elements by sizes that are known when they run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes, listed, torch_dtype


@computes("Shape")
def shape_of(x: Tensor, start: int, end: int | None) -> Tensor:
    """The sizes of axes `start` to `end`."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


@computes("Size")
def size_of(x: Tensor) -> Tensor:
    """The number of elements."""
    return torch.tensor(x.numel())


@computes("Reshape")
def reshape(x: Tensor, shape: Tensor, allowzero: int) -> Tensor:
    """`x` in another shape; 0 copies a size unless `allowzero`."""
    sizes = shape.tolist()
    return x.reshape([x.shape[axis] if size == 0 and not allowzero else size for axis, size in enumerate(sizes)])


@computes("Expand")
def expand(x: Tensor, shape: Tensor) -> Tensor:
    """`x` broadcast with `shape`."""
    return x.expand(torch.broadcast_shapes(x.shape, shape.tolist()))  # type: ignore[no-untyped-call]


@computes("Tile")
def tile(x: Tensor, repeats: Tensor) -> Tensor:
    """`x` repeated along its axes."""
    return x.repeat(repeats.tolist())


@computes("Range")
def numbers(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """`start`, `start + delta`, … up to, and without, `limit`."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@computes("Squeeze")
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """`x` without these axes, which have one element, or without all such axes."""
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


@computes("Unsqueeze")
def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """`x` with axes of one element at these places of the result."""
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in axes.reshape(-1).tolist()):
        x = x.unsqueeze(axis)
    return x


@computes("Transpose")
def transpose(x: Tensor, perm: tuple[int, ...] | None) -> Tensor:
    """`x` with its axes permuted, or reversed."""
    return x.permute(perm or tuple(reversed(range(x.ndim))))


@computes("Flatten")
def flatten(x: Tensor, axis: int) -> Tensor:
    """A matrix, with the axes before `axis` in its rows."""
    rows = math.prod(x.shape[: axis if axis >= 0 else x.ndim + axis])
    return x.reshape(rows, x.numel() // rows if rows else math.prod(x.shape[axis:]))


@computes("Split")
def split(x: Tensor, sizes: Tensor | None = None, *, axis: int, num_outputs: int | None, results: int) -> Any:
    """Parts of `x`: of these sizes, or equal but for a smaller last one."""
    if sizes is not None:
        return torch.split(x, sizes.tolist(), axis)
    length, count = x.shape[axis], num_outputs or results
    part = -(-length // count)
    return torch.split(x, [max(0, min(part, length - part * number)) for number in range(count)], axis)


@computes("Slice")
def slice_of(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    """`x[start:end:step]` along each of the axes."""
    count = starts.numel()
    along, by = listed(axes) or list(range(count)), listed(steps) or [1] * count
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), along, by, strict=True):
        places = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            x = x.movedim(axis, 0)[places.start : places.stop : step].movedim(0, axis)
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


@computes("Pad")
def pad(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None, *, mode: str) -> Tensor:
    """`x` with elements added at both ends of the axes, or taken off where the number is negative."""
    sizes, count = pads.tolist(), pads.numel() // 2
    for number, axis in enumerate(listed(axes) or range(count)):
        x = _pad_axis(x, axis % x.ndim, sizes[number], sizes[number + count], mode, value)
    return x


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str, value: Tensor | None) -> Tensor:
    length = x.shape[axis]
    if mode == "constant":
        both = [0, 0] * (x.ndim - axis - 1) + [before, after]
        return torch.nn.functional.pad(x, both, value=value.item() if isinstance(value, Tensor) else value or 0)
    places = torch.arange(-before, length + after)
    if mode == "edge":
        places = places.clamp(0, length - 1)
    elif mode == "wrap":
        places = places % length
    else:
        places = length - 1 - (places % max(2 * length - 2, 1) - (length - 1)).abs()
    return x.index_select(axis, places)


@computes("ConstantOfShape")
def constant_of_shape(shape: Tensor, value: float | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of this shape filled with `value`, 0.0 unless given."""
    return torch.full(shape.tolist(), value or 0, dtype=dtype)


@computes("EyeLike")
def eye_like(x: Tensor, k: int, dtype: int | None) -> Tensor:
    """Ones on diagonal `k` of a matrix of the shape of `x`."""
    ones = torch.ones(x.shape, dtype=x.dtype if dtype is None else torch_dtype(dtype))
    return torch.triu(torch.tril(ones, k), k)


@computes("DepthToSpace")
def depth_to_space(x: Tensor, blocksize: int, mode: str) -> Tensor:
    """Blocks of channels as squares of space."""
    n, c, h, w = x.shape
    b, depth = blocksize, c // blocksize**2
    if mode == "CRD":
        return x.reshape(n, depth, b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, depth, h * b, w * b)
    return x.reshape(n, b, b, depth, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, depth, h * b, w * b)


@computes("SpaceToDepth")
def space_to_depth(x: Tensor, blocksize: int, mode: str | None = None) -> Tensor:
    """Squares of space as blocks of channels."""
    n, c, h, w = x.shape
    b = blocksize
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    moved = blocks.permute(0, 1, 3, 5, 2, 4) if mode == "CRD" else blocks.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(n, c * b * b, h // b, w // b)


@computes("CastLike")
def cast_like(x: Tensor, other: Tensor) -> Tensor:
    """`x` in the dtype of the other."""
    return x.to(other.dtype)


@computes("Identity")
def identity(x: Any) -> Any:
    """`x`."""
    return x


@computes("Trilu")
def triangle(x: Tensor, k: Tensor | None = None, *, upper: int) -> Tensor:
    """The upper or lower triangle of the matrices."""
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)
