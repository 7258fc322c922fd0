"""Composites in the domain `qir.` that work on windows and places of images, and norms over parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.errors import QirError
from qir.operators.composites import windows
from qir.operators.functions import Writer, function, same_type, types_if_known, types_with_places
from qir.operators.sums import standardized
from qir.traits import KeepsGrid
from qir.types import NUMPY

if TYPE_CHECKING:
    from qir.graph import Value

Numbers = Sequence[int]


def _batched(on: Writer, x: Value, axes: int) -> None:
    if on.rank(x) != axes + 2:
        raise QirError(f"{on.node.op} can only be expanded for a batch of channels", on.node)


def _in_plane(on: Writer, x: Value, places: Value) -> Value:
    """ONNX's places in the whole tensor as places in one channel."""
    return on.Mod(places, on.ReduceProd(on.Shape(x, start=2), keepdims=0))


def _max_pool(on: Writer, x: Value, kernel_size: Numbers, stride: Numbers, padding: Numbers, dilation: Numbers,
              ceil_mode: bool) -> Sequence[Value]:  # fmt: skip
    _batched(on, x, len(kernel_size))
    values, places = on.several("MaxPool", 2, x, kernel_shape=kernel_size, strides=stride, pads=(*padding, *padding),
                                dilations=dilation, ceil_mode=int(ceil_mode))  # fmt: skip
    return values, _in_plane(on, x, places)


def _equal_windows(on: Writer, x: Value, output_size: Sequence[int | None]) -> tuple[Value, list[Any], list[int]]:
    """`x` with its elements repeated so that windows are equal, what was picked along each axis, and their sizes."""
    chosen, kernel = [], []
    for axis, parts in enumerate(output_size, 2):
        size = on.size(x, axis)
        found = windows(size, size if parts is None else parts)
        count = max(len(window) for window in found)
        picked = [window[min(number, len(window) - 1)] for window in found for number in range(count)]
        x = on.Gather(x, on.graph.constant(np.array(picked)), axis=axis)
        chosen.append(np.array(picked))
        kernel.append(count)
    return x, chosen, kernel


def _adaptive_max_pool(on: Writer, x: Value, output_size: Sequence[int | None]) -> Value:
    return _adaptive_max_pool_with_places(on, x, output_size)[0]


def _adaptive_max_pool_with_places(on: Writer, x: Value, output_size: Sequence[int | None]) -> Sequence[Value]:
    _batched(on, x, len(output_size))
    picked, chosen, kernel = _equal_windows(on, x, output_size)
    values, places = on.several("MaxPool", 2, picked, kernel_shape=kernel, strides=kernel)
    rest, place, step = _in_plane(on, picked, places), None, 1
    for axis in reversed(range(len(chosen))):
        coordinate = on.Gather(on.graph.constant(chosen[axis]), on.Mod(rest, len(chosen[axis])))
        part = on.Mul(coordinate, step)
        place = part if place is None else on.Add(place, part)
        rest, step = on.Div(rest, len(chosen[axis])), step * on.size(x, axis + 2)
    return values, place  # type: ignore[return-value]


def _max_unpool(on: Writer, x: Value, places: Value, kernel_size: Numbers, stride: Numbers, padding: Numbers,
                output_size: Numbers | None) -> Value:  # fmt: skip
    _batched(on, x, len(kernel_size))
    sizes = list(output_size[-len(kernel_size) :]) if output_size else [
        (on.size(x, axis) - 1) * stride[axis - 2] - 2 * padding[axis - 2] + kernel_size[axis - 2]
        for axis in range(2, 2 + len(kernel_size))
    ]  # fmt: skip
    outer = on.Shape(x, end=2)
    zero = on.graph.constant(np.array(0, NUMPY[x.type.dtype or "f32"]))
    empty = on.Expand(zero, on.Concat(outer, [int(np.prod(sizes))], axis=0))
    flat = [on.Reshape(part, [0, 0, -1]) for part in (places, x)]
    return on.Reshape(on.ScatterElements(empty, *flat, axis=2), on.Concat(outer, sizes, axis=0))


def _power_pool(on: Writer, x: Value, norm_type: float, kernel_size: Numbers, stride: Numbers) -> Value:
    """The mean of powers times their number, as torch computes it: of a sum below zero there is no root."""
    _batched(on, x, len(kernel_size))
    mean = on.AveragePool(on.Pow(x, float(norm_type)), kernel_shape=kernel_size, strides=stride)
    return on.Pow(on.Mul(mean, float(np.prod(kernel_size))), 1.0 / norm_type)


def _unfolded(on: Writer, x: Value, kernel_size: Numbers, dilation: Numbers, padding: Numbers,
              stride: Numbers) -> Value:  # fmt: skip
    """Gather of the places of every window along both axes, windows to the last axis."""
    if on.rank(x) == 3:
        return on.Squeeze(_unfolded(on, on.Unsqueeze(x, [0]), kernel_size, dilation, padding, stride), [0])
    total = 1
    x = on.Pad(x, [*padding, *padding], None, [2, 3]) if any(padding) else x
    for axis in (3, 2):
        kernel, step, apart = kernel_size[axis - 2], stride[axis - 2], dilation[axis - 2]
        count = (on.size(x, axis) - apart * (kernel - 1) - 1) // step + 1
        places = np.arange(kernel)[:, None] * apart + np.arange(count) * step
        x, total = on.Gather(x, on.graph.constant(places), axis=axis), total * count
    turned = on.Transpose(x, perm=[0, 1, 2, 4, 3, 5])
    return on.Reshape(turned, [0, -1, total])


def _folded(on: Writer, x: Value, output_size: Numbers, kernel_size: Numbers, dilation: Numbers, padding: Numbers,
            stride: Numbers) -> Value:  # fmt: skip
    batch = on.Unsqueeze(x, [0]) if on.rank(x) == 2 else x
    made = on.Col2Im(batch, list(output_size), list(kernel_size), dilations=dilation, pads=(*padding, *padding),
                     strides=stride)  # fmt: skip
    return on.Squeeze(made, [0]) if on.rank(x) == 2 else made


def _cross_map_norm(on: Writer, x: Value, size: int, alpha: float, beta: float, k: float) -> Value:
    """As torch computes it: channel 0 counts for every channel."""
    channel = np.arange(on.size(x, 1))
    counts = (np.abs(channel[:, None] - channel) <= (size - 1) // 2) | (channel == 0)
    weight = on.graph.constant((counts * (alpha / size)).astype(NUMPY[x.type.dtype or "f32"]))
    scale = on.Add(on.Einsum(weight, on.Mul(x, x), equation="oc,nchw->nohw"), float(k))
    return on.Div(x, on.Pow(scale, float(beta)))


def _group_norm(on: Writer, x: Value, num_groups: int, eps: float) -> Value:
    grouped = on.Reshape(x, [0, num_groups, -1])
    return on.Reshape(standardized(on, grouped, [2], eps), on.Shape(x))


def _by_channel(on: Writer, x: Value, of_channels: Value) -> Value:
    """A vector of a number for each channel, lined up with axis 1."""
    rest = list(range(1, on.rank(x) - 1))
    return on.Unsqueeze(of_channels, rest) if rest else of_channels


def _scaled(on: Writer, x: Value, scale: Value | None, bias: Value | None) -> Value:
    x = x if scale is None else on.Mul(x, _by_channel(on, x, scale))
    return x if bias is None else on.Add(x, _by_channel(on, x, bias))


def _fixed_batch_norm(on: Writer, x: Value, mean: Value, variance: Value, scale: Value | None = None,
                      bias: Value | None = None, *, eps: float) -> Value:  # fmt: skip
    deviation = on.Sqrt(on.Add(variance, eps))
    centred = on.Sub(x, _by_channel(on, x, mean))
    return _scaled(on, on.Div(centred, _by_channel(on, x, deviation)), scale, bias)


def _batch_norm(on: Writer, x: Value, scale: Value | None = None, bias: Value | None = None, *, eps: float) -> Value:
    axes = [axis for axis in range(on.rank(x)) if axis != 1]
    return _scaled(on, standardized(on, x, axes, eps), scale, bias)


KEEPS = (KeepsGrid(),)
_WINDOW: dict[str, Any] = {"kernel_size": (), "stride": (), "padding": ()}

function("MaxPoolWithPlaces", "x", _max_pool, KEEPS, None, "The largest of each window, and its place in the channel.",
         2, **_WINDOW, dilation=(), ceil_mode=False)  # fmt: skip
function("AdaptiveMaxPool", "x", _adaptive_max_pool, KEEPS, types_if_known,
         "The largest of each window; there are `output_size` windows along each axis.", output_size=())  # fmt: skip
function("AdaptiveMaxPoolWithPlaces", "x", _adaptive_max_pool_with_places, KEEPS, types_with_places,
         "The largest of each window, and its place in the channel.", 2, output_size=())  # fmt: skip
function("MaxUnpool", "x places", _max_unpool, (), types_if_known, "Zeros, with the elements of x at their places.",
         **_WINDOW, output_size=None)  # fmt: skip
function("PowerPool", "x", _power_pool, (), types_if_known, "The norm of each window.",
         norm_type=2.0, kernel_size=(), stride=())  # fmt: skip
function("Unfold", "x", _unfolded, KEEPS, types_if_known, "Every window of an image as a column.",
         kernel_size=(), dilation=(), padding=(), stride=())  # fmt: skip
function("Fold", "x", _folded, (), types_if_known, "The image of which these columns are the windows, overlaps summed.",
         output_size=(), kernel_size=(), dilation=(), padding=(), stride=())  # fmt: skip
function("CrossMapLRN", "x", _cross_map_norm, (), same_type, "x over a power of a sum of squares of channels.",
         size=1, alpha=1e-4, beta=0.75, k=1.0)  # fmt: skip
function("GroupNorm", "x", _group_norm, (), same_type, "Each group of channels of each sample, standardized.",
         num_groups=1, eps=1e-5)  # fmt: skip
function("FixedBatchNorm", "x mean variance scale? bias?", _fixed_batch_norm, (), same_type,
         "Each channel, standardized with stored statistics, in training too.", eps=1e-5)  # fmt: skip
function("BatchNorm", "x scale? bias?", _batch_norm, (), same_type,
         "Each channel, standardized with the statistics of the batch, in inference too.", eps=1e-5)  # fmt: skip
