"""Lowerings of the functions of `keras.ops` that pass over numbers that are missing (NaN)."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from qir.frontends.keras_dtypes import floating
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_ops import named
from qir.frontends.keras_reductions import axes_of, reduced
from qir.graph import Value
from qir.lowering import known


def _filled(build: KerasBuilder, x: Value, number: float) -> Value:
    """The tensor with a number in the places of what is missing."""
    return build("Where", build("IsNaN", x), float(number), x)


def _all_missing(build: KerasBuilder, x: Value, axis: Any, keepdims: bool) -> Value:
    """Whether everything along the axes is missing."""
    missing = build("Cast", build("IsNaN", x), to=1)
    return build("Greater", reduced(build, "ReduceMin", missing, axis, keepdims), 0.5)


def _extreme(name: str, op: str, neutral: float) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        value = floating(build, x)
        found = reduced(build, op, _filled(build, value, neutral), axis, keepdims)
        return build("Where", _all_missing(build, value, axis, keepdims), float("nan"), found)

    named(name, getattr(ops, name))(lowering)


_extreme("nanmax", "ReduceMax", -np.inf)
_extreme("nanmin", "ReduceMin", np.inf)


def _sums(name: str, op: str, neutral: float) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        return reduced(build, op, _filled(build, floating(build, x), neutral), axis, keepdims)

    named(name, getattr(ops, name))(lowering)


_sums("nansum", "ReduceSum", 0.0)
_sums("nanprod", "ReduceProd", 1.0)


def _places(name: str, op: str, neutral: float) -> None:
    def lowering(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
        value = floating(build, x)
        known(isinstance(axis, int), "all elements in a row")
        found = build(op, _filled(build, value, neutral), axis=axis, keepdims=int(keepdims))
        return build("Where", _all_missing(build, value, axis, keepdims), np.array(-1), found)

    named(name, getattr(ops, name))(lowering)


_places("nanargmax", "ArgMax", -np.inf)
_places("nanargmin", "ArgMin", np.inf)


def _mean(build: KerasBuilder, x: Value, axis: Any, keepdims: bool) -> Value:
    there = build("Cast", build("Not", build("IsNaN", x)), to=1)
    total = reduced(build, "ReduceSum", _filled(build, x, 0.0), axis, keepdims)
    return build("Div", total, reduced(build, "ReduceSum", there, axis, keepdims))


@lowers(ops.nanmean)
def nanmean(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """The sum over the number of those that are there."""
    return _mean(build, floating(build, x), axis, keepdims)


@lowers(ops.nanvar)
def nanvar(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """The mean of the squared differences from the mean."""
    value = floating(build, x)
    apart = build("Sub", value, _mean(build, value, tuple(axes_of(value, axis)), True))
    return _mean(build, build("Mul", apart, apart), axis, keepdims)


@lowers(ops.nanstd)
def nanstd(build: KerasBuilder, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """The root of the variance."""
    return build("Sqrt", nanvar(build, x, axis, keepdims))


@lowers(ops.nancumsum)
def nancumsum(build: KerasBuilder, x: Any, axis: Any = None, dtype: Any = None) -> Value:
    """CumSum with 0 for what is missing."""
    value = floating(build, x)
    known(isinstance(axis, int) and dtype is None, "all elements in a row, or another dtype")
    return build("CumSum", _filled(build, value, 0.0), build.indices([axis % rank_of(value)]))


@lowers(ops.nancumprod)
def nancumprod(build: KerasBuilder, x: Any, axis: Any = None, dtype: Any = None) -> Value:
    """qir.CumulativeProduct with 1 for what is missing."""
    value = floating(build, x)
    known(isinstance(axis, int) and dtype is None, "all elements in a row, or another dtype")
    return build("qir.CumulativeProduct", _filled(build, value, 1.0), dim=axis % rank_of(value))
