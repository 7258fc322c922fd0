"""ONNX's operators as functions of `keras.ops`, differentiable on every backend. A quantizer rounds to its grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

COMPUTED: dict[str, Callable[..., Any]] = {
    "Add": ops.add, "Sub": ops.subtract, "Mul": ops.multiply, "Div": ops.divide, "Pow": ops.power, "Relu": ops.relu,
    "Sigmoid": ops.sigmoid, "Tanh": ops.tanh, "Exp": ops.exp, "Log": ops.log, "Sqrt": ops.sqrt, "Abs": ops.absolute,
    "Neg": ops.negative, "Erf": ops.erf, "Reciprocal": ops.reciprocal, "Softsign": ops.softsign, "Floor": ops.floor,
    "Softplus": ops.softplus, "Where": ops.where, "Not": ops.logical_not, "Equal": ops.equal, "Greater": ops.greater,
    "Less": ops.less, "And": ops.logical_and, "Or": ops.logical_or, "MatMul": ops.matmul, "Identity": lambda x: x,
    "Sin": ops.sin, "Cos": ops.cos, "Mish": lambda x: x * ops.tanh(ops.softplus(x)),
}  # fmt: skip
"""The function for each operator: operands first, attributes by name."""


def computes(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function for an operator."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        COMPUTED[name] = function
        return function

    return register


@computes("qir.Quantize")
def quantize(x: Any, *, scale: Any, zero: Any, low: int, high: int) -> Any:
    """`x` on the grid, by ONNX's arithmetic; the gradient passes straight through inside of it and is zero outside."""
    scale, zero = ops.convert_to_tensor(scale, x.dtype), ops.convert_to_tensor(zero, x.dtype)

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def rounded(x: Any) -> Any:
        steps = ops.round(x / scale) + zero
        inside = ops.cast(ops.logical_and(steps >= low, steps <= high), x.dtype)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            return (args[-1] if upstream is None else upstream) * inside

        return (ops.clip(steps, low, high) - zero) * scale, gradient

    return rounded(ops.convert_to_tensor(x))


@computes("qir.Linear")
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x · weightᵀ + bias."""
    product = ops.matmul(x, ops.transpose(weight))
    return product if bias is None else product + bias


@computes("Gemm")
def gemm(a: Any, b: Any, c: Any = None, *, alpha: float = 1.0, beta: float = 1.0,
         transA: int = 0, transB: int = 0) -> Any:  # fmt: skip
    """alpha · a · b + beta · c, each of the two transposed where it is said so."""
    product = ops.matmul(ops.transpose(a) if transA else a, ops.transpose(b) if transB else b)
    product = product if alpha == 1.0 else product * alpha
    return product if c is None else product + (c if beta == 1.0 else c * beta)


@computes("Conv")
def conv(x: Any, weight: Any, bias: Any = None, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None,
         dilations: Any = None, group: int = 1, auto_pad: str = "NOTSET") -> Any:  # fmt: skip
    """A convolution of tensors with the channels first."""
    rank = len(weight.shape) - 2
    kernel = ops.transpose(weight, (*range(2, rank + 2), 1, 0))
    steps, gaps = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    padded = _padded(x, pads, rank, 0.0)
    result = ops.conv(padded, kernel, steps, _padding(auto_pad), data_format="channels_first", dilation_rate=gaps)
    return result if bias is None else result + ops.reshape(bias, (1, -1, *(1,) * rank))


@computes("MaxPool")
def max_pool(x: Any, *, kernel_shape: Any, strides: Any = None, pads: Any = None, auto_pad: str = "NOTSET") -> Any:
    """The largest value of each window."""
    rank = len(kernel_shape)
    window = tuple(kernel_shape), tuple(strides or (1,) * rank), _padding(auto_pad), "channels_first"
    return ops.max_pool(_padded(x, pads, rank, -3.0e38), *window)


@computes("AveragePool")
def average_pool(x: Any, *, kernel_shape: Any, strides: Any = None, pads: Any = None, auto_pad: str = "NOTSET",
                 count_include_pad: int = 0) -> Any:  # fmt: skip
    """The mean of each window; the padding counts where it is said so."""
    rank = len(kernel_shape)
    window = tuple(kernel_shape), tuple(strides or (1,) * rank), _padding(auto_pad), "channels_first"
    result = ops.average_pool(_padded(x, pads, rank, 0.0), *window)
    if not any(pads or ()) or count_include_pad:
        return result
    return result / ops.average_pool(_padded(ops.ones_like(x), pads, rank, 0.0), *window)


def _padding(auto_pad: str) -> str:
    return "same" if auto_pad == "SAME_UPPER" else "valid"


def _padded(x: Any, pads: Any, rank: int, value: float) -> Any:
    if not any(pads or ()):
        return x
    return ops.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=value)


@computes("GlobalAveragePool")
def global_average_pool(x: Any) -> Any:
    """The mean of each channel."""
    return ops.mean(x, axis=tuple(range(2, len(x.shape))), keepdims=True)


@computes("GlobalMaxPool")
def global_max_pool(x: Any) -> Any:
    """The largest value of each channel."""
    return ops.max(x, axis=tuple(range(2, len(x.shape))), keepdims=True)


@computes("BatchNormalization")
def batch_normalization(x: Any, scale: Any, bias: Any, mean: Any, variance: Any, *, epsilon: float = 1e-5,
                        momentum: float = 0.9) -> Any:  # fmt: skip
    """Normalization with these statistics."""
    return ops.batch_normalization(x, mean, variance, 1, bias, scale, epsilon)


@computes("LayerNormalization")
def layer_normalization(x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5) -> Any:
    """Normalization over the axes from `axis` on."""
    axes = tuple(range(axis % len(x.shape), len(x.shape)))
    middle = x - ops.mean(x, axes, keepdims=True)
    normed = middle / ops.sqrt(ops.mean(ops.square(middle), axes, keepdims=True) + epsilon) * scale
    return normed if bias is None else normed + bias


@computes("Clip")
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """`x` within the limits that there are."""
    x = x if low is None else ops.maximum(x, ops.convert_to_tensor(low, x.dtype))
    return x if high is None else ops.minimum(x, ops.convert_to_tensor(high, x.dtype))


@computes("Softmax")
def softmax(x: Any, *, axis: int = -1) -> Any:
    """Softmax along an axis."""
    return ops.softmax(x, axis)


@computes("Gelu")
def gelu(x: Any, *, approximate: str = "none") -> Any:
    """GELU, exact or by tanh."""
    return ops.gelu(x, approximate == "tanh")


@computes("LeakyRelu")
def leaky_relu(x: Any, *, alpha: float = 0.01) -> Any:
    """`x`, or `alpha` times x below zero."""
    return ops.leaky_relu(x, alpha)


@computes("PRelu")
def prelu(x: Any, slope: Any) -> Any:
    """`x`, or the slope times x below zero."""
    return ops.where(x < 0, x * slope, x)


@computes("Elu")
def elu(x: Any, *, alpha: float = 1.0) -> Any:
    """ELU."""
    return ops.elu(x, alpha)


@computes("HardSigmoid")
def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    """alpha · x + beta, within 0 and 1."""
    return ops.clip(x * alpha + beta, 0.0, 1.0)


@computes("HardSwish")
def hard_swish(x: Any) -> Any:
    """x · min(max(x / 6 + 1 / 2, 0), 1)."""
    return x * ops.clip(x / 6.0 + 0.5, 0.0, 1.0)


@computes("Flatten")
def flatten(x: Any, *, axis: int = 1) -> Any:
    """A matrix of the axes before and from `axis`."""
    return ops.reshape(x, (ops.shape(x)[0], -1) if axis == 1 else (-1, int(np.prod(x.shape[axis:]))))


@computes("Reshape")
def reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    """The elements in another shape, in which 0 stands for the size that is there."""
    sizes = [int(size) for size in np.asarray(shape)]
    kept = [ops.shape(x)[axis] if size == 0 and not allowzero else size for axis, size in enumerate(sizes)]
    return ops.reshape(x, kept)


@computes("Transpose")
def transpose(x: Any, *, perm: Sequence[int] | None = None) -> Any:
    """The axes in another order."""
    return ops.transpose(x, None if perm is None else tuple(perm))


@computes("Concat")
def concat(*xs: Any, axis: int) -> Any:
    """The tensors one after the other."""
    return ops.concatenate(xs, axis)


@computes("Pad")
def pad(x: Any, pads: Any, value: Any = None, *, mode: str = "constant") -> Any:
    """`x` with a border."""
    sizes = [int(size) for size in np.asarray(pads)]
    widths = list(zip(sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :], strict=True))
    kind = {"edge": "edge", "reflect": "reflect"}.get(mode)
    if kind is not None:
        return ops.pad(x, widths, kind)
    return ops.pad(x, widths, constant_values=0.0 if value is None else float(np.asarray(value)))


@computes("Squeeze")
def squeeze(x: Any, axes: Any = None) -> Any:
    """Without axes of one element."""
    return ops.squeeze(x, None if axes is None else tuple(int(axis) for axis in np.asarray(axes)))


@computes("Unsqueeze")
def unsqueeze(x: Any, axes: Any) -> Any:
    """With new axes of one element."""
    return ops.expand_dims(x, tuple(int(axis) for axis in np.asarray(axes)))


@computes("Gather")
def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    """The slices at the indices."""
    return ops.take(x, ops.cast(indices, "int32"), axis)


@computes("Cast")
def cast(x: Any, *, to: int, **rest: Any) -> Any:
    """`x` in another dtype."""
    names = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64", 16: "bfloat16"}
    return ops.cast(x, names[to])


def _reduction(name: str, function: Callable[..., Any]) -> None:
    def reduce(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        over = None if axes is None else tuple(int(axis) for axis in np.asarray(axes))
        return x if over is None and noop_with_empty_axes else function(x, over, keepdims=bool(keepdims))

    computes(name)(reduce)


for _name in ("mean", "sum", "max", "min"):
    _reduction(f"Reduce{_name.title()}", getattr(ops, _name))
