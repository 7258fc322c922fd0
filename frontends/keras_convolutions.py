"""Lowerings of Keras's convolutions."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

from qir.arrangements import Reshaped, Transposed
from qir.frontends.keras_activations import activated
from qir.frontends.keras_layouts import channels_back, channels_first, is_last, rank_of, spatial_pads
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known, numbers, unless


def _shape(kernel: Any) -> tuple[int, ...]:
    """The shape of a kernel. Raises Unlowered where it is not known."""
    shape = kernel.type.static if isinstance(kernel, Value) else tuple(kernel.shape)
    known(shape is not None, "a kernel of unknown shape")
    return shape or ()


def _convolved(build: KerasBuilder, x: Value, weight: Value, bias: Any, strides: Any, padding: str, dilation: Any,
               group: int) -> Value:  # fmt: skip
    """Conv of a tensor and a weight with channels first."""
    kernel = _shape(weight)[2:]
    steps, gaps = numbers(strides, len(kernel)), numbers(dilation, len(kernel))
    pads = spatial_pads(x, padding, kernel, steps, gaps)
    return build("Conv", x, weight, bias, kernel_shape=kernel, strides=unless(1, steps), dilations=unless(1, gaps),
                 group=group, **pads)  # fmt: skip


def _first(build: KerasBuilder, kernel: Any) -> Value:
    """A kernel [space…, inputs, outputs] as ONNX's [outputs, inputs, space…]."""
    rank = len(_shape(kernel))
    return build.kernel(kernel, (rank - 1, rank - 2, *range(rank - 2)))


def _depthwise(build: KerasBuilder, kernel: Any) -> Value:
    """A kernel [space…, channels, multiplier] as ONNX's of as many groups as there are channels."""
    shape = _shape(kernel)
    *space, channels, multiplier = shape
    order = (len(space), len(space) + 1, *range(len(space)))
    after = (channels * multiplier, 1, *space)
    if isinstance(kernel, Value) and kernel.weight is None:
        return build("Reshape", build("Transpose", kernel, perm=order), build.indices(after))
    return build.arranged(kernel, Transposed(order), Reshaped((channels, multiplier, *space), after))


def _ended(build: KerasBuilder, x: Value, data_format: str, activation: Any) -> Value:
    return activated(build, activation, channels_back(build, x, data_format))


def _channels(x: Value, data_format: str) -> int:
    """The number of channels. Raises Unlowered where it is not known."""
    size = (x.type.shape or (None,))[-1 if is_last(data_format) else 1]
    known(isinstance(size, int), "an unknown number of channels")
    return int(size or 0)


@lowers(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def conv_layer(build: KerasBuilder, inputs: Value, kernel: Any, bias: Any, strides: Any, padding: str,
               dilation_rate: Any, data_format: str, activation: Any, lora_enabled: Any = False) -> Value:  # fmt: skip
    """Conv, in a sequence behind a Pad where it is causal, and the activation."""
    known(not lora_enabled, "a kernel that LoRA adapts")
    x = channels_first(build, inputs, data_format)
    weight = _first(build, kernel)
    if padding == "causal":
        reach = numbers(dilation_rate, 1)[0] * (_shape(weight)[2] - 1)
        x = build("Pad", x, build.indices([reach, 0]), 0.0, build.indices([-1]))
        padding = "valid"
    groups = _channels(inputs, data_format) // _shape(weight)[1]
    made = _convolved(build, x, weight, bias, strides, padding, dilation_rate, groups)
    return _ended(build, made, data_format, activation)


@lowers(ops.conv)
def conv(build: KerasBuilder, inputs: Value, kernel: Any, strides: Any = 1, padding: str = "valid",
         data_format: Any = None, dilation_rate: Any = 1) -> Value:  # fmt: skip
    """Conv."""
    data_format = data_format or "channels_last"
    return conv_layer(build, inputs, kernel, None, strides, padding, dilation_rate, data_format, None)  # type: ignore[no-any-return]


@lowers(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_layer(build: KerasBuilder, inputs: Value, kernel: Any, bias: Any, strides: Any, padding: str,
                    dilation_rate: Any, data_format: str, activation: Any) -> Value:  # fmt: skip
    """Conv with a group for each channel, and the activation."""
    x, weight = channels_first(build, inputs, data_format), _depthwise(build, kernel)
    made = _convolved(build, x, weight, bias, strides, padding, dilation_rate, _channels(inputs, data_format))
    return _ended(build, made, data_format, activation)


@lowers(ops.depthwise_conv)
def depthwise_conv(build: KerasBuilder, inputs: Value, kernel: Any, strides: Any = 1, padding: str = "valid",
                   data_format: Any = None, dilation_rate: Any = 1) -> Value:  # fmt: skip
    """Conv with a group for each channel."""
    data_format = data_format or "channels_last"
    return depthwise_layer(build, inputs, kernel, None, strides, padding, dilation_rate, data_format, None)  # type: ignore[no-any-return]


@lowers(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_layer(build: KerasBuilder, inputs: Value, depthwise_kernel: Any, pointwise_kernel: Any, bias: Any,
                    strides: Any, padding: str, dilation_rate: Any, data_format: str,
                    activation: Any) -> Value:  # fmt: skip
    """Conv with a group for each channel, a second one over the channels, and the activation."""
    x, weight = channels_first(build, inputs, data_format), _depthwise(build, depthwise_kernel)
    middle = _convolved(build, x, weight, None, strides, padding, dilation_rate, _channels(inputs, data_format))
    made = _convolved(build, middle, _first(build, pointwise_kernel), bias, 1, "valid", 1, 1)
    return _ended(build, made, data_format, activation)


@lowers(ops.separable_conv)
def separable_conv(build: KerasBuilder, inputs: Value, depthwise_kernel: Any, pointwise_kernel: Any, strides: Any = 1,
                   padding: str = "valid", data_format: Any = None, dilation_rate: Any = 1) -> Value:  # fmt: skip
    """Conv with a group for each channel, and a second one over the channels."""
    return separable_layer(build, inputs, depthwise_kernel, pointwise_kernel, None, strides, padding, dilation_rate,  # type: ignore[no-any-return]
                           data_format or "channels_last", None)  # fmt: skip


@lowers(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_layer(build: KerasBuilder, inputs: Value, kernel: Any, bias: Any, strides: Any, padding: str,
                     output_padding: Any, dilation_rate: Any, data_format: str, activation: Any) -> Value:  # fmt: skip
    """ConvTranspose and the activation."""
    x = channels_first(build, inputs, data_format)
    made = _transposed(build, x, _first(build, kernel), bias, strides, padding, output_padding, dilation_rate)
    return _ended(build, made, data_format, activation)


@lowers(ops.conv_transpose)
def conv_transpose(build: KerasBuilder, inputs: Value, kernel: Any, strides: Any = 1, padding: str = "valid",
                   output_padding: Any = None, data_format: Any = None, dilation_rate: Any = 1) -> Value:  # fmt: skip
    """ConvTranspose."""
    return transposed_layer(build, inputs, kernel, None, strides, padding, output_padding, dilation_rate,  # type: ignore[no-any-return]
                            data_format or "channels_last", None)  # fmt: skip


def _transposed(build: KerasBuilder, x: Value, weight: Value, bias: Any, strides: Any, padding: str,
                output_padding: Any, dilation: Any) -> Value:  # fmt: skip
    """ConvTranspose of a tensor and a weight with channels first; a Pad where less than nothing is cut in front."""
    kernel = _shape(weight)[2:]
    steps, gaps = numbers(strides, len(kernel)), numbers(dilation, len(kernel))
    given = (None,) * len(kernel) if output_padding is None else numbers(output_padding, len(kernel))
    cuts = [_cuts(*sizes, padding) for sizes in zip(kernel, steps, gaps, given, strict=True)]
    pads = (*(max(left, 0) for left, _ in cuts), *(max(right, 0) for _, right in cuts))
    more = tuple(max(-right, 0) for _, right in cuts)
    small = all(extra < step or extra == 0 for extra, step in zip(more, steps, strict=True))
    attrs = {"strides": unless(1, steps), "dilations": unless(1, gaps), "pads": unless(0, pads)}
    attrs["output_padding"] = unless(0, more) if small else None
    made = build("ConvTranspose", x, weight, bias, kernel_shape=kernel, **attrs)
    if small:
        return made
    known(bias is None, "more output padding than a stride, and a bias")
    amounts = [*[0] * len(more), *more]
    return build("Pad", made, build.indices(amounts), 0.0, build.indices(range(2, rank_of(x))))


def _cuts(size: int, stride: int, dilation: int, given: int | None, padding: str) -> tuple[int, int]:
    """What is cut off in front of and behind the whole result, whose size is (input - 1) * stride + reach."""
    reach = (size - 1) * dilation + 1
    if padding == "valid":
        return 0, -(max(stride - reach, 0) if given is None else given)
    known(padding == "same", f"padding={padding!r}")
    total = stride + reach - 2 if given is None else reach + reach % 2 - 2 + given
    left = min(total // 2 + total % 2, reach - 1)
    return reach - 1 - left, reach - 1 - (total - left)
