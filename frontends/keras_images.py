"""Lowerings of the functions of `keras.ops.image` and of layers that resize and cut images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from qir.frontends.keras_dtypes import dtype_of, tensor
from qir.frontends.keras_layouts import channels_back, channels_first, is_last, rank_of, spatial_pads
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_shapes import size_of
from qir.graph import Value
from qir.lowering import known, numbers

_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}


def _format(data_format: Any) -> str:
    return str(data_format or keras.config.image_data_format())


def _batched(build: KerasBuilder, images: Any) -> tuple[Value, bool]:
    """The images as a batch, and whether they were none."""
    value = tensor(build, images)
    single = rank_of(value) == 3
    return (build("Unsqueeze", value, build.indices([0])) if single else value), single


def _unbatched(build: KerasBuilder, images: Value, single: bool) -> Value:
    return build("Squeeze", images, build.indices([0])) if single else images


@lowers(ops.image.resize)
def resize(build: KerasBuilder, images: Any, size: Any, interpolation: str = "bilinear", antialias: bool = False,
           crop_to_aspect_ratio: bool = False, pad_to_aspect_ratio: bool = False, fill_mode: str = "constant",
           fill_value: float = 0.0, data_format: Any = None) -> Value:  # fmt: skip
    """qir.Interpolate to a stated size."""
    known(interpolation in _MODES, f"interpolation of mode {interpolation!r}")
    known(not crop_to_aspect_ratio and not pad_to_aspect_ratio, "a stated aspect ratio")
    value, single = _batched(build, images)
    known(str(dtype_of(value)).startswith(("float", "None")), "images of whole numbers, which Keras rounds")
    x = channels_first(build, value, _format(data_format))
    smooth = bool(antialias) and interpolation != "nearest"
    made = build("qir.Interpolate", x, size=numbers(tuple(size), 2), mode=_MODES[interpolation],
                 align_corners=None if interpolation == "nearest" else False, antialias=smooth)  # fmt: skip
    return _unbatched(build, channels_back(build, made, _format(data_format)), single)


def _repeated(build: KerasBuilder, inputs: Value, factors: Sequence[int], data_format: str) -> Value:
    """Every element as often as the factors say."""
    x = channels_first(build, inputs, data_format)
    scale = tuple(float(factor) for factor in factors)
    made = build("qir.Interpolate", x, scale_factor=scale, mode="nearest", align_corners=None, antialias=False)
    return channels_back(build, made, data_format)


@lowers(layers.UpSampling1D)
def up_sampling_1d(build: KerasBuilder, inputs: Value, size: Any) -> Value:
    """qir.Interpolate."""
    return _repeated(build, inputs, numbers(size, 1), "channels_last")


@lowers(layers.UpSampling3D)
def up_sampling_3d(build: KerasBuilder, inputs: Value, size: Any, data_format: str) -> Value:
    """qir.Interpolate."""
    return _repeated(build, inputs, numbers(tuple(size), 3), data_format)


@lowers(layers.UpSampling2D)
def up_sampling_2d(build: KerasBuilder, inputs: Value, size: Any, data_format: str, interpolation: str) -> Value:
    """qir.Interpolate."""
    factors = numbers(tuple(size), 2)
    if interpolation == "nearest":
        return _repeated(build, inputs, factors, data_format)
    known(interpolation in _MODES, f"interpolation of mode {interpolation!r}")
    x = channels_first(build, inputs, data_format)
    sizes = tuple(size_of(x, axis + 2) * factor for axis, factor in enumerate(factors))
    made = build("qir.Interpolate", x, size=sizes, mode=_MODES[interpolation], align_corners=False, antialias=False)
    return channels_back(build, made, data_format)


def _patches(build: KerasBuilder, x: Value, size: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
             padding: str) -> Value:  # fmt: skip
    """The windows of a tensor with channels last, each with its places and channels in a new last axis."""
    count = len(size)
    turned = channels_first(build, x, "channels_last")
    pads = spatial_pads(turned, padding, size, strides, dilations).get("pads", (0,) * (2 * count))
    known(not isinstance(pads, str), "windows of a tensor of unknown size")
    if any(pads):
        x = build("Pad", x, build.indices(pads), 0.0, build.indices(range(1, count + 1)))
    for axis in range(count):
        reach = dilations[axis] * (size[axis] - 1)
        starts = np.arange(0, size_of(x, 1 + 2 * axis) - reach, strides[axis])
        places = starts[:, None] + dilations[axis] * np.arange(size[axis])
        x = build("Gather", x, places, axis=1 + 2 * axis)
    order = (0, *range(1, 2 * count, 2), *range(2, 2 * count + 1, 2), 2 * count + 1)
    moved = build("Transpose", x, perm=order)
    sizes = [size_of(moved, 1 + axis) for axis in range(count)]
    length = int(np.prod(size)) * size_of(moved, 2 * count + 1)
    return build("Reshape", moved, build.indices([-1, *sizes, length]))


@lowers(ops.image.extract_patches, ops.image.extract_patches_3d)
def extract_patches(build: KerasBuilder, images: Any, size: Any, strides: Any = None, dilation_rate: Any = 1,
                    padding: str = "valid", data_format: Any = None) -> Value:  # fmt: skip
    """Gather of the windows' places along each axis."""
    value = tensor(build, images)
    count = len(size) if isinstance(size, list | tuple) else (3 if rank_of(value) == 5 else 2)
    single = rank_of(value) == count + 1
    value = build("Unsqueeze", value, build.indices([0])) if single else value
    window = numbers(size, count)
    steps = window if not strides else numbers(strides, count)
    last = value if is_last(_format(data_format)) else channels_back(build, value, "channels_last")
    made = _patches(build, last, window, steps, numbers(dilation_rate, count), padding)
    if not is_last(_format(data_format)):
        made = channels_first(build, made, "channels_last")
    return _unbatched(build, made, single)


@lowers(ops.image.rgb_to_grayscale)
def rgb_to_grayscale(build: KerasBuilder, images: Any, data_format: Any = None) -> Value:
    """The weighted sum of the channels."""
    value = tensor(build, images)
    axis = -1 if is_last(_format(data_format)) else -3
    if size_of(value, axis) == 1:
        return build("Identity", value)
    shape = [3] if axis == -1 else [3, 1, 1]
    weights = np.array([0.2989, 0.587, 0.114], np.float32).reshape(shape)
    return build("ReduceSum", build("Mul", value, weights), build.indices([axis % rank_of(value)]), keepdims=1)


@lowers(ops.image.sobel_edges)
def sobel_edges(build: KerasBuilder, images: Any, data_format: Any = None) -> Value:
    """Conv of every channel with Sobel's two kernels."""
    layout = _format(data_format)
    x = channels_first(build, tensor(build, images), layout)
    channels, (height, width) = size_of(x, 1), (size_of(x, 2), size_of(x, 3))
    down = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)
    kernel = np.tile(np.stack([down, down.T])[:, None], (channels, 1, 1, 1))
    made = build("Conv", x, kernel, kernel_shape=(3, 3), pads=(1, 1, 1, 1), group=channels)
    apart = build("Reshape", made, build.indices([-1, channels, 2, height, width]))
    return build("Transpose", apart, perm=(0, 3, 4, 1, 2) if is_last(layout) else (0, 1, 3, 4, 2))


@lowers(ops.unfold)
def unfold(build: KerasBuilder, x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Value:  # fmt: skip
    """qir.Unfold."""
    given = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    return build("qir.Unfold", tensor(build, x), **{name: numbers(one, 2) for name, one in given.items()})


@lowers(ops.fold)
def fold(build: KerasBuilder, x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Value:  # fmt: skip
    """qir.Fold."""
    given = {"output_size": output_size, "kernel_size": kernel_size, "dilation": dilation, "padding": padding,
             "stride": stride}  # fmt: skip
    return build("qir.Fold", tensor(build, x), **{name: numbers(one, 2) for name, one in given.items()})
