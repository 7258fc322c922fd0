"""Lowerings of the functions of `keras.ops` that reduce axes, or go along one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from qir.frontends.keras_dtypes import agreed, cast, dtype_of, floating, tensor
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_ops import named
from qir.graph import Value
from qir.lowering import known


def axes_of(x: Value, axis: Any) -> list[int]:
    """The axes that an argument names, all of them for None, counted from the front."""
    rank = rank_of(x)
    given = list(range(rank)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    return sorted(one % rank for one in given)


def reduced(build: KerasBuilder, op: str, x: Value, axis: Any, keepdims: bool) -> Value:
    """A reduction over these axes; over none, the tensor itself."""
    axes = axes_of(x, axis)
    return build(op, x, build.indices(axes), keepdims=int(keepdims)) if axes else x


def whole(build: KerasBuilder, x: Any) -> Value:
    """A tensor whose sums Keras forms in its own dtype: small integers and booleans in 32 bits."""
    value = tensor(build, x)
    wider = {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "uint32", "uint16": "uint32"}
    dtype = dtype_of(value)
    return cast(build, value, wider[dtype]) if dtype in wider else value


def _sums(name: str, op: str) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        return reduced(build, op, whole(build, x), axis, keepdims)

    named(name, getattr(ops, name))(lowering)


_sums("sum", "ReduceSum")
_sums("prod", "ReduceProd")


@lowers(ops.mean)
def mean(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """ReduceMean."""
    return reduced(build, "ReduceMean", floating(build, x), axis, keepdims)


def _number(like: Value, number: Any) -> np.ndarray:
    """A number in the dtype of a tensor."""
    known(isinstance(number, bool | int | float) and isinstance(dtype_of(like), str), "a computed number")
    return np.array(number, dtype_of(like))


def _extreme(name: str, op: str, alias: Any) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Value:
        found = reduced(build, op, tensor(build, x), axis, keepdims)
        return found if initial is None else build(op.removeprefix("Reduce"), found, _number(found, initial))

    named(name, getattr(ops, name), alias)(lowering)


_extreme("max", "ReduceMax", ops.amax)
_extreme("min", "ReduceMin", ops.amin)


def _spread(name: str, op: str) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        value = floating(build, x)
        return build(op, value, dim=tuple(axes_of(value, axis)), correction=0, keepdim=keepdims)

    named(name, getattr(ops, name))(lowering)


_spread("var", "qir.Variance")
_spread("std", "qir.StandardDeviation")


def _truth(name: str, op: str) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        value = cast(build, x, "bool")
        return build(op, value, dim=tuple(axes_of(value, axis)), keepdim=keepdims)

    named(name, getattr(ops, name))(lowering)


_truth("any", "qir.Any")
_truth("all", "qir.All")


@lowers(ops.count_nonzero)
def count_nonzero(build: KerasBuilder, x: Any, axis: Any = None) -> Value:
    """The sum of what is not zero as numbers."""
    return reduced(build, "ReduceSum", cast(build, cast(build, x, "bool"), "int32"), axis, False)


def _places(name: str, op: str) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        value = tensor(build, x)
        rank = rank_of(value)
        if axis is None:
            found = build(op, build("Reshape", value, build.indices([-1])), axis=0, keepdims=0)
            return build("Reshape", found, build.indices([1] * rank)) if keepdims else found
        return build(op, value, axis=axis, keepdims=int(keepdims))

    named(name, getattr(ops, name))(lowering)


_places("argmax", "ArgMax")
_places("argmin", "ArgMin")


@lowers(ops.logsumexp)
def logsumexp(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """ReduceLogSumExp."""
    return reduced(build, "ReduceLogSumExp", floating(build, x), axis, keepdims)


def _flat(build: KerasBuilder, x: Value, axis: Any) -> tuple[Value, int]:
    """The tensor and the axis along which it runs: all elements in a row for None."""
    return (build("Reshape", x, build.indices([-1])), 0) if axis is None else (x, axis % rank_of(x))


@lowers(ops.cumsum)
def cumsum(build: KerasBuilder, x: Any, axis: Any = None, dtype: Any = None) -> Value:
    """CumSum."""
    value, along = _flat(build, whole(build, x) if dtype is None else cast(build, x, dtype), axis)
    return build("CumSum", value, build.indices([along]))


@lowers(ops.cumprod)
def cumprod(build: KerasBuilder, x: Any, axis: Any = None, dtype: Any = None) -> Value:
    """qir.CumulativeProduct."""
    value, along = _flat(build, whole(build, x) if dtype is None else cast(build, x, dtype), axis)
    return build("qir.CumulativeProduct", value, dim=along)


@lowers(ops.ptp)
def ptp(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """The largest element less the smallest."""
    value = tensor(build, x)
    return build("Sub", *(reduced(build, op, value, axis, keepdims) for op in ("ReduceMax", "ReduceMin")))


def _quantile(build: KerasBuilder, x: Any, q: Any, axis: Any, method: str, keepdims: bool, whole: float) -> Value:
    part = q.literal if isinstance(q, Value) else q
    known(isinstance(part, int | float) and method == "linear", "several parts, or another method")
    axes = axis if isinstance(axis, list | tuple) else [axis]
    known(len(axes) == 1, "several axes")
    return build("qir.Quantile", floating(build, x), q=float(part) / whole, dim=axes[0], keepdim=keepdims)


@lowers(ops.median)
def median(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """qir.Quantile of a half."""
    return _quantile(build, x, 0.5, axis, "linear", keepdims, 1.0)


@lowers(ops.quantile)
def quantile(build: KerasBuilder, x: Any, q: Any, axis: Any = None, method: str = "linear",
             keepdims: bool = False) -> Value:  # fmt: skip
    """qir.Quantile."""
    return _quantile(build, x, q, axis, method, keepdims, 1.0)


@lowers(ops.percentile)
def percentile(build: KerasBuilder, x: Any, q: Any, axis: Any = None, method: str = "linear",
               keepdims: bool = False) -> Value:  # fmt: skip
    """qir.Quantile."""
    return _quantile(build, x, q, axis, method, keepdims, 100.0)


@lowers(ops.allclose)
def allclose(build: KerasBuilder, x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8,
             equal_nan: bool = False) -> Value:  # fmt: skip
    """qir.All of qir.IsClose."""
    a, b = agreed(build, x1, x2)
    close = build("qir.IsClose", a, b, rtol=float(rtol), atol=float(atol), equal_nan=equal_nan)
    return build("qir.All", close, dim=tuple(axes_of(close, None)), keepdim=False)


@lowers(ops.moments)
def moments(build: KerasBuilder, x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    """ReduceMean and qir.Variance."""
    value = floating(build, x)
    spread = build("qir.Variance", value, dim=tuple(axes_of(value, axes)), correction=0, keepdim=keepdims)
    return reduced(build, "ReduceMean", value, axes, keepdims), spread


@lowers(ops.average)
def average(build: KerasBuilder, x: Any, axis: Any = None, weights: Any = None) -> Value:
    """ReduceMean, or the sum of products with the weights over the sum of those."""
    value = floating(build, x)
    if weights is None:
        return reduced(build, "ReduceMean", value, axis, False)
    value, given = agreed(build, value, floating(build, weights))
    if given.type.rank == 1 and rank_of(value) > 1:
        known(isinstance(axis, int), "weights of several axes")
        behind = rank_of(value) - 1 - axis % rank_of(value)
        given = build("Reshape", given, build.indices([-1, *[1] * behind]))
    given = build("Expand", given, build("Shape", value))
    total = reduced(build, "ReduceSum", build("Mul", value, given), axis, False)
    return build("Div", total, reduced(build, "ReduceSum", given, axis, False))


@lowers(ops.normalize)
def normalize(build: KerasBuilder, x: Any, axis: Any = -1, order: Any = 2, epsilon: Any = None) -> Value:
    """x over its norm along some axes, which counts as epsilon at least."""
    value = floating(build, x)
    least = keras.config.epsilon() if epsilon is None else float(epsilon)
    if order == 2:
        squares = reduced(build, "ReduceSum", build("Mul", value, value), axis, True)
        return build("Mul", value, build("qir.Rsqrt", build("Max", squares, np.array(least * least, np.float32))))
    length = norm(build, value, order, tuple(axes_of(value, axis)), True)
    return build("Div", value, build("Max", length, np.array(least, np.float32)))


@lowers(ops.norm, ops.linalg.norm)
def norm(build: KerasBuilder, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Value:
    """qir.Norm of vectors, or of all elements where no order is given."""
    value = floating(build, x)
    axes = axes_of(value, axis)
    known(ord in (None, "fro") or len(axes) == 1, "a norm of matrices other than that of their elements")
    if ord in (None, "fro", 2):
        return reduced(build, "ReduceL2", value, axes, keepdims)
    return build("qir.Norm", value, p=float(ord), dim=tuple(axes), keepdim=keepdims)
