"""Lowerings of Keras's activations: functions, layers, and what other layers do at their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import activations, layers, ops

from qir.frontends.keras_dtypes import dtype_of, floating
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import Lowering, bound, known


def activated(build: KerasBuilder, activation: Any, x: Value) -> Value:
    """What an `activation=` argument makes of a tensor. Raises Unlowered for a function that has no lowering."""
    if activation is None:
        return x
    if isinstance(activation, keras.Layer):
        layered = lowers.of_layer(activation)
        known(layered is not None, "an activation that is a layer without a lowering")
        return bound(layered, activation)(build, x)  # type: ignore[no-any-return, arg-type]
    lowering = lowers.of_function(activation)
    known(lowering is not None, "an activation of the user's own")
    return lowering(build, x)  # type: ignore[no-any-return, misc]


@lowers(layers.Activation)
def activation(build: KerasBuilder, inputs: Value, activation: Any) -> Value:
    """The activation."""
    return activated(build, activation, inputs)


@lowers(activations.linear)
def linear(build: KerasBuilder, x: Value) -> Value:
    """Nothing."""
    return x


def _simple(op: str, *spellings: Any) -> Lowering:
    """The lowering of activations that are one operator without parameters."""

    def lowering(build: KerasBuilder, x: Value) -> Value:
        return build(op, floating(build, x))

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


for _op, _name in (("Selu", "selu"), ("Softplus", "softplus"), ("Softsign", "softsign"), ("Tanh", "tanh"),
                   ("Sigmoid", "sigmoid"), ("HardSwish", "hard_silu"), ("qir.TanhShrink", "tanh_shrink"),
                   ("qir.LogSigmoid", "log_sigmoid")):  # fmt: skip
    _simple(_op, getattr(ops, _name), getattr(activations, _name))
_simple("Exp", activations.exponential, ops.exp)
_simple("Mish", activations.mish)


@lowers(ops.silu, activations.silu)
def silu(build: KerasBuilder, x: Value) -> Value:
    """Swish."""
    return build("Swish", floating(build, x))


@lowers(ops.relu)
def relu_operation(build: KerasBuilder, x: Value) -> Value:
    """Relu."""
    return build("Relu", x)


@lowers(activations.relu, layers.ReLU)
def relu(build: KerasBuilder, x: Value, negative_slope: Any = 0.0, max_value: Any = None,
         threshold: Any = 0.0) -> Value:  # fmt: skip
    """Relu, LeakyRelu or Clip; with a threshold, what is not above it is multiplied with the slope."""
    slope, limit = float(negative_slope or 0), max_value
    least = float(threshold or 0)
    if least:
        below = build("Mul", build("Sub", x, least), slope) if slope else 0.0
        x = build("Where", build("Greater" if not slope else "GreaterOrEqual", x, least), x, below)
        return x if limit is None else build("Clip", x, None, float(limit))
    if slope:
        x = build("LeakyRelu", x, alpha=slope)
        return x if limit is None else build("Clip", x, None, float(limit))
    if limit is None:
        return build("Relu", x)
    return build("qir.HardTanh", x, 0.0, float(limit))


@lowers(ops.relu6, activations.relu6)
def relu6(build: KerasBuilder, x: Value) -> Value:
    """qir.HardTanh between 0 and 6."""
    return build("qir.HardTanh", x, 0.0, 6.0)


@lowers(ops.leaky_relu, activations.leaky_relu, layers.LeakyReLU)
def leaky_relu(build: KerasBuilder, x: Value, negative_slope: float = 0.2) -> Value:
    """LeakyRelu."""
    return build("LeakyRelu", floating(build, x), alpha=float(negative_slope))


@lowers(ops.elu, activations.elu, layers.ELU)
def elu(build: KerasBuilder, x: Value, alpha: float = 1.0) -> Value:
    """Elu."""
    return build("Elu", floating(build, x), alpha=float(alpha))


@lowers(ops.celu, activations.celu)
def celu(build: KerasBuilder, x: Value, alpha: float = 1.0) -> Value:
    """Celu."""
    return build("Celu", floating(build, x), alpha=float(alpha))


@lowers(ops.gelu)
def gelu(build: KerasBuilder, x: Value, approximate: bool = True) -> Value:
    """Gelu."""
    return build("Gelu", floating(build, x), approximate="tanh" if approximate else "none")


@lowers(activations.gelu)
def gelu_activation(build: KerasBuilder, x: Value, approximate: bool = False) -> Value:
    """Gelu, exact unless told."""
    return gelu(build, x, approximate)  # type: ignore[no-any-return]


@lowers(ops.glu, activations.glu)
def glu(build: KerasBuilder, x: Value, axis: int = -1) -> Value:
    """qir.Glu."""
    return build("qir.Glu", floating(build, x), dim=axis)


@lowers(ops.hard_sigmoid, activations.hard_sigmoid)
def hard_sigmoid(build: KerasBuilder, x: Value) -> Value:
    """HardSigmoid with the slope 1/6."""
    return build("HardSigmoid", floating(build, x), alpha=1 / 6)


@lowers(ops.hard_tanh, activations.hard_tanh)
def hard_tanh(build: KerasBuilder, x: Value) -> Value:
    """qir.HardTanh."""
    return build("qir.HardTanh", floating(build, x), -1.0, 1.0)


@lowers(ops.hard_shrink, activations.hard_shrink)
def hard_shrink(build: KerasBuilder, x: Value, threshold: float = 0.5) -> Value:
    """Shrink without bias."""
    return build("Shrink", floating(build, x), lambd=float(threshold))


@lowers(ops.soft_shrink, activations.soft_shrink)
def soft_shrink(build: KerasBuilder, x: Value, threshold: float = 0.5) -> Value:
    """Shrink by the threshold."""
    return build("Shrink", floating(build, x), lambd=float(threshold), bias=float(threshold))


@lowers(ops.threshold, activations.threshold)
def threshold(build: KerasBuilder, x: Value, threshold: float, default_value: float) -> Value:
    """qir.Threshold."""
    return build("qir.Threshold", floating(build, x), threshold=float(threshold), value=float(default_value))


@lowers(ops.sparse_sigmoid, activations.sparse_sigmoid)
def sparse_sigmoid(build: KerasBuilder, x: Value) -> Value:
    """HardSigmoid with the slope 1/2."""
    return build("HardSigmoid", floating(build, x), alpha=0.5)


@lowers(ops.sparse_plus, activations.sparse_plus)
def sparse_plus(build: KerasBuilder, x: Value) -> Value:
    """0 up to -1, a parabola up to 1, and x from there on."""
    x = floating(build, x)
    shifted = build("Add", x, 1.0)
    middle = build("Where", build("Less", x, 1.0), build("Mul", build("Mul", shifted, shifted), 0.25), x)
    return build("Where", build("LessOrEqual", x, -1.0), 0.0, middle)


@lowers(ops.squareplus, activations.squareplus)
def squareplus(build: KerasBuilder, x: Value, b: float = 4) -> Value:
    """(x + sqrt(x * x + b)) / 2."""
    x = floating(build, x)
    root = build("Sqrt", build("Add", build("Mul", x, x), float(b)))
    return build("Div", build("Add", x, root), 2.0)


@lowers(ops.sparsemax, activations.sparsemax)
def sparsemax(build: KerasBuilder, x: Value, axis: int = -1) -> Value:
    """The elements above a threshold, as Keras computes it: from the sum of all running sums that count."""
    x, rank = floating(build, x), rank_of(x)
    size = (x.type.shape or ())[axis]
    known(isinstance(size, int), "an axis of unknown size")
    ordered, _ = build.several("TopK", 2, x, build.indices([int(size or 0)]), axis=axis)
    shape = [1] * rank
    shape[axis] = int(size or 0)
    counts = build("Reshape", build("Cast", build.indices(range(1, int(size or 0) + 1)), to=1), build.indices(shape))
    sums = build("CumSum", ordered, build.indices([axis % rank]))
    inside = build("Greater", build("Sub", ordered, build("Div", build("Sub", sums, 1.0), counts)), 0.0)
    count = build("ReduceSum", build("Cast", inside, to=1), build.indices([axis % rank]), keepdims=1)
    total = build("ReduceSum", build("Where", inside, sums, 0.0), build.indices([axis % rank]), keepdims=1)
    return build("Relu", build("Sub", x, build("Div", build("Sub", total, 1.0), count)))


def _normalized(op: str) -> Callable[[KerasBuilder, Value, Any], Value]:
    """Softmax or LogSoftmax over one axis or several, which are joined for it."""

    def lowering(build: KerasBuilder, x: Value, axis: Any = -1) -> Value:
        x = floating(build, x)
        rank = rank_of(x)
        axes = [axis] if isinstance(axis, int) else list(range(rank) if axis is None else axis)
        if len(axes) == 1:
            return build(op, x, axis=axes[0])
        axes = [one % rank for one in axes]
        rest = [one for one in range(rank) if one not in axes]
        order = (*rest, *axes)
        moved = build("Transpose", x, perm=order)
        sizes = [0] * len(rest) + [-1]
        joined = build(op, build("Reshape", moved, build.indices(sizes)), axis=-1)
        shape = build("Shape", moved)
        apart = build("Reshape", joined, shape)
        return build("Transpose", apart, perm=tuple(order.index(one) for one in range(rank)))

    lowering.__name__ = op.lower()
    return lowering


lowers(ops.log_softmax, activations.log_softmax)(_normalized("LogSoftmax"))
softmax = lowers(ops.softmax, activations.softmax)(_normalized("Softmax"))


@lowers(layers.Softmax)
def softmax_layer(build: KerasBuilder, inputs: Value, mask: Any = None, axis: Any = -1) -> Value:
    """Softmax; where the mask is false, the least number before it and 0 behind it, as Keras does."""
    if mask is None:
        return softmax(build, inputs, axis)  # type: ignore[no-any-return]
    shown = build("Greater", mask, 0.5) if str(dtype_of(mask)) != "bool" else mask
    least = -3e4 if inputs.type.dtype == "f16" else -1e9
    return build("Where", shown, softmax(build, build("Where", shown, inputs, least), axis), 0.0)


@lowers(layers.PReLU)
def prelu(build: KerasBuilder, inputs: Value, alpha: Any) -> Value:
    """PRelu, whose slope has the axes of a sample."""
    return build("PRelu", inputs, alpha)
