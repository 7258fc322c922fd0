"""Lowerings of Keras's pooling."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

from qir.frontends.keras_layouts import channels_back, channels_first, is_last, rank_of, spatial_pads
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known, numbers, unless


def _pooled(build: KerasBuilder, op: str, inputs: Value, pool_size: Any, strides: Any, padding: str,
            data_format: Any) -> Value:  # fmt: skip
    """The pooling of windows; places that Keras pads with count for nothing."""
    data_format = data_format or "channels_last"
    x = channels_first(build, inputs, data_format)
    rank = rank_of(x) - 2
    kernel = numbers(pool_size, rank)
    steps = kernel if strides is None else numbers(strides, rank)
    pads = spatial_pads(x, padding, kernel, steps, (1,) * rank)
    counted = {"count_include_pad": 1} if op == "AveragePool" and not pads else {}
    made = build(op, x, kernel_shape=kernel, strides=unless(1, steps), **counted, **pads)
    return channels_back(build, made, data_format)


@lowers(ops.max_pool, layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
def max_pool(build: KerasBuilder, inputs: Value, pool_size: Any, strides: Any = None, padding: str = "valid",
             data_format: Any = None) -> Value:  # fmt: skip
    """MaxPool."""
    return _pooled(build, "MaxPool", inputs, pool_size, strides, padding, data_format)


@lowers(ops.average_pool, layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
def average_pool(build: KerasBuilder, inputs: Value, pool_size: Any, strides: Any = None, padding: str = "valid",
                 data_format: Any = None) -> Value:  # fmt: skip
    """AveragePool."""
    return _pooled(build, "AveragePool", inputs, pool_size, strides, padding, data_format)


def _spatial(x: Value, data_format: str) -> list[int]:
    return list(range(1, rank_of(x) - 1) if is_last(data_format) else range(2, rank_of(x)))


@lowers(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
def global_average_pool(build: KerasBuilder, inputs: Value, mask: Any = None, *, data_format: str,
                        keepdims: bool) -> Value:  # fmt: skip
    """ReduceMean over the axes of space."""
    known(mask is None, "a mean with a mask")
    axes = build.indices(_spatial(inputs, data_format))
    return build("ReduceMean", inputs, axes, keepdims=int(keepdims))


@lowers(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
def global_max_pool(build: KerasBuilder, inputs: Value, data_format: str, keepdims: bool) -> Value:
    """ReduceMax over the axes of space."""
    axes = build.indices(_spatial(inputs, data_format))
    return build("ReduceMax", inputs, axes, keepdims=int(keepdims))


def _adaptive(op: str, build: KerasBuilder, inputs: Value, output_size: Any, data_format: Any) -> Value:
    data_format = data_format or "channels_last"
    x = channels_first(build, inputs, data_format)
    sizes = numbers(output_size, rank_of(x) - 2)
    return channels_back(build, build(op, x, output_size=sizes), data_format)


@lowers(ops.adaptive_average_pool, layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D,
        layers.AdaptiveAveragePooling3D)  # fmt: skip
def adaptive_average_pool(build: KerasBuilder, inputs: Value, output_size: Any, data_format: Any = None) -> Value:
    """qir.AdaptiveAveragePool."""
    return _adaptive("qir.AdaptiveAveragePool", build, inputs, output_size, data_format)


@lowers(ops.adaptive_max_pool, layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D)
def adaptive_max_pool(build: KerasBuilder, inputs: Value, output_size: Any, data_format: Any = None) -> Value:
    """qir.AdaptiveMaxPool."""
    return _adaptive("qir.AdaptiveMaxPool", build, inputs, output_size, data_format)
