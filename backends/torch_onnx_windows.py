"""ONNX's pooling and convolutions, for every padding, dilation and rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes

Sizes = Sequence[int] | None


@dataclass(frozen=True)
class Windows:
    """Where windows lie along one axis: `before` and `after` are padding, `past` is what the last window needs more."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    past: int

    @classmethod
    def along(cls, length: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], auto: str,
              ceil: int) -> Windows:  # fmt: skip
        """The windows of an axis of this length. Source of the formulas: ONNX AveragePool and MaxPool."""
        reach = (kernel - 1) * dilation + 1
        before, after = pads if auto == "NOTSET" else (0, 0)
        if auto.startswith("SAME"):
            total = max((-(-length // stride) - 1) * stride + reach - length, 0)
            before, after = (
                (total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2)
            )
        room = length + before + after - reach
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= length + before:
            count -= 1
        return cls(kernel, stride, dilation, before, after, (count - 1) * stride + reach - (length + before + after))


def windows_of(x: Tensor, kernel: Sizes, strides: Sizes, dilations: Sizes, pads: Sizes, auto: str,
               ceil: int = 0) -> list[Windows]:  # fmt: skip
    """The windows along each spatial axis of `x`."""
    sizes = tuple(kernel or ())
    rank = len(sizes)
    steps, gaps, both = strides or (1,) * rank, dilations or (1,) * rank, pads or (0,) * (2 * rank)
    return [
        Windows.along(
            x.shape[axis + 2], sizes[axis], steps[axis], gaps[axis], (both[axis], both[axis + rank]), auto, ceil
        )
        for axis in range(rank)
    ]


def padded(x: Tensor, windows: Sequence[Windows], fill: float, past: float | None = None) -> Tensor:
    """`x` with `fill` in its padding, and `past` (or `fill`) where a last window reaches further."""
    both = [size for window in reversed(windows) for size in (window.before, window.after)]
    more = [size for window in reversed(windows) for size in (0, window.past)]
    return F.pad(F.pad(x, both, value=fill), more, value=fill if past is None else past)


def unfolded(x: Tensor, windows: Sequence[Windows]) -> Tensor:
    """The elements of each window of a padded tensor, in one last axis."""
    for axis, window in enumerate(windows, 2):
        reach = (window.kernel - 1) * window.dilation + 1
        x = x.unfold(axis, reach, window.stride)[..., :: window.dilation]
    return x.flatten(2 + len(windows))


@computes("MaxPool")
def max_pool(x: Tensor, kernel_shape: Sizes, strides: Sizes, dilations: Sizes, pads: Sizes, auto_pad: str,
             ceil_mode: int, storage_order: int, results: int) -> Any:  # fmt: skip
    """The largest element of each window, and where in `x` it lies."""
    windows = windows_of(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    found = unfolded(padded(x, windows, lowest), windows)
    if results == 1:
        return found.amax(-1)
    sizes = x.shape[2:]
    order = reversed(range(len(sizes))) if not storage_order else range(len(sizes))
    steps, step = [0] * len(sizes), 1
    for axis in order:
        steps[axis], step = step, step * sizes[axis]
    places = torch.zeros(sizes, dtype=torch.float64)
    for axis, size in enumerate(sizes):
        places = places + (torch.arange(size) * steps[axis]).reshape(
            [-1 if a == axis else 1 for a in range(len(sizes))]
        )
    start = torch.arange(x.shape[0] * x.shape[1]).reshape(x.shape[0], x.shape[1], *[1] * len(sizes)) * math.prod(sizes)
    where = unfolded(padded((places + start).expand(x.shape), windows, -1), windows)
    largest, chosen = found.max(-1)
    return largest, where.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).to(torch.int64)


@computes("AveragePool")
def average_pool(x: Tensor, kernel_shape: Sizes, strides: Sizes, dilations: Sizes, pads: Sizes, auto_pad: str,
                 ceil_mode: int, count_include_pad: int) -> Tensor:  # fmt: skip
    """The mean of each window: of the elements in `x`, or with the padding if `count_include_pad`."""
    windows = windows_of(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    counts = unfolded(padded(ones, windows, float(bool(count_include_pad)), 0.0), windows).sum(-1)
    return unfolded(padded(x, windows, 0.0), windows).sum(-1) / counts


@computes("LpPool")
def lp_pool(x: Tensor, kernel_shape: Sizes, strides: Sizes, dilations: Sizes, pads: Sizes, auto_pad: str,
            ceil_mode: int, p: int) -> Tensor:  # fmt: skip
    """The norm of each window."""
    windows = windows_of(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    norm: Tensor = torch.linalg.vector_norm(unfolded(padded(x, windows, 0.0), windows), p, -1)
    return norm


@computes("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")
def global_pool(x: Tensor, op: str, p: int = 2) -> Tensor:
    """One number for each channel."""
    axes = tuple(range(2, x.ndim))
    if op == "GlobalLpPool":
        norm: Tensor = torch.linalg.vector_norm(x, p, axes, keepdim=True)
        return norm
    return x.amax(axes, keepdim=True) if op == "GlobalMaxPool" else x.mean(axes, keepdim=True)


@computes("MaxUnpool")
def max_unpool(x: Tensor, indices: Tensor, shape: Tensor | None = None, *, kernel_shape: Sizes, strides: Sizes,
               pads: Sizes) -> Tensor:  # fmt: skip
    """The elements of `x` at their places in a larger tensor of zeros."""
    rank = x.ndim - 2
    steps, both, kernel = strides or (1,) * rank, pads or (0,) * (2 * rank), kernel_shape or (1,) * rank
    inferred = [
        (x.shape[axis + 2] - 1) * steps[axis] + kernel[axis] - both[axis] - both[axis + rank] for axis in range(rank)
    ]
    before = [*x.shape[:2], *inferred]
    sizes = before if shape is None else shape.tolist()
    places = [
        torch.div(indices, math.prod(before[axis + 1 :]), rounding_mode="floor") % before[axis]
        for axis in range(x.ndim)
    ]
    return torch.zeros(sizes, dtype=x.dtype).index_put(tuple(places), x)


@computes("Conv")
def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, strides: Sizes, dilations: Sizes, pads: Sizes,
         auto_pad: str, group: int) -> Tensor:  # fmt: skip
    """The convolution, over one, two or three axes."""
    windows = windows_of(x, weight.shape[2:], strides, dilations, pads, auto_pad)
    function = (F.conv1d, F.conv2d, F.conv3d)[len(windows) - 1]
    both = [size for window in reversed(windows) for size in (window.before, window.after)]
    steps, gaps = [window.stride for window in windows], [window.dilation for window in windows]
    return function(F.pad(x, both), weight, bias, steps, 0, gaps, group)


@computes("ConvTranspose")
def conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, strides: Sizes, dilations: Sizes,
                   pads: Sizes, auto_pad: str, group: int, output_padding: Sizes,
                   output_shape: Sizes) -> Tensor:  # fmt: skip
    """The transposed convolution, cropped as the pads or the output's shape say. Source of the formulas: ONNX."""
    rank = x.ndim - 2
    steps, gaps, more = strides or (1,) * rank, dilations or (1,) * rank, output_padding or (0,) * rank
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    full = function(x, weight, None, steps, 0, 0, group, gaps)
    crops: list[int] = []
    for axis in reversed(range(rank)):
        length = full.shape[axis + 2] + more[axis]
        before, after = (pads[axis], pads[axis + rank]) if pads else (0, 0)
        wanted = output_shape[axis] if output_shape else x.shape[axis + 2] * steps[axis]
        if output_shape or auto_pad.startswith("SAME"):
            total = length - wanted
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        crops += [-before, more[axis] - after]
    result = F.pad(full, crops)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)
