"""Lowerings of Keras's layers with weights, of normalization and of dropout."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from qir.frontends.keras_activations import activated
from qir.frontends.keras_dtypes import cast, dtype_of
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known


@lowers(layers.Dense)
def dense(build: KerasBuilder, inputs: Value, training: Any = None, *, kernel: Any, bias: Any, activation: Any,
          quantization_mode: Any = None, lora_enabled: Any = False) -> Value:  # fmt: skip
    """qir.Linear and the activation."""
    known(quantization_mode is None and not lora_enabled, "a kernel that is quantized or adapted")
    return activated(build, activation, build("qir.Linear", inputs, build.kernel(kernel, (1, 0)), bias))


@lowers(layers.EinsumDense)
def einsum_dense(build: KerasBuilder, inputs: Value, training: Any = None, *, equation: str, kernel: Any, bias: Any,
                 activation: Any, quantization_mode: Any = None, lora_enabled: Any = False) -> Value:  # fmt: skip
    """Einsum, the bias and the activation."""
    known(quantization_mode is None and not lora_enabled, "a kernel that is quantized or adapted")
    product = build("Einsum", inputs, kernel, equation=equation.replace(" ", ""))
    return activated(build, activation, product if bias is None else build("Add", product, bias))


@lowers(layers.Embedding)
def embedding(build: KerasBuilder, inputs: Value, embeddings: Any, quantization_mode: Any = None,
              lora_enabled: Any = False) -> Value:  # fmt: skip
    """Gather of rows."""
    known(quantization_mode is None and not lora_enabled, "rows that are quantized or adapted")
    indices = inputs if dtype_of(inputs) in ("int32", "int64") else cast(build, inputs, "int32")
    return build("Gather", embeddings, indices)


def _behind_batch(build: KerasBuilder, x: Value, axis: int) -> tuple[Value, tuple[int, ...]]:
    """The tensor with this axis as its second, and the order that undoes it; empty where nothing is to undo."""
    rank = rank_of(x)
    place = axis % rank
    known(place > 0, "normalization of the batch axis")
    if place == 1:
        return x, ()
    order = (0, place, *(other for other in range(1, rank) if other != place))
    return build("Transpose", x, perm=order), tuple(order.index(other) for other in range(rank))


def _undone(build: KerasBuilder, x: Value, order: tuple[int, ...]) -> Value:
    return build("Transpose", x, perm=order) if order else x


@lowers(layers.BatchNormalization)
def batch_normalization(build: KerasBuilder, inputs: Value, training: Any = None, mask: Any = None, *, axis: int,
                        gamma: Any, beta: Any, moving_mean: Any, moving_variance: Any, epsilon: float,
                        momentum: float) -> Value:  # fmt: skip
    """BatchNormalization of the second axis, with the statistics that the layer keeps."""
    known(training is not True, "a batch norm that is always trained")
    x, back = _behind_batch(build, inputs, axis)
    size = tuple(moving_mean.shape)
    scale = np.ones(size, np.float32) if gamma is None else gamma
    offset = np.zeros(size, np.float32) if beta is None else beta
    normed = build("BatchNormalization", x, scale, offset, moving_mean, moving_variance, epsilon=float(epsilon),
                   momentum=float(momentum))  # fmt: skip
    return _undone(build, normed, back)


@lowers(ops.batch_normalization)
def batch_normalization_operation(build: KerasBuilder, x: Value, mean: Any, variance: Any, axis: int,
                                  offset: Any = None, scale: Any = None, epsilon: float = 1e-3) -> Value:  # fmt: skip
    """BatchNormalization with given statistics."""
    moved, back = _behind_batch(build, x, axis)
    size = (x.type.shape or ())[axis]
    known(isinstance(size, int), "an axis of unknown size")
    ones, zeros = np.ones(int(size or 0), np.float32), np.zeros(int(size or 0), np.float32)
    normed = build("BatchNormalization", moved, ones if scale is None else scale, zeros if offset is None else offset,
                   mean, variance, epsilon=float(epsilon))  # fmt: skip
    return _undone(build, normed, back)


def _last_axes(build: KerasBuilder, x: Value, axis: Any) -> tuple[Value, int, tuple[int, ...]]:
    """The tensor with these axes last, how many they are, and the order that undoes it."""
    rank = rank_of(x)
    axes = [one % rank for one in ([axis] if isinstance(axis, int) else axis)]
    if axes == list(range(rank - len(axes), rank)):
        return x, len(axes), ()
    order = (*(one for one in range(rank) if one not in axes), *axes)
    return build("Transpose", x, perm=order), len(axes), tuple(order.index(one) for one in range(rank))


def _sizes(x: Value, count: int) -> tuple[int, ...]:
    sizes = (x.type.shape or ())[rank_of(x) - count :]
    known(all(isinstance(size, int) for size in sizes), "normalized axes of unknown size")
    return tuple(int(size or 0) for size in sizes)


@lowers(ops.layer_normalization)
def layer_normalization(build: KerasBuilder, x: Value, gamma: Any = None, beta: Any = None, axis: Any = -1,
                        epsilon: Any = None, rms_scaling: bool = False) -> Value:  # fmt: skip
    """LayerNormalization over the last axes, qir.LayerNorm without scale and offset."""
    least = keras.config.epsilon() if epsilon is None else float(epsilon)
    moved, count, back = _last_axes(build, x, axis)
    known(not rms_scaling, "a scale by the variance, which Keras deprecates")
    sizes = _sizes(moved, count)
    if gamma is None and beta is None:
        return _undone(build, build("qir.LayerNorm", moved, normalized_shape=sizes, eps=least), back)
    scale = np.ones(sizes, np.float32) if gamma is None else gamma
    known(isinstance(scale, np.ndarray) or _shape(scale) == sizes, "a scale of another shape")
    return _undone(build, build("LayerNormalization", moved, scale, beta, axis=-count, epsilon=least), back)


def _shape(weight: Any) -> tuple[int, ...] | None:
    return weight.type.static if isinstance(weight, Value) else tuple(weight.shape)


@lowers(layers.LayerNormalization)
def layer_norm(build: KerasBuilder, inputs: Value, gamma: Any, beta: Any, axis: Any, epsilon: float,
               rms_scaling: bool) -> Value:  # fmt: skip
    """LayerNormalization."""
    return layer_normalization(build, inputs, gamma, beta, axis, epsilon, rms_scaling)  # type: ignore[no-any-return]


@lowers(ops.rms_normalization, layers.RMSNormalization)
def rms_normalization(build: KerasBuilder, x: Value, scale: Any = None, axis: Any = -1, epsilon: Any = None) -> Value:
    """RMSNormalization over the last axes, qir.RMSNorm without scale."""
    least = keras.config.epsilon() if epsilon is None else float(epsilon)
    moved, count, back = _last_axes(build, x, axis)
    sizes = _sizes(moved, count)
    if scale is None:
        return _undone(build, build("qir.RMSNorm", moved, normalized_shape=sizes, eps=least), back)
    known(_shape(scale) == sizes, "a scale of another shape")
    return _undone(build, build("RMSNormalization", moved, scale, axis=-count, epsilon=least), back)


@lowers(layers.GroupNormalization)
def group_normalization(build: KerasBuilder, inputs: Value, axis: int, groups: int, gamma: Any, beta: Any,
                        epsilon: float) -> Value:  # fmt: skip
    """GroupNormalization of the second axis, qir.GroupNorm without scale and offset."""
    x, back = _behind_batch(build, inputs, axis)
    if gamma is None and beta is None:
        return _undone(build, build("qir.GroupNorm", x, num_groups=groups, eps=float(epsilon)), back)
    size = tuple((beta if gamma is None else gamma).shape)
    scale = np.ones(size, np.float32) if gamma is None else gamma
    offset = np.zeros(size, np.float32) if beta is None else beta
    normed = build("GroupNormalization", x, scale, offset, num_groups=groups, epsilon=float(epsilon))
    return _undone(build, normed, back)


@lowers(layers.Dropout)
def dropout(build: KerasBuilder, inputs: Value, training: Any = None, *, rate: float, noise_shape: Any = None) -> Value:
    """Dropout that follows the training of the emitted module."""
    known(training is not True and noise_shape is None, "a dropout that is always on, or drops whole slices")
    return build("Dropout", inputs, float(rate)) if rate else inputs


@lowers(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)
def spatial_dropout(build: KerasBuilder, inputs: Value, training: Any = None, *, rate: float,
                    data_format: str = "channels_last") -> Value:  # fmt: skip
    """qir.FeatureDropout of the second axis."""
    known(training is not True, "a dropout that is always on")
    x, back = _behind_batch(build, inputs, -1 if data_format == "channels_last" else 1)
    return _undone(build, build("qir.FeatureDropout", x, p=float(rate), rank=rank_of(x) - 2), back)


@lowers(layers.AlphaDropout)
def alpha_dropout(build: KerasBuilder, inputs: Value, training: Any = None, *, rate: float,
                  noise_shape: Any = None) -> Value:  # fmt: skip
    """qir.AlphaDropout."""
    known(training is not True and noise_shape is None, "a dropout that is always on, or drops whole slices")
    return build("qir.AlphaDropout", inputs, p=float(rate))
